"""Serve streams of text that never end, one for each client, as server-sent events.

    python examples/serve.py                       # offline, the bundled model, on port 8000
    curl -N "http://127.0.0.1:8000/stream?prompt=The+lighthouse"

A browser shows such a stream at http://127.0.0.1:8000. Each event is a JSON object: the text, the
tokens of the stream so far, and the bytes of its cache, which stay as they are. A stream ends when
its client leaves; clients take turns, token by token.
"""

from __future__ import annotations

import argparse
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, urlparse

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from streamcli import StreamingKVCache

BUNDLED = Path(__file__).parents[1] / "data" / "bundled" / "model"
PAGE = b"""<!doctype html>
<meta charset="utf-8">
<title>A stream</title>
<p id="text" style="max-width: 40em; margin: 2em auto; white-space: pre-wrap"></p>
<script>
new EventSource("/stream" + location.search).onmessage = event =>
  document.getElementById("text").append(JSON.parse(event.data).text);
</script>
"""


class Client(BaseHTTPRequestHandler):
    """One client: ``/`` is a page that shows its stream, and ``/stream`` is the stream."""

    model: Any
    tokenizer: Any
    asked: argparse.Namespace
    turn = Lock()  # one model serves one stream at a time

    def do_GET(self) -> None:
        """Answer with the page, or with text until the client leaves."""
        address = urlparse(self.path)
        if address.path == "/":
            self.head("text/html")
            self.wfile.write(PAGE)
        elif address.path == "/stream":
            self.head("text/event-stream")
            prompt = parse_qs(address.query).get("prompt", ["The lighthouse"])[0]
            try:
                self.write_on(prompt)
            except ConnectionError:  # the client has left
                return
        else:
            self.send_error(404)

    def head(self, kind: str) -> None:
        """Begin an answer."""
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()

    def write_on(self, prompt: str) -> None:
        """An event a token, without end."""
        with self.turn:
            cache = StreamingKVCache(self.asked.sinks, self.asked.window, self.model)
        ids = self.tokenizer(prompt, return_tensors="pt").input_ids  # (1, C)
        text = prompt
        while True:
            event = {"text": text, "tokens": cache.seen, "bytes": cache.nbytes}
            self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
            with self.turn:
                logits = cache.read(ids, keep=1)[:, -1]  # (1, V): after the last token only
            ids = torch.multinomial((logits / self.asked.temperature).softmax(-1), 1)  # (1, 1)
            text = self.tokenizer.decode(ids[0])

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def main() -> None:
    """Load the model and serve."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="bundled", help="bundled, a folder or a Hub id")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    parser.add_argument("--sinks", type=int, default=4, help="first tokens that stay")
    parser.add_argument("--window", type=int, default=252, help="recent tokens that stay")
    parser.add_argument("--temperature", type=float, default=0.8)
    Client.asked = asked = parser.parse_args()

    logging.disable_progress_bar()
    source = str(BUNDLED) if asked.model == "bundled" else asked.model
    Client.tokenizer = AutoTokenizer.from_pretrained(source)
    Client.model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    server = ThreadingHTTPServer(("127.0.0.1", asked.port), Client)
    server.daemon_threads = True
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()


if __name__ == "__main__":
    main()
