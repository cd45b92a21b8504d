"""``verify`` passes what is right, and names what is wrong."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from core import registry
from core.config import RunConfig
from core.errors import UsageError
from core.methods.scored import Scored
from core.models.loading import Loaded
from core.proof import evictions, reference
from core.proof.verify import Finding, _half, verify
from streamcli import cli
from streamcli.render import tables
from tests.support.samples import fed_nll, method_of

MODES = ("decode-loop", "chunked")
CONFIG = RunConfig(n_sink=4, window=20, chunk_size=16, device="cpu")


def prove(loaded: Loaded, ids: Tensor, *methods: str) -> list[Finding]:
    return list(verify(loaded, ids, CONFIG, methods, MODES))


@pytest.fixture(scope="module")
def ids(neox_ids: Tensor) -> Tensor:
    return neox_ids[0, :60]


def test_every_claim_holds_on_a_trained_model(neox: Loaded, ids: Tensor) -> None:
    found = prove(neox, ids, "streaming", "window", "recompute", "dense")
    assert all(each.claimed and each.passed for each in found), found
    subjects = {each.subject for each in found}
    assert {"T = S+W+1 is dense", "any chunk size", "the frame may move"} < subjects


TRAPS = {
    ("EvictsInsideAChunk", "chunked"): "eviction while it is in flight",
    ("NoRotation", "decode-loop"): "at the first eviction: eviction or rotation",
    ("SinksLost", "decode-loop"): "when the window alone overflows: sinks are lost",
    ("LastPrefillTokenTwice", "decode-loop"): "before the cache fills: mask, position or BOS",
    ("NeverEvicts", "decode-loop"): "at the first eviction: eviction or rotation",
}


def plant(monkeypatch: pytest.MonkeyPatch, name: str, trap: str) -> None:
    """Put a trap in the place of a method, with all that streaming claims."""
    spec = registry.METHODS["streaming"].but(where=f"tests.support.traps:{trap}")
    monkeypatch.setitem(registry.METHODS, name, spec)


@pytest.mark.parametrize(("trap", "mode"), TRAPS)
def test_a_planted_trap_fails_and_is_named(
    thin: Loaded, ids: Tensor, trap: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, "broken", trap)
    found = {each.form.split(" ")[0]: each for each in prove(thin, ids, "broken")}[mode]
    assert found.claimed and not found.passed
    assert TRAPS[trap, mode] in found.diagnosis


def test_each_comparison_is_told_before_it_is_made(thin: Loaded, ids: Tensor) -> None:
    told: list[str] = []
    for finding in verify(thin, ids, CONFIG, ("streaming", "dense"), MODES, told.append):
        if finding.subject != "layers are as seen":
            last = [each for each in told if "obvious loop" not in each][-1]
            assert last.startswith(finding.subject.split(" drifts")[0]), (last, finding)
    loops = [each for each in told if "obvious loop" in each]
    assert len(loops) == 3 and "for dense" in loops[1] and "every 16" in loops[2]


@pytest.mark.parametrize("trap", ["DropsTheShortest", "KeysStayWhereTheyCame"])
def test_a_wrong_choice_fails_and_so_do_keys_that_stand_wrong(
    thin: Loaded, ids: Tensor, trap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (_, found, _) = prove(thin, ids, "knorm")
    assert found.claimed and found.passed
    spec = registry.METHODS["knorm"].but(where=f"tests.support.traps:{trap}")
    monkeypatch.setitem(registry.METHODS, "broken", spec)
    for found in prove(thin, ids, "broken")[1:]:
        assert found.claimed and not found.passed
        assert "at the first eviction: eviction or rotation" in found.diagnosis


def test_a_table_says_where_choices_are_followed() -> None:
    found = Finding(subject="tova", form="", claimed=True, largest_nats=0.0, mean_nats=0.0)
    said = [tables.findings([each], "").notes for each in (found, replace(found, subject="mit"))]
    assert ["choices are equally good" in " ".join(notes) for notes in said] == [True, False]


def test_a_choice_that_rounding_may_have_made_is_followed(neox: Loaded, ids: Tensor) -> None:
    """Two keys score alike: either may go, and the reference goes on with the one that went."""
    config = replace(CONFIG, method="knorm", window=20, n_sink=0)
    text = torch.cat((ids[:12], ids[:12], ids[12:24]))[None]  # in the first layer keys come twice
    method = method_of("knorm", window=20, n_sink=0)
    assert isinstance(method, Scored)
    method.choices = []
    fed_nll(neox, text, 1, method)
    own = evictions.knorm(neox.model, text, config)
    assert torch.equal(evictions.knorm(neox.model, text, config, method.choices), own)
    first = method.choices[0].clone()
    (twin,) = [
        j for j in range(21) if text[0, j] == text[0, first[0, 0, 0]] and j != first[0, 0, 0]
    ]
    first[0, 0, 0] = twin
    assert evictions.knorm(neox.model, text, config, [])[0, 21:].isnan().all()
    other = evictions.knorm(neox.model, text, config, [first, *method.choices[1:]])
    assert torch.equal(other[0, :21], own[0, :21])  # the last of them before anything went
    assert other[0, 21].isfinite() and other[0, 21] != own[0, 21]


def test_what_never_evicts_past_the_trained_length_is_named(
    thin: Loaded, ids: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, "broken", "NeverEvicts")
    short = replace(thin, trained_length=20)
    (_, found, _) = prove(short, ids, "broken")
    assert "past the trained length: nothing is being evicted" in found.diagnosis


def test_drift_in_half_precision_is_named(
    thin: Loaded, ids: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, "streaming", "TurnsStepByStep")
    found = {each.subject.split(" ")[0]: each for each in prove(thin, ids, "streaming")}
    assert found["streaming"].passed
    drifted = found["bfloat16"]
    assert not drifted.passed and drifted.largest_nats > drifted.mean_nats
    assert "errors pile up" in found["bfloat16"].diagnosis


def test_of_a_format_in_which_the_model_itself_overflows_nothing_is_claimed(
    neox: Loaded, ids: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of Gemma 3 in float16."""
    scores = {torch.float32: 1.0, torch.float16: torch.nan, torch.bfloat16: 1.0}
    shape = 1, len(ids) - 1
    monkeypatch.setattr(
        reference, "dense_nll", lambda model, _: torch.full(shape, scores[model.dtype])
    )
    want = torch.ones(len(ids) - 1)
    found = [_half(neox, ids, CONFIG, each, want) for each in ("float16", "bfloat16")]
    assert [each.claimed for each in found] == [False, True]
    assert "no finite scores in float16" in found[0].diagnosis


def test_too_few_tokens_prove_nothing_and_are_refused(neox: Loaded, ids: Tensor) -> None:
    with pytest.raises(UsageError, match="prove nothing"):
        prove(neox, ids[:30], "streaming")


@pytest.mark.slow
def test_the_command_ends_with_1_where_a_claim_does_not_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["verify", "--model", "bundled", "--dataset", "bundled-narrative", "--methods"]
    size = ["--window", "20", "--max-tokens", "50"]
    for method, code in (("window", 0), ("streaming", 1)):
        monkeypatch.setattr(sys, "argv", ["streamcli", *words, method, *size])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        assert (ended.value.code or 0) == code, err
        assert "claims hold, for this model, text and these sizes only" in out
        assert "chunked (32)" in out  # --chunk-size as it is by default
        plant(monkeypatch, "streaming", "NoRotation")
    assert "claims do not hold; the first: streaming, decode-loop: at the first eviction" in err
    assert not (tmp_path / "data").exists()


@pytest.mark.slow
def test_quick_is_smaller_and_tells_what_it_does_also_where_nobody_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["verify", "--model", "bundled", "--dataset", "bundled-narrative", "--methods", "dense"]
    for more, sizes in ((["--quick"], (72, 16)), (["--quick", "--window", "30"], (72, 30))):
        monkeypatch.setattr(sys, "argv", ["streamcli", *words, *more])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        assert not ended.value.code, err
        assert "on {} tokens of bundled-narrative; S=4, W={}\n".format(*sizes) in out
        assert "the obvious loops read 72 tokens one by one" in err
        assert "streamcli: dense chunked (32) ...\n" in err
