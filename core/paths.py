"""From what a person typed to a path that can be looked at."""

from __future__ import annotations

from pathlib import Path

from core.errors import UsageError

SHOWN = 60  # characters of a path that is too long for any system


def path(spec: str) -> Path:
    """The path that ``spec`` names, ``~`` expanded, whether anything is there or not.

    Raises:
        UsageError: There can't be anything, or it may not be looked at.
    """
    try:
        found = Path(spec).expanduser()
        found.stat()
    except RuntimeError as error:
        user = spec.partition("/")[0].removeprefix("~")
        raise UsageError(
            f"{spec} can't be found: this machine has no home of a user {user!r}; write the path "
            "out, or ./ before a name that begins with ~."
        ) from error
    except (FileNotFoundError, NotADirectoryError):
        pass
    except ValueError as error:  # a NUL byte
        raise UsageError(f"{spec!r} is no path: {error}.") from error
    except OSError as error:
        cut = spec if len(spec) <= SHOWN else f"{spec[:SHOWN]}..."
        raise UsageError(f"{cut} can't be read: {error.strerror or error}.") from error
    return found
