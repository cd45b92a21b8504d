"""The least time that a step can take on this machine, by what it must read and compute.

With N weights that a step reads (all but the input embedding, of which it takes a row; a head that
is tied to it counts) of w bytes each as they lie (see ``core.weights``), b bytes a number, n keys
held and B rows, a step of one token has::

    bytes = w x N + b x B x 2 x layers x K x D x n        weights once, keys and values once
    FLOPs = B x (2 x N + 4 x layers x H x D x n)          a multiplication and an addition each
    floor = max(bytes / read bandwidth, FLOPs / matrix rate)

where n is at most as many as a layer sees that has a window of its own. Of routed experts N counts
what a token takes, as if all tokens took the same ones.

Re-computation encodes L tokens to predict after the last one: all layers see L tokens, the head
one, and causal attention half of L x L::

    bytes = w x N
    FLOPs = B x (2 x (N - head) x L + 2 x head + 2 x layers x H x D x L x L)

Both rates are measured here, in every round of steps: the fastest of several ways to read a buffer
that no cache holds, and a product of square matrices. As of the steps, the median over rounds
counts: a rate may double for a while (33 GB/s, and 57 in a first round, on an AMD EPYC).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from statistics import median
from typing import Any

import torch

from core.measure.meters import Clock
from core.models import anatomy
from core.weights import stored_weights

ROUTED = ".experts"  # in the names of the parameters of experts that a token may take or not
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
TAKEN = ("num_experts_per_tok", "moe_topk", "moe_top_k", "moe_k")
BUFFER_BYTES = 512 * 1024 * 1024
SQUARE = 2048


@dataclass(frozen=True)
class Work:
    """What a step must move and compute: ``read_bytes`` and ``flops``."""

    read_bytes: float
    flops: float


@dataclass
class Machine:
    """Rates of this machine.

    Attributes:
        device: The device.
        dtype: Number format of the products.
        reads: Bytes read a second, the best of each round.
        products: FLOPs a second of a matrix product, likewise.
    """

    device: str
    dtype: torch.dtype
    reads: list[float] = field(default_factory=list)
    products: list[float] = field(default_factory=list)
    _held: tuple[torch.Tensor, ...] = field(default=(), repr=False)

    @property
    def bytes_per_s(self) -> float:
        """Read bandwidth: the median over rounds."""
        return median(self.reads)

    @property
    def flops_per_s(self) -> float:
        """Matrix rate: the median over rounds."""
        return median(self.products)

    def measure(self, times: int = 2) -> None:
        """Measure both for one more round, so many times."""
        if not self._held:
            rows = 512
            columns = BUFFER_BYTES // (rows * self.dtype.itemsize)
            new: dict[str, Any] = {"dtype": self.dtype, "device": self.device}
            self._held = (
                torch.ones(rows, columns, **new),
                torch.ones(1, rows, **new),
                torch.ones(SQUARE, SQUARE, **new),
            )
        buffer, row, square = self._held
        ways: list[Callable[[], Any]] = [lambda: row @ buffer, buffer.sum, buffer.max]
        self.reads.append(buffer.nbytes / min(self._time(way) for way in ways * times))
        fastest = min(self._time(lambda: square @ square) for _ in range(times))
        self.products.append(2 * SQUARE**3 / fastest)

    def floor_ms(self, work: Work) -> float:
        """The least milliseconds for ``work``."""
        return 1000 * max(work.read_bytes / self.bytes_per_s, work.flops / self.flops_per_s)

    def _time(self, act: Callable[[], Any]) -> float:
        clock = Clock(self.device)
        act()
        return clock.lap()


def decode_work(model: Any, keys: int, batch: int = 1) -> Work:
    """A step of one token a row that attends to ``keys`` keys."""
    weights, weight_bytes = _weights(model)
    return Work(
        read_bytes=weight_bytes + batch * _kv_bytes(model, keys),
        flops=batch * (2 * weights + _attention(model) * sum(_seen(model, keys))),
    )


def recompute_work(model: Any, keys: int, batch: int = 1) -> Work:
    """A step that encodes the last ``keys`` tokens anew and predicts after the last."""
    (weights, weight_bytes), head = _weights(model), model.get_output_embeddings().weight.numel()
    pairs = sum(n * (keys - n / 2) for n in _seen(model, keys))
    flops = 2 * (weights - head) * keys + 2 * head + _attention(model) * pairs
    return Work(read_bytes=weight_bytes, flops=batch * flops)


def prompt_work(model: Any, tokens: int, pairs: int) -> Work:
    """A prompt of ``tokens`` tokens that see ``pairs`` keys in all a layer, and one prediction."""
    (weights, weight_bytes), head = _weights(model), model.get_output_embeddings().weight.numel()
    seen = sum(_seen(model, pairs, tokens))
    flops = 2 * (weights - head) * tokens + 2 * head + _attention(model) * seen
    return Work(read_bytes=weight_bytes, flops=flops)


def chunk_work(model: Any, tokens: int, keys: int) -> Work:
    """A forward over ``tokens`` tokens of one row, each attending to ``keys`` keys."""
    weights, weight_bytes = _weights(model)
    return Work(
        read_bytes=weight_bytes + _kv_bytes(model, keys),
        flops=tokens * (2 * weights + _attention(model) * sum(_seen(model, keys))),
    )


def _weights(model: Any) -> tuple[int, int]:
    """N, the parameters that a step needs, and the bytes that they take as they lie."""
    embedding = model.get_input_embeddings().weight
    tied = model.get_output_embeddings().weight is embedding
    lies, (experts, taken) = stored_weights(model), _experts(model)
    numbers, stored = Fraction(0), Fraction(0)
    for name, weight in model.named_parameters():
        if tied or weight is not embedding:
            routed = ROUTED in name or (weight.dim() == 3 and len(weight) == experts)
            share = Fraction(taken, experts) if routed else 1
            numbers += share * lies[weight].numel()
            stored += share * lies[weight].nbytes
    return int(numbers), int(stored)


def _experts(model: Any) -> tuple[int, int]:
    """Routed experts of a layer, and how many a token takes; (1, 1) where there are none.

    Where layers differ (Hunyuan), the most that one has, and the fewest that it takes.
    """
    config = model.config.get_text_config(decoder=True)
    parts = config, getattr(config, "ffn_config", None)
    many, taken = (
        next((n for name in names for part in parts if (n := getattr(part, name, None))), 1)
        for names in (EXPERTS, TAKEN)
    )
    return (
        many if isinstance(many, int) else max(many),
        taken if isinstance(taken, int) else min(taken),
    )


def _head_dim(config: Any) -> int:
    return int(
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )


def _seen(model: Any, keys: int, queries: int = 1) -> list[int]:
    """Of ``keys`` keys what each layer shows so many queries, by its own window at most."""
    natives = [layer.native for layer in anatomy.of(model).layers]
    return [min(keys, queries * native.keys) if native else keys for native in natives]


def _kv_bytes(model: Any, keys: int) -> int:
    """Bytes of the keys and values that a query sees of ``keys`` tokens, in all layers."""
    layers = zip(_seen(model, keys), anatomy.of(model).layers, strict=True)
    numbers = sum(n * (layer.key_numbers + layer.value_numbers) for n, layer in layers)
    return int(model.dtype.itemsize) * numbers


def _attention(model: Any) -> int:
    """4 x H x D: FLOPs of a query and a key in a layer."""
    config = model.config
    return int(4 * config.num_attention_heads * _head_dim(config))
