"""Whether a configuration is that of a causal decoder, judged before any weight is fetched."""

from __future__ import annotations

import json
import reprlib
from pathlib import Path
from typing import Any

from core.errors import StreamError, UsageError
from core.hub import first_line

HEADS = ("ForCausalLM", "LMHeadModel")
MOST = {  # of whole numbers from 1, more than which no model has
    "max_position_embeddings": 2**31,
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 2000),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model"), 10**6),
    "vocab_size": 10**8,
}
KINDS: dict[str, tuple[type, str]] = {
    "model_type": (str, "text"),
    **dict.fromkeys(("auto_map", "rope_parameters", "rope_scaling"), (dict, "a mapping")),
}
ALSO = ("generation_config.json", "tokenizer_config.json", "special_tokens_map.json")
VOCABULARIES = ("tokenizer.json", "*.model", "*vocab*", "*.tiktoken", "tekken.json")
OF_BYTES = ("ByT5Tokenizer", "PerceiverTokenizer")  # which need no file


def check_folder(
    folder: Path, name: str, trust: bool, streams: bool = False, softmax_type: str | None = None
) -> None:
    """Refuse the model in ``folder``, called ``name``, unless it is a causal decoder.

    Also what ``check_structure`` refuses.

    Raises:
        UsageError: It is not, or needs its own code and ``trust`` is off.
        StreamError: Its configuration can't be read.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    path = folder / "config.json"
    if not path.is_file():
        raise UsageError(f"{name} has no config.json, so it is no model that can be loaded.")
    raw = read_json(path)
    _check_values(raw, str(path))
    for each in ALSO:
        if (folder / each).is_file():
            read_json(folder / each)
    kind, architectures = raw.get("model_type"), raw.get("architectures") or []
    if kind not in CONFIG_MAPPING and not trust:
        trouble = "runs its own code" if raw.get("auto_map") else "is unknown to transformers"
        raise UsageError(
            f"{name}: model type {kind!r} {trouble}: choose a model that transformers has, "
            "or --trust if you trust its author."
        )
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust, local_files_only=True)
    except Exception as error:
        raise StreamError(f"{path} is not valid: {first_line(error)}.") from error
    if architectures and not any(head.endswith(HEADS) for head in architectures):
        raise _refusal(name, architectures[0])
    check_config(config, name)
    if not trust:
        _check_tokenizer(folder, name)
    check_structure(config, trust, streams, softmax_type)


def check_structure(config: Any, trust: bool, streams: bool, softmax_type: str | None) -> None:
    """Refuse what can't be used as is asked, as far as a configuration tells.

    Args:
        config: A model's.
        trust: Whether its own code may run.
        streams: Whether its positions must be movable.
        softmax_type: What the softmax of its attention must be, where not its own.

    Raises:
        UsageError: It can't.
    """
    if streams:
        from core.models import anatomy  # which imports torch

        anatomy.check_config(config, trust)
    if softmax_type:
        from core.models import softmax

        softmax.check_config(config, trust)


def check_config(config: Any, name: str) -> None:
    """Refuse encoders, encoder-decoders and models without a trained length.

    Raises:
        UsageError: ``config``, of the model called ``name``, is one of these.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

    kind = type(config)
    own_code = "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
    causal = own_code or kind in MODEL_FOR_CAUSAL_LM_MAPPING
    # BERT and its kin have a causal head too, which is one only where the configuration says so.
    masked = kind in MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False)
    if getattr(config, "is_encoder_decoder", False) or masked or not causal:
        raise _refusal(name, config.model_type)
    if not isinstance(getattr(config, "max_position_embeddings", None), int):
        raise UsageError(
            f"{name} ({config.model_type}) gives no max_position_embeddings, so it has no rotary "
            "positions to stream with: choose a model such as EleutherAI/pythia-70m."
        )
    _check_values(config.to_dict(), f"the configuration of {name}")


def _check_values(raw: dict[str, Any], where: str) -> None:
    """Refuse values that no model has, before anything is built from them.

    Raises:
        StreamError: ``raw``, which is from ``where``, has one.
    """
    for name, (kind, words) in KINDS.items():
        if not isinstance(raw.get(name), kind | None):
            raise _invalid(where, name, raw[name], words)
    heads, parts = raw.get("architectures"), raw.get("text_config")
    named = heads if isinstance(heads, list) else [heads]
    if not isinstance(heads, list | None) or (heads and not all(type(n) is str for n in named)):
        raise _invalid(where, "architectures", heads, "a list of names")
    for name, most in MOST.items():
        value = raw.get(name)
        if value is not None and not (type(value) is int and 1 <= value <= most):
            raise _invalid(where, name, value, f"a whole number from 1 to {most:,}")
    if isinstance(parts, dict):
        _check_values(parts, where)


def _invalid(where: str, name: str, value: Any, allowed: str) -> StreamError:
    return StreamError(
        f"{where} is not valid: {name} is {reprlib.repr(value)}, and it must be {allowed}: correct "
        "it, or fetch the model again."
    )


def _check_tokenizer(folder: Path, name: str) -> None:
    """Refuse a model without a vocabulary: transformers would make an empty one."""
    if any(any(folder.glob(pattern)) for pattern in VOCABULARIES):
        return
    about = folder / "tokenizer_config.json"
    if about.is_file() and read_json(about).get("tokenizer_class") in OF_BYTES:
        return
    raise UsageError(
        f"{name} has no tokenizer files, such as tokenizer.json or tokenizer.model: put those that "
        "it was trained with beside its config.json, or fetch the model again."
    )


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        StreamError: There is none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise StreamError(
            f"{path} can't be read: it is nested too deeply; fetch the model again."
        ) from error
    except (OSError, ValueError) as error:
        raise StreamError(f"{path} can't be read: {first_line(error)}.") from error
    if not isinstance(found, dict):
        raise StreamError(f"{path} can't be read: it holds no JSON object.")
    return found


def _refusal(name: str, found: str) -> UsageError:
    return UsageError(
        f"{name} is no causal decoder ({found}): streaming needs a decoder-only language model "
        "with rotary positions, such as EleutherAI/pythia-70m."
    )
