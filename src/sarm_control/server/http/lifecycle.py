"""Binds a port and serves until a signal stops the process."""

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

# an engine sends a request for every sample of a step, all at one moment
_CONNECTIONS_WAITING = 2048
_KEEP_ALIVE_SECONDS = 75
# mallopt parameters: -1 is M_TRIM_THRESHOLD, the free memory that the process keeps; -3 is M_MMAP_THRESHOLD,
# the size from which a block is mapped by itself and given back as soon as it is free
_KEPT_FREE = ((-1, 256 << 20), (-3, 32 << 20))


def bind(host: str, port: int) -> socket.socket:
    """A listening socket.

    Args:
        host: an address or name of this machine.
        port: 0 chooses a free one.

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
    """The URL of a listening socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(
    app: FastAPI,
    listening: socket.socket,
    *,
    settings: ServiceSettings = DEFAULTS,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Serves until SIGINT or SIGTERM. Then it takes no new requests and answers those it has.

    Args:
        app: what `create_app` gave.
        listening: a bound socket.
        settings: those of the app; used here are the limits of connections and headers, and `timeout` for the
            answers after the signal.
        ready: called once requests are answered.
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
    with _signals_ignored():
        _Server(config, ready).run(sockets=[listening])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            # Packages and model live as long as the process. Without `freeze`, every full collection would
            # walk through them, and every answer of that moment would wait.
            gc.collect()
            gc.freeze()
            self._ready()


def _keep_memory() -> None:
    """Keeps the memory of a forward pass for the next one.

    By default glibc returns it to the system after every pass, and the system clears each page before the
    next one. For a small model that is a good part of the time of an answer in a batch.
    """
    # C libraries other than glibc have no `mallopt`
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for number, size in _KEPT_FREE:
            mallopt(number, size)


@contextlib.contextmanager
def _signals_ignored() -> Iterator[None]:
    """Ignores the signal that uvicorn raises again after it has stopped because of it."""
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
