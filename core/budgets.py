"""From MiB to W: how many tokens a method can hold in so much memory.

What a method holds is its own formula (``Method.kv_formula_bytes``), which tests hold against what
is allocated. So layers with a window of their own, latents and numbers of few bits count as they
are.
"""

from __future__ import annotations

from dataclasses import replace

from core.config import LARGEST, RunConfig
from core.errors import UsageError
from core.measure.meters import MIB
from core.methods.base import method_of
from core.models import anatomy
from core.models.loading import Loaded
from core.registry import STREAMING


def settled(config: RunConfig, loaded: Loaded) -> RunConfig:
    """``config`` with the largest W whose keys and values take ``budget_mib`` at most.

    Bytes are those of all rows of the batch, between steps, once the cache is full. A method that
    holds none then has the W that streaming has, and as many keys.

    Raises:
        UsageError: Not even S + 1 keys fit, or not the W that is given.
    """
    if config.budget_mib is None:
        return config
    least = config.window or 1
    if (needed := bytes_of(config, loaded, least) / MIB) > config.budget_mib:
        smallest = float(f"{needed * 1.006:.3g}")
        raise UsageError(
            f"budget_mib is {config.budget_mib:g}, but {config.n_sink} sinks and a window of "
            f"{least} take {needed:.3g} MiB in {_holder(config)!r} on this model: give "
            f"{smallest:g} or more{', or a smaller --window' if least > 1 else ''}."
        )
    most = 1
    while most < LARGEST and _fits(config, loaded, 2 * most):
        most *= 2
    beyond = 2 * most
    while beyond - most > 1:
        middle = (most + beyond) // 2
        most, beyond = (middle, beyond) if _fits(config, loaded, middle) else (most, middle)
    if config.window not in (None, most):
        raise UsageError(
            f"window is {config.window}, but {most:,} fits in budget_mib {config.budget_mib:g}: "
            "leave one of the two out."
        )
    return replace(config, window=most)


def bytes_of(config: RunConfig, loaded: Loaded, window: int) -> int:
    """Bytes that the method of ``config`` holds at most between steps, with W = ``window``.

    Raises:
        UsageError: The model can't be streamed so.
    """
    asked = replace(config, window=window, budget_mib=None)
    if _holder(config) != config.method:
        asked = replace(asked, method=_holder(config), param=(), engine="auto")
    own = [each.native.keys for each in anatomy.of(loaded.model).layers if each.native]
    every = asked.steps_between_evictions()
    full = asked.attended_keys + max(own, default=0)
    fill = -(-(full - 1) // every) * every + 1  # evictions come after 1, 1 + k, 1 + 2k ... tokens
    # Just before the next one, where a chunk is as many steps as it has tokens, or one.
    steps = (1, asked.chunk) if asked.mode_spec.chunked else (1,)
    method, rows = method_of(asked), asked.batch_size
    feeds = ([fill, *[size] * (every - 1)] for size in steps)
    return max(method.kv_formula_bytes(loaded, rows, each) for each in feeds)


def _fits(config: RunConfig, loaded: Loaded, window: int) -> bool:
    try:
        return bytes_of(config, loaded, window) / MIB <= (config.budget_mib or 0)
    except UsageError:  # more than the model's own windows
        return False


def _holder(config: RunConfig) -> str:
    """The method whose bytes count."""
    return STREAMING if config.spec.memory == "none" else config.method
