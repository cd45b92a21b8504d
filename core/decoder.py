"""Whether a configuration is that of a causal decoder, judged before any weight is fetched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from core.errors import StreamError, UsageError
from core.hub import first_line

HEADS = ("ForCausalLM", "LMHeadModel")


def check_folder(folder: Path, name: str, trust: bool, streams: bool = False) -> None:
    """Refuse the model in ``folder``, called ``name``, unless it is a causal decoder.

    With ``streams`` also one whose positions can't be moved, as far as its configuration tells.

    Raises:
        UsageError: It is not, or needs its own code and ``trust`` is off.
        StreamError: Its configuration can't be read.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    path = folder / "config.json"
    if not path.is_file():
        raise UsageError(f"{name} has no config.json, so it is no model that can be loaded.")
    raw = read_json(path)
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
    if streams:
        from core import anatomy  # which imports torch

        anatomy.check_config(config, trust)


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


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        StreamError: There is none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
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
