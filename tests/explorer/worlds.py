"""The explorer behind a real port, on a thread of this process."""

import contextlib
from collections.abc import Iterator

from sarm_control.explorer import Site, create_explorer
from sarm_control.server import ServiceSettings
from tests.server.serving import listening


@contextlib.contextmanager
def served(site: Site, *, port: int = 0, token: str | None = None) -> Iterator[str]:
    """The address of a site while the block lasts."""
    hosts = None if token is not None else frozenset({"127.0.0.1", "localhost"})
    app = create_explorer(site, ServiceSettings(token=token, hosts=hosts, body_bytes=1 << 20))
    with listening(app, port=port, lifespan="off") as url:
        yield url
