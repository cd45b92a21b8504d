"""GGUF files: the model and the tokenizer that were put in come out, or one line says why not."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from core.dialogue import form
from core.errors import UsageError
from core.models import gguf_file, loading
from core.models.loading import Loaded, load
from tests.support.hub_standin import ROOT
from tests.support.samples import read, refusal
from tests.support.sentencepieces import naive, vocabulary, write_pieces

DEFAULT = "EleutherAI/pythia-70m"


def write_gguf(path: Path, model: Any, fields: dict[str, Any], tokens: Any = None) -> None:
    """A Llama of ours as llama.cpp would store it, in float32.

    Its tokenizer is the bundled one, or what ``tokens`` writes.
    """
    from gguf import GGUFWriter

    config, writer = model.config, GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    (tokens or write_bundled_tokens)(writer)
    for name, value in fields.items():
        add: dict[type, Any] = {
            bool: writer.add_bool,
            int: writer.add_uint32,
            str: writer.add_string,
        }
        add[type(value)](name, value)
    for name, weight in model.state_dict().items():
        if name != "lm_head.weight":
            writer.add_tensor(gguf_name(name), turned(name, weight, config).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_bundled_tokens(writer: Any) -> None:
    vocabulary = json.loads((ROOT / "data/bundled/model/tokenizer.json").read_text())["model"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(sorted(vocabulary["vocab"], key=vocabulary["vocab"].get))
    writer.add_token_merges([" ".join(pair) for pair in vocabulary["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(5)


def gguf_name(name: str) -> str:
    for ours, theirs in {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "model.layers": "blk",
        "self_attn.o_proj": "attn_output",
        "self_attn.": "attn_",
        "mlp.": "ffn_",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "_proj": "",
    }.items():
        name = name.replace(ours, theirs)
    return name


def turned(name: str, weight: torch.Tensor, config: Any) -> torch.Tensor:
    """Queries and keys in llama.cpp's order, in which the two halves of a head are interleaved."""
    if "q_proj" not in name and "k_proj" not in name:
        return weight
    halves = weight.view(-1, 2, config.head_dim // 2, config.hidden_size)
    return halves.transpose(1, 2).reshape(weight.shape).contiguous()


def tiny(tokens: int) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "llama",
        vocab_size=tokens,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=128,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
        tie_word_embeddings=True,
    )
    auto: Any = AutoModelForCausalLM
    return auto.from_config(config).eval()


@pytest.fixture(scope="module")
def llama() -> Any:
    return tiny(4096)


GGUF = {"tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.add_bos_token": False}


def test_a_gguf_model_gives_the_logits_of_the_original(llama: Any, tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, llama, GGUF)
    loaded = read(path)
    ids = torch.arange(40)[None] * 7
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(ids).logits, llama(ids).logits)
    assert loaded.trained_length == 128
    assert loaded.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert loaded.files_sha256 == loaded.weights_sha256  # the file is all of the model
    assert (loaded.notes, loaded.model.training) == ((), False)
    assert {w.dtype for w in load(str(path), dtype="float16", device="cpu").model.parameters()} == {
        torch.float16
    }


def test_a_gguf_tokenizer_gives_the_text_back_and_no_bos_unless_the_file_says_so(
    llama: Any, tmp_path: Path
) -> None:
    text = "In 1875  2024 it 's “here” .\n\n\tfoo é 漢"
    for split in ("gpt-2", "smollm"):
        write_gguf(tmp_path / split, llama, {**GGUF, "tokenizer.ggml.pre": split})
        tokenizer = read((tmp_path / split).rename(tmp_path / f"{split}.gguf")).tokenizer
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    digits = [tokenizer.decode(i) for i in tokenizer("in 1875").input_ids]
    assert digits[-4:] == ["1", "8", "7", "5"]


def test_a_gguf_tokenizer_has_the_file_s_own_bos_and_eos_and_adds_those_it_says(
    llama: Any, tmp_path: Path
) -> None:
    path = tmp_path / "tiny.gguf"
    adding = {"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_eos_token": True}
    write_gguf(path, llama, GGUF)
    plain = read(path).tokenizer
    assert (plain.bos_token_id, plain.eos_token_id) == (0, 5)
    write_gguf(path, llama, {**GGUF, **adding})
    assert read(path).tokenizer("a b").input_ids == [0, *plain("a b").input_ids, 5]


def test_a_gguf_model_ends_where_its_file_says_and_text_has_no_token_of_code_llama(
    llama: Any, tmp_path: Path
) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, llama, {**GGUF, "tokenizer.chat_template": "{{ messages }}"})
    loaded = read(path)
    assert loaded.model.generation_config.eos_token_id == [loaded.tokenizer.eos_token_id] == [5]
    assert loaded.tokenizer.chat_template == "{{ messages }}"
    assert len(loaded.tokenizer) == 4096  # a Llama's infilling tokens would be beyond the model's
    text = "a<FILL_ME>b \u2581<PRE>"
    ids = loaded.tokenizer(text).input_ids
    assert loaded.tokenizer.decode(ids) == text and max(ids) < 4096
    write_gguf(path, llama, {**GGUF, "tokenizer.ggml.eot_token_id": 9})
    assert read(path).model.generation_config.eos_token_id == [5, 9]


def test_smollm2_begins_and_ends_with_the_tokens_that_its_file_names(smollm2: Loaded) -> None:
    named = (smollm2.tokenizer.bos_token, smollm2.tokenizer.eos_token)
    assert named == ("<|im_start|>", "<|im_end|>")
    assert smollm2.model.generation_config.eos_token_id == [smollm2.tokenizer.eos_token_id]
    assert smollm2.tokenizer.pad_token == "<|im_end|>"
    assert len(smollm2.tokenizer) == smollm2.model.config.vocab_size
    assert smollm2.tokenizer("a").input_ids == smollm2.tokenizer.convert_tokens_to_ids(["a"])


def test_a_gguf_model_with_sentencepiece_tokens_reads_text_as_its_file_says(tmp_path: Path) -> None:
    rows, path = vocabulary(), tmp_path / "tiny.gguf"
    model = tiny(len(rows))
    write_gguf(path, model, {}, lambda writer: write_pieces(writer, rows))
    loaded = read(path)
    text = "A lighthouse,\n\nor é"
    ids = loaded.tokenizer(text).input_ids
    assert ids == [2, *naive(gguf_file.read(path), text)]
    control = "[<bos>user|the<eos>"
    assert loaded.tokenizer(control).input_ids == [2, *naive(gguf_file.read(path), control)]
    x = torch.tensor([ids])
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(x).logits, model(x).logits)


def test_a_template_s_control_tokens_are_tokens_with_sentencepiece_too(tmp_path: Path) -> None:
    template = "{% for m in messages %}<bos>{{ m['content'] }}<eos>{% endfor %}"
    rows, path = vocabulary(), tmp_path / "tiny.gguf"
    fields = {"tokenizer.chat_template": template, "tokenizer.ggml.add_space_prefix": False}
    write_gguf(path, tiny(len(rows)), fields, lambda writer: write_pieces(writer, rows))
    loaded = read(path)
    talk, file = form(loaded), gguf_file.read(path)
    assert talk.first("the sea") == [2, *naive(file, "the sea"), 1]
    assert talk.following("the", False) == [1, 2, *naive(file, "the"), 1]
    assert talk.stops == {1}


def test_a_tokenizer_is_refused_before_weights_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*given: Any, **options: Any) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr(loading, "_model", never)
    rows, path = [(t, -1.0, k) for t, _, k in vocabulary()], tmp_path / "tiny.gguf"
    write_gguf(path, tiny(len(rows)), {}, lambda writer: write_pieces(writer, rows))
    assert "equal scores" in refusal(path)


def test_a_gguf_file_is_parsed_once(
    llama: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gguf

    from core.models import gguf_reader

    path, seen = tmp_path / "tiny.gguf", []
    write_gguf(path, llama, GGUF)

    def counting(name: str, reader: Any) -> Any:
        def count(*given: Any) -> Any:
            seen.append(name)
            return reader(*given)

        return count

    monkeypatch.setattr(gguf, "GGUFReader", counting("theirs", gguf.GGUFReader))
    monkeypatch.setattr(gguf_reader, "Reader", counting("ours", gguf_reader.Reader))
    read(path)
    assert seen == ["ours"]


def test_our_reader_finds_what_gguf_s_own_finds(llama: Any, tmp_path: Path) -> None:
    from gguf import GGUFReader

    from core.models.gguf_reader import Reader

    path = tmp_path / "tiny.gguf"
    write_gguf(path, llama, GGUF)
    ours, theirs = Reader(path), GGUFReader(path)
    assert list(ours.fields) == list(theirs.fields)
    for name, field in theirs.fields.items():
        assert ours.fields[name].contents() == field.contents()
        assert ours.fields[name].types == field.types
    for our, their in zip(ours.tensors, theirs.tensors, strict=True):
        assert (our.name, our.data.tobytes()) == (their.name, their.data.tobytes())


def test_a_gguf_file_that_ends_anywhere_fails_in_one_line(llama: Any, tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, llama, GGUF)
    data = path.read_bytes()
    for size in (30, 500, 20_000, 90_000, len(data) - 1):
        path.write_bytes(data[:size])
        assert "not a readable GGUF file" in refusal(path)


def test_a_gguf_tokenizer_that_is_only_approximated_is_said_to_be(
    llama: Any, tmp_path: Path
) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, llama, {**GGUF, "tokenizer.ggml.pre": "llama-bpe"})
    assert "'llama-bpe'" in read(path).notes[0]


def test_a_gguf_file_with_scaled_positions_is_refused(llama: Any, tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, llama, {**GGUF, "llama.rope.scaling.type": "yarn"})
    assert "scales its rotary positions" in refusal(path)


@pytest.mark.parametrize("data", [b"", b"GGUF", b"not a model at all"])
def test_a_broken_gguf_file_fails_in_one_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.gguf").write_bytes(data)
    assert "not a readable GGUF file" in refusal(tmp_path / "x.gguf", UsageError)
