"""Slow clients and many connections, by real sockets against `sarm serve` (bad input)."""

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from tests.server.serving import Command, command

MOST, SECONDS = 8, 1.0
HALF = b"POST /v1/score HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Le"


@pytest.fixture(scope="module")
def server() -> Iterator[Command]:
    with command("--connections", str(MOST), "--header-timeout", str(SECONDS)) as running:
        yield running


@contextlib.contextmanager
def connected(server: Command) -> Iterator[socket.socket]:
    where = urlsplit(server.url)
    assert where.port is not None
    with socket.create_connection((where.hostname, where.port), timeout=20) as one:
        yield one


def rest(one: socket.socket) -> bytes:
    """What comes until the server closes the connection."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := one.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def scored(server: Command) -> int:
    body = {"prompts": ["hello ?"], "responses": ["yes ."]}
    return httpx.post(f"{server.url}/v1/score", json=body, timeout=20).status_code


@pytest.mark.long
@pytest.mark.parametrize("sent", [b"", b"P", HALF], ids=["nothing", "a byte", "half the headers"])
def test_half_a_request_is_dropped_after_the_time_for_headers(server: Command, sent: bytes) -> None:
    with connected(server) as one:
        started = time.monotonic()
        one.sendall(sent)
        said = rest(one)
    assert SECONDS * 0.9 < time.monotonic() - started < SECONDS + 5
    assert said.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert json.loads(said.partition(b"\r\n\r\n")[2]) == {
        "error": "the headers did not arrive within 1 s",
        "hint": "send a request, or open the connection when there is one",
    }


@pytest.mark.long
def test_a_byte_now_and_then_gives_no_more_time(server: Command) -> None:
    with connected(server) as one:
        started = time.monotonic()
        with contextlib.suppress(ConnectionError):
            for byte in HALF + b"X" * 100:
                one.sendall(bytes([byte]))
                time.sleep(0.05)
                if time.monotonic() - started > 20:
                    break
        assert time.monotonic() - started < SECONDS + 5


@pytest.mark.long
def test_half_of_a_second_request_on_a_connection_is_dropped_too(server: Command) -> None:
    def healthy() -> None:
        one.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        said = b""
        while not said.endswith(b'{"status": "ok"}'):
            said += one.recv(1 << 16)
        assert said.startswith(b"HTTP/1.1 200")

    with connected(server) as one:
        healthy()
        time.sleep(SECONDS * 1.5)  # an idle connection stays open
        healthy()
        started = time.monotonic()
        one.sendall(HALF)
        assert rest(one).startswith(b"HTTP/1.1 408")
        assert SECONDS * 0.9 < time.monotonic() - started < SECONDS + 5


@pytest.mark.long
def test_a_slow_body_has_the_time_of_a_body(server: Command) -> None:
    body = json.dumps({"prompts": ["hello ?"], "responses": ["yes ."]}).encode()
    head = "POST /v1/score HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(body)}"
    with connected(server) as one:
        one.sendall(head.encode() + b"\r\n\r\n" + body[:5])
        time.sleep(SECONDS * 2)
        one.sendall(body[5:])
        assert one.recv(1 << 16).startswith(b"HTTP/1.1 200")


def test_endless_headers_are_refused(server: Command) -> None:
    with connected(server) as one:
        with contextlib.suppress(ConnectionError):
            one.sendall(HALF + b"ngth: 3\r\n" + b"X-Long: " + b"a" * (100 << 10))
        said = rest(one)
    assert said == b"" or said.startswith(b"HTTP/1.1 431 ")


@pytest.mark.long
def test_connections_are_bounded_and_others_are_served_once_slow_ones_are_gone(server: Command) -> None:
    with contextlib.ExitStack() as held:
        for _ in range(MOST):
            held.enter_context(connected(server)).sendall(HALF)
        time.sleep(0.2)
        with connected(server) as further:
            said = rest(further)
    assert said.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"\r\nRetry-After: 1\r\n" in said
    error = json.loads(said.partition(b"\r\n\r\n")[2])["error"]
    assert error == f"{MOST} connections are open, the most that are served at a time"
    with contextlib.ExitStack() as held:
        for _ in range(MOST):
            held.enter_context(connected(server)).sendall(HALF)
        until = time.monotonic() + SECONDS + 10
        while scored_or_refused(server) != 200:
            assert time.monotonic() < until
            time.sleep(0.1)


def scored_or_refused(server: Command) -> int:
    try:
        return scored(server)
    except httpx.TransportError:
        return 0  # the connection was closed with the refusal
