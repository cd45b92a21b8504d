"""The package ``core`` that belongs to streamcli, where the working folder has another ``core``.

Python looks for ``core`` in the folder of the script, or in the working folder, before it looks
where streamcli lies. A program of ours takes its own package in any case (``claim``). In somebody
else's program ``core`` may be a module of theirs, so there nothing is replaced (``check``).
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
OURS = ROOT / "core" / "__init__.py"


def claim() -> None:
    """Import ``core`` from the folder in which ``streamcli`` lies, whatever comes before it.

    Raises:
        ImportError: Another module of that name has been imported already.
    """
    if "core" in sys.modules:
        check()
        return
    spec = PathFinder.find_spec("core", [str(ROOT)])
    if spec is None or spec.loader is None:
        raise ImportError(f"streamcli is not whole: {OURS} is missing, so install it again.")
    module = sys.modules["core"] = module_from_spec(spec)
    spec.loader.exec_module(module)


def check() -> None:
    """Make sure that ``import core`` gives our own package.

    Raises:
        ImportError: It gives another module; the error names its file.
    """
    found = sys.modules.get("core") or find_spec("core")
    place = _file(found)
    if place is None or place.resolve() != OURS:
        raise ImportError(
            f"streamcli needs its own package 'core', and {place or 'a module without a file'} "
            "comes before it: rename that, or start Python in another folder."
        )


def _file(found: ModuleType | ModuleSpec | None) -> Path | None:
    """The file of a module; of a package without one, its folder."""
    if found is None:
        return None
    spec = getattr(found, "__spec__", None) if isinstance(found, ModuleType) else found
    file = getattr(found, "__file__", None) or getattr(spec, "origin", None)
    folders = getattr(spec, "submodule_search_locations", None)
    return Path(file) if file else Path(next(iter(folders))) if folders else None
