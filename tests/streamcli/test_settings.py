"""Where a value comes from, and what is said of one that makes no sense."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.config import RunConfig, options
from core.errors import UsageError
from streamcli import settings
from streamcli.results.store import Store
from streamcli.settings import PREFIX
from tests.support.typed import Type

pytestmark = pytest.mark.usefixtures("home")

ROOT = Path(__file__).parents[2]


def test_the_example_file_names_every_setting_with_its_default_and_meaning() -> None:
    kept = (ROOT / ".env.example").read_text()
    assert kept == settings.example(), ".env.example is out of date: make docs"
    for each in options():
        assert (f"\n{PREFIX}{each.name.upper()}=" in kept) == (each.name != "param")


def test_the_example_file_is_a_valid_dotenv(home: Path) -> None:
    (home / ".env").write_text((ROOT / ".env.example").read_text())
    assert settings.read({}).config() == RunConfig()


def test_a_flag_beats_a_variable_beats_the_file_beats_the_default(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings.read({}).window is None
    (home / ".env").write_text("STREAMCLI_WINDOW=10\nOTHER=1\n")
    assert settings.read({}).window == 10
    monkeypatch.setenv("STREAMCLI_WINDOW", "20")
    assert settings.read({}).window == 20
    assert settings.read({"window": 30}).window == 30
    assert settings.read({"window": None}).window == 20


def test_a_file_with_the_mark_that_windows_writes_first_is_read_from_its_first_line(
    home: Path,
) -> None:
    (home / ".env").write_text("\ufeffSTREAMCLI_WINDOW=10\r\n", encoding="utf-8")
    assert settings.read({}).window == 10


def test_a_model_is_explicit_only_where_somebody_named_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not settings.read({}).model_is_explicit
    assert settings.read({"model": "bundled"}).model_is_explicit
    (home / ".env").write_text("STREAMCLI_MODEL=bundled\n")
    assert settings.read({}).model_is_explicit


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("STREAMCLI_WINDOW 10", ".env line 1 is not NAME=value"),
        ("A=1\n= 2\n", ".env line 2 is not NAME=value"),
        ("STREAMCLI_WINDWO=10", "unknown setting in .env 'STREAMCLI_WINDWO'"),
        ("STREAMCLI_WINDOW=ten", "STREAMCLI_WINDOW is 'ten': input should be a valid integer"),
        ("STREAMCLI_TRUST=perhaps", "STREAMCLI_TRUST is 'perhaps'"),
        ("STREAMCLI_REPEATS=0", "STREAMCLI_REPEATS is '0'"),
    ],
)
def test_a_malformed_dotenv_is_refused_in_one_line(home: Path, text: str, message: str) -> None:
    (home / ".env").write_text(text)
    with pytest.raises(UsageError) as caught:
        settings.read({})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_binary_dotenv_is_refused_in_one_line(home: Path) -> None:
    (home / ".env").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="UTF-8"):
        settings.read({})


@pytest.mark.parametrize("where", ["the environment", ".env"])
def test_a_malformed_value_stops_only_what_uses_it(
    typed: Type, store: Store, home: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    if where == ".env":
        (home / ".env").write_text("STREAMCLI_WINDOW=abc\n")
    else:
        monkeypatch.setenv("STREAMCLI_WINDOW", "abc")
    for words in (
        *("report", "compare", "plot", "runs list", "runs show latest", "runs tag latest --add x"),
        *("db path", "db stats", "db check", "db export runs.jsonl", "db import runs.jsonl"),
        *("bundle latest --out folder", "db merge data/streamcli.db --db copy.db"),
    ):
        assert typed(*words.split()).code == 0, words
    for words in ("run --model bundled", "sweep --models bundled", "sweep --dry-run"):
        assert typed(*words.split()).refuses(2, "streamcli: STREAMCLI_WINDOW is 'abc': ")


def test_the_place_is_read_as_with_every_other_setting(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings.place(None) == settings.read({}).database_url == "data/streamcli.db"
    (home / ".env").write_text("STREAMCLI_DATABASE_URL=a.db\nSTREAMCLI_WINDOW=abc\n")
    assert settings.place(None) == "a.db"
    monkeypatch.setenv("STREAMCLI_DATABASE_URL", "b.db")
    assert settings.place(None) == "b.db" and settings.place("c.db") == "c.db"
    monkeypatch.setenv("STREAMCLI_WINDWO", "1")
    with pytest.raises(UsageError, match="unknown setting"):
        settings.place("c.db")


def test_an_unknown_variable_is_refused_with_the_nearest_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STREAMCLI_METHDO", "dense")
    with pytest.raises(UsageError, match="Did you mean 'STREAMCLI_METHOD'"):
        settings.read({})
