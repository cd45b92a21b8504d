"""Linear layers for one token at a time: a step is bound by the weights that it reads.

For as long as a stream decodes, whatever its cache, the model's weights may lie in two other ways
(``for_decoding``), each with every value as it was, and only in float32 on a CPU, where this was
measured:

- ``by_columns``, where a matrix is taller than wide (the LM head first): a matrix-vector product
  reads best along the longer side, and is shared out in equal parts, at most one a thread;
- ``in_16_bits``, where weights are exact in them. Most checkpoints are published in float16
  (Pythia) or bfloat16 (Llama): loaded as float32, they take twice the bytes and say no more.
  ``weights.c`` widens each number where it is multiplied: the same products, summed in float32, for
  which torch has no operation.

What each saves, and what was tried beside them: docs/decisions/0003-weights-for-one-token.md.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from ctypes import CDLL, c_int, c_long, c_void_p
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, library, nn

from core.config import AS_SHIPPED

SOURCE = Path(__file__).with_suffix(".c")
FORMATS = {torch.float16: "of_float16", torch.bfloat16: "of_bfloat16"}  # as ``weights.c`` has them
LANES = 16  # numbers that ``weights.c`` may widen at once: rows are whole multiples of it
FEW = 8  # vectors up to which a product is bound by its matrix
NARROW = (
    "steps read weights that are exact in 16 bits as such, half the bytes, and compute in float32."
)


def reads_fast(model: Any) -> bool:
    """Whether weights of a model are laid out anew: where it was measured."""
    return bool(model.device.type == "cpu" and model.dtype == torch.float32)


@contextmanager
def for_decoding(model: Any, rows: int, engine: str = "eager") -> Iterator[tuple[str, ...]]:
    """Lay weights out for one token of each of ``rows`` at a time; back on leaving.

    Args:
        model: A transformers model; others may share it, as no value changes.
        rows: B.
        engine: The run's; ``as-shipped`` leaves them as transformers lays them out.

    Yields what a reader of times must know of it.
    """
    if engine == AS_SHIPPED:
        yield ()
        return
    with (
        by_columns(model),
        in_16_bits(model, rows) if rows <= FEW else nullcontext(False) as narrow,
    ):
        yield (NARROW,) if narrow else ()


@contextmanager
def by_columns(model: Any) -> Iterator[None]:
    """Lay out tall weights for matrix-vector products, without a second copy; back on leaving.

    Such a weight (N, K), N > K, is stored by columns: same values, same shape.
    """
    tall = [
        module
        for module in _layers(model, nn.Linear)
        if module.weight.shape[0] > module.weight.shape[1] and module.weight.is_contiguous()
    ]
    threads = torch.get_num_threads()
    try:
        for module in tall:
            if module.weight.is_contiguous():  # a tied one may have been seen to
                with torch.inference_mode(False):  # a parameter that can still be trained later
                    module.weight.data = module.weight.data.t().contiguous().t()
            parts = max(n for n in range(1, threads + 1) if module.weight.shape[0] % n == 0)
            if parts > 1:
                module.__class__, module.parts = _Shared, parts
        yield
    finally:
        for module in tall:
            module.__class__ = nn.Linear
            vars(module).pop("parts", None)
            with torch.inference_mode(False):
                module.weight.data = module.weight.data.contiguous()


@contextmanager
def in_16_bits(model: Any, rows: int = 1) -> Iterator[bool]:
    """Read weights that are exact in 16 bits from copies in them, half their size; no more after.

    The product with ``rows`` vectors is compiled at once, that with others when it is asked for.
    Yields whether there are any.
    """
    before: list[tuple[Any, type]] = []
    try:
        for module in _layers(model, nn.Linear, _Shared) if compiler() else ():
            kept = _narrowed(module.weight)
            if kept is not None and kernel(kept.dtype, rows):
                before.append((module, type(module)))
                module.__class__, module.kept = _Narrow, kept
        yield bool(before)
    finally:
        for module, kind in before:
            module.__class__ = kind
            del module.kept


def stored_weights(model: Any) -> dict[Tensor, Tensor]:
    """What a step reads for each parameter: itself, or its copy in 16 bits."""
    kept = {module.weight: module.kept for module in model.modules() if type(module) is _Narrow}
    return {weight: kept.get(weight, weight) for weight in model.parameters()}


def compiler() -> str | None:
    """The C++ compiler that ``torch.compile`` takes, if it is on this machine."""
    from torch._inductor import config

    return next(filter(None, (shutil.which(each) for each in config.cpp.cxx if each)), None)


@cache
def kernel(stored: torch.dtype, vectors: int) -> Any:
    """``weights.c`` for so many vectors, compiled for this processor in 0.2 s; None where it can't.

    Args:
        stored: How the weights are stored, one of ``FORMATS``.
        vectors: M, at most ``FEW``.
    """
    if (found := compiler()) is None:
        return None
    threads = Path(torch.__file__).parent.glob("lib/libgomp*")  # torch's own, so as to share them
    try:
        with TemporaryDirectory() as folder:
            built = Path(folder) / "weights.so"
            words = [found, "-x", "c", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC"]
            words += [f"-DM={vectors}", f"-DWIDEN={FORMATS[stored]}", str(SOURCE)]
            words += ["-o", str(built), "-x", "none", *map(str, threads)]
            subprocess.run(words, capture_output=True, check=True, timeout=60)
            product = CDLL(str(built)).product
    except (OSError, subprocess.SubprocessError):
        return None
    product.argtypes = [c_void_p, c_void_p, c_void_p, c_long, c_long, c_int]
    product.restype = None
    return product


def _layers(model: Any, *kinds: type) -> list[Any]:
    """The layers of these very kinds: what derives from them may use its weight otherwise."""
    return [module for module in model.modules() if type(module) in kinds and reads_fast(model)]


def _narrowed(weight: Tensor) -> Tensor | None:
    """``weight`` (N, K) in 16 bits a number; None where a number would change."""
    if weight.shape[1] % LANES:
        return None
    for each in FORMATS:
        kept = weight.detach().to(each).contiguous()
        if torch.equal(kept.float(), weight):
            return kept
    return None


class _Shared(nn.Linear):
    """Weights by columns, shared out: one product would take one thread."""

    parts: int

    def forward(self, x: Tensor) -> Tensor:
        """See ``_few``."""
        return _few(self, x, _share, self.weight, self.parts)


class _Narrow(nn.Linear):
    """Weights in 16 bits."""

    kept: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """See ``_few``."""
        return _few(self, x, _widen, self.kept)


def _few(layer: nn.Linear, x: Tensor, product: Callable[..., Tensor], *given: Any) -> Tensor:
    """The layer's output (..., N) for x (..., K), by ``product`` where that is a few vectors."""
    rows = x.reshape(-1, x.shape[-1])  # (M, K)
    if not 0 < len(rows) <= FEW or x.dtype != torch.float32:
        return nn.Linear.forward(layer, x)
    out = product(rows, *given).view(*x.shape[:-1], layer.out_features)
    return out if layer.bias is None else out + layer.bias


@library.custom_op("streamcli::share", mutates_args=())
def _share(rows: Tensor, weight: Tensor, parts: int) -> Tensor:
    """(M, K) times (N, K), by so many threads; a compiler that saw inside would copy the weight."""
    n, k = weight.shape
    columns = weight.t().view(k, parts, n // parts).transpose(0, 1)  # (P, K, N/P)
    out = torch.bmm(rows.expand(parts, -1, -1), columns)  # (P, M, N/P)
    return out.transpose(0, 1).reshape(len(rows), n)


@_share.register_fake
def _(rows: Tensor, weight: Tensor, parts: int) -> Tensor:
    return rows.new_empty(len(rows), len(weight))


@library.custom_op("streamcli::widen", mutates_args=())
def _widen(rows: Tensor, kept: Tensor) -> Tensor:
    """(M, K) in float32 times (N, K) in 16 bits and contiguous, by torch's number of threads."""
    (n, k), rows = kept.shape, rows.contiguous()
    out = rows.new_empty(len(rows), n)
    places = (rows.data_ptr(), kept.data_ptr(), out.data_ptr())
    kernel(kept.dtype, len(rows))(*places, n, k, torch.get_num_threads())
    return out


@_widen.register_fake
def _(rows: Tensor, kept: Tensor) -> Tensor:
    return rows.new_empty(len(rows), len(kept))
