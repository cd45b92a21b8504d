"""The obvious way to keep the keys that score best: lists of tokens, and every key made afresh.

As in ``core.proof.reference`` nothing is cached or turned: what each layer was given for a token is
noted, and to read the next one each layer's attention is run over what was noted of the tokens that
a head has in its list, at positions 0 to n-1, or where they are in the text. The model makes keys
and queries of these by whatever rule it has. Logits, softmax and the decision are plain arithmetic
on one head at a time, in float64.

Rows are read one by one: each decides for itself. Where two keys score alike, a method's rounding
may choose the other one, and all that follows differs. So a loop that is told what was ``dropped``,
a tensor (layers, B, K) of places a step, holds each choice against its own scores and goes on with
it; from a wrong one on its nats are NaN, which nothing equals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from core.attending import implementation, registered
from core.config import RunConfig
from core.models.layers import attentions
from core.proof.reference import _nll, hooked

NAME = "streamcli-evictions"
EQUAL = 1e-5  # of a score: what is closer is equal, and of equals the oldest goes
UNSURE = 1e-3  # of a score: between closer ones rounding may decide


class _Head:
    """What one KV head of one layer keeps.

    Attributes:
        kept: The numbers of its tokens, in order.
        sums: Attention paid to each token since it came, by number.
        weights: The last query's attention to each kept token, a row a query head.
        keys: The kept keys (n, D), where they stood for the last query.
        bare: The key (D,) of each token at position 0, by number.
    """

    def __init__(self) -> None:
        self.kept: list[int] = []
        self.sums: dict[int, float] = {}
        self.weights = torch.empty(0)
        self.keys = torch.empty(0)
        self.bare: dict[int, Tensor] = {}


# What each token that the heads of a layer keep is worth to each head, in order.
_Worth = Callable[[list[_Head]], list[list[float]]]


def tova(model: Any, ids: Tensor, config: RunConfig, dropped: list[Tensor] | None = None) -> Tensor:
    """Nats (B, T-1) where each layer drops what its heads attended to least on average."""

    def worth(heads: list[_Head]) -> list[list[float]]:
        every = torch.cat([head.weights for head in heads])  # (H, n)
        return [every.mean(0).tolist()] * len(heads)

    return _nats(model, ids, config, worth, dropped)


def h2o(model: Any, ids: Tensor, config: RunConfig, dropped: list[Tensor] | None = None) -> Tensor:
    """Nats (B, T-1) where each head drops what was attended to least, but for recent tokens."""
    share = dict(config.param).get("recent", 0.5)
    recent = round(share * 1e9) * (config.n_sink + config.window_size) // 10**9

    def worth(heads: list[_Head]) -> list[list[float]]:
        found = []
        for head in heads:
            old = head.kept[: len(head.kept) - recent]
            found.append([head.sums[token] for token in old] + [math.inf] * recent)
        return found

    return _nats(model, ids, config, worth, dropped)


def keydiff(
    model: Any, ids: Tensor, config: RunConfig, dropped: list[Tensor] | None = None
) -> Tensor:
    """Nats (B, T-1) where each head drops the key that is most like the mean direction."""

    def worth(heads: list[_Head]) -> list[list[float]]:
        found = []
        for head in heads:
            units = [head.bare[token] / head.bare[token].norm() for token in head.kept]
            mean = sum(units, torch.zeros_like(units[0]))
            found.append([-float(unit @ mean / mean.norm()) for unit in units])
        return found

    return _nats(model, ids, config, worth, dropped)


def knorm(
    model: Any, ids: Tensor, config: RunConfig, dropped: list[Tensor] | None = None
) -> Tensor:
    """Nats (B, T-1) where each head drops its longest key."""

    def worth(heads: list[_Head]) -> list[list[float]]:
        return [[-float(key.norm()) for key in head.keys] for head in heads]

    return _nats(model, ids, config, worth, dropped)


def _nats(
    model: Any, ids: Tensor, config: RunConfig, worth: _Worth, dropped: list[Tensor] | None
) -> Tensor:
    asked = dict(config.param)
    budget, sinks = config.n_sink + config.window_size, asked.get("sinks", 0)
    rows = []
    for row, tokens in enumerate(ids):
        chosen = None if dropped is None else iter([each[:, row] for each in dropped])
        with _replayed(model, asked.get("positions") == "absolute") as replay:
            rows.append(_row(replay, tokens, budget, sinks, worth, chosen))
    return torch.stack(rows)


@torch.inference_mode()
def _row(
    replay: _Replay,
    ids: Tensor,
    budget: int,
    sinks: int,
    worth: _Worth,
    chosen: Iterator[Tensor] | None,
) -> Tensor:
    """Nats (T-1,) of one row (T,); NaN from where a choice (layers, K) was wrong."""
    scores = torch.full((len(ids) - 1,), math.nan)
    for t in range(len(ids) - 1):
        n = t + 1 if replay.absolute else min(t, budget) + 1
        rows = ids[t + 1 - n : t + 1]  # of which only the last, the query, is told apart
        logits = replay.model(rows[None], use_cache=False, logits_to_keep=1).logits[:, -1]
        scores[t] = _nll(logits, ids[None, t + 1])[0]
        if t >= budget:
            choices = None if chosen is None else next(chosen, None)
            if chosen is not None and choices is None:  # it dropped nothing
                return scores
            for i, heads in enumerate(replay.heads):
                for k, values in enumerate(worth(heads)):
                    place = sinks + _lowest(values[sinks:])
                    if choices is not None:
                        lowest, place = values[place], int(choices[i, k])
                        if place < sinks or values[place] > lowest + UNSURE * abs(lowest):
                            return scores
                    del heads[k].kept[place]
        replay.t += 1
    return scores


def _lowest(values: list[float]) -> int:
    """The first place whose value is the lowest, or as good as that."""
    lowest = min(values)
    return next(i for i, x in enumerate(values) if x <= lowest + EQUAL * abs(lowest))


class _Replay:
    """One row's stream through a model: what each layer was given, and its heads' lists.

    Attributes:
        t: The number of the token at hand.
        heads: By layer, its KV heads; empty before the first token.
        given: By layer, what its attention was given for each token, (t, hidden).
        made: The queries, keys and values that an attention has just made of its rows.
        scale: What it multiplies its logits by.
        cap: What caps them, if anything.
        learned: Logits (H,) that take a share of each softmax and give no value, if any.
        answer: What heads put out for the token at hand (H, Dv); None while rows are only made.
    """

    def __init__(self, model: Any, layers: int, absolute: bool) -> None:
        self.model, self.t, self.absolute = model, 0, absolute
        self.heads: list[list[_Head]] = [[] for _ in range(layers)]
        self.given = [torch.empty(0) for _ in range(layers)]
        self.made: tuple[Tensor, ...] = ()
        self.scale = 1.0
        self.cap: float | None = None
        self.learned: Tensor | None = None
        self.answer: Tensor | None = None

    def attend(
        self, module: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, None]:
        """In place of the model's attention: notes what it is given, or gives the answer."""
        b, h, n, d = query.shape
        out = value.new_zeros(b, n, h, value.shape[-1])
        if self.answer is None:
            self.made = query.double(), key.double(), value.double()
            self.scale = kwargs.get("scaling") or d**-0.5
            self.cap, self.learned = kwargs.get("softcap"), kwargs.get("s_aux")
        else:
            out[0, -1] = self.answer.to(out.dtype)
        return out, None

    def hook(self, i: int) -> Any:
        """Before the attention of layer ``i``: finds what its heads put out for the token."""

        def find(layer: Any, args: Any, kwargs: dict[str, Any]) -> None:
            x = args[0] if args else kwargs["hidden_states"]  # (1, n, hidden)
            rest = {name: each for name, each in kwargs.items() if name != "hidden_states"}
            t, heads = self.t, self.heads[i]
            new = x[0, -1:]
            given = torch.cat((self.given[i], new)) if t else new  # (t+1, hidden)
            self.given[i] = given

            def make(rows: list[list[int]]) -> tuple[Tensor, ...]:
                self.answer = None
                layer.forward(given[torch.tensor(rows)], *args[1:], **rest)
                return self.made

            if not heads:
                heads += [_Head() for _ in range(make([[t]])[1].shape[1])]
            for head in heads:
                head.kept.append(t)
            lists = [list(range(t + 1))] if self.absolute else [head.kept for head in heads]
            query, key, value = make([*lists, [t] * len(lists[0])])
            group, outs = query.shape[1] // len(heads), []
            for k, head in enumerate(heads):
                row, at = (0, head.kept) if self.absolute else (k, slice(None))
                mine = slice(k * group, (k + 1) * group)
                learned = None if self.learned is None else self.learned[mine]
                head.keys, head.bare[t] = key[row, k, at], key[-1, k, 0]
                outs.append(self._read(head, query[row, mine, -1], value[row, k, at], learned))
            self.answer = torch.cat(outs)

        return find

    def _read(self, head: _Head, query: Tensor, value: Tensor, learned: Tensor | None) -> Tensor:
        """What the query heads (G, D) of a KV head put out, (G, Dv)."""
        logits = query @ head.keys.T * self.scale  # (G, n)
        if self.cap is not None:
            logits = self.cap * (logits / self.cap).tanh()
        shares = logits.exp()
        whole = shares.sum(-1, keepdim=True)
        if learned is not None:
            whole = whole + learned.double().exp()[:, None]
        head.weights = shares / whole
        for place, token in enumerate(head.kept):
            head.sums[token] = head.sums.get(token, 0.0) + float(head.weights[:, place].sum())
        return head.weights @ value


@contextmanager
def _replayed(model: Any, absolute: bool) -> Iterator[_Replay]:
    """A model that attends as ``_Replay`` finds; as before on leaving."""
    count = len(attentions(model))
    replay = _Replay(model, count, absolute)
    with (
        hooked(model, replay.hook, range(count)),
        registered(replay.attend, NAME),
        implementation(model, NAME),
    ):
        yield replay
