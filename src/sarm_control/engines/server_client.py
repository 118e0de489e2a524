"""A client of `sarm serve` for the workers of engines, which tries again until its patience ends.

It imports only the standard library, since an engine pins its own versions of HTTP
clients and nothing else may be installed in the worker. `judge` decides what
a reply means, apart from how it was fetched, so that blocking and asynchronous callers behave alike.
"""

import http.client
import json
import logging
import math
import os
import random
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from sarm_control.bounded_json import parse_json
from sarm_control.errors import ConfigError, DataError, SarmError, TrainingError

URL, TOKEN_FILE = "SARM_REWARD_URL", "SARM_REWARD_TOKEN_FILE"
TIMEOUT, PATIENCE = "SARM_REWARD_TIMEOUT", "SARM_REWARD_PATIENCE"
LEARN, LEARN_HEADER = "SARM_REWARD_LEARN", "X-Sarm-Learn"
DEFAULT_URL = "http://127.0.0.1:8000"

SETTINGS = ("url", "token_file", "timeout", "patience", "learn")
"""The keys of `ServerSettings.from_environment`."""

_BUSY = 429
# with every 5xx: what the server may do next time; another 4xx would be refused again
_AGAIN = {408, _BUSY}
_LONGEST_PAUSE = 30.0
_LONGEST_WAIT = 1e9  # seconds; a socket takes no more
_logger = logging.getLogger("sarm_control.engines")
# Without a proxy, as in the engines' own clients: a reward server is in the same cluster.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class ServerSettings:
    """Where the server is and how long to wait for it.

    Args:
        url: without a path.
        token: sent as a bearer token.
        timeout: seconds one request may take.
        patience: seconds after the first try in which further ones are made; no answer is lost while a server
            is busy or starts again.
        learn: whether the server's controls may learn from the answers; false for an evaluation.
    """

    url: str = DEFAULT_URL
    token: str | None = field(default=None, repr=False)
    timeout: float = 180.0
    patience: float = 600.0
    learn: bool = True

    @classmethod
    def from_environment(cls, **given: Any) -> "ServerSettings":
        """Settings from `SARM_REWARD_URL`, `_TOKEN_FILE`, `_TIMEOUT`, `_PATIENCE` and `_LEARN`, unless given.

        Args:
            given: `url`, `token_file`, `timeout`, `patience`, `learn`; None counts as not given.

        Raises:
            ConfigError: an address that is not an http URL or has a token in it, a token file that cannot be
                read, a value that is not a number, or an unknown key.
        """
        known = dict(zip(SETTINGS, (URL, TOKEN_FILE, TIMEOUT, PATIENCE, LEARN), strict=True))
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise ConfigError(f"unknown key {unknown[0]!r}: the reward server takes {', '.join(known)}")
        found = {key: _from_environment(given.get(key), name) for key, name in known.items()}
        return cls(
            DEFAULT_URL if found["url"] is None else _address(str(found["url"])),
            _token(found["token_file"]),
            _seconds(found["timeout"], TIMEOUT, cls.timeout),
            _seconds(found["patience"], PATIENCE, cls.patience),
            _yes(found["learn"], LEARN, cls.learn),
        )

    @property
    def headers(self) -> dict[str, str]:
        """The headers of every request."""
        known = {"Content-Type": "application/json"}
        known |= {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        return known if self.learn else {**known, LEARN_HEADER: "false"}


class Reply(NamedTuple):
    """The reply to a request; where none came, `status` is None and `problem` says why."""

    status: int | None
    body: bytes = b""
    retry_after: str | None = None
    problem: str = ""


class Pause(NamedTuple):
    """Seconds before the next try."""

    seconds: float


def judge(settings: ServerSettings, path: str, reply: Reply, attempt: int, waited: float) -> Any:
    """Decides what a reply means: an answer, a pause before the next try, or an error.

    Args:
        settings: the settings, with their patience.
        path: path of the request, for messages.
        reply: the reply.
        attempt: number of tries before this one.
        waited: seconds since the first try.

    Returns:
        The JSON of a good answer, or a `Pause` before the next try.

    Raises:
        DataError: the server refuses this request, and would refuse it again.
        ConfigError: the path does not exist, or the server does not accept the token.
        TrainingError: the patience is over, or the answer is not JSON.
    """
    if reply.status is not None and 200 <= reply.status < 300:
        return _json(settings, path, reply)
    # at once: waiting out the patience would hold up a training by ten minutes
    # over a request that stays wrong
    if reply.status is not None and 400 <= reply.status < 500 and reply.status not in _AGAIN:
        _refused(settings, path, reply)
    pause = _pause(reply, attempt)
    # asked before the pause, so that nobody sleeps only to give up on waking
    if waited + pause >= settings.patience:
        raise TrainingError(
            f"no reward from {settings.url}{path} in {waited:.0f} s and {attempt + 1} tries: {_why(reply)}; "
            f"is `sarm serve` running there? {URL} says where it is, {PATIENCE} how long to wait"
        )
    return Pause(pause)


def post(settings: ServerSettings, path: str, payload: Mapping[str, Any]) -> Any:
    """Posts a request and waits for the answer; returns its JSON. Raises the errors of `judge`.

    Errors are logged too: some engines drop what a reward function raises, and then only the log shows it.
    """
    started, attempt = time.monotonic(), 0
    body = json.dumps(payload).encode()
    while True:
        reply = _send(settings, path, body)
        with logged():
            verdict = judge(settings, path, reply, attempt, time.monotonic() - started)
        if not isinstance(verdict, Pause):
            return verdict
        time.sleep(verdict.seconds)
        attempt += 1


@contextmanager
def logged() -> Iterator[None]:
    """Logs a `SarmError` that leaves the block, and lets it pass."""
    try:
        yield
    except SarmError as error:
        _logger.error("%s", error)
        raise


def finite(value: Any, where: str) -> float:
    """A reward as a float.

    Raises:
        TrainingError: it is not a number, or not a finite one.
    """
    # a bool is an int to Python, and an engine would train on it as 1
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TrainingError(f"{where} answered {value!r} for a reward, which is not a finite number")
    return float(value)


def first_line(text: str) -> str:
    """The token in the text of a token file: its first line that is not blank; empty when there is none."""
    return next((line.strip() for line in text.split("\n") if line.strip()), "")


def _send(settings: ServerSettings, path: str, body: bytes) -> Reply:
    try:
        request = urllib.request.Request(settings.url + path, body, settings.headers)
        try:
            with _opener.open(request, timeout=settings.timeout) as answer:
                return Reply(answer.status, answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, error.read(), error.headers.get("Retry-After"))
    # no connection, a URL or header that http refuses, or an answer that broke off
    except (OSError, ValueError, http.client.HTTPException) as error:
        return Reply(None, problem=f"{type(error).__name__}: {error}")


def _json(settings: ServerSettings, path: str, reply: Reply) -> Any:
    try:
        return parse_json(reply.body.decode("utf-8"))
    except ValueError as error:
        start = reply.body[:80].decode(errors="replace")
        raise TrainingError(
            f"{settings.url}{path} answered something that is not JSON: {start!r}; is it `sarm serve`?"
        ) from error


def _refused(settings: ServerSettings, path: str, reply: Reply) -> NoReturn:
    where = f"{settings.url}{path}"
    if reply.status in (401, 403):
        raise ConfigError(f"{where} does not accept the token ({reply.status}); {TOKEN_FILE} names its file")
    if reply.status in (404, 405):
        raise ConfigError(
            f"{where} is not there ({reply.status}); is {settings.url} the address of `sarm serve`?"
        )
    raise DataError(f"{where} refuses the request: {_why(reply)}")


def _why(reply: Reply) -> str:
    if reply.status is None:
        return reply.problem
    return f"{reply.status} {_said(reply.body)}".rstrip()


def _said(body: bytes) -> str:
    """The message of an error's body, or its beginning."""
    text = body[:2000].decode(errors="replace").strip()
    try:
        found = parse_json(text)
    except ValueError:
        return text[:300]
    if isinstance(found, Mapping) and isinstance(found.get("error"), str):
        hint = found.get("hint")
        return f"{found['error']} ({hint})" if hint else str(found["error"])
    return json.dumps(found)[:300]


def _pause(reply: Reply, attempt: int) -> float:
    """The pause that the server asks for, or one that doubles with each try.

    It varies by a quarter at random, so that many clients do not all come back at the same moment.
    """
    try:
        asked = float(reply.retry_after or "")
    except ValueError:
        asked = math.nan
    if not math.isfinite(asked):
        asked = 0.25 * 2 ** min(attempt, 10)
    # bounded at both ends: a server that says 0 would be asked in a loop, one that says an hour waited for
    return min(max(asked, 0.05), _LONGEST_PAUSE) * random.uniform(0.75, 1.25)


def _from_environment(given: Any, name: str) -> Any:
    """The given value, or the one of the environment; None where neither is set."""
    found = os.environ.get(name) if given is None else given
    return None if found == "" else found


def _address(url: str) -> str:
    """The address without a slash at its end. The part before an @ is secret and is never shown."""
    try:
        parts = urllib.parse.urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if "@" in url:
        raise ConfigError(
            f"{URL} has a token or a name before {'@' + url.rpartition('@')[2]!r}, which gets into logs",
            hint=f"take it out of the address, write it to a file and name that file in {TOKEN_FILE}",
        )
    if not usable:
        raise ConfigError(
            f"{URL} is {url!r}, which is not the address of a server", hint=f"such as {DEFAULT_URL}"
        )
    return url.rstrip("/")


def _token(path: Any) -> str | None:
    if path is None:
        return None
    try:
        token = first_line(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else error
        raise ConfigError(
            f"the token file {path} cannot be read: {reason}", hint=f"see {TOKEN_FILE}"
        ) from error
    if not token or not token.isascii() or not token.isprintable():
        raise ConfigError(
            f"the token file {path} has no token of printable ASCII characters", hint=f"see {TOKEN_FILE}"
        )
    return token


def _seconds(given: Any, name: str, default: float) -> float:
    if given is None:
        return default
    try:
        seconds = float(given)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 < seconds <= _LONGEST_WAIT:
        raise ConfigError(f"{name} is {given!r}, which is not a number of seconds above 0")
    return seconds


def _yes(given: Any, name: str, default: bool) -> bool:
    if given is None:
        return default
    known = {"true": True, "1": True, "false": False, "0": False}
    if str(given).lower() not in known:
        raise ConfigError(f"{name} is {given!r}, which is neither true nor false")
    return known[str(given).lower()]
