"""A folder that holds runs for others: what they found, where it comes from, how to make it again.

The folder is written under another name beside it and renamed when it is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from uuid import uuid4

from core.config import RunConfig
from core.errors import UsageError
from streamcli import files
from streamcli.jobs import rerun
from streamcli.render import documents, tables
from streamcli.render.records import number_of
from streamcli.results import frames, portable
from streamcli.results.columns import ASKED, COLUMNS, format_value
from streamcli.results.schema import Run
from streamcli.results.store import Store

RUN_SH = """\
#!/bin/sh
# Makes these runs again with streamcli. Results go to the database that $1 names, or to reruns.db
# beside this script. Relative paths of models and texts are seen from where you call it.
set -eu
db=${{1:-$(dirname "$0")/reruns.db}}

{commands}
streamcli report --db "$db"
"""
README = """\
# {title}

{number} of streamcli: what was measured of a streaming KV cache, and all that it takes to check it.

{table}

| file | what it holds |
|:---|:---|
| `runs.jsonl` | the runs whole, bit for bit; `streamcli db import runs.jsonl` takes them in |
| `runs.csv` | a row a run |
| `documents.csv` | a row a document: scored tokens, sum of nats, words, bytes |
| `traces/RUN.npz` | NumPy: `nll_nats` of every scored token, `latency_ms` of every timed forward |
| `configs.json` | the configuration of each run, nothing left open |
| {requirements} | the package versions that ran |
| `run.sh` | makes the runs again: `sh run.sh`, with streamcli installed |
| `SHA256SUMS` | `sha256sum --check SHA256SUMS` proves that nothing was changed |

A model or text that is a path is not in this folder; its hashes are, `weights_sha256`,
`files_sha256` and `tokens_sha256` in `runs.csv`, and `streamcli rerun` refuses another.

streamcli ran at commit {commits}.
"""
SHOWN = ("run_id", *ASKED, "scored_tokens", "ppl")


def write(store: Store, runs: Sequence[Run], folder: Path) -> None:
    """Write finished runs to a folder that is not there yet, whole or not at all.

    Raises:
        UsageError: The folder exists or can't be made, or a run has an option that is not known.
        StreamError: The disk is full.
    """
    configs = {run.run_id: rerun.pinned(run) for run in runs}
    with _made(folder) as made:
        portable.export(store, made / "runs.jsonl", list(configs))
        portable.export(store, made / "runs.csv", list(configs))
        rows = frames.documents(store, list(configs))
        _text(made / "documents.csv", documents.csv_table(rows, list(rows.columns)))
        _traces(store, list(configs), made / "traces")
        plain = {run_id: asdict(config) for run_id, config in configs.items()}
        _text(made / "configs.json", json.dumps(plain, indent=2) + "\n")
        pinned = _requirements(runs)
        for name, text in pinned.items():
            _text(made / name, text)
        _text(made / "run.sh", RUN_SH.format(commands=_commands(configs)))
        (made / "run.sh").chmod(0o755)
        _text(made / "README.md", _readme(runs, folder.name, list(pinned)))
        _text(made / "SHA256SUMS", _sums(made))


@contextmanager
def _made(folder: Path) -> Iterator[Path]:
    """A folder that becomes ``folder`` when all went well."""
    if os.path.lexists(folder):
        raise UsageError(f"{folder} exists: name a folder that does not.")
    unfinished = folder.absolute().with_name(f".{folder.name}.{uuid4().hex[:8]}")
    try:
        unfinished.mkdir(parents=True)
        try:
            yield unfinished
            unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as problem:
        raise files.unwritable(folder, problem) from problem


def _traces(store: Store, run_ids: list[str], folder: Path) -> None:
    import numpy as np

    folder.mkdir()
    for run_id in run_ids:
        nll, latency_ms = store.trace(run_id)
        np.savez(folder / f"{run_id}.npz", nll_nats=nll, latency_ms=latency_ms)


def _requirements(runs: Sequence[Run]) -> dict[str, str]:
    """A file of pinned versions for each set of them that ran, by its name."""
    sets: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        sets.setdefault((run.versions, run.python), []).append(run.run_id)
    found = {}
    for number, ((versions, python), run_ids) in enumerate(sets.items(), start=1):
        name = "requirements.txt" if len(sets) == 1 else f"requirements-{number}.txt"
        lines = [f"# Python {format_value(COLUMNS['python'], python)} ran {', '.join(run_ids)}"]
        for each in versions.split():
            package, _, version = each.partition("==")
            public, _, local = version.partition("+")  # a local version is in no index
            line = f"{package}=={public}" + (f"  # {version}" if local else "")
            lines.append(f"# {line}: from its own repository" if package == "streamcli" else line)
        found[name] = "\n".join(lines) + "\n"
    return found


def _commands(configs: dict[str, RunConfig]) -> str:
    lines = []
    for run_id, config in configs.items():
        lines.append(f"# {run_id}")
        lines.append(f'streamcli {shlex.join(rerun.words(config))} --db "$db"\n')
    return "\n".join(lines)


def _readme(runs: Sequence[Run], title: str, requirements: list[str]) -> str:
    columns = [COLUMNS[name] for name in SHOWN]
    rows = [tables.cells(run.model_dump(), columns) for run in runs]
    table = tables.pipes(columns, rows)
    commits = {
        f"{run.git_commit or 'unknown'}{' (with changes)' if run.git_dirty else ''}": None
        for run in runs
    }
    return README.format(
        title=title,
        number=number_of(len(runs)),
        table=table,
        requirements=", ".join(f"`{name}`" for name in requirements),
        commits=", ".join(commits),
    )


def _sums(folder: Path) -> str:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    sums = (hashlib.sha256(path.read_bytes()).hexdigest() for path in paths)
    names = (path.relative_to(folder).as_posix() for path in paths)
    return "".join(f"{digest}  {name}\n" for digest, name in zip(sums, names, strict=True))


def _text(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8", newline="\n")
