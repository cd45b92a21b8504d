"""What a method is stands in one place, and packages of their own can add one."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from core import config, registry
from core.config import RunConfig
from core.errors import UsageError
from tests.support.process import typed_in_fork
from tests.support.typed import Typed

ROOT = Path(__file__).parents[2]
TOY = '''
from dataclasses import dataclass

import torch

from core.methods.dense import Dense
from core.proof import reference


@dataclass(frozen=True)
class Parameters:
    """What the toy alone has."""

    power: int = 1
    loud: bool = False

    def __post_init__(self):
        if self.power < 1:
            raise ValueError(f"power is {self.power}: it must be 1 or more")


class Toy(Dense):
    """Dense under another name."""

    spec = Dense.spec.but(
        words="a toy", parameters="toy_cache:Parameters", reference="toy_cache:expected"
    )

    def notes(self, loaded, length):
        return (f"the toy's power is {self.parameters.power}.",)


def expected(model, ids, config):
    return reference.dense_nll(model, ids)


class Window(Dense):
    """A name that streamcli has itself."""


@dataclass(frozen=True)
class Open:
    """Attributes: limit: What has no default, by which its values could be read."""

    limit: int | None = None


class Bare(Dense):
    """Options that can't be read."""

    spec = Dense.spec.but(parameters="toy_cache:Open")
'''
SMALL = ("--models", "bundled", "--datasets", "bundled-narrative", "--max-tokens", "90")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as ``pip install --target`` leaves it, with a package that adds methods."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "toy_cache.py").write_text(TOY)
    about = folder / "toy_cache-1.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-cache\nVersion: 1.2\n")
    lines = ["[streamcli.methods]", "toy = toy_cache:Toy", "window = toy_cache:Window"]
    lines += ["gone = toy_cache:Nothing", "plain = builtins:dict", "bare = toy_cache:Bare"]
    (about / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return folder


RUN = ("run", "--model", "bundled", "--dataset", "bundled-narrative")
WRONG = {
    ("--method", "gone"): "method 'gone' of toy-cache==1.2 can't be imported",
    ("--method", "plain"): "method 'plain' of toy-cache==1.2 has no spec",
    ("--method", "toy", "--power", "0"): "'toy': power is 0: it must be 1 or more",
    ("--method", "bare", "--param", "limit=1"): "param 'limit' of 'bare' has no default",
    ("--method", "toy", "--power", "x"): "power is 'x': it must be a whole number",
    ("--method", "toy", "--param", "powr=1"): "unknown option of 'toy' 'powr'",
    ("--method", "toy", "--param", "power"): "--param is 'power': write NAME=VALUE",
    ("--method", "dense", "--param", "power=1"): "'dense' has no options of its own",
    ("--method", "toi"): "unknown method 'toi'",
}
METHODS = ("--methods", "recompute", "toy", "--modes", "decode-loop")
VERIFIED = ("--methods", "toy", "--window", "16", "--chunk-size", "8", "--max-tokens", "48")
LINES = {
    "sweep": ("sweep", *SMALL, *METHODS, "--windows", "20", "28", "--power", "3"),
    "json": ("report", "--format", "json"),
    "markdown": ("report", "--format", "markdown"),
    "run": (*RUN, "--method", "toy", "--power", "3", "--max-tokens", "90", "--json"),
    "rerun": ("rerun", "latest"),
    "plot": ("plot", "stream", "--format", "html"),
    "verify": ("verify", *RUN[1:], *VERIFIED),
    **{" ".join(words): (*RUN, *words) for words in WRONG},
}


@pytest.fixture(scope="module")
def ended(site: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Typed]:
    """How the lines end where the package is on the path, all in one process."""
    home = tmp_path_factory.mktemp("home")
    ended = typed_in_fork(*LINES.values(), folder=home, path=str(site))
    return dict(zip(LINES, ended, strict=True))


@pytest.mark.slow
def test_a_method_of_another_package_is_run_shown_drawn_and_verified(
    ended: dict[str, Typed],
) -> None:
    assert ended["sweep"].code == 0, ended["sweep"].err
    shown, drawn, again = ended["markdown"], ended["plot"], ended["rerun"]
    rows = json.loads(ended["json"].out)
    (toy,) = [row for row in rows if row["method"] == "toy"]  # one row, whatever the windows
    assert toy["attended_keys"] == 89 and toy["method_package"] == "toy-cache==1.2"
    assert json.loads(toy["param"]) == {"loud": False, "power": 3}
    (line,) = [line for line in shown.out.splitlines() if line.startswith("| toy")]
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    assert cells[:4] == ["toy", "-", "-", "89*"] and cells[5] == cells[7] == "-"  # no speed-up
    assert "the toy's power is 3" in shown.out
    assert again.code == 0 and "bit for bit the same" in again.out, again.err
    assert json.loads(ended["run"].out)["run_id"] in again.out
    assert drawn.code == 0, drawn.err
    assert Path(drawn.out.strip()).name == "stream.html"
    assert "3 of 3 claims hold" in ended["verify"].out, ended["verify"]
    assert ended["verify"].code == 0


@pytest.mark.slow
def test_what_another_package_gets_wrong_is_told_in_one_line(ended: dict[str, Typed]) -> None:
    for words, message in WRONG.items():
        done = ended[" ".join(words)]
        assert done.code == 2 and message in done.err, (words, done.err)
        assert done.err.count("\n") == 1


def test_a_record_of_a_package_that_is_gone_is_shown_as_most_methods_are() -> None:
    assert registry.recorded("nobody").sizes == ("n_sink", "window")
    assert registry.place("nobody") == len(registry.methods())
    with pytest.raises(UsageError, match="unknown method 'nobody'"):
        registry.method("nobody")


def test_configurations_without_options_of_a_method_have_the_key_that_they_always_had() -> None:
    assert RunConfig(window=60).key == "ebee082230c80320"


def test_an_option_that_came_later_leaves_keys_as_they_were_whatever_its_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = {dtype: RunConfig(dtype=dtype).key for dtype in ("float32", "bfloat16")}
    monkeypatch.setitem(config.LATER, "dtype", "float32")  # as if it were new
    assert RunConfig(dtype="float32").key not in known.values()  # has no dtype in it
    assert RunConfig(dtype="bfloat16").key == known["bfloat16"]


NAMES = ({*registry.METHODS} | {*registry.MODES}) - {"window", "kvpress"}  # a column, a package
FILES = sorted([*ROOT.glob("core/**/*.py"), *ROOT.glob("streamcli/**/*.py")])
OWN = {"core/registry.py", "streamcli/jobs/plan.py"}  # the latter has the presets


def test_no_name_of_a_method_or_mode_stands_outside_the_registry() -> None:
    for path in FILES:
        found = {
            node.value
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        own = {  # a method's own file says which one it is
            name
            for name, method in registry.METHODS.items()
            if method.where.startswith(f"core.methods.{path.stem}:")
        }
        assert not found & NAMES - own or str(path.relative_to(ROOT)) in OWN, (path, found & NAMES)
