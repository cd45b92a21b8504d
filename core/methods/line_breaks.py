"""Streaming whose sinks say nothing: the first S tokens of each document are read as line breaks.

The ablation of table 1 (Xiao et al. 2023, arXiv 2309.17453): what the first tokens mean does not
matter, that they are first does. What is predicted stays the text itself, so that scores can be
held against any other method's, token by token.
"""

from __future__ import annotations

from torch import Tensor

from core import tokens
from core.errors import UsageError
from core.methods.base import Stream
from core.methods.streaming import CachedStream, Streaming
from core.models.loading import Loaded
from core.registry import METHODS


class _Replaced(CachedStream):
    """A stream whose first ``left`` tokens are read as ``token``."""

    token = left = 0

    def feed(self, ids: Tensor, keep: int = 0) -> Tensor:
        if self.left:
            ids = ids.clone()
            ids[:, : self.left] = self.token
            self.left = max(0, self.left - ids.shape[1])
        return super().feed(ids, keep)


class LineBreaks(Streaming):
    """The same cache; a tokenizer that makes several tokens of a line break gives its last."""

    spec = METHODS["line-breaks"]
    stream = _Replaced

    def start(self, loaded: Loaded, batch: int) -> Stream:
        """An empty cache.

        Raises:
            UsageError: The model has no tokenizer, so no line break.
        """
        if loaded.tokenizer is None:
            raise UsageError(
                f"{loaded.name} has no tokenizer, so {self.config.method} has no line break: "
                "choose another model, or --method streaming."
            )
        stream = super().start(loaded, batch)
        assert isinstance(stream, _Replaced)
        stream.token = tokens.encode(loaded.tokenizer, "\n")[-1]
        stream.left = self.config.n_sink
        return stream
