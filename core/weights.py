"""Linear layers for one token at a time: a step is bound by the weights that it reads.

For as long as a stream decodes, ``reading_fast`` lays the weights out in one of two ways, each with
every value as it was:

- by columns, where a matrix is taller than wide (the LM head first): a matrix-vector product reads
  best along the longer side, and each thread takes its share of the columns;
- in 16 bits, where a C compiler is at hand and the weights are exact in them. Most checkpoints are
  published in float16 (Pythia) or bfloat16 (Llama): loaded as float32, they take twice the bytes
  and say no more. ``weights.c`` widens each number where it is multiplied: the same products,
  summed in float32, for which torch has no operation. For compiled streams of up to 8 rows.

A head of 50,304 x 512 takes transformers' layout 9.3 ms on two threads of an AMD EPYC, by columns
3.0 (on an Intel Xeon 2.6 and 2.0). All linear layers of Pythia-70M take 6.7 ms on the Xeon, 5.6 by
columns and 2.9 in 16 bits. Only in float32 on a CPU, where it was measured.

Tried, and not here: ``weights.c`` for float32 weights (6.0 ms), without asking for the next rows
ahead (3.9), and as plain loops, of which GCC 12 vectorises bfloat16 (4.3) and not float16 (24).
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import CDLL, c_long, c_void_p
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, library, nn
from torch.nn.functional import linear

COMPILERS = ("g++", "c++", "clang++")
SOURCE = Path(__file__).with_suffix(".c")
FORMATS = (torch.float16, torch.bfloat16)
LANES = 16  # numbers that ``weights.c`` may widen at once: rows are whole multiples of it
FEW = 8  # vectors up to which a product is bound by its matrix
FAST = (
    "streaming and window read weights laid out for one token at a time, the other methods as "
    "transformers lays them out: a part of their lead is not the cache's."
)
NARROW = (
    "compiled steps read weights that are exact in 16 bits as such, half the bytes, and compute in "
    "float32."
)


@contextmanager
def reading_fast(model: Any, narrow: bool = False) -> Iterator[None]:
    """Lay out a model's linear layers for matrix-vector products; as before on leaving.

    Args:
        model: The model; nothing is done unless ``reads_fast`` says so.
        narrow: Whether weights that are exact in 16 bits may be kept in them.
    """
    if not reads_fast(model):
        yield
        return
    plain = [(m, m.weight) for m in model.modules() if type(m) is nn.Linear]
    embedding, threads = model.get_input_embeddings().weight, torch.get_num_threads()
    try:
        with torch.inference_mode(False):  # parameters that can still be trained later
            for module, weight in plain:
                if narrow and kernel() and (kept := _narrowed(weight)) is not None:
                    module.__class__, module.parts = _Fast, 1  # type: ignore[assignment]
                    if weight is embedding:  # which needs its own
                        module.weight = nn.Parameter(kept, requires_grad=False)
                    else:
                        weight.data = kept
                elif weight.shape[0] > weight.shape[1]:
                    if weight.is_contiguous():  # a tied one may have been seen to
                        weight.data = weight.data.t().contiguous().t()
                    if threads > 1 and weight.shape[0] % threads == 0:
                        module.__class__ = _Fast
                        module.parts = threads  # type: ignore[assignment]
        yield
    finally:
        with torch.inference_mode(False):
            for module, weight in plain:
                module.__class__, module.weight = nn.Linear, weight
                vars(module).pop("parts", None)
                weight.data = weight.data.float().contiguous()


def reads_fast(model: Any) -> bool:
    """Whether ``reading_fast`` does anything for a model: where it was measured."""
    return bool(model.device.type == "cpu" and model.dtype == torch.float32)


def notes(model: Any, narrow: bool) -> tuple[str, ...]:
    """What a reader must know of times taken within ``reading_fast``, called outside of it."""
    if not reads_fast(model):
        return ()
    plain = (module.weight for module in model.modules() if type(module) is nn.Linear)
    kept = narrow and kernel() and any(_narrowed(weight) is not None for weight in plain)
    return (FAST, NARROW) if kept else (FAST,)


def compiler() -> str | None:
    """The C++ compiler on this machine that ``torch.compile`` would use, too."""
    return next(filter(None, map(shutil.which, COMPILERS)), None)


@cache
def kernel() -> CDLL | None:
    """``weights.c``, compiled for this processor in 0.2 s; None where that can't be done."""
    if (found := compiler()) is None:
        return None
    threads = Path(torch.__file__).parent.glob("lib/libgomp*")  # torch's own, so as to share them
    try:
        with TemporaryDirectory() as folder:
            built = Path(folder) / "weights.so"
            words = [found, "-x", "c", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC"]
            words += [str(SOURCE), "-o", str(built), "-x", "none", *map(str, threads)]
            subprocess.run(words, capture_output=True, check=True, timeout=60)
            return CDLL(str(built))
    except (OSError, subprocess.SubprocessError):
        return None


def _narrowed(weight: Tensor) -> Tensor | None:
    """``weight`` (N, K) in 16 bits a number; None where a number would change."""
    if weight.shape[1] % LANES:
        return None
    kept = (weight.data.to(each) for each in FORMATS)
    return next(
        (each.contiguous() for each in kept if torch.equal(each.float(), weight.float())), None
    )


class _Fast(nn.Linear):
    """A linear layer in float32 whose weight lies in one of the two ways."""

    parts: int  # that the columns are shared out in; 1 in 16 bits

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output (..., N) for x (..., K)."""
        rows = x.reshape(-1, x.shape[-1])  # (M, K)
        if len(rows) > FEW or x.dtype != torch.float32:
            return linear(x, self.weight.to(x.dtype), self.bias)
        out: Tensor = _product(rows, self.weight, self.parts).view(*x.shape[:-1], self.out_features)
        return out if self.bias is None else out + self.bias


@library.custom_op("streamcli::product", mutates_args=())
def _product(rows: Tensor, weight: Tensor, parts: int) -> Tensor:
    """(M, K) times (N, K); a compiler that saw inside would copy a weight that is shared out."""
    n, k = weight.shape
    if weight.dtype in FORMATS:
        rows, out = rows.contiguous(), rows.new_empty(len(rows), n)
        product = getattr(kernel(), f"product_{str(weight.dtype).removeprefix('torch.')}")
        places = (c_void_p(each.data_ptr()) for each in (rows, weight, out))
        product(*places, *map(c_long, (len(rows), n, k)))
        return out
    columns = weight.t().view(k, parts, n // parts).transpose(0, 1)  # (P, K, N/P)
    shares = torch.bmm(rows.expand(parts, -1, -1), columns)  # (P, M, N/P)
    return shares.transpose(0, 1).reshape(len(rows), n)


@_product.register_fake
def _(rows: Tensor, weight: Tensor, parts: int) -> Tensor:
    return rows.new_empty(len(rows), len(weight))
