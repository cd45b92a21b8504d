"""One table over several: each method's perplexity and its change, mode by mode, text by text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from core import registry
from core.config import OWN
from streamcli.analysis.comparison import Comparison, Row, has_budget, in_order
from streamcli.render import notes, tables
from streamcli.render.tables import Sheet
from streamcli.results.columns import (
    ALL,
    COLUMNS,
    HASHES,
    SHARED,
    Column,
    format_value,
    missing,
)

if TYPE_CHECKING:
    import pandas as pd

    from streamcli.render.documents import Section

# What sets tables of one mode and text apart; a hash only where no name does.
APART = (*(name for name in HASHES if name in SHARED), "context_tokens")
SETTING = tuple(name for name in SHARED if name not in (*APART, "dataset", "mode"))
OTHER = f"{notes.MARK} sees more or fewer keys, as its table says: not to be held against the rest."
TITLE = "Overview: perplexity, and its change against re-computation with as many keys"


def section(found: Sequence[Comparison]) -> Section | None:
    """The overview of several tables, with its perplexities as rows; None of one table."""
    from streamcli.render.documents import Section

    if len(found) < 2:
        return None
    found = in_order(found)
    texts, settings = _texts(found), _settings(found)
    several = any(each.runs["method"].duplicated().any() for each in found)
    cells: dict[tuple[str, str], dict[str, Row]] = {}
    for each, text, setting in zip(found, texts, settings, strict=True):
        for row in each.rows:
            cells.setdefault((setting, _name(row, several)), {}).setdefault(text, row)
    lines = list(cells.items())
    order = list(dict.fromkeys(settings))
    lines.sort(key=lambda line: (order.index(line[0][0]), _place(line[1])))
    columns = [
        Column("setting", "mode", "text", "How tokens were fed"),
        Column("method", "method", "text", "Cache method"),
        *(Column(text, text, "perplexity", TITLE) for text in dict.fromkeys(texts)),
    ]
    words = [[*key, *(_cell(by.get(c.name)) for c in columns[2:])] for key, by in lines]
    marked = any(notes.marked(row) for _, by in lines for row in by.values())
    return Section(Sheet(TITLE, columns, words, [OTHER] if marked else []), _rows(columns, lines))


def _rows(
    columns: Sequence[Column], lines: Sequence[tuple[tuple[str, str], dict[str, Row]]]
) -> pd.DataFrame:
    """What the cells are sorted by."""
    import pandas as pd

    held: list[dict[str, Any]] = [
        {"setting": setting, "method": name} | {text: row["ppl"] for text, row in by.items()}
        for (setting, name), by in lines
    ]
    return pd.DataFrame(held).reindex(columns=[column.name for column in columns])


def _cell(row: Row | None) -> str:
    """Perplexity, its change and the interval of that; a baseline and dense have no change."""
    if row is None:
        return "-"
    ppl = format_value(COLUMNS["ppl"], row["ppl"]) + (notes.MARK if notes.marked(row) else "")
    if missing(row[notes.CHANGE]) or row["baseline_run_id"] == row["run_id"]:
        return ppl
    return f"{ppl} {tables.values(row, [ALL[notes.CHANGE]])[notes.CHANGE]}"


def _name(row: Row, several: bool) -> str:
    """A method, with what tells its rows apart where a table has several."""
    return notes.row_name(row) if several and has_budget(row) else str(row["method"])


def _place(by_text: dict[str, Row]) -> tuple[bool, int, int, int]:
    """Rows in the order that they have in their tables."""
    row = next(iter(by_text.values()))
    order = registry.place(str(row["method"]))
    return not has_budget(row), int(row["attended_keys"]), order, int(row["n_sink"])


def _texts(found: Sequence[Comparison]) -> list[str]:
    """The text of each table, with its length, or its hash, where a name stands for several."""
    words = [tables.asked(each.same, "dataset") for each in found]
    lengths = [f"{int(each.same['scored_tokens']):,} tokens" for each in found]
    hashes = [str(each.same["tokens_sha256"]) for each in found]
    if _ambiguous(words, hashes):
        words = [f"{word}, {length}" for word, length in zip(words, lengths, strict=True)]
    if _ambiguous(words, hashes):
        words = [f"{word}, {sha[:6]}" for word, sha in zip(words, hashes, strict=True)]
    return words


def _settings(found: Sequence[Comparison]) -> list[str]:
    """The mode of each table, and what else sets tables of one mode and text apart."""
    differ = [name for name in SETTING if len({str(each.same[name]) for each in found}) > 1]
    words = [", ".join([each.same["mode"], *(_word(each, n) for n in differ)]) for each in found]
    more = [name for name in APART if name != "tokens_sha256"]
    more = [name for name in more if _ambiguous(words, [str(e.same[name]) for e in found])]
    return [
        ", ".join([word, *(f"{COLUMNS[n].title} {str(each.same[n])[:8]}" for n in more)])
        for word, each in zip(words, found, strict=True)
    ]


def _word(each: Comparison, name: str) -> str:
    value = each.same[name]
    if name == "model":
        return tables.asked(each.same, name)
    if name == "softmax_type":
        return f"{COLUMNS[name].title} {OWN if missing(value) else value}"
    return f"{COLUMNS[name].title} {value}" if name in ("batch_size", "threads") else str(value)


def _ambiguous(words: Sequence[str], values: Sequence[str]) -> bool:
    """Whether one of the words stands for two values."""
    return len(set(zip(words, values, strict=True))) > len(set(words))
