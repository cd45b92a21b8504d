"""Generate text without end from a fixed amount of memory.

    python examples/generate.py                                  # offline, the bundled model
    python examples/generate.py --model EleutherAI/pythia-70m --window 1020 --tokens 5000

The model goes on from ``--prompt``, far past the length that it was trained on. The text goes to
stdout. A line on stderr now and then tells what the cache and the whole process hold: both stay as
they are, where a cache that keeps everything would grow with every token.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from streamcli import StreamingKVCache

BUNDLED = Path(__file__).parents[1] / "data" / "bundled" / "model"
MIB = 2**20


def options() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="bundled", help="bundled, a folder or a Hub id")
    parser.add_argument("--prompt", default="The lighthouse")
    parser.add_argument("--tokens", type=int, default=2000, help="tokens to generate")
    parser.add_argument("--sinks", type=int, default=4, help="first tokens that stay")
    parser.add_argument("--window", type=int, default=252, help="recent tokens that stay")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    """Load the model and let it write."""
    asked = options()
    logging.disable_progress_bar()
    source = str(BUNDLED) if asked.model == "bundled" else asked.model
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    torch.manual_seed(asked.seed)

    cache = StreamingKVCache(asked.sinks, asked.window, model)
    ids = tokenizer(asked.prompt, return_tensors="pt").input_ids  # (1, C)
    print(asked.prompt, end="")
    print(f"{'tokens':>8} {'cache MiB':>10} {'process MiB':>12} {'ms/token':>9}", file=sys.stderr)
    every, began = max(1, asked.tokens // 10), time.perf_counter()
    for made in range(1, asked.tokens + 1):
        logits = cache.read(ids, keep=1)[:, -1]  # (1, V): after the last token only
        ids = torch.multinomial((logits / asked.temperature).softmax(-1), 1)  # (1, 1)
        print(tokenizer.decode(ids[0]), end="", flush=True)
        if made % every == 0:
            ms, began = 1000 * (time.perf_counter() - began) / every, time.perf_counter()
            print(
                f"{cache.seen:8,} {cache.nbytes / MIB:10.2f} {process_mib():12,.0f} {ms:9.2f}",
                file=sys.stderr,
            )
    print()


def process_mib() -> float:
    """The most memory that this process has held so far, in MiB."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB


if __name__ == "__main__":
    main()
