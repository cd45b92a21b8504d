"""A model whose attention has a softmax that is off by one: one more logit of 0 in its sum.

So x becomes exp(x) / (1 + the sum of exp), as Miller has it in "Attention is off by one" (2023) and
Xiao et al. for a model trained so, its "zero sink" (arXiv 2309.17453, section 3.3 and table 3);
Megatron Core calls it ``softmax_type`` off-by-one. Every attention is handed a sink logit of 0 a
head, as those of gpt-oss are handed what they have learned: whatever serves these serves it, and
by itself the model attends through ``core.attention.attend_by_mask``.

Knows nothing of caches, texts or methods.
"""

from __future__ import annotations

from contextlib import nullcontext, suppress
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface

from core.attending import configs_of
from core.attention import BY_MASK, attend_by_mask
from core.config import OFF_BY_ONE
from core.errors import UsageError
from core.models.anatomy import of_zeros, without_weights
from core.models.layers import attentions
from core.models.watching import CODE, Refused, Watch, look_on, without_values

SINKS = "zero_sinks"  # the buffer that every attention gets, (H,)


def check_config(config: Any, trust: bool = False) -> None:
    """Refuse what can't be off by one by its structure alone, before any weight is read.

    Raises:
        UsageError: A model of this configuration can't be.
    """
    for make in (without_weights, of_zeros):
        with suppress(*CODE, AssertionError):  # its code looks at values: the other has some
            set_off_by_one(make(config, trust))
            return


def set_off_by_one(model: Any) -> None:
    """Have every attention of ``model`` use a softmax that is off by one, for good.

    Raises:
        UsageError: Its attention can't be handed a sink, or has its own.
    """
    if not getattr(model, "_supports_attention_backend", False):
        raise _refusal(model, "does not take registered attention functions")
    own, ours = Watch(0), Watch(0)
    with suppress(*CODE):  # which without weights comes after the first layers' attention
        _look(model, own)
    if own.sinks:
        raise _refusal(model, "has learned sinks of its own in the softmax of its attention")
    heads = model.config.get_text_config(decoder=True).num_attention_heads
    for layer in attentions(model):
        zeros = torch.zeros(heads, dtype=model.dtype, device=model.device)
        layer.register_buffer(SINKS, zeros, persistent=False)
        layer.register_forward_pre_hook(_hand_over, with_kwargs=True)
    _look(model, ours)
    if len(ours.sinks) != len(attentions(model)):
        raise _refusal(model, "does not hand its attention what it is given")
    AttentionInterface.register(BY_MASK, attend_by_mask)
    AttentionMaskInterface.register(BY_MASK, AttentionMaskInterface._global_mapping["eager"])
    for each in configs_of(model):
        each._attn_implementation = BY_MASK


def _hand_over(layer: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
    """Before an attention: it is given its sinks by keyword, which reaches what it attends by."""
    return args, {**kwargs, "s_aux": getattr(layer, SINKS)}


@torch.inference_mode()
def _look(model: Any, watch: Watch) -> None:
    """One token, so that ``watch`` sees what each layer hands its attention."""
    ids = torch.zeros(1, 1, dtype=torch.int64, device=model.device)
    try:
        with without_values() if model.device.type == "meta" else nullcontext():
            look_on(model, ids, watch, registered=True)
    except Refused as found:
        raise _refusal(model, f"can't be watched: {found}") from found


def _refusal(model: Any, why: str) -> UsageError:
    return UsageError(
        f"softmax_type is {OFF_BY_ONE!r}, but a {model.config.model_type!r} model {why}: leave it "
        "out, or choose another model."
    )
