"""A real server for tests: `sarm serve` as users start it, or an app on a thread of this process."""

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import httpx
from fastapi import FastAPI

from sarm_control.server.http.lifecycle import address, bind

WAIT = 120.0


class Command(NamedTuple):
    """A `sarm serve` that runs; `log` is its stderr so far."""

    url: str
    process: "subprocess.Popen[str]"
    log: Callable[[], str]


@contextlib.contextmanager
def command(*flags: str) -> Iterator[Command]:
    """`sarm serve --port 0 FLAGS`, once it serves."""
    sarm = str(Path(sys.executable).with_name("sarm"))
    process = subprocess.Popen(
        [sarm, "serve", "--model", "lab", "--port", "0", *flags],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert process.stderr is not None
    lines: list[str] = []
    reading = threading.Thread(target=lines.extend, args=(process.stderr,), daemon=True)
    reading.start()
    try:
        end = time.monotonic() + WAIT
        found = None
        while found is None and time.monotonic() < end and process.poll() is None:
            time.sleep(0.05)
            found = re.search(r"serving on (\S+);", "".join(lines))
        assert found is not None, "".join(lines)
        yield Command(found[1], process, lambda: "".join(lines))
    finally:
        process.kill()
        process.wait(30)
        reading.join(30)
        process.stderr.close()


@contextlib.contextmanager
def listening(app: FastAPI, *, port: int = 0, lifespan: Literal["on", "off"] = "on") -> Iterator[str]:
    """The address of an app behind a real port, on a thread of this process, while the block lasts."""
    import uvicorn

    own = bind("127.0.0.1", port)
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan=lifespan, ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [own]}, daemon=True)
    thread.start()
    try:
        end = time.monotonic() + WAIT
        while not server.started and thread.is_alive() and time.monotonic() < end:
            time.sleep(0.01)
        assert server.started
        yield address(own)
    finally:
        server.should_exit = True
        thread.join(60)
        own.close()


@contextlib.contextmanager
def serving(app: FastAPI) -> Iterator[httpx.Client]:
    """An app behind a real port, and a client of it."""
    with listening(app) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client
