"""docs/presses.md: which presses of kvpress can evict while decoding, by ``make presses``.

Each is tried (core/methods/press_trial.py); what is added in words of our own stands here.
"""

from __future__ import annotations

import warnings
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from core.errors import UsageError
from core.methods import press_names, press_trial
from core.methods.decoding import DecodingStream, Recipe
from core.methods.press_trial import CACHE, Facts

PAGE = Path(__file__).parents[2] / "docs" / "presses.md"
PAGE_TEXT = """# Presses of kvpress while decoding

Made by `make presses` with kvpress {version}. `streamcli run --method kvpress:KnormPress` lets a
press of the package cut the cache to S + W keys after every token, so that a query sees these and
itself, as in `streaming` of the same `--n-sink` and `--window`. Presses were made for prompts; here
the package's `DecodingPress` is told to cut at every step. Of its {total} presses {can} can be had
so. Each was made to cut {kept} keys and a new one to {kept} on a tiny random Llama; what it needs
for that, or why it can't, is what was seen then. What can't is refused before a model is loaded.
The package knows how Llama types make their queries; a press that asks for these can't serve a
GPT-NeoX (Pythia, the bundled model). So evictions are tried on your model before a run begins. At
every step of a run the keys in every layer are counted.

## Those that can

{yes}

- **around**: `press` names the press that it is made around, one that scores by itself: `--press
  KnormPress`, with which they were tried.
- **S**: `n_sink` of a press is `--n-sink`, within S + W. Where it says no, S counts as part of W.
- **positions**: in the `cache`, keys are turned to their places by the package's
  `KeyRerotationPress`, which can hold presses that only score. `--positions absolute` is what the
  package does without it: keys stay at the positions of the text and lie in the order of their
  scores, so that a press which goes by first or last places takes others for them. Those that
  `KeyRerotationPress` can't hold are `absolute` alone.
- **options**: as flags (`--window-size 16`) or `--param NAME=VALUE`; those of plain types. The
  rest, and all of a press inside another one, are the package's defaults.
- `hidden_states_buffer_size`: the hidden states of so many past tokens are held for the press, and
  count as KV. `DecodingPress` forgets them whenever it evicts, here they stay. All queries made of
  them are turned to the position of the newest token, as in the package, which hands on no other.
- **alone**: of several documents in step the first would decide for all, or random numbers be dealt
  otherwise: `--batch-size 1`.
- `--evict-every k` is another budget, up to k - 1 keys more, and tables mark it.
- None claims to be exact but `StreamingLLMPress`, and `verify` says so. Random numbers come from
  `--seed`.

## Those that can't, and why

{no}
"""
NOTES = {
    "CAMPress": "adds values of keys that leave to those that stay, by chance",
    "ChunkPress": "cuts each chunk: S + W must be below `chunk_length`",
    "ExpectedAttentionPress": "takes the number of held hidden states for the next position",
    "CapPress": "takes the number of held hidden states for the next position",
    "KeyDiffPress": "compares keys where they stand, `keydiff` at position 0",
    "KnormPress": "`knorm`, but of keys equally long, such as a word's that comes again in the "
    "first layer, any goes, and there the oldest",
    "LagKVPress": "`streaming` while S + W + 1 is below S + 2 x `lag_size`",
    "ObservedAttentionPress": "weights of the newest query, over the queries that a prompt's key "
    "would have had",
    "PyramidKVPress": "`SnapKVPress` at absolute positions: one key too many makes no pyramid",
    "RandomPress": "any key, another one in each head",
    "SnapKVPress": "never drops the last `window_size` tokens: a window alone where that is S + W",
    "StreamingLLMPress": "`streaming`, and bit by bit `kvpress`; with absolute positions it loses "
    "its sinks, as `kvpress-stock` does",
    "TOVAPress": "`tova`, but the newest token never goes",
}
WHY = {
    "BlockPress": "it scores a block of keys by the hidden states of each",
    "ChunkKVPress": "it keeps or drops whole chunks",
    "ExpectedAttentionStatsPress": "it has statistics of queries",
    "FastKVzipPress": "it has gates that score",
    "KVzapPress": "it has small models that score",
    "LUKVPress": "it has curves that share keys out to heads",
    "QFilterPress": "it has filters of keys",
    "RestoreKVPress": "it has tokens and LoRA weights that restore what was lost",
    "KVzipPress": "it lets the model repeat the prompt",
    "KVgradPress": "it takes gradients while the model repeats the prompt",
    "KVComposePress": "it lets the model repeat the prompt",
    "ComposedPress": "it is several presses one after the other",
    "DMSPress": "it evicts what scores below a threshold",
    "DuoAttentionPress": "it keeps all keys of some heads",
    "FinchPress": "it cuts a context by the question after a delimiter",
    "PerLayerCompressionPress": "it is another share in each layer",
    "SimLayerKVPress": "it keeps all keys of some layers",
    "ThinKPress": "it drops numbers of all keys, and no key",
}


def found(press: str) -> Facts | str:
    """What a press needs, or why it can't be had."""
    with warnings.catch_warnings(action="ignore"):
        try:
            return press_trial.facts(press)
        except UsageError as error:
            return str(error).partition(": ")[2].removesuffix(".")


@cache
def _gpt_neox() -> tuple[Any, Tensor]:
    config = GPTNeoXConfig(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=1024,
    )
    torch.manual_seed(0)
    model = GPTNeoXForCausalLM(config).eval().requires_grad_(False)
    return model, torch.randperm(512)[None, : press_trial.KEPT + press_trial.STEPS]


@torch.inference_mode()
def serves_gpt_neox(press: str, facts: Facts) -> bool:
    """Whether the press can evict on a model whose queries the package can't make."""
    model, ids = _gpt_neox()
    recipe = Recipe(
        name=press,
        inner=press_trial.EXAMPLE if facts.inner else "",
        kept=press_trial.KEPT,
        turns=facts.turns,
        weighs=facts.weighs,
        buffer=press_trial.BUFFER if facts.looks_back else 0,
    )
    try:
        DecodingStream(model, recipe).try_on(ids)
    except UsageError:
        return False
    return True


def text() -> str:
    """The page."""
    yes = ["| press | S | positions | looks at | GPT-NeoX | options of its own | note |"]
    yes.append("|:---|:---|:---|:---|:---|:---|:---|")
    no = ["| press | why |", "|:---|:---|"]
    for press in press_names.names():
        facts = found(press)
        if isinstance(facts, str):
            own = f"{WHY[press]}; " if press in WHY else ""
            no.append(f"| `{press}` | {own}{facts} |")
        else:
            yes.append(f"| {' | '.join(_row(press, facts))} |")
    return PAGE_TEXT.format(
        version=version("kvpress"),
        total=len(yes) + len(no) - 4,
        can=len(yes) - 2,
        kept=press_trial.KEPT,
        yes="\n".join(yes),
        no="\n".join(no),
    )


def _row(press: str, facts: Facts) -> list[str]:
    looks = "attention weights" if facts.weighs else "keys, values, the newest token"
    if facts.looks_back:
        looks = f"hidden states of the last {press_trial.BUFFER} tokens"
    options = [f"`{name}`" for name in press_trial.options(press) if name != "positions"]
    alone = ["alone"] if facts.alone else []
    notes = "; ".join([*([NOTES[press]] if press in NOTES else []), *alone])
    return [
        f"`{press}`",
        "yes" if press_names.has_sinks(press) else "no",
        CACHE if facts.turns else "absolute",
        looks,
        "yes" if serves_gpt_neox(press, facts) else "no",
        ", ".join(options) or "-",
        notes or "-",
    ]


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8", newline="\n")
