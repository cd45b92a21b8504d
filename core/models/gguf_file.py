"""What a GGUF file says, read once, and what transformers' own loader makes of it corrected.

transformers dequantises the weights rightly but reads the whole file again at every turn. Of what
the file says it drops whether the tokenizer adds a BOS, how it splits text into words, which tokens
end a turn, and how rotary positions are scaled. For a Llama's end of a text it takes the beginning
(``GGUFLlamaConverter`` 5.2 looks up ``bos_token_id`` for both).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

from core.errors import UsageError
from core.hub import first_line

SPLITS = ("default", "gpt-2", "qwen2", "smollm")  # word splittings that end up as the file says
BEGIN = ("llama-bpe", "llama3", "llama-v3", "tekken")  # those that begin with a BOS unless told
KINDS = ("llama", "gpt2")  # SentencePiece with scores, and byte-level BPE with merges
TOKENIZER = "tokenizer.ggml."
NAMES = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}  # theirs and ours
ENDS = ("eos", "eot", "eom")  # of a text, of a turn and of a message
INSTEAD = "use the model's safetensors files"


@dataclass(frozen=True, eq=False)
class GgufFile:
    """A GGUF file whose metadata was read.

    Attributes:
        path: Where it lies.
        fields: Its metadata but for the lists.
    """

    path: Path
    fields: dict[str, Any]
    _reader: Any

    def field(self, name: str, default: Any = None) -> Any:
        """What it says of the tokenizer, such as ``model``, or ``default``."""
        return self.fields.get(TOKENIZER + name, default)

    def listed(self, name: str) -> list[Any]:
        """A list of the tokenizer's, such as ``tokens``; empty where there is none."""
        field = self._reader.fields.get(TOKENIZER + name)
        return list(field.contents()) if field else []

    def refusal(self, what: str) -> UsageError:
        """The error for a tokenizer that would not be the model's own."""
        return UsageError(
            f"{self.path} has a tokenizer that can't be built as it was: {what}; {INSTEAD}."
        )

    @contextmanager
    def lent(self, tokens: bool = False) -> Iterator[None]:
        """Have transformers take what was read instead of reading it again.

        Args:
            tokens: Whether it needs the token lists, which take it seconds to look at.
        """
        import gguf

        own, reader = gguf.GGUFReader, self._reader if tokens else _Bare(self._reader)

        def lend(path: Any, *rest: Any) -> Any:
            return reader if Path(path).samefile(self.path) else own(path, *rest)

        # It makes a table of names for each module anew: 10 s for SmolLM2's 397.
        names = mock.patch.object(gguf, "get_tensor_name_map", cache(gguf.get_tensor_name_map))
        with mock.patch.object(gguf, "GGUFReader", lend), names:
            yield


class _Bare:
    """A reader whose tokens are counted but not told."""

    def __init__(self, reader: Any) -> None:
        self.tensors = reader.tensors
        self.fields = {
            name: field
            for name, field in reader.fields.items()
            if not name.startswith(TOKENIZER) or len(field.data) == 1
        }
        if tokens := reader.fields.get(f"{TOKENIZER}tokens"):
            empty = tokens.parts[tokens.data[0]][:0] if tokens.data else b""
            emptied = tokens._replace(parts=[empty], data=[0] * len(tokens.data))
            self.fields[tokens.name] = emptied


def read(path: Path) -> GgufFile:
    """Read the metadata of a GGUF file.

    Raises:
        UsageError: Not a GGUF file that can be read, or rotary positions are scaled, which
            transformers would drop in silence.
    """
    from core.models.gguf_reader import Reader

    try:
        reader: Any = Reader(path)
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
            f"{INSTEAD}."
        )
    return GgufFile(path, fields, reader)


def _scales(name: str, value: Any) -> bool:
    kind = name.partition(".rope.")[2]
    return kind.startswith("scal") and value not in ("none", 1.0, False)


def check_tokenizer(file: GgufFile) -> None:
    """Refuse a kind of tokenizer that can't be built as the file has it.

    Raises:
        UsageError: It is no SentencePiece with scores and no byte-level BPE with merges.
    """
    kind = file.field("model")
    if kind not in KINDS:
        raise file.refusal(f"its kind is {kind!r}, and only {' and '.join(KINDS)} are known")


def correct_tokenizer(tokenizer: Any, file: GgufFile) -> tuple[str, ...]:
    """Make a byte-level ``tokenizer`` do what the file says; notes on what it does otherwise."""
    library: Any = import_module("tokenizers")
    backend, split = tokenizer.backend_tokenizer, file.field("pre", "default")
    for name, token in named(file, file.listed("tokens")).items():
        setattr(tokenizer, name, token)
    words = library.processors.ByteLevel(trim_offsets=False)
    framed = frame(file, begins=split in BEGIN)
    backend.post_processor = library.processors.Sequence([words, framed]) if framed else words
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


def named(file: GgufFile, tokens: list[str]) -> dict[str, str]:
    """The tokens that have a name, such as ``bos_token``.

    Raises:
        UsageError: A name is given to a token that is not there.
    """
    ids = {name: file.field(f"{theirs}_token_id") for theirs, name in NAMES.items()}
    for name, index in ids.items():
        if index is not None and not 0 <= index < len(tokens):
            raise file.refusal(f"its {name} is the token {index} of {len(tokens)}")
    return {f"{name}_token": tokens[index] for name, index in ids.items() if index is not None}


def ends(file: GgufFile) -> list[int]:
    """The tokens at which the model ends what it writes."""
    ids = (file.field(f"{name}_token_id") for name in ENDS)
    return list(dict.fromkeys(int(index) for index in ids if index is not None))


def frame(file: GgufFile, begins: bool) -> Any:
    """The post-processor that adds BOS and EOS as the file says, None where it adds none.

    Args:
        file: The file.
        begins: Whether a text begins with a BOS where the file does not say.

    Raises:
        UsageError: It adds a token without saying which.
    """
    library: Any = import_module("tokenizers")
    added = [
        name
        for name, default in (("bos", begins), ("eos", False))
        if file.field(f"add_{name}_token", default)
    ]
    for name in added:
        if file.field(f"{name}_token_id") is None:
            raise file.refusal(f"it adds a token ({name}) of which the file gives no id")
    if not added:
        return None
    special = [
        {"id": name, "ids": [file.field(f"{name}_token_id")], "tokens": [name]} for name in added
    ]
    template = [*added, "$A"] if added == ["bos"] else [*added[:-1], "$A", "eos"]
    return library.processors.TemplateProcessing(single=template, special_tokens=special)
