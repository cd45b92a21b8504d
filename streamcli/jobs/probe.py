"""From what was asked to a model's attention, looked at and recorded."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from core import registry
from core.config import RunConfig
from streamcli.jobs.database import opened

if TYPE_CHECKING:
    from core.runner import Prepared
    from core.sinks import Probe
    from streamcli.jobs.ledger import Ledger

MAX_TOKENS, WINDOW = 2048, 252


@dataclass(frozen=True)
class Probed:
    """What was found of which model.

    Attributes:
        found: What was found.
        what: The model and the text, in words.
        row: The row of the database, with numbers and lists in place of what is packed there.
    """

    found: Probe
    what: str
    row: dict[str, Any]


def run(asked: dict[str, Any], threshold: float, db: str | None) -> tuple[Probed, Ledger]:
    """Probe the model that a command's options name, and record what was found.

    The ledger says in the end what is not recorded.

    Raises:
        StreamError: The model or text can't be had, or is none that can be probed.
    """
    from core import runner
    from core.probe import probe
    from streamcli import settings
    from streamcli.jobs.ledger import Ledger
    from streamcli.render import output
    from streamcli.results import alone, schema

    read = settings.read(asked)
    config = read.config(
        method=registry.STREAMING, mode=registry.CHUNKED, batch_size=1, evict_every=None
    )
    loaded = runner.load_model(config, explicit=read.model_is_explicit)
    prepared = runner.prepare(config, loaded, runner.read_text(config, loaded))
    for note in prepared.notes:
        output.say(note)
    store = opened(db, new=True)
    with runner.memory_in_words(prepared.config, "--max-tokens or --window"):
        found = probe(loaded, prepared.tokens, prepared.config, threshold, output.doing)
    output.doing("")
    rows = alone.named(schema.Probe, [_row(found, prepared)])
    ledger = Ledger(store, settings.place(db), output.say)
    if ledger.alone("probe", rows):
        output.say(f"recorded in the table probes of {store.place}")
    return _probed(found, rows[0]), ledger


def shown(which: str, db: str | None) -> Probed:
    """A probe that was recorded: of a name, of the beginning of one, or the ``latest``.

    Raises:
        UsageError: There is none, or there are several.
    """
    from core.sinks import Probe, Sink
    from streamcli.results import schema

    store = opened(db)
    row = store.row(schema.Probe, which)
    shape = row["n_layers"], row["n_heads"]
    maps = {name: schema.unpack(row[name]).reshape(shape) for name in ("before", "after")}
    perplexities = {int(s): ppl for s, ppl in json.loads(row["perplexities"]).items()}
    sinks = tuple(Sink(**each) for each in json.loads(row["sinks"]))
    known = {each.name for each in fields(Probe)}
    plain = {name: value for name, value in row.items() if name in known}
    found = Probe(**plain | maps | {"perplexities": perplexities, "sinks": sinks})
    return _probed(found, row)


def recorded(db: str | None) -> tuple[list[dict[str, Any]], str]:
    """Every probe that is recorded, newest first, without what is packed; and the database."""
    from streamcli.results import alone, schema

    store = opened(db)
    rows = alone.listed(store, schema.Probe)
    return [{k: v for k, v in row.items() if not isinstance(v, bytes)} for row in rows], store.place


def _probed(found: Probe, row: dict[str, Any]) -> Probed:
    """A probe and its row, with numbers and lists in place of what is packed there."""
    whole = {
        "perplexities": found.perplexities,
        "sinks": [asdict(sink) for sink in found.sinks],
        "before": found.before.tolist(),
        "after": found.after.tolist(),
    }
    return Probed(found, f"{row['model']} on {row['dataset']}", {**row, **whole})


def _row(found: Probe, prepared: Prepared) -> dict[str, Any]:
    """A probe as a row of the database."""
    from streamcli.results import schema

    layers, heads = found.before.shape
    names = schema.Probe.model_fields
    known = {**vars(prepared.facts), **vars(prepared.environment), **_of_run(prepared.config)}
    return {name: known[name] for name in names if name in known} | {
        **{name: getattr(found, name) for name in names if hasattr(found, name)},
        "n_layers": layers,
        "n_heads": heads,
        "mass_before": float(found.before.mean()),
        "mass_after": float(found.after.mean()),
        "perplexities": json.dumps(found.perplexities),
        "sinks": json.dumps([asdict(sink) for sink in found.sinks]),
        "before": schema.pack(found.before),
        "after": schema.pack(found.after),
    }


def _of_run(config: RunConfig) -> dict[str, Any]:
    return {**vars(config), "attended_keys": config.attended_keys}
