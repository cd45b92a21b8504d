"""Imports go one way, nothing happens at import, and no list of columns is typed a second time."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from streamcli.results.columns import ALL

ROOT = Path(__file__).parents[1]
FILES = sorted([*ROOT.glob("core/**/*.py"), *ROOT.glob("streamcli/**/*.py")])
NAMED = {str(path.relative_to(ROOT)): path for path in FILES}
TESTS = sorted(ROOT.glob("tests/**/*.py"))
CLOCKS = {f"time.{name}" for name in ("monotonic", "perf_counter", "process_time", "time")}
HEAVY = {"torch", "transformers", "kvpress", "datasets", "pandas", "plotly"}
VERSION = "streamcli"  # of which only ``__version__`` is imported
SQL = {"sqlalchemy", "sqlmodel", "alembic"}
ENVIRONMENT = (  # these ask for variables; those in core for what belongs to other tools
    *("streamcli/settings.py", "core/environment.py"),
    *("core/models/pypi.py", "core/datasets/hub_rows.py"),
)
# What each room may import of this project: a module, or a package with all that is in it.
ROOMS = {
    "core": {"core"},
    "streamcli/results": {
        *("core.config", "core.environment", "core.errors", "core.facts", "core.registry"),
        *("core.result", "streamcli.results", "streamcli.files", "streamcli.harmless"),
    },
    "streamcli/analysis": {"core", "streamcli.analysis", "streamcli.results.columns"},
    "streamcli/render": {
        *("core", "streamcli.analysis", "streamcli.render", "streamcli.results.columns"),
        *("streamcli.files", "streamcli.harmless"),
    },
    "streamcli/jobs": {
        *("core", "streamcli.analysis", "streamcli.jobs", "streamcli.render", "streamcli.results"),
        *("streamcli.files", "streamcli.settings"),
    },
    "streamcli/commands": {
        *("core", "streamcli.analysis", "streamcli.jobs", "streamcli.render", "streamcli.results"),
        *("streamcli.files", "streamcli.harmless", "streamcli.options", "streamcli.settings"),
        "streamcli.completion",
    },
}
FEW = 4  # names of columns that may stand in one literal
COLUMNS_ARE_IN = ("streamcli/results/columns.py", "streamcli/results/schema.py")
# Options of a command, some of which a column is named after.
OPTIONS_ARE_IN = ("core/config.py", "streamcli/jobs/plan.py", "streamcli/jobs/bench.py")


@cache
def nodes(path: Path) -> list[ast.AST]:
    """All that a file says, its module first."""
    return list(ast.walk(ast.parse(path.read_text())))


def imports(path: Path, *, top_level_only: bool = False) -> Iterator[str]:
    """Modules that a file imports; of ``from package import name`` both package and module."""
    every = nodes(path)
    for node in ast.iter_child_nodes(every[0]) if top_level_only else every:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            modules = [each for each in names if _is_module(each)]
            yield from modules if len(modules) == len(names) else [node.module, *modules]


def _is_module(name: str) -> bool:
    place = ROOT / name.replace(".", "/")
    return place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()


def within(module: str, places: set[str]) -> bool:
    """Whether a module is one of these or inside of one."""
    return any(module == place or module.startswith(f"{place}.") for place in places)


def test_imports_follow_the_rules() -> None:
    wrong = [f"{name}: {why}" for name, path in NAMED.items() for why in broken(name, path)]
    assert len(NAMED) > 100 and not wrong


def broken(name: str, path: Path) -> Iterator[str]:
    """The rules that a file breaks."""
    every = set(imports(path))
    roots = {module.split(".")[0] for module in every}
    ours = {module for module in every if within(module, {"core", "streamcli"})}
    if "click" in roots:
        yield "Typer has its own click"
    for room, allowed in ROOMS.items():
        if name.startswith(f"{room}/"):
            yield from (m for m in ours if not within(m, allowed) and m != VERSION)
    if name.startswith("core/"):
        yield from roots & {"streamcli", "typer", "rich", "pandas", *SQL}
    if name.startswith("streamcli/"):
        heavy = {m.split(".")[0] for m in imports(path, top_level_only=True)} & HEAVY
        yield from (f"{module} at module level" for module in heavy)
    rooms = ("streamcli/analysis/", "streamcli/render/", "streamcli/commands/", "streamcli/jobs/")
    if name.startswith(rooms):  # they ask results/ for rows and frames
        yield from roots & SQL
    if name.startswith("streamcli/analysis/"):  # which renders nothing
        yield from roots & {"rich", "typer", "plotly", "jinja2"}
    if name not in ("streamcli/cli.py", "streamcli/docs.py", "streamcli/__main__.py"):
        yield from every & {"streamcli.cli"}
        if not name.startswith("streamcli/commands/"):
            yield from (m for m in every if within(m, {"streamcli.commands"}))
    if name not in ENVIRONMENT and "os.environ" in path.read_text():
        yield "settings.py reads the environment"


def test_lists_of_columns_are_queries() -> None:
    lists_are_in = (*COLUMNS_ARE_IN, *OPTIONS_ARE_IN)
    typed = [
        (name, line, sorted(names))
        for name, path in NAMED.items()
        if name not in lists_are_in and "/migrations/" not in name
        for line, names in column_lists(nodes(path)[0])
        if len(names) > FEW
    ]
    assert not typed, f"choose from streamcli.results.columns: {typed}"


def column_lists(node: ast.AST) -> Iterator[tuple[int, set[str]]]:
    """The line and the column names of each literal list, but not of an object made by name."""
    if isinstance(node, ast.Tuple | ast.List | ast.Set | ast.Dict):
        made = isinstance(node, ast.Dict) and not all(
            isinstance(value, ast.Constant | ast.Tuple | ast.List | ast.Set)
            for value in node.values
        )
        found = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant)} & set(ALL)
        if not made and found:
            yield node.lineno, {str(each) for each in found}
            return
    for child in ast.iter_child_nodes(node):
        yield from column_lists(child)


def test_a_list_of_columns_is_found_however_it_is_typed() -> None:
    code = """
TYPED = ("model", *("dataset", "mode"), "method", "window")
NAMED = {"model": "a", "mode": ("method", "window", "ppl")}
ROW = {"model": run.model, "mode": run.mode, "method": 1, "window": 2, "ppl": run.ppl}
"""
    found = dict(column_lists(ast.parse(code)))
    assert {line: len(names) for line, names in found.items()} == {2: 5, 3: 5}


def test_every_registered_name_can_be_loaded() -> None:
    from core import registry

    for kind in ("method", "mode", "dataset"):
        for name in registry.names(kind):
            assert callable(registry.load(kind, name))


def test_tests_share_what_is_in_support_and_assert_nothing_of_a_clock() -> None:
    for path in TESTS:
        others = {module for module in imports(path) if module.startswith("tests.")}
        assert all(module.startswith("tests.support") for module in others), (path, others)
        if path.name.startswith("test_"):  # a slow machine would fail it: `bench` is for times
            read = {
                f"{node.value.id}.{node.attr}"
                for node in nodes(path)
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
            }
            assert not read & CLOCKS and not {"timeit"} & set(imports(path)), path
