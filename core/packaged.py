"""Where the texts and the model that travel with streamcli lie."""

from __future__ import annotations

from pathlib import Path


def bundled(name: str) -> Path:
    """The bundled file or folder ``name``: in an installed wheel beside this file, else in data/.

    The path is returned even where nothing is there, so that an error can name it.
    """
    core = Path(__file__).parent
    installed = core / "bundled" / name
    return installed if installed.exists() else core.parent / "data" / "bundled" / name
