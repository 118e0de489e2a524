"""The explorer behind a real port, on a thread of this process."""

import contextlib
import threading
import time
from collections.abc import Iterator

from sarm_control.explorer import Site
from sarm_control.server import ServiceSettings, address, bind

WAIT = 60.0


@contextlib.contextmanager
def served(site: Site, *, port: int = 0, token: str | None = None) -> Iterator[str]:
    """The address of a site while the block lasts."""
    import uvicorn

    from sarm_control.explorer import create_explorer

    hosts = None if token is not None else frozenset({"127.0.0.1", "localhost"})
    app = create_explorer(site, ServiceSettings(token=token, hosts=hosts, body_bytes=1 << 20))
    listening = bind("127.0.0.1", port)
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        end = time.monotonic() + WAIT
        while not server.started and thread.is_alive() and time.monotonic() < end:
            time.sleep(0.01)
        assert server.started
        yield address(listening)
    finally:
        server.should_exit = True
        thread.join(WAIT)
        listening.close()
