"""docs/generate.md: which cases of ``generate`` work or are refused; ``make generate``.

One column a version of transformers; a run writes the column of the one that is installed, and
leaves what stands below the table as it is.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
import transformers

from tests.support.generate_cases import CASES, outcome
from tests.support.generating import N_SINK, NEW, WINDOW, Wrong, model

PAGE = Path(__file__).parents[2] / "docs" / "generate.md"
INTRO = f"""# What of `generate` works with a streaming cache

Made by `make generate` (tests/support/generate_cases.py) from a tiny random model, S = {N_SINK},
W = {WINDOW}, {NEW} new tokens. "Works" means that the tokens are those of greedy decoding by
`cache.read`, one token at a time (of other families, 16) and one row at a time; where the row says
so, what is compared is something else. "Refused" is followed by the line that is raised.

"""
HEAD = "| feature |"
BELOW = "\n## "  # what is written by hand begins with a heading


def column() -> str:
    """The name of the column that this version writes."""
    return str(transformers.__version__)


def read() -> tuple[list[str], dict[str, dict[str, str]]]:
    """The page's columns, and its cells by feature and column."""
    columns: list[str] = []
    cells: dict[str, dict[str, str]] = {}
    page = PAGE.read_text() if PAGE.exists() else ""
    for line in page.partition(BELOW)[0].splitlines():
        parts = [part.strip() for part in line.strip().strip("|").split(" | ")]
        if line.startswith(HEAD):
            columns = parts[1:]
        elif columns and not line.startswith("|:"):
            cells[parts[0]] = dict(zip(columns, parts[1:], strict=True))
    return columns, cells


def write() -> None:
    """Try each case, and write this version's column."""
    made, found = model(), {}
    for name, case in CASES.items():
        try:
            found[case.words] = outcome(name, made)
        except Wrong as wrong:
            found[case.words] = f"WRONG: {wrong}"
        print(f"{case.words}: {found[case.words]}", flush=True)
    columns, before = read()
    columns = sorted({*columns, column()}, key=lambda name: [int(p) for p in name.split(".")])
    rows = []
    for name, words in found.items():
        cells = {**before.get(name, {}), column(): words}
        rows.append(f"| {' | '.join([name, *(cells.get(each, '') for each in columns)])} |")
    lines = [f"{HEAD} {' | '.join(columns)} |", "|:---|" + ":---|" * len(columns), *rows]
    _, heading, below = PAGE.read_text().partition(BELOW) if PAGE.exists() else ("", "", "")
    PAGE.write_text(INTRO + "\n".join(lines) + "\n" + heading + below)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    write()
