"""``report --update`` rewrites marked blocks of a Markdown file, and nothing besides."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from core.errors import UsageError
from streamcli.render import blocks
from streamcli.results.store import Store
from tests.support.reported import report
from tests.support.typed import Type

MARKED = (
    "# Title\r\n\r\nprose \u00e9\r\n"
    "<!-- streamcli:begin results columns=method,ppl sort=ppl -->\r\n"
    "old\r\n<!-- streamcli:end results -->\r\nmore\r\n\r\n```\r\n"
    "<!-- streamcli:begin results -->\r\n```\r\n"
    "<!-- streamcli:begin words mode=decode-loop -->\r\n<!-- streamcli:end words -->\r\nend"
)


def test_an_update_rewrites_the_blocks_and_not_one_byte_besides(
    four: Store, home: Path, typed: Type
) -> None:
    readme = home / "README.md"
    readme.write_bytes(MARKED.encode())
    checked = report(typed, "--update", "README.md", "--check")
    assert checked.code == 1 and "streamcli report --update README.md rewrites it" in checked.err
    assert readme.read_bytes() == MARKED.encode()
    assert report(typed, "--update", "README.md").err == "streamcli: wrote README.md\n"
    first = readme.read_bytes()
    between = re.compile(rb"(streamcli:begin [^>]*-->\r\n).*?(<!-- streamcli:end)", re.DOTALL)
    assert between.sub(rb"\1\2", first) == between.sub(rb"\1\2", MARKED.encode())
    assert b"| dense | 209.79 |\r\n| streaming | 216.21 |\r\n" in first
    assert b"216.21 against 216.98" in first and b"\n" not in first.replace(b"\r\n", b"")
    again = report(typed, "--update", "README.md", "--check")
    assert (again.code, again.err) == (0, "streamcli: README.md is up to date\n")
    assert readme.read_bytes() == first


def test_a_block_holds_methods_against_each_other_in_the_columns_it_asks_for(
    four: Store, home: Path, typed: Type
) -> None:
    words = "compare baseline=dense across-budgets=yes columns=method,ppl,difference_nats"
    path = home / "README.md"
    path.write_text(f"<!-- streamcli:begin {words} -->\n<!-- streamcli:end compare -->\n")
    assert report(typed, "--update", "README.md").code == 0
    text = path.read_text()
    assert "| method | ppl | nats vs dense |" in text and "| dense | 209.79 | - |" in text
    assert "| streaming | 216.21 | 0.0000 |" in text
    assert "minus those of dense" in text and "ms/token" not in text and "Holm" not in text
    path.write_text(text.replace("ppl,difference_nats", "ppl,speed_up,verdict"))
    report(typed, "--update", "README.md")
    text = path.read_text()
    assert "speed-up: time of dense divided by this row's" in text and "minus those of" not in text


BROKEN = {
    "no marker at all": "has no block to rewrite",
    "`<!-- streamcli:begin results -->` in prose": "has no block to rewrite",
    "<!-- streamcli:begin results -->\nold": "line 1: the block never ends",
    "<!-- streamcli:end results -->": "ends a block 'results', but no block is open",
    "<!-- streamcli:begin results -->\n<!-- streamcli:begin words -->": "is open: end it",
    "<!-- streamcli:begin results -->\n<!-- streamcli:end words -->": "the open block is 'results'",
    "<!-- streamcli:begin result -->\n<!-- streamcli:end result -->": "Did you mean 'results'?",
    "<!-- streamcli:start results -->": "streamcli:start is no marker",
    "<!-- streamcli:begin results mod=x -->\n<!-- streamcli:end results -->": "Did you mean 'mod",
    "<!-- streamcli:begin results sort=pp -->\n<!-- streamcli:end results -->": "column 'pp'",
    "<!-- streamcli:begin results limit=x -->\n<!-- streamcli:end results -->": "limit is 'x'",
    "<!-- streamcli:begin results mode=x -->\n<!-- streamcli:end results -->": "no run in",
    "<!-- streamcli:begin compare mode=x -->\n<!-- streamcli:end compare -->": "no run in",
    "<!-- streamcli:begin compare columns=pp -->\n<!-- streamcli:end compare -->": "'pp'",
    "<!-- streamcli:begin compare baseline=x -->\n<!-- streamcli:end compare -->": "method 'x'",
    "<!-- streamcli:begin compare sort=ppl -->\n<!-- streamcli:end compare -->": "option in",
    "<!-- streamcli:begin compare across-budgets= -->\n<!-- streamcli:end compare -->": "yes or no",
}


@pytest.mark.parametrize("text", BROKEN)
def test_markers_that_do_not_pair_or_ask_for_nothing_change_nothing(
    four: Store, home: Path, typed: Type, text: str
) -> None:
    (home / "README.md").write_text(text)
    assert report(typed, "--update", "README.md").refuses(2, BROKEN[text])
    assert (home / "README.md").read_text() == text


def test_a_marker_in_fenced_code_is_an_example() -> None:
    text = "~~~~\n<!-- streamcli:begin results -->\n~~~\n~~~~\n"
    with pytest.raises(UsageError, match="no block to rewrite"):
        blocks.update(text, lambda *_: "x", "README.md")
