"""A server in the hub's place: one data set of two splits, served as the hub serves its files."""

import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REVISION = "0123456789abcdef0123456789abcdef01234567"
NAME = "me/pairs"
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


def rows(split: str, count: int) -> list[dict[str, object]]:
    return [
        {"prompt": f"{split} {number}", "chosen": "yes", "rejected": "no", "n": number}
        for number in range(count)
    ]


def _lines(split: str, count: int) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows(split, count)).encode()


FILES = {"data/train.jsonl": _lines("train", 40), "data/test.jsonl": _lines("test", 7)}


def _entry(name: str) -> dict[str, object]:
    data = FILES[name]
    return {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}


class Hub(BaseHTTPRequestHandler):
    """The few routes that a client asks for when it streams a data set."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = self.path.split("?")[0]
        if re.fullmatch(rf"/api/datasets/{NAME}(/revision/.*)?", path):
            siblings = [{"rfilename": name} for name in FILES]
            return self._send({"id": NAME, "sha": REVISION, "siblings": siblings, "tags": []})
        if re.fullmatch(rf"/api/datasets/{NAME}/tree/\w+/data", path):
            return self._send([_entry(name) for name in FILES])
        if re.fullmatch(rf"/api/datasets/{NAME}/tree/\w+", path):
            return self._send([{"type": "directory", "path": "data", "oid": "d" * 40, "size": 0}])
        file = re.fullmatch(rf"/datasets/{NAME}/resolve/\w+/(.+)", path)
        if file is not None and file[1] in FILES:
            return self._file(FILES[file[1]])
        known = path.startswith((f"/api/datasets/{NAME}", f"/datasets/{NAME}"))
        code = "EntryNotFound" if known else "RepoNotFound"
        return self._send({"error": code}, status=404, **{"X-Error-Code": code})

    def _file(self, data: bytes) -> None:
        tag = f'"{hashlib.sha1(data).hexdigest()}"'
        headers = {"X-Repo-Commit": REVISION, "ETag": tag, "Accept-Ranges": "bytes"}
        part = _RANGE.fullmatch(self.headers.get("Range", ""))
        if part is None:
            return self._bytes(data, 200, headers)
        first, last = int(part[1]), min(int(part[2] or len(data)), len(data) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        return self._bytes(data[first : last + 1], 206, headers)

    def _send(self, value: object, status: int = 200, **headers: str) -> None:
        self._bytes(json.dumps(value).encode(), status, {"Content-Type": "application/json", **headers})

    def _bytes(self, data: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def serve() -> ThreadingHTTPServer:
    """The server, on a free port of this machine; its caller runs and closes it."""
    return ThreadingHTTPServer(("127.0.0.1", 0), Hub)
