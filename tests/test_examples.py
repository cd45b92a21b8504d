"""Every example runs, offline and small, and shows what it says that it shows."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from time import sleep
from typing import Any

import pytest

from tests.support import children

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples"


@pytest.mark.slow
def test_generate_writes_on_while_its_cache_stays_as_it_is(tmp_path: Path) -> None:
    words = ("--tokens", "120", "--window", "20", "--prompt", "In the beginning")
    code, text, table = children.script(FOLDER / "generate.py", tmp_path, *words).ended()
    assert code == 0, table
    assert text.startswith("In the beginning") and len(text.split()) > 60
    head, *rows = (line.split() for line in table.splitlines())
    assert head == ["tokens", "cache", "MiB", "process", "MiB", "ms/token"]
    assert len(rows) == 10 and int(rows[-1][0]) > 120
    assert len({row[1] for row in rows}) == 1 and float(rows[0][1]) > 0


@pytest.mark.slow
def test_flat_holds_the_end_of_a_stream_against_its_beginning(tmp_path: Path) -> None:
    script = FOLDER.parent / "docs" / "results" / "flat.py"
    words = ("--tokens", "300", "--window", "20")
    code, out, err = children.script(script, tmp_path, *words).ended()
    title, head, time, process, cache, scores, verdict = out.splitlines()
    assert title == "bundled: 300 tokens, S = 4, W = 20" and "second tenth" in head
    assert time.startswith("ms a token") and process.startswith("process, MiB")
    assert cache.split()[2] == cache.split()[3] and float(cache.split()[2]) > 0
    assert float(scores.split()[-4]) < 1e-4, scores
    assert (code == 0) == verdict.startswith("flat within"), (out, err)


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Where the service is at hand, until the test ends."""
    words = ("--port", "0", "--window", "20")
    server = children.script(FOLDER / "serve.py", tmp_path, *words)
    try:
        while not server.said().endswith("\n"):
            assert server.process.is_alive(), server.ended()
            sleep(0.01)
        yield server.said().strip().removeprefix("http://")
    finally:
        server.send_signal(signal.SIGKILL)
        server.ended()


def events(answer: Any, number: int) -> list[dict[str, Any]]:
    """The next events of a stream."""
    found = []
    for _ in range(number):
        line, blank = answer.readline().decode(), answer.readline()
        assert line.startswith("data: ") and blank == b"\n"
        found.append(json.loads(line.removeprefix("data: ")))
    return found


@pytest.mark.slow
def test_serve_gives_each_client_a_stream_of_its_own_and_outlives_them(address: str) -> None:
    clients = [HTTPConnection(address, timeout=60) for _ in range(3)]
    for client, prompt in zip(clients, ("In+the+beginning", "A+ship"), strict=False):
        client.request("GET", f"/stream?prompt={prompt}")
    first, second = (client.getresponse() for client in clients[:2])
    assert first.headers["Content-Type"] == "text/event-stream"
    told = events(first, 30), events(second, 60)
    assert told[0][0] == {"text": "In the beginning", "tokens": 0, "bytes": 0}
    assert told[1][0]["text"] == "A ship" and "".join(each["text"] for each in told[1][1:]).strip()
    counts = [each["tokens"] for each in told[1][1:]]
    assert counts == list(range(counts[0], counts[0] + 59)) and counts[-1] > 24
    assert len({each["bytes"] for each in told[1][1:]}) == 1
    clients[1].close()  # a client that leaves takes nobody along
    second.close()
    assert events(first, 30)[-1]["tokens"] == told[0][-1]["tokens"] + 30
    clients[2].request("GET", "/")
    assert b"EventSource" in clients[2].getresponse().read()


@pytest.mark.slow
def test_the_chat_goes_on_while_its_cache_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = json.loads((FOLDER / "chat.ipynb").read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    monkeypatch.chdir(FOLDER)  # as Jupyter does
    names: dict[str, Any] = {}
    for cell in code:
        exec("".join(cell["source"]), names)
    cache = names["cache"]
    assert cache.seen > cache.n_sink + cache.window and set(names["sizes"]) == {cache.nbytes}
    said = capsys.readouterr().out.splitlines()
    assert len(" ".join(said).split()) > 100
    assert said[-1].startswith(f"{cache.seen:,} tokens, of which 256 are kept:")


def test_every_example_has_a_test() -> None:
    here = Path(__file__).read_text()
    assert all(f'"{path.name}"' in here for path in FOLDER.iterdir() if path.is_file())
