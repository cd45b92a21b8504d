"""Imports go one way, and nothing happens at import."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted([*ROOT.glob("core/**/*.py"), *ROOT.glob("streamcli/**/*.py")])
TESTS = sorted(ROOT.glob("tests/**/*.py"))
CLOCKS = {f"time.{name}" for name in ("monotonic", "perf_counter", "process_time", "time")}
HEAVY = {"torch", "transformers", "kvpress", "datasets", "pandas", "plotly"}


def imports(path: Path, *, top_level_only: bool = False) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_rules(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    every = set(imports(path))
    roots = {module.split(".")[0] for module in every}
    assert "click" not in roots
    if name.startswith("core/"):
        assert not roots & {"streamcli", "typer", "rich", "sqlmodel", "sqlalchemy", "pandas"}
    if name.startswith("streamcli/"):
        heavy = {m.split(".")[0] for m in imports(path, top_level_only=True)} & HEAVY
        assert not heavy, f"imports {heavy} at module level"
    if name.startswith("streamcli/render/"):
        assert "streamcli.results.store" not in every and "sqlalchemy" not in roots
    if name.startswith("streamcli/results/"):
        allowed = {"core.config", "core.environment", "core.errors", "core.facts", "core.result"}
        allowed |= {"core.registry"}
        assert {module for module in every if module.split(".")[0] == "core"} <= allowed
    if name not in (
        "streamcli/settings.py",
        "core/models/pypi.py",
    ):  # the latter asks for XDG_CACHE_HOME
        assert "os.environ" not in path.read_text(), "settings.py reads the environment"


def test_every_registered_name_can_be_loaded() -> None:
    from core import registry

    for kind, table in registry.TABLES.items():
        for name in table:
            assert callable(registry.load(kind, name))


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_tests_share_what_is_in_support_and_assert_nothing_of_a_clock(path: Path) -> None:
    others = {module for module in imports(path) if module.startswith("tests.")}
    assert all(module.startswith("tests.support") for module in others), others
    if path.name.startswith("test_"):  # a slow machine would fail it: `bench` is for times
        tree = ast.walk(ast.parse(path.read_text()))
        read = {ast.unparse(node) for node in tree if isinstance(node, ast.Attribute)}
        assert not read & CLOCKS and not {"timeit"} & set(imports(path))
