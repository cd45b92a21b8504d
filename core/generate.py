"""A streaming cache in the hands of transformers: ``generate``, a pipeline, a loop of forwards.

Whoever calls the model counts the tokens of a stream in another way than its cache. ``begin`` says
what each forward is given instead: positions in the cache's frame, no mask, a long prompt in
chunks, and our attention where the model's own would show other keys. What a stream can't go by,
such as padding, is refused in one line. ``continued_by`` knows a history again that is passed once
more, and ``crop`` takes drafts back.

Knows nothing of how keys are stored or turned: that is ``core.cache``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass
from threading import get_ident
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from core import attending
from core.errors import StreamError, UsageError
from core.forwards import TOKENS, Guided, guide
from core.history import Heard
from core.models.layers import Anatomy

# What a forward is given and the cache knows better.
OUR_OWN = ("attention_mask", "position_ids", "cache_position")
KNOWN = ("sdpa", "eager")  # attention of the model's own that serves single tokens
NO_WEIGHTS = (
    "the streaming attention has no weights to give: leave output_attentions out, or keep the text "
    "within the cache and the model's attention eager."
)
CHUNK = 1024  # tokens of a long prompt that are read at once, where few scores of it are wanted


class GuidedCache(Cache, Guided):
    """What a streaming cache is to transformers.

    Attributes:
        model: The model that it serves.
        found: What the model's layers do with positions.
        name: What a forward of the model calls its cache.
        n_sink: S, tokens at the start of the stream that stay.
        most: Keys before a query that it sees at most.
        within: Whether a forward is under way.
        thread: The thread of the last one.
    """

    found: Anatomy
    most: int

    def __init__(self, model: Any, layers: Sequence[Any], n_sink: int, window: int) -> None:
        """An empty cache of these layers."""
        self.model, self.config, self.n_sink = model, model.config, n_sink
        self.name = attending.cache_name(model)
        self.within, self.thread, self.drafts = False, get_ident(), False
        self.told = 0
        self._heard = Heard(n_sink, window)
        self._forward_ends = ExitStack()
        super().__init__(layers=list(layers))
        guide(model)

    @abstractmethod
    def make_room(self, tokens: int) -> None:
        """Be ready for a forward of so many tokens."""

    @abstractmethod
    def needs_ours(self, c: int) -> bool:
        """Whether the next C tokens see other keys than the model's attention would show them."""

    @property
    def streams(self) -> bool:
        """Whether the model attends through ``core.attention``, so that chunks are exact."""
        return bool(self.config._attn_implementation == attending.name_of(self.config))

    def begin(self, model: Any, given: dict[str, Any]) -> dict[str, Any]:
        """What a forward gets in place of what it was given; moves the frame back if it is time.

        Positions are those in the frame, which the model asks for. A long prompt of which few
        scores are wanted is read in chunks, the last of which is the forward's.

        Raises:
            UsageError: The forward is given what this cache can't go by, such as padding.
            StreamError: A forward before was broken off.
        """
        self.end()
        name = next((each for each in TOKENS if given.get(each) is not None), None)
        if name is None:
            return given
        ids = given[name]
        self.check_tokens(ids)
        self._check_given(model, given, ids.shape[1])
        given = {key: value for key, value in given.items() if key not in OUR_OWN}
        if rest := self._last_chunk(given, ids.shape[1]):
            self._read_before(model, name, ids[:, :-rest])
            ids = given[name] = ids[:, -rest:]
        c = ids.shape[1]
        self.make_room(c)
        ours = self.needs_ours(c) or not self._own_is_known
        if "stream" not in given and not attending.attends_to(self) and ours:
            self._forward_ends.enter_context(attending.attending(self.model, self))
        if given.get("output_attentions") and self.streams:
            raise UsageError(NO_WEIGHTS)
        self._heard.hear(ids if name == "input_ids" else None, self.seen, c)
        self.within, self.thread = True, get_ident()
        return given

    def _read_before(self, model: Any, name: str, tokens: Tensor) -> None:
        """Read tokens, ids or embeddings, whose scores nobody wants and which are not drafts."""
        drafts, self.drafts = self.drafts, False
        for part in torch.split(tokens, self._chunk if self.found.registered else 1, dim=1):
            model(**{name: part, self.name: self, "logits_to_keep": 1})
        self.drafts = drafts

    def end(self) -> None:
        """A forward has ended, or has failed."""
        self.within = False
        self._forward_ends.close()
        if self._heard.count > self.seen:
            self._heard.forget(self.seen)  # what was not read

    def check_tokens(self, ids: Any) -> None:
        """Raise ``UsageError`` where these are no ids (B, C), or embeddings, for every row."""
        is_tensor = isinstance(ids, Tensor)
        if not is_tensor or ids.ndim < 2 or ids.shape[1] == 0:
            what = f"tokens of shape {tuple(ids.shape)}" if is_tensor else type(ids).__name__
            raise UsageError(
                f"{what} can't be read by a stream of {self.seen:,} tokens: give it a tensor "
                "(B, C) of those that are new, or call cache.reset() before another text."
            )
        if self.seen and len(ids) != self.layers[0].rows:
            raise UsageError(
                f"{len(ids)} rows are given to a stream of {self.layers[0].rows}: call "
                "cache.reset() before another text, or make another cache for it."
            )

    def _check_given(self, model: Any, given: dict[str, Any], c: int) -> None:
        """Raise where a forward of C tokens is given what this cache can't go by."""
        if model is not self.model and model.config is not self.config:
            raise UsageError(
                "this cache was made for another model: make one with StreamingKVCache(n_sink, "
                "window, model) for each model."
            )
        if model.training and _checkpoints(model):
            raise UsageError(
                "gradient checkpointing leaves caches out while a model trains: call model.eval()."
            )
        if self.layers[0].seen != self.layers[-1].seen:
            raise StreamError("a forward was broken off amid the layers: call cache.reset().")
        mask, past = given.get("attention_mask"), self.seen - self.told
        if isinstance(mask, Tensor) and mask.ndim == 2:
            # What came before was looked at when it came.
            if not bool((mask if c > 1 else mask[:, -1:]).all()):
                raise UsageError(
                    "the attention mask hides tokens, such as padding, which would stay in a "
                    "streaming cache: give it rows of one length or one row at a time, and a mask "
                    "of ones where the pad token is part of the text."
                )
            if mask.shape[1] not in (past + c, c):
                raise UsageError(
                    f"the attention mask is of {mask.shape[1]} tokens, where {past} were read and "
                    f"{c} come: pass the whole history, or generate within "
                    "streaming_attention(model, cache)."
                )
        elif mask is not None:
            raise UsageError(
                "a streaming cache makes its own masks: leave attention_mask out, or give it as "
                "(B, T) ones."
            )
        places = given.get("cache_position")
        if places is not None and c > 1 and places[:1].tolist() != [past]:
            raise UsageError(
                f"these tokens are not given from position {past} on, as {past} were read: leave "
                "prefill_chunk_size and use_cache=False out, or generate within "
                "streaming_attention(model, cache)."
            )

    def _last_chunk(self, given: dict[str, Any], c: int) -> int:
        """Tokens of a long prompt that are left to the forward itself; 0 for all."""
        keep = given.get("logits_to_keep")
        hidden = given.get("output_hidden_states")
        hidden = self.config.output_hidden_states if hidden is None else hidden
        wants_all = hidden or given.get("labels") is not None
        if not isinstance(keep, int) or not 1 <= keep < c or wants_all:
            return 0
        if not self.found.registered:
            return 1 if keep == 1 and self.needs_ours(c) else 0
        if self.drafts:  # what may be taken back comes in a chunk of its own
            return keep
        return max(keep, (c - 1) % self._chunk + 1) if c > self._chunk else 0

    @property
    def _chunk(self) -> int:
        """Tokens that are read at once: fewer where rotary frequencies would change with more."""
        if self.found.limit is None:
            return CHUNK
        return min(CHUNK, max(1, self.found.limit - self.most))

    @property
    def _own_is_known(self) -> bool:
        """Whether the model's own attention is one that was held against ours (flash was not)."""
        return self.config._attn_implementation in KNOWN or not self.found.registered

    def continued_by(self, ids: Tensor) -> bool:
        """Whether ids (B, C), or embeddings, begin with the tokens of the stream so far.

        Raises:
            UsageError: They begin as the stream did, and go on otherwise; or that can't be told.
        """
        if ids.shape[1] < self.seen:
            return False
        if ids.is_floating_point() or not self._heard.knows(self.seen):
            raise UsageError(
                f"whether these {ids.shape[1]:,} tokens are the whole history or only what is new "
                f"can't be told, as they or the stream of {self.seen:,} came as embeddings, or the "
                "stream was cut far back: give what is new in turns of fewer tokens, or the whole "
                "history outside of streaming_attention(model, cache)."
            )
        head, tail = self._heard.agrees(ids, self.seen)
        if head and not tail and self.n_sink > 1 and ids.shape[1] > self.seen:
            raise UsageError(
                f"the prompt begins as the stream of {self.seen} tokens did, but differs from it "
                "later: pass the history as it was, or only what is new, or call cache.reset()."
            )
        return head and tail

    def crop(self, max_length: int) -> None:
        """Take back the last tokens of the stream, as far as nothing that is needed is gone.

        Args:
            max_length: How many stay; a negative number is how many go.

        Raises:
            UsageError: What these tokens evicted is gone.
        """
        seen = self.seen
        zero = max_length == 0 and self.name == "cache"  # transformers 5.24 says how many go
        keep = seen + max_length if max_length < 0 or zero else max_length + self.told
        keep = max(0, keep)
        if keep >= seen:
            for layer in self.layers:
                layer.undo = None
            return
        if not all(layer.holds(keep) for layer in self.layers):
            raise UsageError(
                f"{seen - keep} of {seen} tokens can't be taken back, as what they evicted is "
                "gone: crop a stream that fits its cache, or generate with drafts within "
                "streaming_attention(model, cache)."
            )
        for layer in self.layers:
            layer.take_back(keep)
        self._heard.forget(keep)

    def reset(self) -> None:
        """Forget the stream and keep the buffers."""
        super().reset()
        self.told = 0
        self._heard.forget(0)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Rearrange the rows of the batch, for beam search."""
        super().reorder_cache(beam_idx)
        self._heard.reorder(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows of the batch."""
        self.reorder_cache(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Have each row of the batch ``repeats`` times."""
        super().batch_repeat_interleave(repeats)
        self._heard.forget(0)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """A stream that goes on by itself, from where this one is, through the same model."""
        memo.update({id(each): each for each in (self.model, self.config, self.found)})
        new = memo[id(self)] = self.__class__.__new__(self.__class__)
        new.__dict__.update({**vars(self), "_forward_ends": ExitStack(), "within": False})
        new._heard = deepcopy(self._heard, memo)
        new.layers = deepcopy(self.layers, memo)
        return new

    def __copy__(self) -> Any:
        """The same: a stream has its buffers to itself."""
        return deepcopy(self)

    def __bool__(self) -> bool:
        """False, or the ``generate`` of Phi-3 and its kin would drop this cache for one of its own.

        They do so with one that is true when a text passes the length that they were first trained
        on; here no position does.
        """
        return False


def _checkpoints(model: Any) -> bool:
    """Whether a model in training keeps few activations and computes the others once more."""
    name = "is_activation_checkpointing"  # since transformers 5.24, where the other one warns
    name = name if hasattr(type(model), name) else "is_gradient_checkpointing"
    return bool(getattr(model, name, False))


@dataclass(frozen=True)
class Undo:
    """What a chunk of drafts took the place of in a layer, until the next comes.

    Attributes:
        t: The chunk's first token.
        first: The first of its tokens that went into the ring.
        slots: Where these went.
        keys: What was there, (B, K, N, D).
        values: Likewise.
        was: The layer's own of then.
    """

    t: int
    first: int
    slots: Tensor
    keys: Tensor
    values: Tensor
    was: int

    def put_back(self, keys: Tensor, values: Tensor, t: int, seen: int) -> None:
        """Put back in a layer's buffers what the tokens from t to ``seen`` took the place of."""
        back = slice(max(t - self.first, 0), seen - self.first)
        if back.stop > 0:
            keys.index_copy_(2, self.slots[back], self.keys[:, :, back])
            values.index_copy_(2, self.slots[back], self.values[:, :, back])
