"""What a GGUF file needs beyond transformers' own loader for its figures to be the model's.

transformers dequantises the weights rightly but drops three things that the file says: whether the
tokenizer adds a BOS, how it splits text into words, and how rotary positions are scaled.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from core.errors import UsageError
from core.hub import first_line

SPLITS = ("default", "gpt-2", "qwen2", "smollm")  # word splittings that end up as the file says


def read_fields(path: Path) -> dict[str, Any]:
    """The metadata of a GGUF file, without its token lists.

    Raises:
        UsageError: Not a GGUF file that can be read, or rotary positions are scaled, which
            transformers would drop in silence.
    """
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
        fields = {
            name: field.contents() for name, field in reader.fields.items() if len(field.data) == 1
        }
        tensors = [tensor.name for tensor in reader.tensors]
    except Exception as error:
        raise UsageError(f"{path} is not a readable GGUF file: {first_line(error)}.") from error
    scaling = [f"{name} {value}" for name, value in fields.items() if _scales(name, value)]
    scaling += [name for name in tensors if name.startswith(("rope_freqs", "rope_factors"))]
    if scaling:
        raise UsageError(
            f"{path} scales its rotary positions ({scaling[0]}), which transformers drops: "
            "use the model's safetensors files."
        )
    return fields


def _scales(name: str, value: Any) -> bool:
    kind = name.partition(".rope.")[2]
    return kind.startswith("scal") and value not in ("none", 1.0, False)


def mend(tokenizer: Any, fields: dict[str, Any]) -> tuple[str, ...]:
    """Make ``tokenizer`` do what the file says; return notes on what it still does otherwise."""
    library: Any = import_module("tokenizers")
    backend = tokenizer.backend_tokenizer
    if fields.get("tokenizer.ggml.add_bos_token") is False:
        backend.post_processor = library.processors.ByteLevel(trim_offsets=False)
    split = fields.get("tokenizer.ggml.pre", "default")
    if split == "smollm":  # digits stand alone, then GPT-2's words
        backend.pre_tokenizer = library.pre_tokenizers.Sequence(
            [
                library.pre_tokenizers.Digits(individual_digits=True),
                library.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
    if split in SPLITS:
        return ()
    return (
        f"this GGUF file splits words the {split!r} way, which transformers only approximates: "
        "perplexity may differ from the original tokenizer's.",
    )
