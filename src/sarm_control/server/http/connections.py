"""Limits on connections: how many may be open, and how long the headers of a request may take.

uvicorn waits for headers as long as a client likes, and accepts as many connections as it is asked for. A few
thousand clients that each send half a line would keep everybody else out.
"""

import asyncio
import contextlib
import json
import resource
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

# open files of the process beside connections: packages, models, logs
_OTHER_FILES = 128
_LARGEST_HEADERS = 64 << 10


@dataclass(frozen=True)
class Bounds:
    """The limits of connections.

    Args:
        connections: open at a time, >= 1.
        header_seconds: from a connection's first moment, or the first byte of a further request on it,
            until the headers are whole, > 0.
    """

    connections: int
    header_seconds: float


def room_for(connections: int) -> int:
    """How many connections this process may have open: `connections`, or fewer if the system allows fewer.

    It raises the soft limit on open files as far as the hard limit allows.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        # a container may forbid it: fewer connections are served then
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return connections if soft == resource.RLIM_INFINITY else max(1, min(connections, soft - _OTHER_FILES))


def bounded(bounds: Bounds) -> type[asyncio.Protocol]:
    """The protocol class of uvicorn for a connection, with these limits."""

    # a class for each server, since uvicorn makes the objects and passes no settings of ours
    class Bounded(_BoundedProtocol):
        limits = bounds

    return Bounded


class _BoundedProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    limits: Bounds

    def __init__(self, *words: Any, **named: Any) -> None:
        super().__init__(*words, **named)
        self._refused = False
        self._deadline: asyncio.TimerHandle | None = None
        self._unfinished = 0  # bytes of headers that are not whole yet

    def connection_made(self, transport: Any) -> None:
        if len(self.connections) >= self.limits.connections:
            # uvicorn is not told of this connection, so none of its later events may reach it
            self._refused = True
            error = f"{self.limits.connections} connections are open, the most that are served at a time"
            _write_error(
                transport, "503 Service Unavailable", error, "come back in a moment", {"Retry-After": "1"}
            )
            return
        super().connection_made(transport)
        self._start_deadline()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_deadline()
            return
        self._start_deadline()
        self._unfinished += len(data)
        if self._unfinished > _LARGEST_HEADERS:
            error = f"the headers are larger than {_LARGEST_HEADERS} bytes"
            self._drop("431 Request Header Fields Too Large", error, "send what is long in the body")

    def eof_received(self) -> None:
        if not self._refused:
            super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_deadline()
        if not self._refused:
            super().connection_lost(exc)

    def _start_deadline(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.limits.header_seconds, self._refuse_late_headers)

    def _stop_deadline(self) -> None:
        self._unfinished = 0
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse_late_headers(self) -> None:
        error = f"the headers did not arrive within {self.limits.header_seconds:g} s"
        self._drop("408 Request Timeout", error, "send a request, or open the connection when there is one")

    def _drop(self, status: str, error: str, hint: str) -> None:
        self._stop_deadline()
        if not self.transport.is_closing():
            _write_error(self.transport, status, error, hint, {})


def _write_error(transport: Any, status: str, error: str, hint: str, more: Mapping[str, str]) -> None:
    """Writes an error in the same JSON form as all others, and closes the connection."""
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
