"""Figures to files: HTML that works offline, and PNG, SVG and PDF through a browser's own drawing.

A page loads the one ``plotly.min.js`` beside it; an image has its caption beside it, as text. A
file is written whole or not at all. All images of one call share one Chromium, which Kaleido finds
and drives: the program that ``BROWSER_PATH`` names, Chromium or Chrome on ``PATH``, or the one that
``plotly_get_chrome`` fetched.
"""

from __future__ import annotations

import asyncio
import html
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import StreamError, UsageError, unknown
from streamcli import files
from streamcli.render.figures import style

if TYPE_CHECKING:
    from streamcli.render.figures import Drawn

WIDTH = 1000  # pixels of an image
SCRIPT = "plotly.min.js"  # as Plotly's pages call it
IMAGES = ("png", "svg", "pdf")
QUIET = (  # Chromium asks nobody anything
    "--disable-background-networking",
    "--disable-quic",
    "--disable-extensions",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
NO_BROWSER = (
    "{form} needs a Chromium or Chrome to draw with, and none was found: `apt install chromium`, "
    "run `plotly_get_chrome`, or name one in BROWSER_PATH; --format html needs none."
)
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
body {{ margin: 0; background: #fff; color: #222; font: 14px/1.45 {font}; }}
figure {{ margin: 0 auto; max-width: 1000px; padding: 8px; }}
h1 {{ margin: 8px 12px 0; font-size: 17px; }}
p {{ margin: 0 12px; color: #555; }}
figcaption {{ padding: 8px 12px; color: #444; overflow-wrap: anywhere; }}
</style>
</head>
<body>
<figure>
<h1>{title}</h1>
<p>{about}</p>
{div}
<figcaption>{caption}</figcaption>
</figure>
</body>
</html>
"""


def check(path: Path) -> None:
    """Refuse a file whose ending names no way to draw.

    Raises:
        UsageError: It is none of .html, .png, .svg and .pdf.
    """
    if path.suffix[1:] not in (forms := ("html", *IMAGES)):
        raise unknown("ending of --out", path.suffix, [f".{form}" for form in forms])


def write(
    drawn: Sequence[Drawn],
    folder: Path,
    form: str,
    *,
    width: int = WIDTH,
) -> Iterator[Path]:
    """Write each figure as ``folder/name.form`` and give its path once it is there.

    Args:
        drawn: Figures, none of them without one.
        folder: Made where it is missing.
        form: ``html``, ``png``, ``svg`` or ``pdf``.
        width: Pixels of an image, whose height is what the figure needs; a page has the screen's.

    Raises:
        UsageError: The folder can't be written to.
        StreamError: No browser was found, or it failed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if form == "html":
            _put_script(folder)
            for each in drawn:
                yield _save(folder / f"{each.name}.html", page(each).encode())
        elif drawn:
            for each, data in zip(drawn, _images(drawn, form, width), strict=True):
                _save(folder / f"{each.name}.txt", f"{each.title}. {each.caption}\n".encode())
                yield _save(folder / f"{each.name}.{form}", data)
    except OSError as error:
        raise UsageError(
            f"{folder} can't be written to ({error.strerror}): name another folder with --out."
        ) from error


def page(drawn: Drawn) -> str:
    """One figure as a page, with ``plotly.min.js`` to be beside it; asks no network."""
    assert drawn.figure is not None
    about, figure = style.untitled(drawn.figure)
    div = figure.to_html(
        full_html=False,
        include_plotlyjs="directory",
        default_width="100%",
        config={"responsive": True, "displaylogo": False},
        div_id=drawn.name,
        validate=False,
    )
    title, caption = html.escape(drawn.title), html.escape(drawn.caption)
    about = html.escape(about)
    return PAGE.format(title=title, about=about, font=style.FONT, div=div, caption=caption)


def _put_script(folder: Path) -> None:
    """Put plotly.js beside the pages, unless this one is there."""
    from plotly.offline import get_plotlyjs

    path, script = folder / SCRIPT, get_plotlyjs().encode()
    if not path.is_file() or path.read_bytes() != script:
        _save(path, script)


def _images(drawn: Sequence[Drawn], form: str, width: int) -> list[bytes]:
    from choreographer.browsers import Chromium
    from kaleido import Kaleido
    from kaleido.errors import ChromeNotFoundError

    class Quiet(Chromium):
        """A Chromium that is told not to go online."""

        def get_cli(self) -> list[str]:
            return [*super().get_cli(), *QUIET]

    async def render() -> list[bytes]:
        async with Kaleido(mathjax=False, browser_cls=Quiet) as browser:
            return [
                await browser.calc_fig(figure, opts={"format": form, "scale": 1})
                for figure in sized
            ]

    sized = [style.fit(each.figure, width) for each in drawn]
    try:
        return asyncio.run(render())
    except ChromeNotFoundError:
        raise StreamError(NO_BROWSER.format(form=form)) from None
    except Exception as error:
        message = " ".join(str(error).split()) or "no message"
        raise StreamError(
            f"the browser failed to draw {form} ({type(error).__name__}: {message}): "
            "name another one in BROWSER_PATH, or use --format html."
        ) from error


def _save(path: Path, data: bytes) -> Path:
    with files.replaced(path) as file:
        file.write(data)
    return path
