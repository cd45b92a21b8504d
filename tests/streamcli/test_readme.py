"""README quotes no figure that the committed runs, docs/results/results.jsonl, do not hold.

The rules, for the section ``## What it shows``:

- Code, comments, link targets and what stands between ``streamcli:begin`` and ``streamcli:end`` are
  not read: code is typed, blocks are written by ``streamcli report --update``.
- What another program measured stands between ``<!-- elsewhere: which -->`` and
  ``<!-- /elsewhere -->``, each on a line, and is not read either.
- Every other number must be one that a row's column shows, as the tables write it, or with fewer
  decimals (at least one); signs and thousands separators don't matter. With a unit, as in ``33.9
  ms``, ``2.94 MiB``, ``1.90 %``, ``2.92x`` or ``800 tokens``, it must be of a column of that unit.
- A number in a name is none: one that touches a letter, if only over a hyphen or slash, or has two
  points (SmolLM2-135M, 4-bit, float32, 2.13.0). A day such as 24 November 2026 must be one on which
  a run began.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from streamcli.results.columns import ALL, Column, format_value
from tests.support.records import BASE
from tests.support.typed import Type

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results" / "results.jsonl"
PAGES = ("README.md", "docs/results/README.md")
SECTION = "## What it shows"
UNREAD = (
    r"^(```|~~~).*?^\1",
    r"^[ \t]*<!-- streamcli:begin .*?<!-- streamcli:end.*?-->",
    r"^[ \t]*<!-- elsewhere: (?!-->).*?<!-- /elsewhere -->",
    r"<!--.*?-->",
    r"`[^`]*`",
    r"\]\([^)]*\)",
    r"https?://\S+",
)
DAY = re.compile(r"\b(\d{1,2}) (\w+) (\d{4})\b")
MONTHS = "January February March April May June July August September October November December"
NUMBER = re.compile(
    r"(?<![\w.])(?<![A-Za-z][-/])[+\u2212-]?"
    r"((?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[+-]?\d+)?)(?!\.\d)"
    r"(?:[ \u00a0]?(%|x\b|\u00d7|times\b|ms\b|MiB\b|s\b|nats\b|tokens?\b)|(?!\w|,\d|[-/][A-Za-z]))"
)
UNITS = {"\u00d7": "x", "times": "x", "token": "tokens"}


def strays(text: str, rows: Iterable[dict[str, Any]]) -> list[str]:
    """The numbers of the section that no row holds, in order."""
    prose = section(text)
    for pattern in UNREAD:
        prose = re.sub(pattern, " ", prose, flags=re.DOTALL | re.MULTILINE)
    rows = list(rows)
    days = {str(row.get("created_at"))[:10] for row in rows}
    found = [day[0] for day in DAY.finditer(prose) if _day(day) not in days | {""}]
    prose = DAY.sub(lambda day: " " if _day(day) else day[0], prose)
    shown = list(_shown(rows))
    for each in NUMBER.finditer(prose):
        digits, unit = each[1].replace(",", ""), UNITS.get(each[2], each[2])
        if not any(_holds(column, value, digits, unit) for column, value in shown):
            found.append(each[0].strip())
    return found


def section(text: str) -> str:
    """What stands between the section's heading and the next one of its level."""
    begin = re.search(rf"^{re.escape(SECTION)}\s*$", text, re.MULTILINE)
    assert begin, f"README has no section {SECTION!r}"
    return re.split(r"^## ", text[begin.end() :], maxsplit=1, flags=re.MULTILINE)[0]


def _day(found: re.Match[str]) -> str:
    months = MONTHS.split()
    if found[2] not in months:
        return ""
    return f"{found[3]}-{months.index(found[2]) + 1:02d}-{int(found[1]):02d}"


def _shown(rows: list[dict[str, Any]]) -> Iterable[tuple[Column, float]]:
    for row in rows:
        for name, value in row.items():
            if name in ALL and isinstance(value, int | float) and not isinstance(value, bool):
                yield ALL[name], value


def _holds(column: Column, value: float, digits: str, unit: str | None) -> bool:
    if unit and unit != {"percent": "%", "ratio": "x"}.get(column.form, column.unit):
        return False
    if format_value(column, value).strip("+-x%").replace(",", "") == digits:
        return True
    decimals = len(digits.partition(".")[2])
    scaled = abs(value) * (100 if column.form == "percent" else 1)
    return decimals > 0 and f"{scaled:.{decimals}f}" == digits


ROWS = [
    {**BASE, "created_at": "2026-11-24T08:00:00.000000Z", "ppl_change": -0.0189, "speed_up": 2.924},
    {**BASE, "created_at": "2026-11-25T08:00:00.000000Z", "ppl": 12345.678, "max_tokens": 50000},
]

HELD = (
    "perplexity 216.21, or 216.2",
    "a step takes 4.31 ms, so 4.3 ms; 429 MiB at the peak; 50,000 tokens",
    "1.89 % lower, -1.89%, \u22121.9 %; 2.92x as fast, 2.9 times",
    "S = 4 and W = 60: 65 keys, 599 tokens scored, 2 threads",
    "SmolLM2-135M, a 4-bit GGUF in float32, PyTorch 2.13.0, PG-19, AVX-512 and x86_64",
    "on 24 November 2026",
    "`--window 999` and [a link](https://x.y/777)",
    "```\n999\n```",
    "<!-- streamcli:begin results -->\n| 999 |\n<!-- streamcli:end results -->",
    "<!-- elsewhere: make peers -->\n| 777 |\n<!-- /elsewhere -->",
    "1.23e+04 is how a table writes it",
)
STRAY = {
    "perplexity 216.22": "216.22",
    "a step takes 216.21 ms": "216.21 ms",
    "about 216 of perplexity": "216",
    "4.31 MiB": "4.31 MiB",
    "1.99 % lower": "1.99 %",
    "2.92 %": "2.92 %",
    "2.5x as fast": "2.5x",
    "49,999 tokens": "49,999 tokens",
    "216.21/216.99": "216.99",
    "2.9-3.1x as fast": "3.1x",
    "1.3e-5 nats": "1.3e-5 nats",
    "on 23 November 2026": "23 November 2026",
    "| a | 777 |": "777",
    "<!-- elsewhere: -->\n777\n<!-- /elsewhere -->": "777",
    "<!-- elsewhere: make peers -->\n777\n": "777",
}


def readme(prose: str) -> str:
    return f"# Title\n\n1 2 3\n\n{SECTION}\n\n{prose}\n\n### More\n\nwords\n\n## Next\n\n999 ms\n"


@pytest.mark.parametrize("prose", HELD)
def test_what_a_row_holds_may_be_quoted(prose: str) -> None:
    assert strays(readme(prose), ROWS) == []


@pytest.mark.parametrize("prose", STRAY)
def test_what_no_row_holds_is_found(prose: str) -> None:
    assert strays(readme(prose), ROWS) == [STRAY[prose]]


@pytest.fixture
def results(home: Path, typed: Type) -> list[dict[str, Any]]:
    """The committed runs, imported as anybody would, as a report has them."""
    assert typed("db", "import", str(RESULTS), "--db", "results.db").code == 0
    done = typed("report", "--db", "results.db", "--format", "json", "--limit", "0")
    found: list[dict[str, Any]] = json.loads(done.out)
    return found


@pytest.mark.slow
def test_readme_quotes_only_figures_of_the_committed_runs(results: list[dict[str, Any]]) -> None:
    stray = strays((ROOT / "README.md").read_text(), results)
    assert not stray, f"README quotes what {RESULTS.name} does not hold: {', '.join(stray)}"


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_the_blocks_that_the_committed_runs_give(
    results: list[dict[str, Any]], home: Path, typed: Type, page: str
) -> None:
    text = (ROOT / page).read_bytes()
    assert b"streamcli:begin" in text
    (home / "page.md").write_bytes(text)
    done = typed("report", "--update", "page.md", "--check", "--db", "results.db")
    assert done.code == 0, done.err
