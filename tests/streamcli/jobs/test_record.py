"""What of a database counts as finished, and what can't begin."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from core import runner
from core.config import RunConfig
from core.errors import StreamError
from core.facts import RunFacts
from streamcli.jobs import processes
from streamcli.jobs.record import Recorder
from tests.support.records import recorded


def test_a_run_of_another_version_of_a_methods_package_is_not_this_one(tmp_path: Path) -> None:
    config, place = RunConfig(window=60), tmp_path / "runs.db"
    hashes: dict[str, Any] = {
        name: name for name in ("weights_sha256", "files_sha256", "tokens_sha256")
    }
    row: dict[str, Any] = {"config_key": config.key, "host": processes.host(), **hashes}
    recorded(place, {**row, "method_package": "toy-cache==1.2"})
    recorder = Recorder(
        str(place), True, lambda words: None, lambda _: nullcontext(lambda scored, nats: None)
    )
    for package, there in (("toy-cache==1.2", 1), ("toy-cache==1.3", 0)):
        asked: dict[str, Any] = {
            "requested_model": "",
            "requested_dataset": "",
            "method_package": package,
        }
        facts = RunFacts(**asked, **hashes)
        assert len(recorder.finished(config, facts)) == there


def test_a_folder_for_compiled_code_that_cannot_be_made_is_told_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    place = str(tmp_path / "file" / "cache")

    def load(*_: object, **__: object) -> None:  # as torch does when it is imported
        Path(place).mkdir(parents=True)

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", place)
    monkeypatch.setattr(runner, "load_model", load)
    recorder = Recorder(
        "runs.db", True, lambda words: None, lambda _: nullcontext(lambda scored, nats: None)
    )
    with pytest.raises(StreamError, match="TORCHINDUCTOR_CACHE_DIR must name a folder") as told:
        recorder.prepare(RunConfig(window=60))
    assert place in str(told.value)
