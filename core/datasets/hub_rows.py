"""Rows of a Hub dataset's test split: from the local caches, streamed from the Hub, or neither."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core import hub
from core.errors import StreamError

HUB, LIBRARIES = ("huggingface_hub.utils",), ("huggingface_hub.utils", "datasets")


@dataclass(frozen=True)
class Split:
    """A test split on the Hub.

    Attributes:
        repo: Id of the dataset repository.
        config: Name of the configuration.
        files: Where its parquet files lie in the repository.
    """

    repo: str
    config: str
    files: str


@dataclass(frozen=True)
class Rows:
    """Rows to be iterated once, and the commit they are of.

    Attributes:
        rows: The rows.
        revision: The commit.
        pinned: Whether they come from the Hub, where a commit stays what it is.
    """

    rows: Iterator[dict[str, Any]]
    revision: str | None
    pinned: bool = False


def open_rows(split: Split, name: str, source: str) -> Rows:
    """The rows of ``split`` in its order, read as they are asked for.

    Args:
        split: What to read.
        name: What the user called it, for errors.
        source: ``auto`` (local caches, then the Hub) or ``hub`` (the other way round).

    Raises:
        Unreachable: Neither has it.
        StreamError: The Hub failed; also while the rows are iterated.
    """
    with hub.quiet(*(LIBRARIES if _has_loaded() else HUB)):
        here = _cached(split)
        if source == "hub" or not here:
            why = hub.silence()
            if why is None:
                return _streamed(split)
            if not here:
                way_out = (
                    "use --source bundled or a text file, set HF_ENDPOINT to a mirror, "
                    "or fill the cache."
                )
                raise hub.Unreachable(name, why, way_out)
        return here


def _streamed(split: Split) -> Rows:
    """Rows as they come from the Hub, by ranges of bytes; nothing is kept."""
    commit = hub.commit(split.repo)
    name = f"dataset {split.repo!r} ({split.config})"
    return Rows(_guarded(_from_hub(split, commit, name), name), commit, commit is not None)


def _from_hub(split: Split, commit: str | None, name: str) -> Iterator[dict[str, Any]]:
    from datasets import load_dataset_builder
    from huggingface_hub import HfFileSystem

    try:
        builder = load_dataset_builder(split.repo, split.config, revision=commit)
        files = builder.config.data_files["test"]
    except Exception as error:
        raise hub.explain(error, name, commit or "main") from error
    yield from _parquet(files, HfFileSystem().open)


def _cached(split: Split) -> Rows | None:
    """Rows from what ``hf download`` or ``load_dataset`` left on this machine, if anything."""
    name = f"{split.repo} ({split.config}) in the local cache"
    folder = hub.cached(split.repo, "main", [split.files], kind="dataset")
    files = sorted(folder.glob(split.files)) if folder else []
    if folder and files:
        return Rows(_guarded(_parquet(files, open), name, HUB), folder.name)
    if not _has_loaded():
        return None
    from datasets.packaged_modules.cache.cache import Cache

    try:  # what load_dataset itself falls back on when it is offline
        builder = Cache(
            dataset_name=split.repo.rpartition("/")[2],
            repo_id=split.repo,
            config_name=split.config,
            version="auto",
            hash="auto",
        )
        return Rows(_guarded(builder.as_dataset("test"), name), builder.hash)
    except ValueError:  # "Couldn't find cache"
        return None


def _has_loaded() -> bool:
    """Whether ``load_dataset`` has left anything here, which takes a second to look through."""
    from huggingface_hub.constants import HF_HOME

    cache = Path(os.environ.get("HF_DATASETS_CACHE") or Path(HF_HOME) / "datasets")
    return cache.is_dir() and any(cache.iterdir())


def _parquet(
    files: Iterable[Any], opened: Callable[..., Any]
) -> Generator[dict[str, Any], None, None]:
    """The rows of parquet files, one file after the other, opened when their turn comes.

    Read by this thread alone: a thread of Arrow's that still holds ``file`` when the interpreter
    ends aborts the process (apache/arrow 45214), so nothing is read ahead, and not by
    ``load_dataset(streaming=True)``, which also repeats a lost connection for ten minutes.
    """
    import pyarrow.parquet as pq

    for path in files:
        with opened(path, "rb") as file:
            parquet = pq.ParquetFile(file, pre_buffer=False)
            for batch in parquet.iter_batches(batch_size=8, use_threads=False):
                yield from batch.to_pylist()


def _guarded(
    rows: Iterable[dict[str, Any]], what: str, libraries: Sequence[str] = LIBRARIES
) -> Iterator[dict[str, Any]]:
    """The same rows, read in silence, with failures in words."""
    iterator = iter(rows)
    while True:
        with hub.quiet(*libraries):
            try:
                row = next(iterator)
            except StopIteration:
                return
            except StreamError:
                raise
            except Exception as error:
                raise StreamError(f"{what} failed midway: {hub.first_line(error)}.") from error
        yield row
