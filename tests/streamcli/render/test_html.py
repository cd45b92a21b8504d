"""The page of HTML in a real browser: it sorts, filters, hovers, prints, and asks for nothing."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from streamcli.analysis.selection import Query
from streamcli.jobs import report as job
from streamcli.jobs.select import select
from streamcli.results.store import Store
from tests.support.records import FOUR, recorded

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
HANGS_MS = 600_000  # longer than the slowest machine takes
HOSTILE = "</script><script>alert(1)</script><b>&amp;\"'"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        pytest.skip("no Chromium: apt install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(QUIET))
        yield browser
        browser.close()


def written(store: Store, path: Path, query: Query | None = None) -> Path:
    query = query or Query()
    path.write_text(job.text(store, query, select(store, query), "html"), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    chunked = [{**row, "mode": "chunked", "ms_per_token": 0.2} for row in FOUR[:3]]
    hostile = {"dataset": HOSTILE, "tokens_sha256": "d" * 64, "notes": HOSTILE}
    store = recorded(folder / "runs.db", *FOUR, *chunked, {**FOUR[0], **hostile})
    return written(store, folder / "report.html")


class Opened:
    """A page, with all that it said or asked for."""

    def __init__(self, page: Page, path: Path) -> None:
        self.page, self.said, self.asked = page, list[str](), list[str]()
        page.set_default_timeout(HANGS_MS)
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("dialog", lambda dialog: self.said.append(dialog.message))
        page.on("request", lambda request: self.asked.append(request.url[:80]))
        page.goto(path.as_uri())


@pytest.fixture
def opened(browser: Browser, report: Path) -> Iterator[Opened]:
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
    found = Opened(page, report)
    yield found
    assert found.said == []
    assert [url for url in found.asked if not url.startswith(("file:", "data:", "blob:"))] == []
    page.close()


TABLE = "article:has(h3:has-text('on bundled-narrative'):has-text('decode-loop'))"


def column(page: Page, place: int) -> list[str]:
    return page.locator(f"{TABLE} tbody tr > :nth-child({place})").all_inner_texts()


def test_a_click_sorts_by_number_and_another_turns_it_round(opened: Opened) -> None:
    heading = opened.page.locator(f"{TABLE} thead th", has_text="ms/token")
    heading.locator("button").click()
    assert column(opened.page, 7) == ["3.45", "4.31", "8.21", "20.1"]
    assert heading.get_attribute("aria-sort") == "ascending"
    heading.locator("button").click()
    assert column(opened.page, 7) == ["20.1", "8.21", "4.31", "3.45"]
    assert heading.get_attribute("aria-sort") == "descending"


def test_the_keyboard_sorts_and_what_is_missing_stays_last(opened: Opened) -> None:
    heading = opened.page.locator(f"{TABLE} thead th", has_text="window")
    for way, order in (("ascending", ["60", "64"]), ("descending", ["64", "60"])):
        heading.locator("button").press("Enter")
        assert heading.get_attribute("aria-sort") == way
        assert column(opened.page, 3) == [*order, "-", "-"]
    opened.page.locator(f"{TABLE} thead th", has_text="method").locator("button").press("Space")
    assert column(opened.page, 1) == ["dense", "recompute", "streaming", "window"]
    assert heading.get_attribute("aria-sort") == "none"


def test_a_filter_keeps_the_rows_that_contain_every_word(opened: Opened) -> None:
    page = opened.page
    rows = page.locator("article.comparison tbody tr:visible")
    assert rows.count() == 8
    page.get_by_label("Show rows that contain").fill("STREAMING chunked")
    assert rows.count() == 1
    assert page.locator(".filter output").inner_text() == "1 of 8 rows"
    assert page.locator("article.comparison:visible").count() == 1
    page.get_by_label("Show rows that contain").fill("nothing like it")
    assert rows.count() == 0 and page.locator("#none").is_visible()
    page.get_by_label("Show rows that contain").fill("")
    assert rows.count() == 8 and page.locator("#none").is_hidden()


def test_a_figure_tells_its_values_under_the_pointer(opened: Opened) -> None:
    figure = opened.page.locator("#figure-decode-perplexity")
    figure.scroll_into_view_if_needed()
    assert figure.locator(".hoverlayer .hovertext").count() == 0
    marks = figure.locator(".scatterlayer .point").first.bounding_box()
    assert marks
    opened.page.mouse.move(marks["x"] + marks["width"] / 2, marks["y"] + marks["height"] / 2)
    tip = figure.locator(".hoverlayer .hovertext").first
    tip.wait_for()
    assert re.search(r"\d\d\d\.\d", tip.text_content() or "")


def test_a_row_leads_to_where_it_comes_from(opened: Opened) -> None:
    facts = opened.page.locator(f"{TABLE} .provenance details dl").first
    assert facts.is_hidden()
    opened.page.locator(f"{TABLE} tbody th a").first.click()
    text = facts.inner_text()
    for word in ("a" * 64, "b" * 64, "0123456789abcdef" * 2, "torch 2.13.0", "A processor", "here"):
        assert word in text
    assert facts.is_visible()


def test_hostile_names_stay_words(opened: Opened) -> None:
    title = opened.page.locator("article.comparison h3", has_text="alert(1)")
    assert HOSTILE in title.inner_text()
    assert opened.page.locator("b", has_text="&amp;").count() == 0


@pytest.mark.parametrize("width", [380, 1280])
def test_the_page_never_scrolls_sideways(opened: Opened, width: int) -> None:
    page = opened.page
    page.set_viewport_size({"width": width, "height": 800})
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    inside = f"[...document.querySelectorAll('.plot svg')].every((s) => s.clientWidth <= {width})"
    fits = f"{inside} && document.documentElement.scrollWidth === {width}"
    for _ in range(200):  # Plotly follows after a while; the page's policy lets no browser wait
        if page.evaluate(fits):
            break
        page.wait_for_timeout(50)
    assert page.evaluate(fits)
    assert page.locator(".plot svg").count()
    sideways = page.locator(".scroll").first.evaluate("(at) => at.scrollWidth > at.clientWidth")
    assert sideways == (width == 380)


def luminance(colour: str) -> float:
    red, green, blue = (int(each) for each in re.findall(r"\d+", colour)[:3])
    return (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255


def test_dark_is_dark_with_readable_figures_and_paper_is_white(opened: Opened) -> None:
    page = opened.page
    tick = "getComputedStyle(document.querySelector('#figure-decode-perplexity .xtick text')).fill"
    paper = "getComputedStyle(document.body).backgroundColor"
    assert luminance(page.evaluate(paper)) > 0.9 and luminance(page.evaluate(tick)) < 0.3
    page.emulate_media(color_scheme="dark")
    while luminance(page.evaluate(tick)) <= 0.7:  # until the page has followed
        page.wait_for_timeout(20)
    assert luminance(page.evaluate(paper)) < 0.2 and luminance(page.evaluate(tick)) > 0.7
    bar = "getComputedStyle(document.querySelector('#figure-decode-runtime .bars path')).fill"
    assert luminance(page.evaluate(bar)) > 0.5  # streaming's blue, which is dim on dark
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(color_scheme="dark", media="print")
    assert luminance(page.evaluate(paper)) > 0.9 and luminance(page.evaluate(tick)) < 0.3
    assert page.locator(".provenance details summary").first.is_visible()
    assert page.locator(".filter").is_hidden()


def test_the_page_opens_with_the_overview_and_the_two_figures_that_answer(report: Path) -> None:
    text = report.read_text()
    marks = ("overview", "figure-decode-perplexity", "figure-decode-runtime", "summary", "tables")
    places = [text.index(f'id="{mark}"') for mark in (*marks, "figure-pareto")]
    assert places == sorted(places)


def test_an_empty_database_says_what_to_type(browser: Browser, tmp_path: Path) -> None:
    path = written(recorded(tmp_path / "runs.db"), tmp_path / "empty.html")
    page = browser.new_page()
    found = Opened(page, path)
    assert "streamcli sweep --methods streaming" in page.inner_text("main")
    assert page.locator("table, figure").count() == 0 and found.said == []
    assert path.stat().st_size < 30_000  # without Plotly
    page.close()


def test_failed_runs_are_a_page_too(browser: Browser, tmp_path: Path) -> None:
    store = recorded(tmp_path / "runs.db", {"status": "failed", "error": "RuntimeError: no luck"})
    page = browser.new_page()
    found = Opened(page, written(store, tmp_path / "failed.html", Query(status="failed")))
    assert "RuntimeError: no luck" in page.inner_text("tbody") and found.said == []
    page.close()


@pytest.mark.slow
def test_a_damaged_trace_costs_its_figures_and_not_the_page(tmp_path: Path) -> None:
    store = recorded(tmp_path / "runs.db", *FOUR)
    with store.engine.execution_options(writes=True).begin() as connection:
        connection.exec_driver_sql("update traces set nll = x'00'")
    text = written(store, tmp_path / "page.html").read_text()
    assert "is damaged" in text and "Not drawn" in text and 'id="figure-pareto"' in text
