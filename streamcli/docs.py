"""The reference, made from the code: ``python -m streamcli.docs`` writes docs/*.md.

``reference.md`` is what ``--help`` says of every command; ``schema.md`` is the database's layout.
A test fails where either is out of date.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"
MADE = "<!-- Made by `make docs` from the code: edit that, not this. -->"
DEFAULT = re.compile(r"\s*\[dim\]\\\[default: (.*)\]\[/dim\]$", re.DOTALL)
QUERY = """\
SELECT dataset, method, n_sink, "window", ppl, ms_per_token_p50
FROM results
WHERE mode = 'decode-loop' AND attended_keys = 65
ORDER BY dataset, ppl"""
UNPACK = """\
import sqlite3, zlib
import numpy as np

connection = sqlite3.connect("data/streamcli.db")
rows = connection.execute("SELECT run_id, nll FROM traces")
nats = {run_id: np.frombuffer(zlib.decompress(nll), "<f4") for run_id, nll in rows}"""
SCHEMA = """\
{made}

# The database

Five tables and a view, the same in SQLite and PostgreSQL. Query them as you like; let streamcli
write them. A run is a row of `runs` from its beginning, and the figures stay NULL until it is done.
Times are text in UTC, `2026-01-31T12:00:00.000000Z`, which sorts as time does. Infinity is stored
as such, and what is no number as NULL. PostgreSQL calls a BLOB BYTEA. Migrations add columns;
none is renamed or removed.

An SQLite file, and every file that streamcli writes, gets the permissions that the umask leaves:
`umask 077` keeps them to their owner.

A run that is done can't always be recorded: a server stops, a disk is full, a file is moved away.
It is tried again for three minutes. Then the result goes to `streamcli-unrecorded-<run_id>.jsonl`
beside the database, else to the working folder, else to a new folder for temporary files, and
`streamcli db import` makes of its row, which stayed `running`, one that is done.

A row that says `running` becomes `interrupted` when the next run is recorded, where its `process`
has surely ended: one of this machine since its last start, or of this start, this PID namespace and
with that very start time. Of another machine's or container's nobody can tell, so that it is left
alone: `streamcli runs delete RUN --force` takes it away.

## The view `results`

A row a run that is done, with the columns marked in `runs` below. It is the one to query by hand:

```sql
{query}
```

## `runs`

{runs}

## Columns that tables add

These commands work them out of the runs that they show, and no table of the database has them. JSON
has them by these names, and `report` takes them as `--columns`.

{derived}

## `documents`

Of runs that are done, in the order in which they were read. A document is a stream of its own.

{documents}

## `traces`

Of runs that are done: little-endian float32, compressed by zlib, so that every bit is kept. From
Python, without streamcli:

```python
{unpack}
```

{traces}

## `benchmarks`

What `streamcli bench` timed, an arm a row. Times of random tokens: never in a table of runs.

{benchmarks}

## `probes`

What `streamcli probe` found of a model's attention, a probe a row.

{probes}

## `queue`

Groups of runs that `streamcli sweep --enqueue` left for `streamcli worker`. A worker claims a group
in one transaction and keeps it until its runs have ended. One that died, or whose beat stood still
for 90 s before another worker's eyes, has lost it, and what is left of the group is taken by the
next. A sweep that makes its own runs holds them here meanwhile, so that no worker makes them as
well. It is no result: `db export`, `import` and `merge` leave it alone.

{queue}
"""
HEAD = """\
{made}

# Reference

Everything that `streamcli --help` tells. A value that is not given comes from a `STREAMCLI_*`
variable, else from `.env`, else it is the default; [.env.example](../.env.example) names them all.
Lists take values separated by spaces or commas. Data goes to stdout, words to stderr.

Exit codes: 0 done, 1 failed, 2 asked wrongly, 130 interrupted.

{contents}
"""


def commands() -> Iterator[tuple[str, Any]]:
    """Every command's full name and the command, group by group as ``--help`` has them."""
    import typer.main

    from streamcli import cli

    top: dict[str, Any] = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    panels = list(dict.fromkeys(str(command.rich_help_panel) for command in top.values()))
    for name, command in sorted(
        top.items(), key=lambda item: panels.index(str(item[1].rich_help_panel))
    ):
        yield f"streamcli {name}", command
        for below, each in getattr(command, "commands", {}).items():
            yield f"streamcli {name} {below}", each


def parts(command: Any) -> tuple[str, list[str]]:
    """A command's help without markup, and its examples, a line each."""
    text = str(command.help or "")
    about, mark, rest = text.rpartition("\n\n[dim]")
    if not mark:
        return _plain(text), []
    return _plain(about), [line.strip() for line in rest.removesuffix("[/dim]").splitlines()]


def reference() -> str:
    """The text of docs/reference.md."""
    sections, contents, group = [], [], ""
    for name, command in commands():
        if name.count(" ") == 1:
            panel = str(command.rich_help_panel)
            contents += [f"- {panel}: "] if panel != group else []
            group, link = panel, name.replace(" ", "-")
            comma = "" if contents[-1].endswith(": ") else ", "
            contents[-1] += f"{comma}[{name.split()[1]}](#{link})"
        text, examples = parts(command)
        usage = ["```", *examples, "```", ""] if examples else []
        rows = [row for param in command.params if (row := _param(param))]
        table = _table(("argument or option", "what it is", "default"), rows) if rows else ""
        level = "#" * (name.count(" ") + 1)
        sections.append("\n".join([f"{level} {name}", "", text, "", *usage, table]).rstrip())
    head = HEAD.format(made=MADE, contents="\n".join(contents))
    return head + "\n" + "\n\n".join(sections) + "\n"


def schema() -> str:
    """The text of docs/schema.md."""
    from sqlmodel import SQLModel

    from streamcli.results import columns
    from streamcli.results import schema as tables
    from streamcli.results.columns import COLUMNS, VIEW

    parts = {
        "documents": columns.DOCUMENTS,
        "traces": columns.TRACES,
        "benchmarks": columns.BENCHMARKS,
        "probes": columns.PROBES,
        "queue": columns.QUEUE,
    }
    found = {}
    told = (tables.Run, tables.DocumentRow, tables.Trace, tables.Benchmark)
    for model in (*told, tables.Probe, tables.Group):
        name = str(model.__tablename__)
        rows: list[Any] = []
        for column in SQLModel.metadata.tables[name].columns:
            kind = f"{column.type}{'' if column.nullable else ' NOT NULL'}"
            if name == "runs":
                about = COLUMNS[column.name]
                shown = "yes" if column.name in VIEW else ""
                rows.append((f"`{column.name}`", kind, about.unit, shown, about.help))
            else:
                about = parts[name].get(column.name) or COLUMNS[column.name]
                rows.append((f"`{column.name}`", kind, about.help))
        wide = ("column", "type", "unit", "in `results`", "what it is")
        found[name] = _table(wide if name == "runs" else ("column", "type", "what it is"), rows)
    uses = {"report": columns.Use.ADDED, "compare": columns.Use.PAIR}
    rows = [
        (f"`{name}`", each.unit, ", ".join(of for of in uses if uses[of] in each.use), each.help)
        for name, each in columns.DERIVED_COLUMNS.items()
    ]
    found["derived"] = _table(
        ("column", "unit", "of", "what it is"), [row for row in rows if row[2]]
    )
    return SCHEMA.format(made=MADE, query=QUERY, unpack=UNPACK, **found)


def write(folder: Path = DOCS) -> None:
    """Write the pages, and .env.example beside their folder."""
    from streamcli import settings

    folder.mkdir(exist_ok=True)
    (folder.parent / ".env.example").write_text(settings.example(), encoding="utf-8", newline="\n")
    for name, text in (("reference.md", reference()), ("schema.md", schema())):
        (folder / name).write_text(text, encoding="utf-8", newline="\n")


def _param(param: Any) -> tuple[str, str, str] | None:
    """Name, meaning and default of an argument or option; None for one that is hidden."""
    if param.hidden:
        return None
    text = str(param.help or "")
    given = DEFAULT.search(text)
    default = given[1] if given else ""
    if not given and param.show_default and param.default not in (None, False):
        value = param.default
        default = str(value.value if isinstance(value, Enum) else value)
    several = " ..." if param.nargs == -1 or param.multiple else ""
    if not param.opts[0].startswith("-"):
        name = f"{(param.metavar or param.name).upper()}{several}"
    else:
        value = "" if param.is_flag else f" {str(param.name).upper()}{several}"
        name = f"{', '.join(param.opts)}{value}"
    if param.required:
        default = "required"
    return f"`{name}`", _plain(DEFAULT.sub("", text)), _plain(default)


def _plain(text: str) -> str:
    """Markdown for rich's markup."""
    bold = re.sub(r"\[bold\](.*?)\[/bold\]", r"**\1**", text, flags=re.DOTALL)
    return re.sub(r"(?<!\\)\[/?[a-z ]*\]", "", bold).replace("\\[", "[").strip()


def _table(head: tuple[str, ...], rows: list[Any]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        f"| {' | '.join(' '.join(cell.replace('|', chr(92) + '|').split()) for cell in line)} |"
        for line in lines
    )


if __name__ == "__main__":
    write()
