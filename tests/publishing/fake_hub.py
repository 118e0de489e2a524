"""A small server that speaks the part of the hub's API by which files are uploaded, on loopback."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_right"


class Hub(ThreadingHTTPServer):
    """Keeps what was committed; `fails` makes the first requests to create a repository fail.

    Attributes:
        files: path -> content of the last commit.
        requests: method and path, in order.
        private: of the repository, as it was asked for.
    """

    daemon_threads = True

    def __init__(self, fails: tuple[int, ...] = ()) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.fails = list(fails)
        self.files: dict[str, bytes] = {}
        self.stored: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.private: bool | None = None
        self.message = ""

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def hub(*fails: int) -> Iterator[Hub]:
    server = Hub(fails)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, status: int, value: Any = None) -> None:
        body = json.dumps({} if value is None else value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_GET(self) -> None:
        self.server.requests.append(f"GET {self.path}")
        self._answer(404, {"error": "nothing here"})

    def do_PUT(self) -> None:
        self.server.requests.append(f"PUT {self.path}")
        content = self._body()
        assert hashlib.sha256(content).hexdigest() == self.path.rpartition("/")[2]
        self.server.stored[hashlib.sha256(content).hexdigest()] = content
        self._answer(200)

    def do_POST(self) -> None:
        hub, body = self.server, self._body()
        hub.requests.append(f"POST {self.path.partition('?')[0]}")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(401, {"error": "Invalid credentials"})
        elif self.path == "/api/repos/create" and hub.fails:
            self._answer(hub.fails.pop(0), {"error": "as the test asked"})
        elif self.path == "/api/repos/create":
            asked = json.loads(body)
            hub.private = asked.get("private", asked.get("visibility") == "private")
            self._answer(200, {"url": f"{hub.endpoint}/{asked.get('organization', 'me')}/{asked['name']}"})
        elif self.path == "/api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            modes = [
                {
                    "path": one["path"],
                    "uploadMode": "lfs" if one["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for one in files
            ]
            self._answer(200, {"files": modes})
        elif self.path.endswith("/info/lfs/objects/batch"):
            wanted = json.loads(body)["objects"]
            objects = [
                {**one, "actions": {"upload": {"href": f"{hub.endpoint}/storage/{one['oid']}"}}}
                for one in wanted
            ]
            self._answer(200, {"transfer": "basic", "objects": objects})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                self._take(line["key"], line["value"])
            self._answer(
                200,
                {
                    "success": True,
                    "commitOid": "0" * 40,
                    "commitUrl": f"{hub.endpoint}/me/first/commit/{'0' * 40}",
                },
            )
        else:
            self._answer(404, {"error": "nothing here"})

    def _take(self, key: str, value: Any) -> None:
        if key == "header":
            self.server.message = value["summary"]
        elif key == "file":
            self.server.files[value["path"]] = base64.b64decode(value["content"])
        elif key == "lfsFile":
            self.server.files[value["path"]] = self.server.stored[value["oid"]]
