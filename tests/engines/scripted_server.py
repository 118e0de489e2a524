"""A real HTTP server on this machine that gives scripted answers and keeps the requests."""

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Said(NamedTuple):
    """One answer: a string is sent as it is, anything else as JSON. Bytes are the whole reply, headers
    included, after which the connection is closed."""

    status: int
    body: Any
    headers: dict[str, str] = {}  # noqa: RUF012 - never written to


class Asked(NamedTuple):
    path: str
    headers: dict[str, str]
    body: Any


class Scripted(NamedTuple):
    url: str
    asked: list[Asked]


@contextmanager
def scripted_server(script: Sequence[Said]) -> Iterator[Scripted]:
    """Answers in turn; the last one goes on for ever."""
    asked: list[Asked] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            said = script[min(len(asked), len(script) - 1)]
            asked.append(Asked(self.path, dict(self.headers), body))
            if isinstance(said.body, bytes):
                self.wfile.write(said.body)
                self.close_connection = True
                return
            sent = (said.body if isinstance(said.body, str) else json.dumps(said.body)).encode()
            self.send_response(said.status)
            for name, value in said.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, *_: Any) -> None:
            """Nothing to stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield Scripted(f"http://127.0.0.1:{server.server_port}", asked)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
