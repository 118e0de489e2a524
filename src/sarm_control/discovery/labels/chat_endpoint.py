"""Any OpenAI-compatible chat endpoint: asked with retries, its tokens counted.

The key comes from the environment and goes nowhere but into the request's header.
"""

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sarm_control.errors import ConfigError, DataError
from sarm_control.extras import import_extra

KEYS = ("SARM_LABEL_API_KEY", "OPENAI_API_KEY")
_RETRIED = {408, 409, 425, 429, 500, 502, 503, 504, 529}
_LONGEST_WAIT = 60.0
# Models that think before they answer take neither; the reply is read the same way.
_OPTIONAL = ("temperature", "max_tokens")


@dataclass
class TokenUsage:
    """Tokens an endpoint has counted.

    Args:
        requests: replies received.
        prompt_tokens: as the endpoint says.
        completion_tokens: likewise.
    """

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, usage: Any) -> None:
        """Counts one reply; an endpoint that names no tokens adds none."""
        self.requests += 1
        counts = usage if isinstance(usage, dict) else {}
        self.prompt_tokens += int(counts.get("prompt_tokens") or 0)
        self.completion_tokens += int(counts.get("completion_tokens") or 0)

    def cost(self, price_in: float, price_out: float) -> float:
        """What they cost at prices for a million tokens."""
        return (self.prompt_tokens * price_in + self.completion_tokens * price_out) / 1e6


@dataclass
class ChatEndpoint:
    """A chat endpoint.

    Args:
        url: up to and with `/v1`; `/chat/completions` is added.
        model: the name it serves a model under.
        attempts: for one question, before the error is the caller's.
        timeout: seconds of one attempt.
        wait: seconds before the second attempt; doubled each time, up to a minute.
        sleep: waits; another one for tests of the schedule.
        usage: what was counted so far.
        left_out: optional parameters that the endpoint has refused; they are not sent again.
    """

    url: str
    model: str
    attempts: int = 6
    timeout: float = 120.0
    wait: float = 1.0
    sleep: Callable[[float], None] = time.sleep
    usage: TokenUsage = field(default_factory=TokenUsage)
    left_out: set[str] = field(default_factory=set)

    def ask(self, question: str, *, max_tokens: int = 60) -> str:
        """The reply to one question, at temperature 0 and of limited length where the endpoint takes that.

        Raises:
            ConfigError: the endpoint refuses the request (a wrong model, a missing key).
            DataError: it did not answer in all attempts, or answered something else than a chat completion.
            MissingExtraError: httpx or tenacity is not installed.
        """
        tenacity = import_extra("tenacity", "label", needed="asking an endpoint needs tenacity")
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": max_tokens,
        }
        doubled = tenacity.wait_exponential(self.wait, max=_LONGEST_WAIT)

        def pause(state: Any) -> float:
            """Seconds to wait: what the endpoint asked for, else doubled, spread by up to a quarter."""
            asked = state.outcome.exception().retry_after
            if asked.replace(".", "", 1).isdecimal():
                return min(float(asked), _LONGEST_WAIT)
            # not a derived seed: waits change no result, and runs that start together should not ask together
            return float(doubled(state)) * (1 + random.random() / 4)

        attempts = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self.attempts),
            wait=pause,
            retry=tenacity.retry_if_exception_type(_Busy),
            sleep=self.sleep,
            reraise=True,
        )
        try:
            reply = attempts(self._post, body)
        except _Busy as busy:
            slow = "; a slow server wants a larger --timeout" if busy.reason.startswith("ReadTimeout") else ""
            raise DataError(
                f"{self.url} did not answer in {self.attempts} attempts: {busy.reason}",
                hint=f"run the command again: it goes on where it stopped{slow}",
            ) from None
        self.usage.add(reply.get("usage"))
        return _text_of(reply, self.url)

    def _post(self, body: dict[str, Any]) -> dict[str, Any]:
        """The reply's JSON; `_Busy` where another attempt may help."""
        body = {name: value for name, value in body.items() if name not in self.left_out}
        httpx = import_extra("httpx", "label", needed="asking an endpoint needs httpx")
        key = next((os.environ[name] for name in KEYS if os.environ.get(name)), None)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        address = f"{self.url.rstrip('/')}/chat/completions"
        try:
            reply = httpx.post(address, json=body, headers=headers, timeout=self.timeout)
        except httpx.TransportError as error:
            raise _Busy(f"{type(error).__name__}: {error}") from error
        if reply.status_code in _RETRIED:
            raise _Busy(f"status {reply.status_code}", reply.headers.get("retry-after", ""))
        unwanted = {name for name in _OPTIONAL if name in body and name in reply.text}
        if reply.status_code == 400 and unwanted:
            # each parameter is left out once, so this asks again at most as often as there are optional ones
            self.left_out |= unwanted
            return self._post(body)
        if reply.status_code != 200:
            raise ConfigError(
                f"{address} refused the request with status {reply.status_code}: {reply.text[:200]!r}",
                hint=f"check --endpoint, --label-model and the key in {' or '.join(KEYS)}",
            )
        try:
            content = reply.json()
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise DataError(f"{address} answered {reply.text[:80]!r}", hint="is it an OpenAI-compatible URL?")
        return content


class _Busy(Exception):
    """An attempt that failed in a way that may pass."""

    def __init__(self, reason: str, retry_after: str = "") -> None:
        super().__init__(reason)
        self.reason, self.retry_after = reason, retry_after


def _text_of(reply: dict[str, Any], url: str) -> str:
    try:
        return str(reply["choices"][0]["message"]["content"] or "")
    except (KeyError, IndexError, TypeError):
        raise DataError(
            f"{url} answered without a message: {str(reply)[:80]!r}", hint="is it an OpenAI-compatible URL?"
        ) from None
