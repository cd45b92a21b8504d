"""The public surface: what it is, that it costs nothing until used, and that its pages run."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, assert_type

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import streamcli
from core.measure.quiet import Waiting
from core.models.loading import Loaded
from core.modes import chunked
from streamcli import (
    RunConfig,
    RunResult,
    StreamError,
    StreamingKVCache,
    UsageError,
    evaluate,
    streaming_attention,
)

ROOT = Path(__file__).parents[2]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("**/*.md")),
    *sorted((ROOT / "examples").glob("*.py")),
]
API = ROOT / "docs" / "api.md"
SMALL: dict[str, Any] = {
    "model": "bundled",
    "dataset": "bundled-narrative",
    "window": 20,
    "max_tokens": 90,
    "mode": "chunked",
    "threads": 1,
}


def python_blocks(page: Path) -> str:
    """The Python of a page, block after block."""
    return "\n".join(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.M))


def test_every_public_name_is_there_and_on_the_page() -> None:
    assert set(streamcli.__all__) == set(streamcli._HOMES)
    assert set(streamcli.__all__) <= set(dir(streamcli))
    headings = set(re.findall(r"^## `(\w+)", API.read_text(), re.MULTILINE))
    assert headings == set(streamcli.__all__)
    for name in streamcli.__all__:
        assert getattr(streamcli, name).__doc__, f"{name} has no docstring"
    with pytest.raises(AttributeError, match="no attribute 'StreamingCache'"):
        _ = streamcli.StreamingCache


def test_importing_streamcli_imports_nothing_but_itself() -> None:
    code = "import sys, streamcli; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    ours = {name for name in done.stdout.split() if name.startswith(("streamcli", "core"))}
    assert ours == {"streamcli"}
    assert not {"torch", "numpy", "transformers", "typer"} & set(done.stdout.split())


def test_a_type_checker_sees_what_they_are(neox: Loaded) -> None:
    cache = StreamingKVCache(4, 20, neox.model)
    assert_type(cache, StreamingKVCache)
    assert_type(cache.read(torch.zeros(1, 1, dtype=torch.int64)), Tensor)
    assert_type(cache.nbytes, int)
    _: Callable[..., AbstractContextManager[None]] = streaming_attention
    result = evaluate(**SMALL)
    assert_type(result, RunResult)
    assert_type(result.ppl, float)
    assert_type(result.nll, NDArray[np.float32])
    error: StreamError = UsageError("one family")
    assert error.exit_code == 2


@pytest.mark.slow
def test_evaluate_takes_options_or_a_configuration_or_both() -> None:
    by_name = evaluate(**SMALL)
    config = RunConfig(**{**SMALL, "window": 40})
    both = evaluate(config, window=20)
    assert by_name.scored_tokens == 89 == len(by_name.nll)
    assert (by_name.nll == both.nll).all()
    assert evaluate(config).ppl != by_name.ppl


def test_evaluate_gives_what_the_command_line_records(trained: Loaded) -> None:
    from core import runner

    config = RunConfig(**SMALL)
    prepared = runner.prepare(config, trained, runner.read_text(config, trained))
    assert (evaluate(config).nll == runner.execute(prepared, lambda *_: None).nll).all()


@pytest.mark.slow
def test_evaluate_leaves_the_process_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(task: Any) -> RunResult:
        assert torch.get_num_threads() == 2
        raise StreamError("as if it had failed")

    monkeypatch.setattr(chunked, "evaluate", broken)
    before = torch.get_num_threads(), torch.is_grad_enabled()
    with pytest.raises(StreamError, match="as if it had failed"):
        evaluate(**{**SMALL, "threads": 2})
    assert before == (torch.get_num_threads(), torch.is_grad_enabled())


@pytest.mark.slow
def test_evaluate_says_what_a_reader_must_know() -> None:
    result = evaluate(**{**SMALL, "max_tokens": 90, "batch_size": 2})
    assert any("no more go in step" in note for note in result.notes)


@pytest.mark.slow
def test_evaluate_knows_how_long_it_waited_for_a_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Waiting, "share", lambda _: 0.4)
    assert evaluate(**SMALL).waited == 0.4


def test_evaluate_refuses_what_it_does_not_know() -> None:
    with pytest.raises(UsageError, match="unknown option 'windw'.* Did you mean 'window'"):
        evaluate(windw=3)
    with pytest.raises(UsageError, match="window is 0"):
        evaluate(window=0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"concatenate": "no"}, "concatenate is 'no': it must be true or false"),
        ({"trust": "no"}, "trust is 'no': it must be true or false"),
        ({"max_tokens": 50.5}, "max_tokens is 50.5: it must be a whole number"),
        ({"n_sink": True}, "n_sink is True: it must be a whole number"),
        ({"n_sink": None}, "n_sink is None: it must be a whole number"),
        ({"budget_mib": "1"}, "budget_mib is '1': it must be a number"),
        ({"model": 70}, "model is 70: it must be text"),
        ({"param": {"n_discard": 2}}, "param is {'n_discard': 2}: it must be pairs"),
        ({"param": (("n_discard", 2.7),)}, "n_discard is 2.7: it must be a whole number"),
        ({"param": (("n_discard", True),)}, "n_discard is True: it must be a whole number"),
    ],
)
def test_a_configuration_takes_no_value_for_another(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as refused:
        RunConfig(method="context-shift", **options)
    assert said in str(refused.value)


def test_equal_configurations_have_an_equal_key_however_their_numbers_were_made() -> None:
    made = RunConfig(window=np.int64(60), budget_mib=np.float64(2))  # type: ignore[arg-type]
    assert made == RunConfig(window=60, budget_mib=2)
    assert made.key == RunConfig(window=60, budget_mib=2).key == RunConfig(**vars(made)).key
    assert RunConfig(window=60, budget_mib=2.0).key == made.key


def test_reading_a_stream_keeps_no_gradients_so_that_memory_stays_flat(neox: Loaded) -> None:
    assert torch.is_grad_enabled()
    cache = StreamingKVCache(4, 20, neox.model)
    assert cache.nbytes == 0
    first = cache.read(torch.full((1, 7), 5))
    held = cache.nbytes
    for _ in range(40):
        logits = cache.read(torch.full((1, 1), 5))
    assert not first.requires_grad and not logits.requires_grad
    assert not any(layer.keys.requires_grad for layer in cache.layers)
    assert cache.nbytes == held > 0 and cache.seen == 47


def test_generate_takes_a_prompt_that_is_longer_than_the_cache(
    neox: Loaded, neox_ids: Tensor
) -> None:
    prompt, model, how = neox_ids[:1, :90], neox.model, {"do_sample": False, "pad_token_id": 0}
    how |= {"max_new_tokens": 30, "min_new_tokens": 30}
    made = model.generate(prompt, past_key_values=StreamingKVCache(4, 20, model), **how)
    cache = StreamingKVCache(4, 20, model)
    with streaming_attention(model, cache):
        assert torch.equal(model.generate(prompt, past_key_values=cache, **how), made)
    alone, ids = StreamingKVCache(4, 20, model), prompt
    for token in made[0, prompt.shape[1] :]:
        logits = alone.read(ids, keep=1)[0, -1]
        logits[model.generation_config.eos_token_id] = -torch.inf  # min_new_tokens
        assert logits.argmax() == token
        ids = token.view(1, 1)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_imports_only_the_public_surface(page: Path) -> None:
    named = re.findall(r"^ *(?:from|import) ((?:streamcli|core)\b[.\w]*)", page.read_text(), re.M)
    assert set(named) <= {"streamcli"}


@pytest.mark.slow
@pytest.mark.parametrize("page", [ROOT / "README.md", API], ids=lambda page: page.stem)
def test_the_python_of_a_page_runs(
    page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, of_run = python_blocks(page), evaluate
    assert "from streamcli import" in code

    def short(config: RunConfig | None = None, **options: Any) -> RunResult:
        asked = replace(config, **options) if config else RunConfig(**options)
        return of_run(replace(asked, max_tokens=min(asked.max_tokens or 200, 200)))

    monkeypatch.setattr(streamcli, "evaluate", short)
    monkeypatch.chdir(ROOT)
    exec(compile(code, str(page), "exec"), {"__name__": "page"})
    assert capsys.readouterr().out
