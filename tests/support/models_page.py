"""docs/models.md: what was found of each family, made anew by ``make models``.

One column a version of transformers; a run writes the column of the one that is installed.
"""

from __future__ import annotations

import argparse
import datetime
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from core.errors import StreamError
from core.models import anatomy
from core.proof.reference import streaming_nll as naive_nll
from tests.support import families
from tests.support.samples import around, fed_nll, method_of

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
N_SINK, WINDOW, LENGTH = 4, 16, 64
EXACT = 1e-4  # nats on any token
INTRO = """# Which models stream, and how exactly

Made by `make models` from tiny random models (tests/support/families.py) of {length} tokens, S =
{sinks}, W = {window}, in float32, their attention as sharp as a trained model's. A figure is the
largest difference on any token, in nats, from a loop that holds no keys and turns none
(core/proof/reference.py), over the decode loop, chunks of 1, 7 and all, two rows against one, and
the authors' cache `mit`; where it says so, a compiled step as well. "Not compiled" is what
`--engine compiled` refuses in a line: frequencies that the host looks after, or code of which no
one function can be made (most mixtures of experts). "Refused" is what `streaming` says before it
computes anything. Where transformers' own cache, fed in parts, does not give what
one forward gives, `dense` refuses the family as well: "not dense". Your own model: `streamcli
verify --model NAME`.

{counts}

"""
HEAD = "| family | layers, as seen |"


@dataclass(frozen=True)
class Found:
    """What a family came out as.

    Attributes:
        exact: Whether it streams.
        words: ``exact, 3e-06`` or why it is refused.
        layers: Its layers in words.
        largest: Nats of the largest difference.
        dense: Whether its own cache, fed in parts, gives what one forward does.
    """

    exact: bool
    words: str
    layers: str
    largest: float
    dense: bool


def look(model: Any, with_compiled: bool = False, length: int = LENGTH) -> Found:
    """Measure a family's model on two rows of so many tokens."""
    found = anatomy.of(model)
    dense = found.uncached is None
    if found.refusal:
        return Found(False, found.refusal, found.layers_in_words, float("nan"), dense)
    ids = torch.cat((families.tokens(length, 1), families.tokens(length, 2)))
    want = naive_nll(model, ids, N_SINK, WINDOW)
    most = min(length, (found.limit or length * 2) - N_SINK - WINDOW)
    loaded = around(model)

    def fed(size: int, rows: Tensor = ids, **how: Any) -> Tensor:
        return fed_nll(loaded, rows, size, method_of(n_sink=N_SINK, window=WINDOW, **how))

    got = [fed(size) for size in (1, 7, most)]
    got.append(torch.cat([fed(most, row[None]) for row in ids]))
    if not any(layer.native and layer.native.blocks for layer in found.layers):
        got.append(fed(1, name="mit"))
    words = "exact"
    if with_compiled:
        try:
            got.append(fed(1, engine="compiled"))
            words = "exact, compiled too"
        except StreamError:  # which names the reason, and --engine eager
            words = "exact; not compiled"
    largest = max(float((each - want).abs().max()) for each in got)
    words = words if largest <= EXACT else words.replace("exact", "WRONG")
    return Found(True, f"{words}, {largest:.0e}", found.layers_in_words, largest, dense)


def column() -> str:
    """The name of the column that this version writes."""
    return f"transformers {transformers.__version__}"


def read() -> tuple[list[str], dict[str, dict[str, str]]]:
    """The page's columns, and its cells by family and column."""
    columns: list[str] = []
    cells: dict[str, dict[str, str]] = {}
    for line in PAGE.read_text().splitlines() if PAGE.exists() else ():
        parts = [part.strip() for part in line.strip().strip("|").split(" | ")]
        if line.startswith(HEAD):
            columns = parts[2:]
        elif columns and line.startswith("| `"):
            row = dict(zip(["layers", *columns], parts[1:], strict=True))
            cells[parts[0].strip("`")] = row
    return columns, cells


def dates() -> dict[str, str]:
    """When each of the page's columns was made, and with which torch."""
    page = PAGE.read_text() if PAGE.exists() else ""
    return dict(re.findall(r"^- (transformers \S+) \((.+?)\):", page, re.MULTILINE))


def cell(found: Found) -> str:
    """A family's cell."""
    words = found.words if found.exact else f"refused: {found.words}"
    words = re.sub(r"\s+", " ", words.replace("|", "/"))
    return f"{words}{'' if found.dense else '; not dense'}"


def write(with_compiled: bool, names: list[str]) -> None:
    """Measure, and write this version's column."""
    columns, cells = read()
    here, made = column(), dates()
    made[here] = f"{datetime.datetime.now(datetime.UTC):%-d %B %Y}, PyTorch {torch.__version__}"
    columns = [*(name for name in columns if name != here), here]
    columns.sort(key=lambda name: [int(part) for part in name.split()[-1].split(".")])
    for name in names or families.known():
        found = look(families.build(name), with_compiled)
        row = cells.setdefault(name, {})
        row["layers"] = found.layers or row.get("layers", "")
        row[here] = cell(found)
        print(name, row[here], flush=True)
    counts = [
        f"- {name} ({made[name]}): "
        + f"{sum(r.get(name, '').startswith('exact') for r in cells.values())} families exact, "
        + f"{sum(_nats(r.get(name, '')) <= 1e-5 for r in cells.values())} of them to 1e-5 nats, "
        + f"{sum('compiled too' in r.get(name, '') for r in cells.values())} compiled too, "
        + f"{sum(r.get(name, '').startswith('refused') for r in cells.values())} refused, "
        + f"{sum(r.get(name, '').startswith('WRONG') for r in cells.values())} wrong."
        for name in columns
    ]
    intro = INTRO.format(length=LENGTH, sinks=N_SINK, window=WINDOW, counts="\n".join(counts))
    lines = [f"{HEAD} {' | '.join(columns)} |", "|:---|:---|" + ":---|" * len(columns)]
    for name in sorted(cells):
        row = cells[name]
        shown = [row.get(each) or "not in it" for each in columns]
        lines.append(f"| `{name}` | {row['layers'] or '-'} | {' | '.join(shown)} |")
    PAGE.write_text(intro + "\n".join(lines) + "\n")


def _nats(text: str) -> float:
    found = re.search(r", (\d+e-\d+)", text)
    return float(found[1]) if found and text.startswith("exact") else float("inf")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compiled", action="store_true", help="compile a step of each, too")
    parser.add_argument("families", nargs="*")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    write(asked.compiled, asked.families)
