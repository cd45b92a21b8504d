"""Plans of sweeps, as their command makes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from streamcli import settings
from streamcli.jobs import plan
from streamcli.jobs.plan import Plan


def planned(preset: str | None = None, file: Path | None = None, **flags: Any) -> Plan:
    """What ``streamcli sweep`` with these flags, lists by their plural names, comes to."""
    values = plan.gather(flags, preset, file)
    asked = settings.read({name: values[name] for name in plan.single() if name in values})
    return plan.make(values, asked)
