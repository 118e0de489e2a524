"""Who may keep a connection open: how many there are at most, and how long headers may take.

uvicorn waits for headers as long as the client likes, and opens as many connections as it is asked for: a
few thousand clients that each send half a line would keep every other one out.
"""

import asyncio
import contextlib
import json
import resource
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

# what a process has open beside connections: packages, models, logs
_OTHER_FILES = 128
_LARGEST_HEADERS = 64 << 10


@dataclass(frozen=True)
class Bounds:
    """What connections may take.

    Args:
        connections: open at a time, >= 1.
        header_seconds: from a connection's first moment, or the first byte of a further request on it,
            until the headers are whole, > 0.
    """

    connections: int
    header_seconds: float


def room_for(connections: int) -> int:
    """How many connections this process may have open: those asked for, or what the system allows.

    The soft limit on open files is raised as far as it may be.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return connections if soft == resource.RLIM_INFINITY else max(1, min(connections, soft - _OTHER_FILES))


def bounded(bounds: Bounds) -> type[asyncio.Protocol]:
    """Uvicorn's protocol of a connection, within bounds."""

    class Bounded(_BoundedProtocol):
        limits = bounds

    return Bounded


class _BoundedProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    limits: Bounds

    def __init__(self, *words: Any, **named: Any) -> None:
        super().__init__(*words, **named)
        self._refused = False
        self._waited: asyncio.TimerHandle | None = None
        self._unfinished = 0

    def connection_made(self, transport: Any) -> None:
        if len(self.connections) >= self.limits.connections:
            self._refused = True
            said = f"{self.limits.connections} connections are open, the most that are served at a time"
            _answer(transport, "503 Service Unavailable", said, "come back in a moment", {"Retry-After": "1"})
            return
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._wait_no_longer()
            return
        self._wait()
        self._unfinished += len(data)
        if self._unfinished > _LARGEST_HEADERS:
            said = f"the headers are larger than {_LARGEST_HEADERS} bytes"
            self._drop("431 Request Header Fields Too Large", said, "send what is long in the body")

    def eof_received(self) -> None:
        if not self._refused:
            super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_longer()
        if not self._refused:
            super().connection_lost(exc)

    def _wait(self) -> None:
        if self._waited is None:
            self._waited = self.loop.call_later(self.limits.header_seconds, self._late)

    def _wait_no_longer(self) -> None:
        self._unfinished = 0
        if self._waited is not None:
            self._waited.cancel()
            self._waited = None

    def _late(self) -> None:
        said = f"the headers did not arrive within {self.limits.header_seconds:g} s"
        self._drop("408 Request Timeout", said, "send a request, or open the connection when there is one")

    def _drop(self, status: str, error: str, hint: str) -> None:
        self._wait_no_longer()
        if not self.transport.is_closing():
            _answer(self.transport, status, error, hint, {})


def _answer(transport: Any, status: str, error: str, hint: str, more: Mapping[str, str]) -> None:
    """Writes an error as every other one looks, and closes the connection."""
    body = json.dumps({"error": error, "hint": hint}).encode()
    headers = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
        **more,
    }
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    transport.write("\r\n".join(lines).encode() + body)
    transport.close()
