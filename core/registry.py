"""What each method, mode and text is, as far as that can be said without importing torch.

Whoever asks "does it keep to a budget, does it have sinks, may its step be compiled" asks the
``MethodSpec``, and of a mode the ``ModeSpec``; no name of a method or mode decides anything
elsewhere. A package of its own adds methods through the entry-point group ``streamcli.methods``
(``name = "module:Class"``): its class says what it is in its attribute ``spec``, which it inherits
from the class it derives from. A family has many methods, ``family:NAME``, and a module that makes
the spec of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from core.errors import UsageError, unknown

GROUP = "streamcli.methods"  # of the entry points


@dataclass(frozen=True)
class Look:
    """A method's colour, marker, dash and hatch in figures."""

    colour: str
    symbol: str
    dash: str
    hatch: str


GREY = Look("#666666", "circle-open", "solid", "")
# Of methods that come from other packages, in the order of their names.
SPARE = (
    Look("#882255", "pentagon", "6px,2px", "/"),
    Look("#44AA99", "hourglass", "9px,3px,3px,3px", "x"),
    Look("#AA4499", "bowtie", "2px,2px", "\\"),
    Look("#661100", "star-diamond", "12px,2px,2px,2px", "-"),
)


@dataclass(frozen=True, kw_only=True)
class MethodSpec:
    """What a method is.

    Attributes:
        where: Its class, as ``module:Class``.
        words: What it does, in a few words.
        memory: Keys that it holds between steps: ``allocated`` (room for the budget from the first
            token on), ``fills`` (grows up to the budget), ``saw-tooth`` (grows between evictions),
            ``grows`` (with the stream) or ``none``.
        budget: What bounds the keys that a query sees: ``sinks and window``; ``window`` (sinks are
            counted into it, so that the budget stays S + W); ``total`` (S + W + 1 keys, none of
            them a sink); ``none``.
        evict_every: k, steps between evictions, where none is given; None where it has a rule of
            its own, so that k is no option.
        makes_room: Whether it evicts before each chunk, so that k means nothing in chunks.
        static: Whether its decode step has static shapes, so that an engine may execute it.
        moves: Whether it moves keys to other positions, which not every model allows.
        reference: The obvious computation of what it should predict, as ``module:function``: from a
            model, ids (B, T) and the configuration to nats (B, T-1); empty where there is none, so
            that nothing can be claimed.
        chooses: Whether it chooses, such as which key to drop or the nearest code of a number, so
            that rounding decides between what is as good. Its reference then is given its choices
            as well, holds them against its own, and goes on with them.
        exact: Whether it claims to equal that, token by token, one token at a time.
        exact_chunks: Whether a chunk predicts what its tokens would one by one.
        peer: Whether it is somebody else's form of the streaming cache.
        needs: The package that it needs beyond streamcli's own; empty where none.
        own_weights: Whether it may weigh keys by a softmax of its own, whatever the model's is.
        parameters: The dataclass of options that it alone has, as ``module:Class``; empty for none.
        look: How figures draw it.
        name: The name that it is asked for by.
        package: The package that it comes from, and its version; empty for streamcli's own.
    """

    where: str
    words: str
    memory: Literal["allocated", "fills", "saw-tooth", "grows", "none"]
    budget: Literal["sinks and window", "window", "total", "none"]
    evict_every: int | None = None
    makes_room: bool = False
    static: bool = False
    moves: bool = True
    reference: str = "core.proof.reference:streaming"
    chooses: bool = False
    exact: bool = True
    exact_chunks: bool = True
    peer: bool = False
    needs: str = ""
    own_weights: bool = False
    parameters: str = ""
    look: Look = GREY
    name: str = ""
    package: str = ""

    def but(self, **changes: Any) -> MethodSpec:
        """A copy with some facts changed."""
        return replace(self, **changes)

    @property
    def has_budget(self) -> bool:
        """Whether the keys that a query sees are bounded by S and W."""
        return self.budget != "none"

    @property
    def sizes(self) -> tuple[str, ...]:
        """Which of ``n_sink`` and ``window`` say what it keeps."""
        return ("n_sink", "window") if self.budget in ("sinks and window", "window") else ()


@dataclass(frozen=True, kw_only=True)
class ModeSpec:
    """What a mode is.

    Attributes:
        where: Its function, as ``module:function``.
        words: What it does, in a few words.
        chunked: Whether tokens are fed many at a time.
        context: Whether a context is read at once before the first token is scored.
        engines: Whether an engine may execute its steps.
        alone: Why documents can't go in step; empty where they can.
        options: The options that it alone has.
        time: The column that tells its time a token.
        time_words: What that time is, for the note under a table.
        step_words: What takes that time, for a sentence.
    """

    where: str
    words: str
    chunked: bool = False
    context: bool = False
    engines: bool = False
    alone: str = ""
    options: tuple[str, ...] = ()
    time: Literal["ms_per_token", "ms_per_token_p50"] = "ms_per_token_p50"
    time_words: str
    step_words: str

    @property
    def scores_all(self) -> bool:
        """Whether every token but a document's first is scored."""
        return not self.context


METHODS: dict[str, MethodSpec] = {  # in the order of tables and figures
    "streaming": MethodSpec(
        where="core.methods.streaming:Streaming",
        words="attention sinks and a window, exact: this project's own",
        memory="allocated",
        budget="sinks and window",
        evict_every=1,
        static=True,
        look=Look("#0072B2", "circle", "solid", ""),
    ),
    "window": MethodSpec(
        where="core.methods.streaming:Window",
        words="a window alone, as large as sinks and window together",
        memory="allocated",
        budget="window",
        evict_every=1,
        static=True,
        look=Look("#D55E00", "square", "dash", "/"),
    ),
    "line-breaks": MethodSpec(
        where="core.methods.line_breaks:LineBreaks",
        words="streaming whose sinks are line breaks in place of the text's first tokens",
        memory="allocated",
        budget="sinks and window",
        evict_every=1,
        static=True,
        exact=False,
        look=Look("#17A2B8", "circle-cross-open", "2px,3px", "."),
    ),
    "context-shift": MethodSpec(
        where="core.methods.context_shift:ContextShift",
        words="llama.cpp's: when full, drop the older half of what is no sink",
        memory="allocated",
        budget="sinks and window",
        static=True,
        reference="core.proof.reference:context_shift",
        parameters="core.methods.context_shift:Parameters",
        look=Look("#8C564B", "triangle-left", "10px,2px,2px,2px,2px,2px", "/"),
    ),
    "streaming-int": MethodSpec(
        where="core.methods.streaming_int:StreamingInt",
        words="streaming whose window is held in 8, 4 or 2 bits a number, as in KIVI",
        memory="allocated",
        budget="sinks and window",
        reference="core.proof.quantised:streaming_int",
        chooses=True,
        parameters="core.methods.streaming_int:Parameters",
        look=Look("#332288", "hexagram", "5px,2px,1px,2px", "x"),
    ),
    "tova": MethodSpec(
        where="core.methods.tova:Tova",
        words="drops what the last query attended to least, layer by layer",
        memory="fills",
        budget="window",
        reference="core.proof.evictions:tova",
        chooses=True,
        parameters="core.methods.scored:Parameters",
        look=Look("#2F4B7C", "triangle-right", "14px,4px,2px,4px", "x"),
    ),
    "h2o": MethodSpec(
        where="core.methods.h2o:H2O",
        words="keeps what all queries attended to most, and recent tokens, head by head",
        memory="fills",
        budget="window",
        reference="core.proof.evictions:h2o",
        chooses=True,
        parameters="core.methods.h2o:Parameters",
        look=Look("#B8860B", "octagon", "4px,4px,10px,4px", "-"),
    ),
    "keydiff": MethodSpec(
        where="core.methods.keydiff:KeyDiff",
        words="drops the key most like the others, head by head",
        memory="fills",
        budget="window",
        reference="core.proof.evictions:keydiff",
        chooses=True,
        parameters="core.methods.scored:Parameters",
        look=Look("#7B4FA3", "hexagon2", "1px,3px", "|"),
    ),
    "knorm": MethodSpec(
        where="core.methods.knorm:KNorm",
        words="drops the longest key, head by head",
        memory="fills",
        budget="window",
        reference="core.proof.evictions:knorm",
        chooses=True,
        parameters="core.methods.scored:Parameters",
        look=Look("#3B7A57", "diamond-wide", "16px,3px", "+"),
    ),
    "mit": MethodSpec(
        where="core.methods.mit:Mit",
        words="the authors' own cache, by its rule",
        memory="fills",
        budget="sinks and window",
        evict_every=1,
        makes_room=True,
        exact_chunks=False,
        peer=True,
        look=Look("#009E73", "diamond", "dashdot", "\\"),
    ),
    "kvpress": MethodSpec(
        where="core.methods.kvpress:Kvpress",
        words="NVIDIA's package, made exact from its parts",
        memory="fills",
        budget="sinks and window",
        exact_chunks=False,
        peer=True,
        needs="kvpress",
        look=Look("#CC79A7", "triangle-up", "longdash", "x"),
    ),
    "kvpress-interval": MethodSpec(
        where="core.methods.kvpress:Interval",
        words="the same, evicting every 64 steps",
        memory="saw-tooth",
        budget="sinks and window",
        evict_every=64,
        exact_chunks=False,
        peer=True,
        needs="kvpress",
        look=Look("#E69F00", "triangle-down", "longdashdot", "-"),
    ),
    "kvpress-stock": MethodSpec(
        where="core.methods.kvpress:Stock",
        words="the same package as shipped, which loses the sinks",
        memory="fills",
        budget="sinks and window",
        exact=False,
        exact_chunks=False,
        peer=True,
        needs="kvpress",
        look=Look("#56B4E9", "x", "8px,3px,2px,3px,2px,3px", "|"),
    ),
    "kvpress-prefill": MethodSpec(
        where="core.methods.kvpress:Prefill",
        words="the same, compressing the prompt once: not streaming",
        memory="grows",
        budget="sinks and window",
        exact=False,
        exact_chunks=False,
        peer=True,
        needs="kvpress",
        look=Look("#F0E442", "star", "3px,6px", "+"),
    ),
    "recompute": MethodSpec(
        where="core.methods.recompute:Recompute",
        words="every token re-encodes the last S + W + 1: the paper's baseline",
        memory="none",
        budget="total",
        moves=False,
        reference="core.proof.reference:recompute",
        look=Look("#000000", "cross", "dot", "."),
    ),
    "dense": MethodSpec(
        where="core.methods.dense:Dense",
        words="the full cache: nothing is dropped",
        memory="grows",
        budget="none",
        moves=False,
        reference="core.proof.reference:dense",
        look=Look("#999999", "hexagon", "12px,4px", ""),
    ),
}
METHODS |= {name: each.but(name=name) for name, each in METHODS.items()}
STREAMING, WINDOW, BASELINE, DENSE = "streaming", "window", "recompute", "dense"
LINE_BREAKS = "line-breaks"
# Methods ``family:NAME``, by family: the module with names(), check(name) and spec(name) of them.
FAMILIES = {"kvpress": "core.methods.press_names"}
FAMILY_WORDS = "kvpress:PRESS"  # in help and errors
COMPARED = (STREAMING, "mit", "kvpress", BASELINE)  # where nobody names methods

MODES: dict[str, ModeSpec] = {
    "decode-loop": ModeSpec(
        where="core.modes.decode_loop:evaluate",
        words="one token a forward, as a model generates",
        engines=True,
        options=("timed_tokens",),
        time_words="ms/token is the median decode step with a full cache",
        step_words="a decode step",
    ),
    "chunked": ModeSpec(
        where="core.modes.chunked:evaluate",
        words="many tokens a forward: exact scores at the speed of a prefill",
        chunked=True,
        time="ms_per_token",
        time_words="ms/token is elapsed time over tokens: a throughput, not a latency",
        step_words="scoring a token in chunks",
    ),
    "kvpress-official": ModeSpec(
        where="core.modes.kvpress_official:evaluate",
        words="what kvpress times: a context at once, then token by token",
        context=True,
        alone="kvpress's pipeline takes one context at a time",
        options=("context_tokens",),
        time_words=(
            "ms/token is the median decode step after the context; no streaming measure: a context "
            "is read at once, and only the tokens after it are scored"
        ),
        step_words="a step after the context",
    ),
}
DECODE, CHUNKED = "decode-loop", "chunked"

DATASETS = {
    "wikitext": "core.datasets.wikitext:read",
    "wikitext-articles": "core.datasets.wikitext:articles",
    "pg19": "core.datasets.pg19:read",
    "bundled-encyclopedia": "core.datasets.bundled:read",
    "bundled-narrative": "core.datasets.bundled:read",
    "recall": "core.datasets.recall:read",
    "passkey": "core.datasets.passkey:read",
    "choice": "core.datasets.choice:read",
    "choice-alone": "core.datasets.choice:alone",
}


@cache
def plugins() -> Mapping[str, EntryPoint]:
    """Methods of other packages by name, in the order of their names; none is imported.

    A name that is streamcli's own stays streamcli's.
    """
    found = sorted(entry_points(group=GROUP), key=lambda each: each.name)
    return {each.name: each for each in found if each.name not in METHODS}


def methods() -> tuple[str, ...]:
    """The name of every method but a family's in the order of tables, other packages' last."""
    return (*METHODS, *plugins())


def _family(name: str) -> Any:
    """The module of the family that has the method ``name``; None where none has."""
    family, colon, _ = name.partition(":")
    return import_module(FAMILIES[family]) if colon and family in FAMILIES else None


def method(name: str) -> MethodSpec:
    """What the method ``name`` is; one of another package is imported.

    Raises:
        UsageError: No such method, or its package can't be imported or says not what it is.
    """
    check("method", name)
    if name not in METHODS:
        return _other(name)
    found = METHODS[name]
    return found if found.name == name else found.but(name=name)


def recorded(name: str) -> MethodSpec:
    """What a method in a record is; where its package is gone, what most methods are."""
    try:
        return _other(name) if _family(name) else method(name)
    except UsageError:
        return MethodSpec(
            name=name, where="", words="", memory="fills", budget="sinks and window", exact=False
        )


def place(name: str) -> int:
    """Where a method stands among the others, the end for one that is not known."""
    names = methods()
    return names.index(name) if name in names else len(names)


def look(name: str) -> Look:
    """How figures draw a method."""
    return recorded(name).look


def _other(name: str) -> MethodSpec:
    """What a method of a family or of another package is."""
    family = _family(name)
    spec: MethodSpec = family.spec(name) if family else _plugin(name)
    return spec


@cache
def _plugin(name: str) -> MethodSpec:
    entry = plugins()[name]
    package = f"{entry.dist.name}=={entry.dist.version}" if entry.dist else entry.value
    try:
        found = entry.load()
    except Exception as error:  # whatever another package's code raises at import
        raise UsageError(
            f"method {name!r} of {package} can't be imported ({type(error).__name__}: {error}): "
            "mend or uninstall that package."
        ) from error
    spec = getattr(found, "spec", None)
    if not isinstance(spec, MethodSpec):
        raise UsageError(
            f"method {name!r} of {package} has no spec: {entry.value} must derive from one of "
            "core.methods, or have a MethodSpec as its attribute spec."
        )
    names = list(plugins())
    own = spec.look if all(spec.look != each.look for each in METHODS.values()) else None
    spare = SPARE[names.index(name)] if names.index(name) < len(SPARE) else GREY
    return spec.but(name=name, where=entry.value, package=package, look=own or spare)


def mode(name: str) -> ModeSpec:
    """What the mode ``name`` is.

    Raises:
        UsageError: No such mode.
    """
    if name not in MODES:
        raise unknown("mode", name, MODES)
    return MODES[name]


def names(kind: str) -> tuple[str, ...]:
    """Every name of a ``method``, ``mode`` or ``dataset``, in order."""
    if kind == "method":
        return methods()
    return tuple(MODES) if kind == "mode" else tuple(DATASETS)


def check(kind: str, name: str) -> None:
    """Raise ``UsageError`` with the nearest name unless ``name`` is a ``kind``."""
    family = _family(name) if kind == "method" else None
    if family:
        family.check(name)
    elif name not in names(kind):
        hint = f"or {FAMILY_WORDS}" if kind == "method" else ""
        raise unknown(kind, name, names(kind), hint)


def known(kind: str, name: str) -> bool:
    """Whether ``name`` is a ``kind``."""
    try:
        check(kind, name)
    except UsageError:
        return False
    return True


def load(kind: str, name: str) -> Any:
    """Import and return the class or function that ``name`` stands for.

    Raises:
        UsageError: No such name.
    """
    check(kind, name)
    if kind == "dataset":
        return imported(DATASETS[name])
    return imported((method(name) if kind == "method" else mode(name)).where)


def imported(where: str) -> Any:
    """What ``module:attribute`` names."""
    module, _, attribute = where.partition(":")
    return getattr(import_module(module), attribute)
