"""Binds a port and serves until told to stop."""

import contextlib
import ctypes
import gc
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator

import uvicorn
from fastapi import FastAPI

from sarm_control.errors import ConfigError
from sarm_control.server.http.connections import Bounds, bounded, room_for
from sarm_control.server.settings import DEFAULTS, ServiceSettings

_CONNECTIONS_WAITING = 2048
_KEEP_ALIVE_SECONDS = 75
# M_TRIM_THRESHOLD: free memory that is kept; M_MMAP_THRESHOLD: pieces from this size on never are
_KEPT_FREE = ((-1, 256 << 20), (-3, 32 << 20))


def bind(host: str, port: int) -> socket.socket:
    """A listening socket.

    Args:
        host: an address or name of this machine.
        port: 0 for any that is free.

    Raises:
        ConfigError: the port is taken, or the host is not this machine's.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=_CONNECTIONS_WAITING)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(
            f"cannot serve on {host} port {port}: {reason}", hint="choose another one with --port"
        ) from error


def address(listening: socket.socket) -> str:
    """The URL that a listening socket is reached under."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(
    app: FastAPI,
    listening: socket.socket,
    *,
    settings: ServiceSettings = DEFAULTS,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Serves until SIGINT or SIGTERM; then takes nothing new and answers what it took.

    Args:
        app: what `create_app` gave.
        listening: a bound socket.
        settings: those of the app: connections, the seconds of headers, and of answers after the signal.
        ready: called when requests are answered.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        lifespan="on",
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, round(settings.timeout)),
        http=bounded(Bounds(room_for(settings.connections), settings.header_seconds)),
        ws="none",
    )
    _keep_memory()
    with _signals_are_no_errors():
        _Server(config, ready).run(sockets=[listening])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            # The packages and the model stay for good: going through them again and again to look for
            # garbage would make every answer of that moment wait.
            gc.collect()
            gc.freeze()
            self._ready()


def _keep_memory() -> None:
    """Lets the memory of a forward pass serve the next one.

    glibc gives it back to the system after every pass, and each of its pages is then cleared again for the
    next: for a small model, a good part of what an answer in a batch takes.
    """
    # other C libraries have no such call
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for number, size in _KEPT_FREE:
            mallopt(number, size)


@contextlib.contextmanager
def _signals_are_no_errors() -> Iterator[None]:
    """Once it has stopped, uvicorn raises the signal again that it was stopped by."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    stops = (signal.SIGINT, signal.SIGTERM)
    before = {stop: signal.signal(stop, lambda *_: None) for stop in stops}
    try:
        yield
    finally:
        for stop, handler in before.items():
            signal.signal(stop, handler)
