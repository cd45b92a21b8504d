"""A Hugging Face Hub on loopback, for the real client libraries, and what the tests put on it.

Use it with the fixture ``hub``. The libraries read their endpoint and caches when they are
imported, so a test runs its code in a process of its own: ``hub.child(code)``, or any command with
``env=hub.env()``.
(PYTEST_DONT_REWRITE: tests import it.)
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[2]
CONFIGS = ("wikitext-103-raw-v1", "wikitext-2-raw-v1")
Files = Mapping[str, bytes]

PRELUDE = """
import json
from core import tokens
from core.models import loading
out = {}

def attempt(name, act):
    try:
        out[name] = act()
    except Exception as error:
        out[name] = {"error": type(error).__name__, "says": str(error)}
        out[name]["exit"] = getattr(error, "exit_code", None)

def model(name, spec, **options):
    def act():
        loaded = loading.load(spec, dtype="float32", device="cpu", **options)
        return {"name": loaded.name, "revision": loaded.revision, "notes": loaded.notes,
                "sha256": loaded.weights_sha256, "parameters": loaded.parameters}
    attempt(name, act)

def text(name, spec, source="auto", documents=1):
    def act():
        corpus = tokens.open_corpus(spec, source)
        found = []
        for document in corpus.documents:
            found.append([document.name, document.text])
            if len(found) == documents:
                break
        return {"name": corpus.name, "form": corpus.form, "revision": corpus.revision,
                "notes": corpus.notes, "documents": found}
    attempt(name, act)
"""


@dataclass
class Repo:
    """One repository: commits, and the branches that point at them."""

    commits: dict[str, Files] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    gated: bool = False


class Hub:
    """The stand-in: put repositories on it, run code against it, stop it.

    Attributes:
        requests: What it was asked, such as ``GET api/models/a/b`` and the range if any.
        broken: Paths of files that it lists but refuses to give.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.repos: dict[str, Repo] = {}
        self.requests: list[str] = []
        self.broken: set[str] = set()
        self.stopped = False
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        Thread(target=self.server.serve_forever, daemon=True).start()

    def put(
        self,
        name: str,
        files: Files,
        branch: str = "main",
        kind: str = "models",
        gated: bool = False,
    ) -> str:
        """Commit ``files`` to a branch of a repository; returns the commit."""
        repo = self.repos.setdefault(f"{kind}/{name}", Repo(gated=gated))
        digest = hashlib.sha1(f"{name} {branch} {len(repo.commits)}".encode())
        commit = digest.hexdigest()
        repo.commits[commit] = files
        repo.branches[branch] = commit
        return commit

    def env(self, cache: str = "cache", **extra: str) -> dict[str, str]:
        """The environment of a process that uses this Hub, with a cache of its own by name."""
        home = self.home / cache
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "STREAMCLI_"))}
        own = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home / "huggingface"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "XDG_CACHE_HOME": str(home),
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "no_proxy": "127.0.0.1",
        }
        return {**kept, **own, **extra}

    def child(self, code: str, cache: str = "cache", **extra: str) -> dict[str, Any]:
        """Run ``code`` after ``PRELUDE`` in a process of its own; what it put into ``out``.

        ``out["stderr"]`` is what it wrote there, ``out["requests"]`` what it asked this Hub for.
        """
        before = len(self.requests)
        done = subprocess.run(
            [sys.executable, "-c", f"{PRELUDE}\n{code}\nprint(json.dumps(out))"],
            env=self.env(cache, **extra),
            capture_output=True,
            text=True,
            check=False,
        )
        assert not done.returncode, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return {**found, "stderr": done.stderr, "requests": self.requests[before:]}

    def stop(self) -> None:
        """Take the Hub off the network: its port refuses, and open connections break."""
        self.stopped = True
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])).decode())

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self, body: str = "") -> None:
        if self.hub.stopped:
            self.close_connection = True
            return None
        url = urlsplit(self.path)
        path = unquote(url.path).strip("/")
        wanted = self.headers.get("Range", "")
        self.hub.requests.append(f"{self.command} {path} {wanted}".strip())
        if not path:
            return self._send(200, b"")
        api = re.fullmatch(
            r"api/(models|datasets)/([^/]+/[^/]+)(?:/([a-z-]+)/([^/]+)/?(.*))?", path
        )
        file = re.fullmatch(r"(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if api:
            kind, name, verb, revision, rest = api.groups()
        elif file:
            kind, name = "datasets" if file[1] else "models", file[2]
            verb, revision, rest = "resolve", file[3], file[4]
        else:
            return self._fail(404, "")
        repo = self.hub.repos.get(f"{kind}/{name}")
        if repo is None:
            return self._fail(404, "RepoNotFound")
        if repo.gated:
            return self._fail(403, "GatedRepo")
        commit = repo.branches.get(revision or "main", revision)
        if commit not in repo.commits:
            return self._fail(404, "RevisionNotFound")
        files = repo.commits[commit]
        if verb == "resolve":
            return self._file(files, rest, commit)
        if verb == "tree":
            found = _tree(files, rest, "recursive=true" in url.query.lower())
            return self._json(found)
        if verb == "paths-info":
            return self._json([_entry(p, files) for p in parse_qs(body)["paths"] if p in files])
        siblings = [{"rfilename": path} for path in files]
        self._json({"id": name, "sha": commit, "siblings": siblings, "private": False, "tags": []})

    def _file(self, files: Files, path: str, commit: str) -> None:
        if path not in files:
            return self._fail(404, "EntryNotFound")
        if path in self.hub.broken:
            return self._fail(403, "")
        data = files[path]
        headers = {"ETag": f'"{_oid(data)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not wanted:
            return self._send(200, data, headers)
        start, stop = int(wanted[1]), min(int(wanted[2] or len(data)), len(data) - 1)
        headers["Content-Range"] = f"bytes {start}-{stop}/{len(data)}"
        return self._send(206, data[start : stop + 1], headers)

    def _json(self, found: Any) -> None:
        self._send(200, json.dumps(found).encode(), {"Content-Type": "application/json"})

    def _fail(self, status: int, code: str) -> None:
        self._send(status, b"", {"X-Error-Code": code})

    def _send(self, status: int, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _oid(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


def _entry(path: str, files: Files) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": len(files[path]), "oid": _oid(files[path])}


def _tree(files: Files, under: str, recursive: bool) -> list[dict[str, Any]]:
    prefix = f"{under}/" if under else ""
    inside = [path for path in files if path.startswith(prefix)]
    folders = {
        path[: len(prefix) + path[len(prefix) :].find("/")]
        for path in inside
        if "/" in path[len(prefix) :]
    }
    found: list[dict[str, Any]] = [
        {"type": "directory", "path": folder, "size": 0, "oid": _oid(folder.encode())}
        for folder in sorted(folders)
    ]
    return found + [
        _entry(path, files) for path in inside if recursive or "/" not in path[len(prefix) :]
    ]


def tiny_model(seed: int = 0) -> dict[str, bytes]:
    """The files of a random GPT-NeoX of two layers, with the bundled model's tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, GPTNeoXConfig

    auto: Any = AutoModelForCausalLM
    torch.manual_seed(seed)
    config = GPTNeoXConfig(
        vocab_size=4096,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=256,
    )
    with TemporaryDirectory() as folder:
        auto.from_config(config).save_pretrained(folder)
        files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    bundled = ROOT / "data" / "bundled" / "model"
    for name in ("tokenizer.json", "tokenizer_config.json"):
        files[name] = (bundled / name).read_bytes()
    return files


def parquet(columns: Mapping[str, list[Any]], rows_a_group: int = 1000) -> bytes:
    """A parquet file of these columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = io.BytesIO()
    pq.write_table(pa.table(dict(columns)), file, row_group_size=rows_a_group)
    return file.getvalue()


def wikitext(rows: list[str]) -> dict[str, bytes]:
    """The files of ``Salesforce/wikitext``, laid out as there."""
    splits = ("test", "validation")
    card = ["---", "configs:"]
    files = {}
    for config in CONFIGS:
        card += [f"- config_name: {config}", "  data_files:"]
        for split in splits:
            card += [f"  - split: {split}", f"    path: {config}/{split}-*"]
            name = f"{config}/{split}-00000-of-00001.parquet"
            files[name] = parquet({"text": [f"{config} {split}\n", *rows]})
    return {"README.md": "\n".join([*card, "---", ""]).encode(), **files}


def pg19(books: Mapping[int, str], shard: int = 2) -> dict[str, bytes]:
    """The files of ``emozilla/pg19``, ``shard`` books a parquet file."""
    numbers = list(books)
    shards = [numbers[start : start + shard] for start in range(0, len(numbers), shard)]
    files = {"README.md": b"---\nlicense: apache-2.0\n---\n"}
    for index, some in enumerate(shards):
        name = f"data/test-{index:05}-of-{len(shards):05}-29a571947c0b5ccc.parquet"
        files[name] = parquet(
            {
                "short_book_title": [f"Book {number}" for number in some],
                "publication_date": [1850 for _ in some],
                "url": [f"http://www.gutenberg.org/ebooks/{number}" for number in some],
                "text": [books[number] for number in some],
            }
        )
    return files


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """An empty Hub, with empty caches beside it."""
    standin = Hub(tmp_path_factory.mktemp("hub"))
    yield standin
    standin.stop()


@pytest.fixture
def black_hole() -> Iterator[str]:
    """The address of an endpoint that takes connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
