"""Models: every form of a name loads or is refused in one line, with and without a Hub."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from core.errors import StreamError, UsageError
from core.models.loading import load, resolve_device
from tests.support.hub_standin import ROOT, Hub, tiny_model
from tests.support.samples import read, refusal

DEFAULT = "EleutherAI/pythia-70m"
Found = dict[str, Any]


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return tiny_model()


@pytest.fixture
def folder(tmp_path: Path, files: dict[str, bytes]) -> Path:
    return write(tmp_path / "tiny", files)


# On the Hub: one process asks for everything, the tests look at what it got.


@pytest.fixture(scope="module")
def commits(hub: Hub, files: dict[str, bytes]) -> dict[str, str]:
    pickled = {name: data for name, data in files.items() if name != "model.safetensors"}
    buffer = io.BytesIO()
    with io.BytesIO(files["model.safetensors"]) as source:
        from safetensors.torch import load as read_safetensors

        torch.save(read_safetensors(source.read()), buffer)
    own_code = {"model_type": "homemade", "auto_map": {"AutoConfig": "homemade.Config"}}
    encoder = {"model_type": "bert", "architectures": ["BertForMaskedLM"]}
    hub.put("them/pickled", {**pickled, "pytorch_model.bin": buffer.getvalue()})
    hub.put("them/own-code", {**files, "config.json": json.dumps(own_code).encode()})
    hub.put("them/encoder", {**files, "config.json": json.dumps(encoder).encode()})
    hub.put("them/gated", files, gated=True)
    old = hub.put(DEFAULT, tiny_model(seed=1), branch="step1000")
    return {"main": hub.put(DEFAULT, files), "step1000": old}


@pytest.fixture(scope="module")
def online(hub: Hub, commits: dict[str, str]) -> Found:
    return hub.child(f"""
model("default", "{DEFAULT}", explicit=False)
model("again", "{DEFAULT}")
model("branch", "{DEFAULT}@step1000")
model("commit", "{DEFAULT}@{commits["step1000"]}")
model("no_revision", "{DEFAULT}@step9")
model("nowhere", "them/nowhere")
model("gated", "them/gated")
model("pickled", "them/pickled")
model("trusted", "them/pickled", trust=True)
model("own_code", "them/own-code")
model("encoder", "them/encoder")
model("no_id", "them/no such id")
model("local_only", "{DEFAULT}", source="bundled")
model("local_default", "{DEFAULT}", source="bundled", explicit=False)
""")


@pytest.fixture(scope="module")
def offline(hub: Hub, online: Found) -> Found:
    """HF_HUB_OFFLINE with the cache that ``online`` filled; the Hub itself still answers."""
    return hub.child(
        f"""
model("cached", "{DEFAULT}", explicit=False)
model("cached_hub", "{DEFAULT}", source="hub")
model("missing", "them/encoder")
""",
        HF_HUB_OFFLINE="1",
    )


@pytest.fixture(scope="module")
def stopped(hub: Hub, offline: Found) -> Found:
    """The same cache after the Hub went away."""
    hub.stop()
    return hub.child(f"""
model("cached", "{DEFAULT}")
model("cached_hub", "{DEFAULT}", source="hub")
model("cached_branch", "{DEFAULT}@step1000")
model("missing", "{DEFAULT}@step9", explicit=False, source="hub")
""")


def test_default_model_comes_from_the_hub_with_its_commit_and_hash(
    online: Found, commits: dict[str, str], files: dict[str, bytes]
) -> None:
    assert online["default"]["name"] == DEFAULT
    assert online["default"]["revision"] == commits["main"]
    assert online["default"]["notes"] == []
    weights = hashlib.sha256(files["model.safetensors"]).hexdigest()
    assert online["default"]["sha256"] == weights


def test_a_second_load_asks_the_hub_for_nothing(online: Found) -> None:
    assert online["again"]["revision"] == online["default"]["revision"]
    asked = [line for line in online["requests"] if f"models/{DEFAULT}/revision/main" in line]
    assert len(asked) == 1


def test_branch_and_commit_pin_the_same_other_weights(
    online: Found, commits: dict[str, str]
) -> None:
    assert online["branch"]["revision"] == online["commit"]["revision"] == commits["step1000"]
    assert online["branch"]["sha256"] == online["commit"]["sha256"] != online["default"]["sha256"]


@pytest.mark.parametrize(
    ("case", "kind", "words"),
    [
        ("no_revision", "UsageError", "no revision 'step9'"),
        ("nowhere", "UsageError", "'them/nowhere' is not on http"),
        ("gated", "StreamError", "hf auth login"),
        ("pickled", "UsageError", "--trust"),
        ("own_code", "UsageError", "--trust"),
        ("encoder", "UsageError", "BertForMaskedLM"),
        ("no_id", "UsageError", "can't be a Hub id"),
        ("local_only", "UsageError", "--source bundled uses no network"),
    ],
)
def test_the_hub_refuses_in_one_line(online: Found, case: str, kind: str, words: str) -> None:
    assert online[case]["error"] == kind
    assert words in online[case]["says"]
    assert "\n" not in online[case]["says"]


def test_an_encoder_is_refused_before_its_weights_are_fetched(online: Found) -> None:
    asked = [line for line in online["requests"] if "them/encoder" in line]
    assert asked
    assert not any("model.safetensors" in line for line in asked)


def test_trust_loads_pickled_weights(online: Found) -> None:
    assert online["trusted"]["parameters"] == online["default"]["parameters"]


def test_source_bundled_takes_the_bundled_model_for_the_default_without_a_note(
    online: Found,
) -> None:
    assert online["local_default"]["name"] == "bundled"
    assert online["local_default"]["notes"] == []


def test_loading_writes_nothing_to_stderr(online: Found) -> None:
    assert online["stderr"] == ""


def test_offline_mode_uses_the_cache_and_no_network(offline: Found, online: Found) -> None:
    assert offline["cached"]["revision"] == online["default"]["revision"]
    assert offline["cached_hub"]["revision"] == online["default"]["revision"]
    assert "HF_HUB_OFFLINE is set" in offline["missing"]["says"]
    assert offline["requests"] == []


def test_the_cache_serves_when_the_hub_is_gone(stopped: Found, online: Found) -> None:
    for case in ("cached", "cached_hub"):
        assert stopped[case]["name"] == DEFAULT
        assert stopped[case]["sha256"] == online["default"]["sha256"]
    assert stopped["cached_branch"]["sha256"] == online["branch"]["sha256"]


def test_source_hub_does_not_fall_back(stopped: Found) -> None:
    assert stopped["missing"]["error"] == "Unreachable"
    assert stopped["missing"]["exit"] == 1


def test_a_black_holed_hub_is_given_up_after_three_seconds(hub: Hub, black_hole: str) -> None:
    found = hub.child(
        f"""
import socket, threading, time
import transformers
from core import hub
join, waits = threading.Thread.join, []

def watched(thread, timeout=None):
    waits.append(timeout)
    join(thread, timeout)

def why(probe):
    waits.clear()
    return {{"why": probe(), "waits": [seconds for seconds in waits if seconds]}}

threading.Thread.join = watched
attempt("silence", lambda: why(hub.silence))
model("default", "{DEFAULT}", explicit=False)
model("named", "{DEFAULT}")
model("hub", "{DEFAULT}", explicit=False, source="hub")
socket.getaddrinfo = lambda *given, **more: time.sleep(60)
attempt("no_names", lambda: why(hub.silence.__wrapped__))
""",
        cache="empty",
        HF_ENDPOINT=black_hole,
    )
    for case in ("silence", "no_names"):
        assert found[case]["why"] == "the Hub did not answer within 3 s"
        assert found[case]["waits"] == [3.0]
    assert found["default"]["name"] == "bundled"
    assert found["default"]["notes"] == [
        f"{DEFAULT}: not in the local cache and the Hub did not answer within 3 s; "
        "running the bundled model instead."
    ]
    for case in ("named", "hub"):
        assert found[case]["error"] == "Unreachable"
        assert "--model bundled" in found[case]["says"]


# On this machine.


def test_importing_loads_no_heavy_library() -> None:
    heavy = ("torch", "transformers", "datasets", "huggingface_hub", "pyarrow")
    code = "import sys, core.models.loading, core.tokens;"
    code += f"print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    assert done.stdout.split() == [b"[]"]


def test_a_folder_is_loaded_frozen_in_eval_mode_and_in_the_dtype_asked_for(folder: Path) -> None:
    loaded = load(str(folder), dtype="bfloat16", device="cpu")
    assert not loaded.model.training
    assert {weight.dtype for weight in loaded.model.parameters()} == {torch.bfloat16}
    assert not any(weight.requires_grad for weight in loaded.model.parameters())
    assert (loaded.name, loaded.revision, loaded.trained_length) == (str(folder), None, 256)
    assert loaded.parameters == sum(weight.numel() for weight in loaded.model.parameters())


def test_the_bundled_model_loads() -> None:
    loaded = read("bundled", source="bundled")
    assert loaded.name == "bundled"
    assert loaded.tokenizer.decode(loaded.tokenizer("It 's here .").input_ids) == "It 's here ."


def test_every_shard_counts_in_the_hash(folder: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.save_pretrained(folder, max_shard_size="1MB")
    (folder / "model.safetensors").unlink()
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    whole = hashlib.sha256(b"".join(shard.read_bytes() for shard in shards)).hexdigest()
    assert read(folder).weights_sha256 == whole
    shards[-1].unlink()
    assert "with all its parts" in refusal(folder)


@pytest.mark.slow
def test_whatever_else_a_run_depends_on_counts_in_a_hash_of_its_own(
    folder: Path, tmp_path: Path
) -> None:
    before = read(folder)
    shutil.copytree(folder, tmp_path / "moved")
    assert read(tmp_path / "moved").files_sha256 == before.files_sha256 != before.weights_sha256
    (folder / "README.md").write_text("Nothing reads it.")
    (folder / "own.py").write_text("pass")
    assert read(folder).files_sha256 == before.files_sha256
    trusted = read(folder, trust=True).files_sha256
    config = json.loads((folder / "config.json").read_text()) | {"rope_theta": 20000.0}
    found = {before.files_sha256, trusted}
    for name, text in (
        ("config.json", json.dumps(config)),
        ("generation_config.json", "{}"),
        ("special_tokens_map.json", "{}"),
        ("chat_template.jinja", "{{ messages }}"),
    ):
        (folder / name).write_text(text)
        after = read(folder)
        found.add(after.files_sha256)
        assert after.weights_sha256 == before.weights_sha256
    assert len(found) == 6


def test_a_misspelt_name_is_met_with_the_nearest_one() -> None:
    said = refusal("bundeld")
    assert "Did you mean 'bundled'?" in said
    assert ".gguf" in said


@pytest.mark.parametrize("spec", ["./nowhere", "/no/such/folder", "no/such/folder", "x.gguf"])
def test_a_path_to_nothing_is_named(spec: str) -> None:
    assert spec in refusal(spec)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    assert "is no model" in refusal(tmp_path / "notes.txt")


def test_a_folder_without_a_configuration_is_refused(tmp_path: Path) -> None:
    assert "no config.json" in refusal(tmp_path)


def test_a_folder_without_weights_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "no model.safetensors" in refusal(folder)
    (folder / "model.gguf").write_bytes(b"GGUF")
    assert "name its GGUF file itself" in refusal(folder)


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "bert", "architectures": ["BertForMaskedLM"]},
        {"model_type": "bert", "architectures": ["BertLMHeadModel"]},
        {"model_type": "roberta"},
        {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]},
        {"model_type": "bart"},
        {"model_type": "vit"},
    ],
)
def test_what_is_no_decoder_is_refused(folder: Path, config: dict[str, Any]) -> None:
    (folder / "config.json").write_text(json.dumps(config))
    assert "is no causal decoder" in refusal(folder)


def test_a_decoder_without_a_trained_length_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "bloom"}))
    assert "max_position_embeddings" in refusal(folder)


def test_an_unknown_model_type_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "homemade"}))
    assert "unknown to transformers" in refusal(folder)


def test_broken_files_fail_in_one_line(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "weights can't be loaded" in refusal(folder, StreamError)
    (folder / "config.json").write_text("{")
    assert "can't be read" in refusal(folder, StreamError)


def test_weights_that_are_missing_in_the_file_are_not_made_up(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["gpt_neox.final_layer_norm.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert "lack 1 weights, such as gpt_neox.final_layer_norm.weight" in refusal(
        folder, StreamError
    )


def test_loading_leaves_logging_as_it_was(folder: Path) -> None:
    import logging

    before = logging.root.manager.disable, sys.stderr
    read(folder)
    refusal(folder / "config.json")
    assert (logging.root.manager.disable, sys.stderr) == before


# Devices.


@pytest.mark.parametrize("name", ["tpu", "gpu", "cuda:x", "cuda:", ""])
def test_an_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="choose one of auto, cpu, cuda, cuda:N, mps"):
        resolve_device(name)


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match="not available"):
        resolve_device("cuda:99")


def test_auto_is_a_device_that_is_there() -> None:
    assert resolve_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_device("cpu") == "cpu"
