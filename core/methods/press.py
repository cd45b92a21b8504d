"""The package kvpress: imported when asked for, its patch undone, and fitted to any RoPE model.

A press of kvpress 0.5.5 works by a forward hook on each attention module of ``model.model.layers``,
which must have ``head_dim`` and ``rotary_emb`` and be called by keywords (``base_press.py:139-140``
and ``:197-203``). GPT-NeoX has and does none of that; a seat stands in between, for every model,
and leaves the model itself untouched.

Knows nothing of which press is right for what.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import DynamicCache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from core.errors import UsageError
from core.extras import INSTALL, newer, too_new
from core.kinds import kinds_of
from core.methods.base import CacheStream
from core.models import anatomy
from core.models.layers import Anatomy


def load() -> Any:
    """The module ``kvpress``; transformers and the warning filters stay as they were.

    Importing it wraps every attention function of transformers (``attention_patch.py:98-118``), for
    presses that drop other tokens in each head. Those used here don't.

    Raises:
        UsageError: It is not installed, or can't work with this transformers.
    """
    installed = transformers.__version__
    if too_new(installed):
        raise UsageError(f"{newer(installed)}.")
    table: dict[str, Any] = ALL_ATTENTION_FUNCTIONS._local_mapping
    before = dict(table)
    try:
        with warnings.catch_warnings(action="ignore"):
            return import_module("kvpress")
    except ImportError as error:
        reason = "is not installed" if error.name == "kvpress" else f"can't be imported ({error})"
        raise UsageError(f"the package kvpress {reason}: {INSTALL}.") from error
    finally:
        table.clear()
        table.update(before)


def rerotating(kvpress: Any, press: Any) -> Any:
    """``press``, a scorer, with its keys turned to their new places: a scorer as well.

    ``DecodingPress`` takes scorers only (``decoding_press.py:52``); ``KeyRerotationPress``, which
    the docstring of ``StreamingLLMPress`` asks for, is none, and both in one is. Its rotation
    (``key_rerotation_press.py:101-128``) is applied to the first R of D dims.
    """

    class Rerotating(kvpress.KeyRerotationPress, kvpress.ScorerPress):
        @staticmethod
        def rerotate_keys(module: Any, indices: Tensor, keys: Tensor) -> Tensor:
            r = 2 * len(module.rotary_emb.inv_freq)
            part = SimpleNamespace(rotary_emb=module.rotary_emb, head_dim=r)
            turned = kvpress.KeyRerotationPress.rerotate_keys(part, indices, keys[..., :r])
            rest = keys[..., r:]
            at = indices[..., None].expand(*indices.shape, rest.shape[-1])  # (B, K, n, D-R)
            return torch.cat((turned, rest.gather(2, at)), dim=-1)  # (B, K, n, D)

    return Rerotating(press)


class PressStream(CacheStream):
    """A stream through a cache of transformers' on which a press acts."""

    def __init__(self, model: Any, make: Callable[[int], Any], absolute: bool) -> None:
        """An empty cache, as in ``pipeline.py:211-212``.

        Args:
            model: A transformers causal language model.
            make: Makes the press, told the length of the first feed, which is its prompt.
            absolute: Whether queries stand at their place in the stream, not in the cache.

        Raises:
            UsageError: The model's positions can't be moved.
        """
        super().__init__(model, DynamicCache())
        self.make, self.absolute, self.found = make, absolute, anatomy.of(model)
        _check_layers(self.found)
        self.seats, self.seen = _seats(model.base_model), 0

    def feed(self, ids: Tensor, keep: int = 0) -> Tensor:
        """See ``Stream``."""
        c, held = ids.shape[1], self.held()
        if not self.seen:
            press = self.make(c)
            for seat in self.seats:
                seat.press = press
        first = self.seen if self.absolute else held
        kinds_of(self.found, 0, held + c - 1)  # a window that every layer has must hold them
        self.found.check_room(first + c, "a smaller --window or --chunk-size")
        positions = torch.arange(first, first + c, device=ids.device)[None]  # (1, C)
        with self._seated():
            logits: Tensor = self.model(
                ids, past_key_values=self.cache, position_ids=positions, logits_to_keep=keep
            ).logits
        self.seen += c
        return logits

    @contextmanager
    def _seated(self) -> Iterator[None]:
        """The press acts on the model within the block."""
        with ExitStack() as hooks:
            for seat in self.seats:
                hooks.enter_context(seat.module.register_forward_hook(seat, with_kwargs=True))
            yield


class _Seat:
    """What a press sees in place of an attention module: the names that Llama's has.

    What is not set here is the module's. What a press sets stays here.
    """

    def __init__(self, module: Any, rotary_emb: Any) -> None:
        self.module, self.rotary_emb, self.layer_idx = module, rotary_emb, module.layer_idx
        self.head_dim: int = getattr(module, "head_dim", None) or module.head_size
        self.press: Any = None

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """The module's: the package asks for it to know how queries are made (``utils.py``)."""
        return type(self.module)

    def __getattr__(self, name: str) -> Any:
        if name == "module":  # not set yet
            raise AttributeError(name)
        return getattr(self.module, name)

    def __call__(self, module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        cache = kwargs.get("past_key_values", kwargs.get("layer_past"))
        hidden = args[0] if args else kwargs["hidden_states"]
        named = {**kwargs, "past_key_values": cache, "hidden_states": hidden}
        return self.press.forward_hook(self, args, named, output)


def _check_layers(found: Anatomy) -> None:
    """Refuse layers that the package does not turn as they are turned.

    Raises:
        UsageError: They differ, or are not laid out in halves from the first dim.
    """
    found.check_movable()
    turned = {layer.rotation for layer in found.layers}
    plain = [each for each in turned if each and not each.pairs and each.first == 0]
    alike = len({layer.native for layer in found.layers}) == 1
    if len(turned) != 1 or not plain or not alike:
        raise UsageError(
            "kvpress turns the keys of all layers alike, in halves from dim 0, and this "
            f"{found.kind!r} model has {found.layers_in_words}: choose another --method."
        )


def _seats(decoder: Any) -> list[_Seat]:
    """One for each layer's attention: the module in it that knows its layer's number.

    Raises:
        UsageError: The model is built otherwise.
    """
    layers = [list(layer.children()) for layer in getattr(decoder, "layers", ())]
    found = [child for layer in layers for child in layer if hasattr(child, "layer_idx")]
    if not found or len(found) != len(layers) or not hasattr(decoder, "rotary_emb"):
        raise UsageError(
            f"kvpress does not know the layers of a {decoder.config.model_type!r} model: "
            "choose a GPT-NeoX or Llama type, or another --method."
        )
    return [_Seat(module, decoder.rotary_emb) for module in found]
