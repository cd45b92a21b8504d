"""The bundled model, loaded and proved once for all commands of a process."""

from __future__ import annotations

from functools import cache
from typing import Any

from core.models import loading
from core.models.loading import Loaded

_load = loading.load
_kept = cache(_load)


def load_once(spec: str, **how: Any) -> Loaded:
    """What ``core.models.loading.load`` gives; put it in that one's place."""
    return (_kept if spec == "bundled" else _load)(spec, **how)
