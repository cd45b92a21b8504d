"""The peer's side: the published package ``attention-sinks``, fed one token at a time.

Runs in the environment of ``requirements.txt`` and imports nothing of this project, so that both
sides share no code but torch. Prints one JSON object.

What was read in attention-sinks 0.4.0 and transformers 4.34.0, and decides what equals what:

- ``AttentionSinkKVCache`` is applied to the *outputs* of the model's forward: it evicts after the
  step and keeps ``attention_sink_size`` sinks and the last ``attention_sink_window_size`` tokens,
  the one just read included. The next query sees those and itself. So S and W are the same as
  ours: S + W + 1 attended keys. (The authors' chat demo uses ``evict_for_space``, one key fewer;
  this package never calls it.)
- Keys are cached unrotated; every step rotates the whole cache to 0..n-1 and the query to n,
  where n <= S + W is the length of the cache.
- GPT-NeoX turns the first ``rotary_ndims`` dims of queries and keys only, as it should.
- Frequencies and tables of cosines are float32, made from the config; nothing of them changes
  below the trained length. (Loading GPT-NeoX warns that ``inv_freq`` is "newly initialized":
  transformers 5 does not store it. It is the right one.)
- A chunk of several tokens is evicted after it as a whole: its queries see more than W tokens
  before them. Only one token at a time is the method of the paper.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from importlib.metadata import version

import torch
from attention_sinks import AutoModelForCausalLM  # type: ignore[import-not-found]

PACKAGES = ("attention-sinks", "transformers", "torch", "numpy")


def main() -> None:
    """Read the ids, stream them, and print scores and times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="a model that transformers 4.34 can load")
    parser.add_argument("ids", help="JSON file: a list of token ids, one stream")
    parser.add_argument("n_sink", type=int)
    parser.add_argument("window", type=int)
    parser.add_argument("timed_tokens", type=int, help="the last so many steps are reported")
    parser.add_argument("threads", type=int)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with open(args.ids, encoding="utf-8") as file:
        ids = torch.tensor([json.load(file)])  # (1, T)
    model = AutoModelForCausalLM.from_pretrained(
        args.folder,
        torch_dtype=torch.float32,
        attention_sink_size=args.n_sink,
        attention_sink_window_size=args.window,
    ).eval()
    nll_nats, ms = stream(model, ids)
    found = {
        "nll_nats": nll_nats,
        "ms": ms[-args.timed_tokens :],
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }
    print(json.dumps(found))


@torch.inference_mode()
def stream(model: torch.nn.Module, ids: torch.Tensor) -> tuple[list[float], list[float]]:
    """Scores of ``ids[:, 1:]`` in nats and the milliseconds of each forward, T - 1 of both."""
    past, nll_nats, ms = None, [], []
    for t in range(ids.shape[1] - 1):
        start = time.perf_counter()
        outputs = model(ids[:, t : t + 1], past_key_values=past, use_cache=True)
        ms.append(1000 * (time.perf_counter() - start))
        past = outputs.past_key_values
        loss = torch.nn.functional.cross_entropy(outputs.logits[:, -1].float(), ids[:, t + 1])
        nll_nats.append(float(loss))
    return nll_nats, ms


if __name__ == "__main__":
    main()
