"""Packages that only some methods need: whether they are there, told without importing them."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from core import own_options, registry
from core.errors import UsageError

TOO_NEW = (5, 3)  # transformers whose attentions are no longer told their cache_position
INSTALL = "pip install 'streamcli[kvpress]'"


def lacking(method: str) -> str:
    """Why a method can't run here and what to install, after its name; empty where it can."""
    package = registry.method(method).needs
    if not package:
        return ""
    if find_spec(package) is None:
        return f"needs the package {package}, which is not installed: {INSTALL}"
    try:
        installed = version("transformers")
    except PackageNotFoundError:
        return ""
    return f"can't run: {newer(installed)}" if too_new(installed) else ""


def check(method: str) -> None:
    """Refuse a method that can't run here, before anything is loaded.

    Raises:
        UsageError: The package that it needs is not there, or not for this transformers; or it is
            a part of that package which can't do what a method must.
    """
    if why := lacking(method):
        raise UsageError(f"method {method!r} {why}.")
    own_options.parameters(method)


def too_new(installed: str) -> bool:
    """Whether kvpress can't work with this version of transformers."""
    return tuple(int(part) for part in installed.split(".")[:2]) >= TOO_NEW


def newer(installed: str) -> str:
    """What to do where transformers is too new."""
    return (
        f"kvpress needs transformers below {'.'.join(map(str, TOO_NEW))}, and {installed} is "
        f"installed: in a fresh environment, {INSTALL} brings one that it can work with"
    )
