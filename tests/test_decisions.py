"""What was measured stands in docs/decisions/, and the code points to pages that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "decisions"
PAGES = {path.name for path in FOLDER.glob("0*.md")}
HEADINGS = ["## Question", "## Tried", "## Decided"]


def test_the_index_has_every_page_once() -> None:
    index = (FOLDER / "README.md").read_text()
    assert re.findall(r"^- \[\d{4}\]\((\S+)\)", index, re.MULTILINE) == sorted(PAGES)


def test_every_page_asks_tells_what_was_tried_and_decides() -> None:
    for name in PAGES:
        text = (FOLDER / name).read_text()
        assert text.startswith(f"# {name[:4]}: ")
        assert re.findall(r"^## .*", text, re.MULTILINE) == HEADINGS, name


def test_the_code_points_to_pages_that_exist_and_to_each() -> None:
    code = [*ROOT.glob("core/**/*.py"), *ROOT.glob("streamcli/**/*.py")]
    named = set(re.findall(r"docs/decisions/([\w.-]*\w)", " ".join(p.read_text() for p in code)))
    assert named <= PAGES, "code points to a page that is not there"
    links = [(page, each) for page in FOLDER.glob("*.md") for each in _links(page)]
    assert all((page.parent / each).is_file() for page, each in links)


def _links(page: Path) -> list[str]:
    return re.findall(r"\]\(([\w.-]+\.md)\)", page.read_text())
