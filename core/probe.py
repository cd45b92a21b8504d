"""Where a model's attention goes: how much of it the first tokens take, and what that is good for.

Attention is looked at as it is computed, in blocks of queries and layer by layer; of each layer
only sums over queries are kept, a number for every head and token.

Knows nothing of the command line, of files or of how anything is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core import registry
from core.attending import attending
from core.attention import seen_by, weights
from core.cache import StreamingKVCache
from core.config import RunConfig
from core.errors import UsageError
from core.methods.base import method_of
from core.models import anatomy
from core.models.loading import Loaded
from core.modes.base import Task
from core.result import RunResult
from core.sinks import FAR, FIRST, PIECE, PIECES, SINKS, THRESHOLD, Probe, Sink
from core.tokens import TokenStream, front

AT_ONCE = 16  # texts of the sink rate, in one forward
BLOCK = 128  # queries that are looked at at once


@torch.inference_mode()
def probe(
    loaded: Loaded,
    stream: TokenStream,
    config: RunConfig,
    threshold: float = THRESHOLD,
    say: Callable[[str], None] = lambda words: None,
) -> Probe:
    """Look at a model's attention on the first document, and try S on all of them.

    Args:
        loaded: The model.
        stream: The documents.
        config: Resolved; its ``n_sink`` and ``window`` are the budget.
        threshold: Epsilon.
        say: Is told what is being done.

    Raises:
        UsageError: S is 0, the text is too short to evict anything, or the model's positions can't
            be moved.
    """
    s, w = config.n_sink, config.window_size
    if not s:
        raise UsageError("n_sink is 0: it must be 1 or more, the first tokens that are looked at.")
    ids = stream.documents[0].ids[: longest(loaded)].to(loaded.model.device)
    if len(ids) < config.attended_keys + FIRST:
        raise UsageError(
            f"{len(ids)} tokens hardly fill a cache of {config.attended_keys} keys, so nothing can "
            "be said of eviction: give a longer text or a smaller --window."
        )
    say(f"attention of {len(ids):,} tokens to each other")
    before = look(loaded.model, ids[None], start=FIRST)
    say(f"the same with S = {s}, W = {w}")
    after = look(loaded.model, ids[None], sizes=(s, w), start=config.attended_keys)
    say(f"sink rate over texts of {PIECE} tokens")
    pieces = _pieces(stream, front(loaded.tokenizer))
    return Probe(
        n_sink=s,
        window=w,
        threshold=threshold,
        tokens=len(ids),
        pieces=len(pieces),
        sink_rate=_rate(loaded.model, pieces, threshold),
        before=before.first(s),
        after=after.first(s),
        sinks=_sinks(before, ids, loaded.tokenizer, threshold),
        **_tried(loaded, stream, config, say),
    )


@dataclass(frozen=True)
class Looked:
    """Mean attention to every token, (L, B, H, T) each.

    Attributes:
        late: Over all queries that count.
        far: Over those that are ``FAR`` tokens or more behind the token; NaN where none is.
    """

    late: Tensor
    far: Tensor

    def first(self, count: int) -> NDArray[np.float32]:
        """Attention to the first ``count`` tokens together, (L, H), of the first row."""
        found: NDArray[np.float32] = self.late[:, 0, :, :count].sum(-1).float().numpy()
        return found


@torch.inference_mode()
def look(
    model: Any, ids: Tensor, *, sizes: tuple[int, int] | None = None, start: int = 0
) -> Looked:
    """Let a model read ids (B, T) and note what its queries from ``start`` on attend to.

    Args:
        model: A transformers causal language model.
        ids: Tokens; at least two.
        sizes: S and W of a streaming cache; None where every token sees all before it.
        start: The first query that counts.

    Raises:
        UsageError: The model's positions can't be moved, or it takes no attention of ours.
    """
    rows, length = ids.shape
    s, w = sizes or (0, length)
    cache = StreamingKVCache(s, w, model)
    watch = _Watch(cache, rows, length, start)
    room = BLOCK if cache.found.limit is None else cache.found.limit - s - w - 1
    block = max(2, min(BLOCK, room))
    cuts = list(range(block, length - 1, block))  # the last one has two tokens or more
    with attending(model, cache, watch):
        for part in torch.tensor_split(ids, cuts, dim=1):
            model(part, **{cache.name: cache}, logits_to_keep=1)
    return watch.means()


class _Watch:
    """An attention function that sums what it computes over queries."""

    def __init__(self, cache: StreamingKVCache, rows: int, length: int, start: int) -> None:
        self.cache, self.start = cache, start
        self.shape = rows, length
        self.late: dict[int, Tensor] = {}  # (B, H, T) by layer
        self.far: dict[int, Tensor] = {}

    def __call__(
        self,
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        scaling: float | None = None,
        stream: StreamingKVCache | None = None,
        softcap: float | None = None,
        s_aux: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        """See ``core.attention.attend``, which gives the same."""
        layer, (b, h, c, _) = int(module.layer_idx), query.shape
        parts, extra = seen_by(module, query, key, value, self.cache, scaling, softcap, s_aux)
        shares = weights(parts, extra)  # (B, K, Q, N)
        held = torch.cat([part.v for part in parts], -2).to(shares.dtype)
        out = (shares @ held).to(value.dtype).reshape(b, h, c, -1)
        view = self.cache.view(layer, c)
        sinks = torch.arange(view.sinks.shape[-1], device=query.device)
        tokens = torch.cat((view.tokens.clamp(min=0), sinks))  # of the parts' keys, one by one
        self._add(layer, shares.reshape(b, h, c, -1), tokens)
        return out.transpose(1, 2).contiguous(), None

    def _add(self, layer: int, shares: Tensor, tokens: Tensor) -> None:
        """Add the shares (B, H, C, N) of N keys, which are of ``tokens``; sums are on the CPU."""
        rows, length = self.shape
        if layer not in self.late:
            empty = torch.zeros(rows, shares.shape[1], length, dtype=torch.float64)
            self.late[layer], self.far[layer] = empty, empty.clone()
        seen, c = self.cache.layers[layer].seen, shares.shape[2]
        query = torch.arange(seen - c, seen, device=tokens.device)
        counts = (query >= self.start).to(shares.dtype)  # (C,)
        behind = (query[:, None] - tokens >= FAR).to(shares.dtype)  # (C, N)
        late = torch.einsum("bhcn,c->bhn", shares, counts)
        far = torch.einsum("bhcn,cn->bhn", shares, behind)
        for sums, new in ((self.late, late), (self.far, far)):
            sums[layer].index_add_(-1, tokens.cpu(), new.cpu().double())

    def means(self) -> Looked:
        """The sums over the number of queries that they are of."""
        late, far = (torch.stack([sums[n] for n in sorted(sums)]) for sums in (self.late, self.far))
        length = self.shape[1]
        token = torch.arange(length)
        counted = length - token.clamp(min=self.start)  # queries from the token on
        behind = (length - FAR - token).clamp(min=0)
        return Looked(late / counted, far / behind.where(behind > 0, torch.nan))


def longest(loaded: Loaded) -> int:
    """Tokens that may see each other: as many as the model was trained on, and can be held."""
    found = anatomy.of(loaded.model)
    found.check_movable()
    natives = [layer.native.keys for layer in found.layers if layer.native]
    own = min(natives) - 1 if natives and len(natives) == len(found.layers) else None
    limit = None if found.limit is None else found.limit - min(BLOCK + 1, found.limit // 2)
    return min(each for each in (loaded.trained_length, own, limit) if each is not None)


def _pieces(stream: TokenStream, before: Sequence[int]) -> list[Tensor]:
    """Texts of ``PIECE`` tokens each, from all documents in order; all begin as documents do.

    Args:
        stream: The documents.
        before: What the tokenizer puts before each of them.
    """
    opening, size = torch.tensor(before, dtype=torch.int64), PIECE - len(before)
    cut = [
        torch.cat((opening, document.ids[start : start + size]))
        for document in stream.documents
        for start in range(len(before), len(document.ids) - size + 1, size)
    ]
    return cut[:PIECES]


def _rate(model: Any, pieces: Sequence[Tensor], threshold: float) -> float:
    """The sink rate of the first token over texts."""
    shares = []
    for start in range(0, len(pieces), AT_ONCE):
        batch = torch.stack(list(pieces[start : start + AT_ONCE])).to(model.device)
        importance = look(model, batch).late[..., 0]  # (L, B, H)
        shares.append((importance > threshold).double().mean(dim=(0, 2)))
    return float(torch.cat(shares).mean())


def _sinks(looked: Looked, ids: Tensor, tokenizer: Any, threshold: float) -> tuple[Sink, ...]:
    """The tokens that at least one head attends to from afar beyond the threshold."""
    far = looked.far[:, 0].flatten(0, 1)  # (L x H, T)
    heads, mass = (far > threshold).double().mean(0), far.mean(0)
    order = sorted((-float(share), n) for n, share in enumerate(heads) if share > 0)
    return tuple(
        Sink(n, str(tokenizer.decode([int(ids[n])])), -minus, float(mass[n])) for minus, n in order
    )


def _tried(
    loaded: Loaded, stream: TokenStream, config: RunConfig, say: Callable[[str], None]
) -> dict[str, Any]:
    """The perplexity of every S at the same budget, by exact chunks."""
    budget, found, scored = config.n_sink + config.window_size, dict[int, float](), 0
    for s in SINKS:
        if s >= budget:
            break
        say(f"perplexity of S = {s}, W = {budget - s}")
        asked = config.resolved(
            method=registry.STREAMING, mode=registry.CHUNKED, n_sink=s, window=budget - s
        )
        task = Task(loaded, stream, method_of(asked), asked, lambda *_: None)
        result: RunResult = registry.load("mode", registry.CHUNKED)(task)
        found[s], scored = result.ppl, result.scored_tokens
    return {"perplexities": found, "scored_tokens": scored}
