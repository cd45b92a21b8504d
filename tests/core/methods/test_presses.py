"""Any press of kvpress while decoding: S + W keys at every step, or refused with the reason."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from importlib.metadata import version
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from core import extras, registry
from core.config import RunConfig
from core.errors import UsageError
from core.methods import press, press_names, press_trial
from core.methods.base import Method
from core.models import loading
from core.models.loading import Loaded
from core.proof.verify import verify
from tests.support import presses_page
from tests.support.method_cases import need
from tests.support.samples import EXACT, around, fed_nll, gap, method_of, random_ids, tiny_llama
from tests.support.typed import Type

PAGE = presses_page.PAGE.read_text().partition("## Those that can't")
CAN, CANNOT = (tuple(re.findall(r"^\| `(\w+)`", part, re.MULTILINE)) for part in PAGE[::2])
AROUND = re.findall(r"^\| `(\w+)`.*`press`", PAGE[0], re.MULTILINE)
WINDOW = 66  # and S = 4: more than the 64 newest tokens that SnapKV never drops


@pytest.fixture
def kvpress() -> Any:
    need("kvpress")
    return press.load()


@pytest.fixture(scope="module")
def llama() -> Loaded:
    """Random, with grouped queries."""
    return around(tiny_llama())


def pressed(name: str, own: dict[str, Any] | None = None, **asked: Any) -> Method:
    around = {"press": "KnormPress"} if name in AROUND else {}
    param = tuple({**around, **(own or {})}.items())
    return method_of(f"kvpress:{name}", **{"window": WINDOW, "param": param, **asked})


def distinct_ids() -> Tensor:
    """(1, 97): each token once, so that no two keys of the first layer are alike."""
    return torch.randperm(97, generator=torch.Generator().manual_seed(3))[None]


def test_the_page_says_what_happens_to_every_press_of_the_package(kvpress: Any) -> None:
    if f"kvpress {version('kvpress')}." not in PAGE[0]:
        pytest.skip("the page is of another version of kvpress")
    assert sorted(CAN + CANNOT) == sorted(press_names.names()) and len(CAN) >= 17
    assert presses_page.text() == presses_page.PAGE.read_text()


@pytest.mark.parametrize("name", CAN)
def test_a_query_sees_s_plus_w_keys_and_itself_at_every_step_and_runs_are_alike(
    kvpress: Any, llama: Loaded, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, method = random_ids(1, 75), pressed(name)
    stream = method.start(llama, 1)
    seen: dict[int, list[int]] = {}
    update = DynamicLayer.update

    def spy(self: DynamicLayer, *args: Any, **kwargs: Any) -> Any:
        keys, values = update(self, *args, **kwargs)
        seen.setdefault(id(self), []).append(keys.shape[-2])
        return keys, values

    monkeypatch.setattr(DynamicLayer, "update", spy)
    state = torch.get_rng_state()
    with torch.inference_mode():
        logits = stream.feed(ids)
    wanted = [min(t, 70) + 1 for t in range(75)]
    assert list(seen.values()) == [wanted, wanted] and method.attended([75]).tolist() == wanted
    assert stream.kv_bytes() == method.kv_formula_bytes(llama, 1, [75]) and stream.held() == 70
    assert torch.equal(torch.get_rng_state(), state)
    with torch.inference_mode():
        again = pressed(name).start(llama, 1).feed(ids)
    assert torch.equal(logits, again) and logits.isfinite().all()


@pytest.mark.parametrize("name", CAN)
def test_rows_in_step_are_single_rows_or_refused(kvpress: Any, llama: Loaded, name: str) -> None:
    if press_trial.facts(name).alone:
        with pytest.raises(UsageError, match="batch_size is 2.*one document at a time"):
            pressed(name, batch_size=2)
        return
    ids = torch.stack([distinct_ids()[0], distinct_ids()[0].flip(0)])[:, :78]
    method = pressed(name)
    assert gap(fed_nll(llama, ids, 1, method)[1:], fed_nll(llama, ids[1:], 1, method)) < EXACT


@pytest.mark.parametrize("name", CANNOT)
def test_what_cannot_evict_while_decoding_is_refused_in_a_line(kvpress: Any, name: str) -> None:
    with pytest.raises(UsageError, match=f"kvpress:{name} can't evict while decoding: ") as caught:
        extras.check(f"kvpress:{name}")
    assert "\n" not in str(caught.value)


def test_the_streaming_press_is_kvpress_and_streaming(kvpress: Any, llama: Loaded) -> None:
    ids = random_ids(1, 150)
    got = fed_nll(llama, ids, 1, pressed("StreamingLLMPress", window=27))
    assert torch.equal(got, fed_nll(llama, ids, 1, method_of("kvpress")))
    assert gap(got, fed_nll(llama, ids, 1, method_of("streaming"))) < EXACT
    lost = pressed("StreamingLLMPress", {"positions": "absolute"}, window=27)
    assert gap(got, fed_nll(llama, ids, 1, lost)) > 1


@pytest.mark.parametrize("positions", ["cache", "absolute"])
def test_the_norm_press_is_knorm_until_two_keys_are_equally_long(
    kvpress: Any, llama: Loaded, positions: str
) -> None:
    own = {"positions": positions}
    theirs = pressed("KnormPress", own, window=27)
    ours = method_of("knorm", param=(("positions", positions),))
    ids = distinct_ids()
    assert gap(fed_nll(llama, ids, 1, theirs), fed_nll(llama, ids, 1, ours)) < EXACT
    ids = random_ids(1, 97)  # words that come again
    assert gap(fed_nll(llama, ids, 1, theirs), fed_nll(llama, ids, 1, ours)) > 0.1


def test_what_the_page_says_of_presses_that_are_others(kvpress: Any, llama: Loaded) -> None:
    ids, absolute = random_ids(1, 90), {"positions": "absolute"}

    def nats(name: str, own: dict[str, Any] | None = None) -> Tensor:
        return fed_nll(llama, ids, 1, pressed(name, own))

    assert torch.equal(nats("PyramidKVPress"), nats("SnapKVPress", absolute))
    assert gap(nats("LagKVPress"), nats("StreamingLLMPress")) < EXACT
    window = fed_nll(llama, ids, 1, method_of("window", window=WINDOW))
    assert gap(nats("SnapKVPress", {"window_size": 70}), window) < EXACT
    assert gap(nats("SnapKVPress", {"window_size": 20}), window) > 0.1
    assert gap(nats("LagKVPress", {"lag_size": 16}), nats("StreamingLLMPress")) > 0.1


def test_options_are_the_presses_own_and_change_what_stays(kvpress: Any, llama: Loaded) -> None:
    ids = random_ids(1, 90)
    one = fed_nll(llama, ids, 1, pressed("CURPress"))
    other = fed_nll(llama, ids, 1, pressed("CURPress", {"leverage_type": "key"}))
    assert gap(one, other) > 0.1
    drawn = [fed_nll(llama, ids, 1, pressed("RandomPress", seed=seed)) for seed in (0, 1)]
    assert gap(*drawn) > 0.1
    around = [pressed("CriticalKVPress", {"press": p}) for p in ("KnormPress", "KeyDiffPress")]
    assert gap(*(fed_nll(llama, ids, 1, method) for method in around)) > 0.1


def test_an_interval_is_another_budget(kvpress: Any, llama: Loaded) -> None:
    method = pressed("KnormPress", evict_every=5)
    stream, ids = method.start(llama, 1), random_ids(1, 90)
    held = []
    with torch.inference_mode():
        for t in range(90):
            held.append(stream.held() + 1)
            stream.feed(ids[:, t : t + 1])
    assert method.attended([90]).tolist() == held and max(held) == 75
    assert method.eviction == "every-5" and "up to 4 keys beyond" in method.notes(llama, 90)[-1]
    assert stream.kv_bytes() == method.kv_formula_bytes(llama, 1, [90])
    snap = pressed("SnapKVPress", {"hidden_states_buffer_size": 66}, evict_every=7)
    stream = snap.start(llama, 1)
    with torch.inference_mode():
        stream.feed(ids)
    assert stream.kv_bytes() == snap.kv_formula_bytes(llama, 1, [90])


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "KnormPress": ({"positions": "rank"}, "positions is 'rank': choose cache or absolute"),
    "PyramidKVPress": ({"positions": "cache"}, "KeyRerotationPress holds scorers only"),
    "SnapKVPress": ({"hidden_states_buffer_size": 0}, "hidden_states_buffer_size is 0"),
    "CURPress": ({"sinks": 4}, "unknown option of 'kvpress:CURPress' 'sinks'"),
    "MergingPress": ({"press": "Knorm"}, "Did you mean 'KnormPress'"),
    "CriticalKVPress": ({"press": "MergingPress"}, "can't be made around MergingPress"),
    "EntropyGatedChunkKVPress": ({"chunk_length": 2}, "requires chunk_length > "),
}


@pytest.mark.parametrize("name", WRONG)
def test_options_that_cannot_be_are_refused(kvpress: Any, name: str) -> None:
    own, words = WRONG[name]
    with pytest.raises(UsageError, match=words) as caught:
        pressed(name, own)
    assert "\n" not in str(caught.value)


def test_a_press_around_another_one_asks_which(kvpress: Any) -> None:
    with pytest.raises(UsageError, match="say which, such as --param press=KnormPress"):
        pressed("MergingPress", {"press": ""})


FAILS: dict[str, tuple[str, dict[str, Any], int, str]] = {
    "no numbers": ("ExpectedAttentionPress", {"hidden_states_buffer_size": 3}, 66, "no numbers"),
    "no room for its window": ("SnapKVPress", {}, 20, "with 25 keys its code says"),
    "chunks": ("ChunkPress", {"chunk_length": 20}, 66, r"left 6\d keys in a layer, where 70 were"),
}


@pytest.mark.parametrize("case", FAILS)
def test_what_would_go_wrong_at_the_first_eviction_is_told_before_the_run(
    kvpress: Any, llama: Loaded, case: str
) -> None:
    name, own, window, words = FAILS[case]
    method = pressed(name, own, window=window)
    method.check(llama, 20)  # of a text that fills no cache nothing is evicted
    with pytest.raises(UsageError, match=words) as caught:
        method.check(llama, 200)
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match=words):
        fed_nll(llama, random_ids(1, 100), 1, method)


def test_a_press_that_makes_queries_is_refused_on_a_gpt_neox(kvpress: Any, neox: Loaded) -> None:
    with pytest.raises(UsageError, match="TOVAPress can't evict while decoding here: .*Error"):
        pressed("TOVAPress").check(neox, 200)
    pressed("KnormPress").check(neox, 200)


def test_verify_claims_nothing_but_for_the_streaming_press(
    kvpress: Any, neox: Loaded, neox_ids: Tensor
) -> None:
    names = [f"kvpress:{name}" for name in ("StreamingLLMPress", "KnormPress", "KeyDiffPress")]
    asked = RunConfig(n_sink=4, window=16, max_tokens=60, chunk_size=8, device="cpu")
    config = asked.fitted(256)
    found = {
        each.subject: each
        for each in verify(neox, neox_ids[0, :60], config, names, ("decode-loop",))
        if each.subject in names
    }
    streaming, norm, other = (found[name] for name in names)
    assert streaming.claimed and streaming.passed
    for each in (norm, other):
        assert not each.claimed and "no reference is known" in each.diagnosis


def test_notes_say_where_keys_stand_and_what_is_held_besides(kvpress: Any, llama: Loaded) -> None:
    def said(name: str, own: dict[str, Any] | None = None, **asked: Any) -> str:
        return " ".join(pressed(name, own, **asked).notes(llama, 200))

    assert "KeyRerotationPress, keys at positions in the cache" in said("KnormPress")
    assert "keys at the positions of the text" in said("KnormPress", {"positions": "absolute"})
    assert "drift" in said("KnormPress", dtype="bfloat16")
    assert "MergingPress around KnormPress" in said("MergingPress")
    assert "last 256 tokens" in said("SnapKVPress") and "eager" in said("ObservedAttentionPress")
    assert "one by one" in said("KnormPress", mode="chunked")
    assert pressed("KnormPress", {"positions": "absolute"}).positions == "absolute"


def test_chunks_are_read_token_by_token(kvpress: Any, llama: Loaded) -> None:
    ids = random_ids(1, 90)
    one, many = (fed_nll(llama, ids, size, pressed("TOVAPress")) for size in (1, 40))
    assert torch.equal(one, many)


def test_names_and_what_a_press_is_are_known_without_torch_and_without_the_package() -> None:
    code = """
import sys
from core import registry
from core.methods import press_names
spec = registry.recorded("kvpress:SnapKVPress")
assert spec.budget == "window" and spec.has_budget and spec.needs == "kvpress"
assert "SnapKVPress" in press_names.names() or not press_names.names()
assert registry.place("kvpress:SnapKVPress") == len(registry.methods())
assert not {"torch", "kvpress", "transformers"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_without_the_package_a_record_is_shown_and_a_run_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(press_names, "_sources", dict)
    assert registry.recorded("kvpress:TOVAPress").look == press_names.look("TOVAPress")
    with pytest.raises(UsageError, match=r"'kvpress:TOVAPress' needs .*streamcli\[kvpress\]"):
        RunConfig(method="kvpress:TOVAPress")


def test_a_name_is_matched_with_the_nearest_and_methods_with_the_family(kvpress: Any) -> None:
    with pytest.raises(UsageError, match="unknown press of kvpress 'Snap.*'SnapKVPress'"):
        RunConfig(method="kvpress:SnapKVPres")
    with pytest.raises(UsageError, match="unknown method 'kvpres'.*, or kvpress:PRESS"):
        RunConfig(method="kvpres")
    assert registry.known("method", "kvpress:KnormPress")
    assert not registry.known("method", "kvpress:Knorm")


@pytest.mark.parametrize("name", CAN)
def test_sinks_are_found_in_the_source_as_they_are_in_the_class(kvpress: Any, name: str) -> None:
    takes = "n_sink" in inspect.signature(getattr(kvpress, name)).parameters
    assert press_names.has_sinks(name) is takes
    config = RunConfig(method=f"kvpress:{name}", n_sink=4, window=60)
    assert (config.n_sink, config.window) == ((4, 60) if takes else (0, 64))


def test_presses_are_told_apart_in_figures() -> None:
    looks = [press_names.look(name) for name in CAN]
    others = [spec.look for spec in registry.METHODS.values()]
    assert len({(look.colour, look.symbol) for look in (*looks, *others)}) == len(looks + others)


SMALL = ("--model", "bundled", "--dataset", "bundled-narrative", "--max-tokens", "80")


def test_presses_are_swept_shown_compared_drawn_and_run_again(kvpress: Any, typed: Type) -> None:
    methods = ("streaming", "knorm", "kvpress:KnormPress", "kvpress:CURPress")
    more = ("--modes", "decode-loop", "--windows", "60", "--local-window-size", "8")
    words = [{"--model": "--models", "--dataset": "--datasets"}.get(word, word) for word in SMALL]
    assert typed("sweep", *words, "--methods", *methods, *more).code == 0
    rows = {row["method"]: row for row in json.loads(typed("report", "--json").out)}
    assert set(rows) == set(methods)
    assert {row["attended_keys"] for row in rows.values()} == {65}
    assert json.loads(rows["kvpress:CURPress"]["param"])["local_window_size"] == 8
    assert rows["kvpress:KnormPress"]["method_package"] == f"kvpress=={version('kvpress')}"
    assert rows["kvpress:KnormPress"]["kv_mib"] == rows["kvpress:KnormPress"]["kv_formula_mib"]
    done = typed("compare", "--baseline", "streaming")
    assert done.code == 0 and "kvpress:CURPress" in done.out
    assert typed("plot", "stream", "--format", "html").code == 0
    again = typed("rerun", rows["kvpress:CURPress"]["run_id"])
    assert again.code == 0 and "bit for bit the same" in again.out


@pytest.mark.parametrize("command", ["run", "sweep", "bench", "generate", "verify"])
@pytest.mark.slow
def test_what_cannot_be_had_is_refused_before_a_model_is_loaded(
    typed: Type, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(loading, "load", lambda *_, **__: pytest.fail("a model was loaded"))
    of = "s" if command in ("sweep", "bench", "verify") else ""
    kind = {"bench": ("bench", "decode", "--shape", "tiny"), "generate": (command, "a")}
    words = kind.get(command, (command,))
    try:
        press.load()
        told, missed = "can't evict while decoding", "Did you mean 'KnormPress'"
    except UsageError:  # such as under a newer transformers
        told, missed = "kvpress", "kvpress"
    assert typed(*words, f"--method{of}", "kvpress:AdaKVPress").refuses(2, told)
    assert typed(*words, f"--method{of}", "kvpress:KnormPres").refuses(2, missed)
