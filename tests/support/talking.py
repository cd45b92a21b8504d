"""A tiny random model that can be talked to: a token a character, and a chat template if asked."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from transformers import PreTrainedTokenizerFast

from core.models.loading import Loaded
from tests.support.samples import tiny_llama

END = "<end>"
CHARACTERS = [chr(code) for code in range(32, 127)] + ["\n"]
TEMPLATE = (
    "{% for m in messages %}[{{ m['role'] }}|{{ m['content'] | trim }}<end>{% endfor %}"
    "{% if add_generation_prompt %}[assistant|{% endif %}"
)
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('No system') }}{% endif %}"


def tokenizer(template: str | None) -> Any:
    """Printable ASCII, newline and ``<end>``: 97 tokens."""
    library: Any = import_module("tokenizers")
    vocabulary = {character: index for index, character in enumerate(CHARACTERS)}
    backend = library.Tokenizer(library.models.BPE(vocab=vocabulary, merges=[]))
    backend.decoder = library.decoders.Fuse()
    fast: Any = PreTrainedTokenizerFast
    return fast(tokenizer_object=backend, eos_token=END, chat_template=template)


def talker(template: str | None = TEMPLATE) -> Loaded:
    """The model and its tokenizer, ``<end>`` among the tokens at which it ends."""
    model = tiny_llama()
    model.generation_config.eos_token_id = None
    return Loaded(
        model=model,
        tokenizer=tokenizer(template),
        name="tiny",
        revision=None,
        weights_sha256="",
        trained_length=256,
        parameters=0,
    )
