"""Who may ask, and how large a request may be."""

import asyncio
import base64
import binascii
import contextlib
import hmac
import ipaddress
import time
from collections.abc import Callable
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sarm_control.engines import first_line
from sarm_control.errors import ConfigError, DataError
from sarm_control.server.http.problems import Refusal, unexpected
from sarm_control.server.settings import ServiceSettings

_OPEN_PATHS = frozenset({"/healthz", "/readyz"})
_LEAST_TOKEN = 16
# How much of a refused body is still read, in bodies of the allowed size, and how long the client may pause.
_DRAINED_BODIES, _IDLE_SECONDS = 16, 1.0
# What a body without a type is: no JSON. A page in a browser can send one to any port without asking, and
# older versions of FastAPI would read it.
_NO_TYPE = (b"content-type", b"application/octet-stream")
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


def read_token(path: Path) -> str:
    """The token in a file: its first line that is not blank.

    Raises:
        DataError: the file cannot be read, is empty, or its token is short or not printable ASCII.
    """
    try:
        token = first_line(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise DataError(f"{path}: {reason}", hint="check the name of the token file") from error
    if len(token) < _LEAST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise DataError(
            f"{path}: a token has at least {_LEAST_TOKEN} printable ASCII characters and no space",
            hint="openssl rand -hex 32 > token.txt",
        )
    return token


def check_bind(host: str, token: str | None) -> frozenset[str] | None:
    """The names that the `Host` header of a request may have; None for any.

    Without a token only this machine is served, and only under its own names. Otherwise a page in a browser
    could reach the server under the page's own host name (DNS rebinding).

    Raises:
        ConfigError: other machines can reach `host`, and there is no token.
    """
    if token is not None:
        return None
    if not is_loopback(host):
        raise ConfigError(
            f"--host {host} can be reached from other machines; that needs a token",
            hint="--token-file FILE, or leave --host out to serve this machine alone",
        )
    return _LOOPBACK_NAMES | {host.lower(), f"[{host.lower()}]"}


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server bound to `host`."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """The outermost layer: it checks host, token, and the size and time of a body, and counts requests.

    Args:
        app: the application behind it.
        settings: token, hosts and the limits of a body.
        requested: called with route, status and seconds of every request.
        is_open: whether a path needs no token.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: ServiceSettings,
        requested: Callable[[str, int, float], None],
        *,
        is_open: Callable[[str], bool] = _OPEN_PATHS.__contains__,
    ) -> None:
        self.app = app
        self.settings = settings
        self.requested = requested
        self.is_open = is_open
        self._token = None if settings.token is None else settings.token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers or refuses one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.monotonic(), 0

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        headers = dict(scope["headers"])
        if b"content-type" not in headers:
            scope = {**scope, "headers": [*scope["headers"], _NO_TYPE]}
        refused = self._refusal(scope["path"], headers)
        try:
            if refused is not None:
                # a client that expects 100-continue has not begun to send its body
                if b"expect" not in headers:
                    await self._drain(receive)
                await refused.response()(scope, receive, counted)
            else:
                await self.app(scope, self._limited(receive), counted)
        except Exception as error:
            refusal = unexpected(error)
            if status:
                # the headers are sent already, so an error can only be shown by closing the connection
                raise RuntimeError("the response broke off") from None
            await refusal.response()(scope, receive, counted)
        finally:
            route = scope.get("route")
            # one name for all unknown paths, or callers could add series to the metrics without end
            self.requested(getattr(route, "path", "other"), status, time.monotonic() - started)

    def _refusal(self, path: str, headers: dict[bytes, bytes]) -> Refusal | None:
        hosts = self.settings.hosts
        if hosts is not None and _name(headers.get(b"host", b"")) not in hosts:
            return Refusal(421, "this server answers only to the names of its own machine", "use 127.0.0.1")
        if self._token is not None and not self.is_open(path):
            given = _given_token(headers.get(b"authorization", b""))
            # in constant time: the time must not show how many characters are right
            if not hmac.compare_digest(given, self._token):
                hint, asked = "send Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"}
                return Refusal(401, "the token is missing or wrong", hint, asked)
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self.settings.body_bytes:
            # only part of the body is read after this, so the connection cannot be used again
            closing = {"Connection": "close"}
            return Refusal(413, _too_large(self.settings.body_bytes), "send fewer answers at a time", closing)
        return None

    async def _drain(self, receive: Receive) -> None:
        """Reads what a refused client still sends, up to a limit.

        Most clients read no answer before they have sent everything. If the connection were closed before,
        they would see a broken pipe and not the reason.
        """
        left, until = _DRAINED_BODIES * self.settings.body_bytes, time.monotonic() + self.settings.timeout
        with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
            while left > 0:
                message = await asyncio.wait_for(receive(), min(_IDLE_SECONDS, until - time.monotonic()))
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
                left -= len(message.get("body", b""))

    def _limited(self, receive: Receive) -> Receive:
        taken, more = 0, True
        until = time.monotonic() + self.settings.timeout

        async def limited() -> Message:
            nonlocal taken, more
            # the body is whole: only the end of the connection can follow, which has no deadline
            if not more:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), until - time.monotonic())
            except (TimeoutError, asyncio.TimeoutError):
                waited = f"the body did not arrive within {self.settings.timeout:g} s"
                raise HTTPException(408, waited, {"Connection": "close"}) from None
            more = message["type"] == "http.request" and message.get("more_body", False)
            taken += len(message.get("body", b""))
            if taken > self.settings.body_bytes:
                await self._drain(receive)
                raise HTTPException(413, _too_large(self.settings.body_bytes))
            return message

        return limited


def _given_token(authorization: bytes) -> bytes:
    """The token of `Bearer`, or the password of `Basic`.

    Engines that take a URL but no header send the part before its @ as `Basic`.
    """
    scheme, _, value = authorization.partition(b" ")
    if scheme.lower() == b"bearer":
        return value
    if scheme.lower() != b"basic":
        return b""
    try:
        return base64.b64decode(value, validate=True).partition(b":")[2]
    except binascii.Error:
        return b""


def _too_large(limit: int) -> str:
    return f"the body is larger than {limit} bytes"


def _name(host: bytes) -> str:
    """A `Host` header without its port."""
    name = host.decode("latin-1").lower()
    if name.startswith("["):
        return name[: name.find("]") + 1]
    return name.partition(":")[0]
