"""``streamcli compare`` of few runs and of many: what it asks of the database, and reads."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from streamcli.analysis.comparison import Comparison, compared
from streamcli.results.schema import Run
from tests.support.asked import Asked
from tests.support.records import FOUR, recorded
from tests.support.reported import DB
from tests.support.typed import Type


def repeated(path: Path, times: int) -> Path:
    """A database of 48 configurations, each run so many times; the newest of each has a trace."""
    texts = [{"dataset": f"text-{i}", "tokens_sha256": f"{i:064d}"} for i in range(12)]
    recorded(path, *({**run, **text} for text in texts for run in FOUR))
    with closing(sqlite3.connect(path)) as connection, connection:
        names = [name for name in Run.model_fields if name not in ("run_id", "repeat", "sweep")]
        same = ", ".join(names)
        for turn in range(times - 1):
            connection.execute(
                f"INSERT INTO runs (run_id, repeat, sweep, {same}) SELECT "
                f"'00{turn:08d}' || substr(run_id, 11), {turn % 5}, 'sweep-{turn // 5}', {same} "
                "FROM runs WHERE sweep IS NULL"
            )
    return path


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return repeated(tmp_path_factory.mktemp("few") / DB, 2)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return repeated(tmp_path_factory.mktemp("many") / DB, 40)


@pytest.mark.parametrize("words", [[], ["--mode", "decode-loop"], ["--published"]])
@pytest.mark.slow
def test_more_runs_are_no_more_questions_and_each_is_answered_by_an_index(
    few: Path,
    many: Path,
    typed: Type,
    asked: Asked,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
) -> None:
    made: list[int] = []

    def counted(group: Any, baseline: str) -> Comparison:
        made.append(len(group))
        return compared(group, baseline)

    monkeypatch.setattr("streamcli.analysis.selection.compared", counted)
    assert typed("compare", "--db", str(few), *words).code == 0
    statements = list(asked.statements)
    asked.clear()
    made.clear()
    assert typed("compare", "--db", str(many), *words).code == 0
    assert asked.statements == statements and asked.long_ways(many) == []
    assert len(statements) == (3 if "--published" in words else 6)
    assert asked.whole_rows == 48, "a whole row a configuration, and not a run"
    assert len(made) == (0 if "--published" in words else 5), "no more than is shown"
