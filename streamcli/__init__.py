"""What a streaming KV cache costs a language model, and what it buys.

A cache for your own program, and a measured run, in three lines of use each::

    from streamcli import StreamingKVCache
    cache = StreamingKVCache(4, 1020, model)  # 4 sinks, a window of 1,020, a transformers model
    logits = cache.read(ids)  # the next tokens of the stream: (B, C) int64 -> (B, C, V)

    from streamcli import evaluate
    result = evaluate(model="bundled", dataset="bundled-narrative", window=60, mode="chunked")
    print(result.ppl, result.ms_per_token, result.kv_mib)

The names in ``__all__`` are the public surface, which docs/api.md describes and promises to keep.
They are imported when they are first asked for, so that ``import streamcli`` alone costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from core.attending import streaming_attention
    from core.cache import StreamingKVCache
    from core.config import RunConfig
    from core.errors import StreamError, UsageError
    from core.result import RunResult
    from core.runner import evaluate

__version__ = "0.1.0"
__all__ = [
    "RunConfig",
    "RunResult",
    "StreamError",
    "StreamingKVCache",
    "UsageError",
    "evaluate",
    "streaming_attention",
]

_HOMES = {
    "RunConfig": "core.config",
    "RunResult": "core.result",
    "StreamError": "core.errors",
    "StreamingKVCache": "core.cache",
    "UsageError": "core.errors",
    "evaluate": "core.runner",
    "streaming_attention": "core.attending",
}


def __getattr__(name: str) -> Any:
    """A public name, imported now.

    Raises:
        AttributeError: There is no such name.
        ImportError: Another module called ``core`` comes before ours; the error names its file.
    """
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    from streamcli import own_core

    own_core.check()
    found = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
