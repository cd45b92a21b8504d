"""The Hugging Face Hub and its local cache: what is there, whether it answers, errors in words.

The same holds for models and texts. Source ``auto`` takes the local cache first (a commit that is
already here, so that figures stay comparable) and asks the Hub only for what is missing; ``hub``
asks the Hub first (so that a moved branch is seen) and takes the cache where the Hub is out of
reach. Where neither has it the caller gets ``Unreachable``, and may know of a stand-in.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any

from core.errors import StreamError, UsageError

PROBE_S = 3.0


class Unreachable(StreamError):
    """Neither the local cache nor the Hub has it to give.

    Attributes:
        reason: The finding without the way out, for a note that says what was taken instead.
    """

    def __init__(self, name: str, why: str, way_out: str) -> None:
        """Say that ``name`` can't be had, why, and what would help."""
        self.reason = f"{name}: not in the local cache and {why}"
        super().__init__(f"{self.reason}: {way_out}")


@cache
def silence() -> str | None:
    """Why the Hub can't be asked, in words; None where it answers within 3 seconds.

    Asked once a process: a sweep must not change from the Hub to stand-ins half way. The request
    runs in a thread because neither a name look-up nor a slow drip heeds a client's timeout.
    """
    from huggingface_hub import constants

    if constants.is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    client: Any = import_module("huggingface_hub.utils").get_session()
    answers = []

    def probe() -> None:
        with suppress(Exception):
            answers.append(client.head(constants.ENDPOINT, timeout=PROBE_S).status_code)

    thread = Thread(target=probe, daemon=True)
    thread.start()
    thread.join(PROBE_S)
    return None if answers else f"the Hub did not answer within {PROBE_S:.0f} s"


def cached(repo: str, revision: str, patterns: Sequence[str], kind: str = "model") -> Path | None:
    """The folder of ``repo`` at ``revision`` in the local cache, None where it is not there.

    A cache that another tool filled keeps no list of what is complete: check what you find.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            repo,
            revision=revision,
            repo_type=kind,
            allow_patterns=list(patterns),
            ignore_patterns="*/*" if kind == "model" else None,
            local_files_only=True,
        )
    except LocalEntryNotFoundError:
        return None
    return Path(folder)


def fetch(repo: str, revision: str, patterns: Sequence[str]) -> Path:
    """Bring the matching files of model ``repo`` into the cache; its folder is named by commit.

    Raises:
        StreamError: The Hub has it not, or does not give it.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            repo, revision=revision, allow_patterns=list(patterns), ignore_patterns="*/*"
        )
    except Exception as error:
        raise explain(error, f"model {repo!r}", revision) from error
    return Path(folder)


def commit(repo: str) -> str | None:
    """The commit that the default branch of dataset ``repo`` stands at.

    Raises:
        StreamError: The Hub has it not, or does not say.
    """
    from huggingface_hub import HfApi

    try:
        return HfApi().dataset_info(repo, timeout=10).sha
    except Exception as error:
        raise explain(error, f"dataset {repo!r}", "main") from error


def explain(error: Exception, what: str, revision: str) -> StreamError:
    """What a failure of the Hub's client means for the person who asked for ``what``."""
    from huggingface_hub import constants, errors

    if isinstance(error, StreamError):
        return error
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError) or status == 403:
        return StreamError(
            f"{what} is gated: accept its terms on {constants.ENDPOINT}, then log in with "
            "`hf auth login` or set HF_TOKEN."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return UsageError(
            f"{what} has no revision {revision!r} on {constants.ENDPOINT}: "
            "name a branch, a tag or a full commit hash."
        )
    if isinstance(error, errors.RepositoryNotFoundError) or status == 404:
        return UsageError(
            f"{what} is not on {constants.ENDPOINT}: check the spelling; "
            "if it is private, log in with `hf auth login`."
        )
    if status == 401:
        return StreamError(f"{what} needs a login: run `hf auth login` or set HF_TOKEN.")
    return StreamError(f"{what}: {constants.ENDPOINT} failed: {first_line(error)}")


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type where it has none, without a closing stop."""
    lines = str(error).strip().splitlines()
    return (lines[0].strip() if lines else type(error).__name__).rstrip(".")


@contextmanager
def quiet(*libraries: str) -> Iterator[None]:
    """No progress bars, log lines or warnings from ``libraries`` while this lasts.

    They are imported first: a library that set up its log handler meanwhile would keep the mute
    stream for ever. Bars are muted at the stream because some (GGUF's) heed no switch.
    """
    for library in libraries:
        import_module(library)
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
