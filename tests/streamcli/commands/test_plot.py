"""``streamcli plot`` as it is typed: files, words, formats, and a browser or none."""

from __future__ import annotations

import os
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from core.errors import StreamError
from streamcli.render import images
from streamcli.render.figures import NAMES, TITLES, Drawn, draw, style
from streamcli.results import frames
from streamcli.results.columns import COLUMNS
from streamcli.results.schema import Run, Trace, pack
from streamcli.results.store import Store
from tests.support.asked import Asked
from tests.support.figure_runs import frame, run, study, traces
from tests.support.process import imported
from tests.support.typed import DB, Type


@pytest.fixture
def chromium() -> str:
    """Where the browser is that draws images."""
    from choreographer.browsers import Chromium

    found: str | None = Chromium.find_browser(skip_local=False)
    return found or pytest.skip("no Chromium or Chrome: apt install chromium")


def fill(store: Store, rows: list[dict[str, Any]]) -> None:
    """Put rows and their traces into a database as they are."""
    held = [{name: row.get(name) for name in COLUMNS} for row in rows]
    scored = [traces(row["run_id"]) for row in rows[-200:]]
    packed = [
        {"run_id": row["run_id"], "nll": pack(nll), "latency_ms": pack(ms)}
        for row, (nll, ms) in zip(rows[-200:], scored, strict=True)
    ]
    with store.engine.execution_options(writes=True).begin() as connection:
        for start in range(0, len(held), 5000):
            connection.execute(insert(Run), held[start : start + 5000])
        connection.execute(insert(Trace), packed)


@pytest.fixture
def filled(home: Path) -> Store:
    store = Store.open(DB)
    fill(store, study())
    return store


@pytest.fixture(scope="module")
def figure() -> Drawn:
    return draw("decode-runtime", frame(study()), traces)


@pytest.mark.slow
def test_every_figure_with_data_is_a_page_and_its_path_is_printed(
    typed: Type, filled: Store
) -> None:
    done = typed("plot")
    assert (done.code, done.err) == (0, "")
    assert done.out.split() == [f"figures/{name}.html" for name in NAMES]
    sizes = [path.stat().st_size for path in Path("figures").iterdir()]
    assert max(sizes) > 1e6 and sum(sizes) < 8e6  # plotly.js is there, and once


@pytest.mark.slow
def test_a_published_curve_is_laid_over_the_stream_alone(typed: Type, filled: Store) -> None:
    Path("theirs.csv").write_text("nll\n" + "2.5\n" * 300)
    done = typed("plot", "--curve", "theirs.csv")
    assert (done.code, done.out.split()) == (0, ["figures/stream.html"])
    page = Path("figures/stream.html").read_text()
    assert "theirs" in page and "Grey: theirs" in page.split("<figcaption>")[1]
    assert typed("plot", "--curve", "none.csv").refuses(2, "none.csv")


def test_a_page_needs_what_is_beside_it_and_has_its_caption(typed: Type, filled: Store) -> None:
    typed("plot", "pareto", "--out", "here")
    page = Path("here/pareto.html").read_text()
    assert 'src="plotly.min.js"' in page and f"<h1>{TITLES['pareto']}</h1>" in page
    assert "plotly.js v" in Path("here/plotly.min.js").read_text()[:200]
    assert "float32 on cpu, 2 threads" in page.split("<figcaption>")[1]
    assert not re.search(r"""<(script|link|img)[^>]*(src|href)=["']?https?:""", page)
    there = sorted(path.name for path in Path("here").iterdir())
    assert there == ["pareto.html", "plotly.min.js"], "nothing half-written"


@pytest.mark.slow
def test_named_figures_without_data_are_a_line_each_and_fail_after_the_others(
    typed: Type, home: Path
) -> None:
    fill(Store.open(DB), [run(1), run(2, method="recompute")])
    done = typed("plot", "sinks", "decode-runtime", "window")
    assert (done.code, done.out) == (1, "figures/decode-runtime.html\n")
    assert [line.split(":")[1] for line in done.err.splitlines()] == [" sinks", " window"]
    assert "record them with `streamcli sweep --preset sinks`" in done.err
    assert typed("plot", "decode-runtime").code == 0
    every = typed("plot")
    assert every.code == 0 and "figures/decode-runtime.html" in every.out.split()
    assert "sinks: no budget was run" in every.err


def test_of_all_figures_not_one_is_a_failure(typed: Type, home: Path) -> None:
    fill(Store.open(DB), [run(1, method="mit", mode="kvpress-official", documents=2)])
    done = typed("plot")
    assert (done.code, done.out) == (1, "")
    assert len(done.err.splitlines()) == len(NAMES) and "Traceback" not in done.err


def test_an_empty_database_says_so(typed: Type, home: Path) -> None:
    for names in ((), ("window",)):
        said = "holds no finished run that matches: record one with streamcli run"
        assert typed("plot", *names).refuses(1, said) and not Path("figures").exists()


def test_filters_decide_what_is_drawn(typed: Type, filled: Store) -> None:
    typed("plot", "decode-runtime", "--dataset", "two")
    page = Path("figures/decode-runtime.html").read_text()
    assert "two: 399 tokens scored" in page and "one: 399 tokens scored" not in page


def test_wrong_names_and_places_are_one_line(typed: Type, filled: Store) -> None:
    assert typed("plot", "windw").refuses(2, "unknown figure 'windw': choose", "mean 'window'?\n")
    assert typed("plot", "--format", "text", "--out", "x").refuses(2, "writes no file", "--out")
    assert typed("plot", "--width", "500").refuses(2, "leave --width out")
    assert typed("plot", "pareto", "--curve", "x.csv").refuses(2, "leave --curve out")
    Path("file").write_text("")
    place = typed("plot", "window", "--out", "file/figures")
    assert place.refuses(2, "file/figures can't be written to (Not a directory)")


@pytest.mark.slow
def test_a_missing_browser_is_one_line_that_says_what_to_install(
    typed: Type, filled: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSER_PATH", "/nowhere/chromium")
    done = typed("plot", "window", "--format", "png")
    (line,) = done.err.splitlines()
    assert (done.code, done.out, list(Path("figures").iterdir())) == (1, "", [])
    assert line == (
        "streamcli: png needs a Chromium or Chrome to draw with, and none was found: `apt install "
        "chromium`, run `plotly_get_chrome`, or name one in BROWSER_PATH; --format html needs none."
    )


def test_a_browser_that_fails_is_one_line(
    figure: Drawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSER_PATH", "/bin/false")
    with pytest.raises(StreamError, match=r"^the browser failed to draw png .*BROWSER_PATH"):
        list(images.write([figure], tmp_path, "png"))
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("chromium")
def test_images_are_real_and_share_one_browser(
    typed: Type, filled: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    import kaleido

    drawn = {
        name: draw(name, frame(study()), traces).figure for name in ("decode-runtime", "window")
    }
    heights = {name: style.fit(figure, 640).layout.height for name, figure in drawn.items()}
    opened: list[object] = []
    start = kaleido.Kaleido.open

    async def counted(self: object) -> None:
        opened.append(self)
        await start(self)

    monkeypatch.setattr(kaleido.Kaleido, "open", counted)
    size = ("--width", "640")
    done = typed("plot", "decode-runtime", "window", "--format", "png", *size)
    assert done.out.split() == ["figures/decode-runtime.png", "figures/window.png"]
    assert len(opened) == 1 and done.err == ""
    assert "Perplexity and time a token against" in Path("figures/window.txt").read_text()
    for path in done.out.split():
        assert pixels(Path(path).read_bytes()) == (640, heights[Path(path).stem])


def pixels(data: bytes) -> tuple[int, int]:
    """Width and height of an 8-bit PNG of which at least a hundredth is not white."""
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", data[16:24])
    parts, at = [], 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        if data[at + 4 : at + 8] == b"IDAT":
            parts.append(data[at + 8 : at + 8 + length])
        at += 12 + length
    raw = zlib.decompress(b"".join(parts))
    assert sum(byte not in (0, 255) for byte in raw) > len(raw) / 100, "blank"
    return width, height


@pytest.mark.usefixtures("chromium")
def test_an_svg_has_its_words_and_a_pdf_is_one(figure: Drawn, tmp_path: Path) -> None:
    (svg,) = images.write([figure], tmp_path, "svg", width=500)
    words = svg.read_text()
    assert words.startswith("<svg") and 'width="500"' in words
    for said in (TITLES["decode-runtime"], "streaming", "recompute", "ms a token"):
        assert said in words
    (pdf,) = images.write([figure], tmp_path, "pdf")
    assert pdf.read_bytes().startswith(b"%PDF") and pdf.stat().st_size > 5000


def test_pages_work_offline_without_an_error_and_fit_any_screen(
    chromium: str, filled: Store, tmp_path: Path
) -> None:
    from playwright.sync_api import sync_playwright

    runs = frames.runs(filled)
    drawn = [draw(name, runs, traces) for name in NAMES]
    paths = list(images.write(drawn, tmp_path, "html"))
    said: list[str] = []
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=chromium, args=["--no-sandbox", *QUIET])
        page = browser.new_page(viewport={"width": 380, "height": 700}, offline=True)
        page.set_default_timeout(HANGS_MS)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda r: said.append(r.url) if r.url.startswith("http") else None)
        for path in paths:
            page.goto(path.as_uri())
            page.wait_for_selector(".main-svg .xtick text")
            for width in (1000, 380):
                page.set_viewport_size({"width": width, "height": 700})
                fits = f"document.documentElement.scrollWidth <= {width}"
                page.wait_for_function(fits)  # it is drawn anew after a while
        browser.close()
    assert not said


HANGS_MS = 600_000  # longer than the slowest machine takes
QUIET = ("--disable-gpu", "--disable-component-update", "--disable-sync", *images.QUIET)


def test_a_file_is_replaced_whole_or_not_at_all(
    figure: Drawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = images.write([figure], tmp_path, "html")
    there = set(tmp_path.iterdir())
    before = path.read_bytes()

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(StreamError, match="No space left"):
        list(images.write([figure], tmp_path, "html"))
    assert set(tmp_path.iterdir()) == there and path.read_bytes() == before


@pytest.mark.slow
def test_more_repeats_are_no_more_questions_and_each_is_answered_by_an_index(
    typed: Type, home: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "write", lambda figures, *_, **__: [each.name for each in figures])
    rows, said = study()[:30], []
    for times in (5, 15):
        many = [
            row | {"run_id": f"{10_000 + 50 * turn + place:026d}"}
            for turn in range(times)
            for place, row in enumerate(rows)
        ]
        fill(Store.open(f"{times}.db"), many)
        asked.clear()
        done = typed("plot", "--db", f"{times}.db")
        assert (done.code, len(done.out.split())) == (0, len(NAMES))
        assert asked.whole_rows == len({row["config_key"] for row in rows})
        said.append(list(asked.statements))
    assert said[0] == said[1] and asked.long_ways(f"{times}.db") == []


@pytest.mark.slow
def test_it_never_imports_torch(filled: Store) -> None:
    assert not {"torch", "transformers", "alembic"} & imported("plot")
