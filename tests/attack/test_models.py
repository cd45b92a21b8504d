"""Models that can't be: each is refused in one line that says what of it is wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load, save

from streamcli.results import frames
from streamcli.results.store import Store
from tests.support.hub_standin import tiny_model
from tests.support.typed import DB, Type

TEXT = ("--dataset", "bundled-narrative", "--max-tokens", "60", "--window", "16")
FAST = ("--mode", "chunked", "--threads", "1")
DEEP = "[" * 50_000 + "]" * 50_000
NAMES = "must be a list of names"
LENGTH = "from 1 to 2,147,483,648"
LAYERS = "from 1 to 2,000"

Case = tuple[Mapping[str, Any], int, tuple[str, ...]]
CONFIGS: list[Case] = [
    ({"architectures": 5}, 1, ("architectures is 5", NAMES)),
    ({"architectures": "GPTNeoXForCausalLM"}, 1, ("architectures is 'GPTNeoX", NAMES)),
    ({"architectures": [None]}, 1, ("architectures is [None]", NAMES)),
    ({"architectures": {}}, 1, ("architectures is {}", NAMES)),
    ({"model_type": ["gpt_neox"]}, 1, ("model_type is ['gpt_neox']", "must be text")),
    ({"model_type": 5}, 1, ("model_type is 5", "must be text")),
    ({"auto_map": 5}, 1, ("auto_map is 5", "a mapping")),
    ({"rope_parameters": 5}, 1, ("rope_parameters is 5", "a mapping")),
    ({"max_position_embeddings": -5}, 1, ("max_position_embeddings is -5", LENGTH)),
    ({"max_position_embeddings": 0}, 1, ("max_position_embeddings is 0", LENGTH)),
    ({"max_position_embeddings": 10**18}, 1, ("max_position_embeddings is 10000", LENGTH)),
    ({"max_position_embeddings": "256"}, 1, ("max_position_embeddings is '256'", LENGTH)),
    ({"max_position_embeddings": True}, 1, ("max_position_embeddings is True", LENGTH)),
    ({"max_position_embeddings": 256.5}, 1, ("max_position_embeddings is 256.5", LENGTH)),
    ({"num_hidden_layers": 10**7}, 1, ("num_hidden_layers is 10000000", LAYERS)),
    ({"num_hidden_layers": 0}, 1, ("num_hidden_layers is 0", LAYERS)),
    ({"num_hidden_layers": "two"}, 1, ("num_hidden_layers is 'two'", LAYERS)),
    ({"hidden_size": 10**9}, 1, ("hidden_size is 1000000000", "1,000,000")),
    ({"vocab_size": 10**12}, 1, ("vocab_size is 1000000000000", "100,000,000")),
    ({"text_config": {"num_hidden_layers": 10**7}}, 1, ("num_hidden_layers", LAYERS)),
    ({"model_type": "llama", "num_hidden_layers": 10**7}, 1, (LAYERS,)),
    ({"num_attention_heads": 0}, 1, ("config.json is not valid",)),
    ({"vocab_size": 300}, 1, ("other shapes than its config.json",)),
]
FILES = [
    ("config.json", DEEP, 1, ("config.json can't be read", "nested too deeply")),
    ("config.json", "[]", 1, ("config.json can't be read", "no JSON object")),
    ("generation_config.json", DEEP, 1, ("generation_config.json can't be read",)),
    ("generation_config.json", "5", 1, ("generation_config.json can't be read",)),
    ("tokenizer_config.json", "5", 1, ("tokenizer_config.json can't be read",)),
    ("tokenizer.json", DEEP, 1, ("tokenizer can't be loaded",)),
    ("tokenizer.json", "{}", 1, ("tokenizer can't be loaded",)),
    ("tokenizer.json", None, 2, ("m has no tokenizer files", "beside its config.json")),
]
INDICES = [
    {"weight_map": []},
    {"weight_map": {"a": "../model.safetensors"}},
    {"weight_map": {"a": "/etc/passwd"}},
    {"weight_map": {"a": ""}},
]
NAMED = [
    ("", 2, ("the model has no name", "--model takes")),
    ("  ", 2, ("the model has no name",)),
    ("~nosuchuser/x", 2, ("~nosuchuser/x", "no home of a user 'nosuchuser'")),
    ("a" * 5000, 2, ("aaa...", "too long")),
    ("/" + "a" * 5000, 2, ("aaa...", "too long")),
    ("them/" + "a" * 5000, 2, ("aaa...", "too long")),
    ("/dev/zero", 2, ("/dev/zero is no model",)),
    (".", 2, (". has no config.json",)),
]


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return tiny_model()


@pytest.fixture
def model(home: Path, files: dict[str, bytes]) -> Path:
    folder = home / "m"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def run(typed: Type, *more: str) -> Any:
    return typed("run", "--model", "m", *TEXT, *FAST, *more)


@pytest.mark.parametrize(("changed", "code", "words"), CONFIGS)
def test_a_configuration_that_no_model_has(
    typed: Type, model: Path, changed: Mapping[str, Any], code: int, words: tuple[str, ...]
) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, **changed}))
    assert run(typed).refuses(code, "m", *words)
    assert not DB.exists()


@pytest.mark.parametrize(("name", "text", "code", "words"), FILES)
def test_a_file_that_is_none(
    typed: Type, model: Path, name: str, text: str | None, code: int, words: tuple[str, ...]
) -> None:
    (model / name).unlink()
    if text is not None:
        (model / name).write_text(text)
    assert run(typed).refuses(code, *words)
    assert not DB.exists()


def test_tokenizer_settings_are_no_tokenizer(typed: Type, model: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (model / name).unlink()
        assert run(typed).refuses(2, "m has no tokenizer files")


@pytest.mark.parametrize("index", INDICES)
def test_an_index_that_names_no_file_beside_it(typed: Type, model: Path, index: Any) -> None:
    (model / "model.safetensors").unlink()
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    assert run(typed).refuses(1, "model.safetensors.index.json is not valid", "weight_map")


@pytest.mark.parametrize(("spec", "code", "words"), NAMED)
def test_a_name_of_nothing(
    typed: Type, home: Path, spec: str, code: int, words: tuple[str, ...]
) -> None:
    assert typed("run", "--model", spec, *TEXT, *FAST).refuses(code, *words)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.slow
def test_weights_that_are_no_numbers_make_a_failed_run(
    typed: Type, model: Path, value: float
) -> None:
    weights = load((model / "model.safetensors").read_bytes())
    name = "gpt_neox.layers.1.mlp.dense_h_to_4h.weight"
    weights[name][3, 5] = value
    (model / "model.safetensors").write_bytes(save(weights, {"format": "pt"}))
    assert run(typed).refuses(1, "m gives token 1 a score of", name, "fetch the model again")
    ended = frames.runs(Store.open(DB), status=None)
    assert list(ended["status"]) == ["failed"] and ended["ppl"].isna().all()
    assert name in ended["error"][0]


@pytest.mark.slow
def test_a_number_format_that_is_too_narrow_makes_a_failed_run(typed: Type, model: Path) -> None:
    weights = load((model / "model.safetensors").read_bytes())
    weights["embed_out.weight"] *= 1e6
    (model / "model.safetensors").write_bytes(save(weights, {"format": "pt"}))
    assert run(typed, "--dtype", "float16").refuses(1, "embed_out", "use --dtype float32")
    assert run(typed).code == 0


def test_token_ids_that_the_model_has_no_embedding_for(typed: Type, model: Path) -> None:
    weights = load((model / "model.safetensors").read_bytes())
    small = {name: w[:300].clone() if len(w) == 4096 else w for name, w in weights.items()}
    (model / "model.safetensors").write_bytes(save(small, {"format": "pt"}))
    config = json.loads((model / "config.json").read_text()) | {"vocab_size": 300}
    (model / "config.json").write_text(json.dumps(config))
    assert run(typed).refuses(2, "m: its tokenizer makes token id ", "the model has 300 embeddings")
    assert not DB.exists()
