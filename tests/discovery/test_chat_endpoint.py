"""Asking an endpoint over real sockets: retries, refusals, keys, counting, and replies kept in a file."""

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sarm_control.discovery.labels.chat_endpoint import ChatEndpoint, TokenUsage
from sarm_control.discovery.labels.reply_cache import Replies
from sarm_control.errors import ConfigError, DataError, MissingExtraError

Reply = tuple[int, object, dict[str, str]]
"""Status, body, headers."""


class Server(ThreadingHTTPServer):
    """Answers each request with the next (status, body, headers) of its script, the last one for ever."""

    script: list[Reply]

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = [completion("yes")]
        self.pause = 0.0
        self.seen: list[tuple[str, dict[str, str], dict[str, object]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.seen.append((self.path, dict(self.headers.items()), body))
        status, content, headers = self.server.script[0]
        if len(self.server.script) > 1:
            del self.server.script[0]
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        time.sleep(self.server.pause)
        with suppress(BrokenPipeError, ConnectionResetError):
            self._answer(status, headers, data)

    def _answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


def completion(text: str, tokens: tuple[int, int] = (10, 2)) -> Reply:
    usage = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]}
    return 200, {"choices": [{"message": {"role": "assistant", "content": text}}], "usage": usage}, {}


def failure(status: int, **headers: str) -> Reply:
    return status, {"error": "busy"}, {name.replace("_", "-"): value for name, value in headers.items()}


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def endpoint(server: Server, waits: list[float], monkeypatch: pytest.MonkeyPatch) -> ChatEndpoint:
    for name in ("SARM_LABEL_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    return ChatEndpoint(server.url, "small", sleep=waits.append)


def test_the_question_is_a_chat_completion_and_its_tokens_are_counted(
    endpoint: ChatEndpoint, server: Server
) -> None:
    server.script = [completion("a", (100, 5)), completion("b", (50, 1))]
    assert [endpoint.ask("what ?"), endpoint.ask("why ?")] == ["a", "b"]
    path, headers, body = server.seen[0]
    assert path == "/v1/chat/completions"
    assert body["model"] == "small"
    assert body["messages"] == [{"role": "user", "content": "what ?"}]
    assert body["temperature"] == 0
    assert "Authorization" not in headers
    assert endpoint.usage == TokenUsage(requests=2, prompt_tokens=150, completion_tokens=6)
    assert endpoint.usage.cost(2.0, 10.0) == pytest.approx((150 * 2 + 6 * 10) / 1e6)


def test_the_key_comes_from_the_environment(
    endpoint: ChatEndpoint, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "second")
    endpoint.ask("?")
    monkeypatch.setenv("SARM_LABEL_API_KEY", "first")
    endpoint.ask("?")
    assert [headers["Authorization"] for _, headers, _ in server.seen] == ["Bearer second", "Bearer first"]


def test_a_busy_endpoint_is_asked_again_after_longer_and_longer_waits(
    endpoint: ChatEndpoint, server: Server, waits: list[float]
) -> None:
    server.script = [failure(503), failure(500), failure(429), completion("at last")]
    assert endpoint.ask("?") == "at last"
    assert len(server.seen) == 4
    for number, wait in enumerate(waits):
        assert 2**number <= wait <= 1.25 * 2**number


def test_an_endpoint_that_says_when_is_believed_up_to_a_minute(
    endpoint: ChatEndpoint, server: Server, waits: list[float]
) -> None:
    server.script = [failure(429, retry_after="7"), failure(429, retry_after="9000"), completion("yes")]
    assert endpoint.ask("?") == "yes"
    assert waits == [7.0, 60.0]


def test_an_endpoint_that_stays_busy_is_given_up(
    endpoint: ChatEndpoint, server: Server, waits: list[float]
) -> None:
    server.script = [failure(503)]
    with pytest.raises(DataError, match="did not answer in 6 attempts: status 503") as raised:
        endpoint.ask("?")
    assert len(server.seen) == 6
    assert len(waits) == 5
    assert "goes on where it stopped" in (raised.value.hint or "")


def test_a_slow_endpoint_says_that_waiting_longer_may_help(server: Server, waits: list[float]) -> None:
    server.pause = 0.3
    endpoint = ChatEndpoint(server.url, "small", attempts=2, timeout=0.05, sleep=waits.append)
    with pytest.raises(DataError, match="did not answer in 2 attempts: ReadTimeout") as raised:
        endpoint.ask("?")
    assert "--timeout" in (raised.value.hint or "")
    endpoint.timeout = 30.0
    assert endpoint.ask("?") == "yes"


def test_no_server_at_all_is_an_error_of_one_line(waits: list[float]) -> None:
    endpoint = ChatEndpoint("http://127.0.0.1:9/v1", "small", attempts=2, sleep=waits.append)
    with pytest.raises(DataError, match="did not answer in 2 attempts: ConnectError"):
        endpoint.ask("?")


@pytest.mark.parametrize("package", ["tenacity", "httpx"])
def test_without_the_extra_its_name_is_said(
    endpoint: ChatEndpoint, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=f"asking an endpoint needs {package}") as raised:
        endpoint.ask("?")
    assert raised.value.hint == 'pip install ".[label]" in the clone'


def test_the_last_attempt_is_not_followed_by_a_wait_and_the_next_question_starts_afresh(
    endpoint: ChatEndpoint, server: Server, waits: list[float]
) -> None:
    server.script = [failure(503), failure(503), completion("a"), failure(503), completion("b")]
    endpoint.attempts = 3
    assert [endpoint.ask("?"), endpoint.ask("?")] == ["a", "b"]
    assert [int(wait) for wait in waits] == [1, 2, 1]
    assert endpoint.usage.requests == 2


def test_a_refusal_is_not_repeated_and_does_not_show_the_key(
    endpoint: ChatEndpoint, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    server.script = [failure(401)]
    with pytest.raises(ConfigError, match="refused the request with status 401") as raised:
        endpoint.ask("?")
    assert len(server.seen) == 1
    assert "secret-key" not in f"{raised.value} {raised.value.hint}"


def test_a_parameter_the_endpoint_refuses_is_left_out_from_then_on(
    endpoint: ChatEndpoint, server: Server, waits: list[float]
) -> None:
    refusals: list[Reply] = [
        (400, {"error": {"message": f"Unsupported parameter: '{name}' is not supported"}}, {})
        for name in ("max_tokens", "temperature")
    ]
    server.script = [*refusals, completion("yes")]
    assert [endpoint.ask("?"), endpoint.ask("?")] == ["yes", "yes"]
    sent = [sorted(body.keys() & {"max_tokens", "temperature"}) for _, _, body in server.seen]
    assert sent == [["max_tokens", "temperature"], ["temperature"], [], []]
    assert (waits, endpoint.usage.requests) == ([], 2)
    # what is refused without them is refused for good
    server.script = [(400, {"error": "temperature and max_tokens are fine, the model is not"}, {})]
    with pytest.raises(ConfigError, match="refused the request with status 400"):
        endpoint.ask("?")
    assert len(server.seen) == 5


@pytest.mark.parametrize("content", [b"<html>", {"detail": "no"}, [1], {"choices": []}])
def test_something_else_than_a_completion_is_named(
    endpoint: ChatEndpoint, server: Server, content: object
) -> None:
    server.script = [(200, content, {})]
    with pytest.raises(DataError, match="answered"):
        endpoint.ask("?")


def test_no_question_is_asked_twice_not_even_by_another_run(
    endpoint: ChatEndpoint, server: Server, tmp_path: Path
) -> None:
    path = tmp_path / "replies.jsonl"
    server.script = [completion("one"), completion("two"), completion("three")]
    first = Replies(endpoint, path)
    assert [first("a"), first("b"), first("a")] == ["one", "two", "one"]
    second = Replies(ChatEndpoint(server.url, "small"), path)
    assert [second("b"), second("c")] == ["two", "three"]
    assert len(server.seen) == 3
    # what the labels cost counts, also where it was paid by an earlier run
    assert second.usage.prompt_tokens == 20
    other = Replies(ChatEndpoint(server.url, "large"), path)
    assert other("a") == "three"
    assert len(server.seen) == 4


def test_a_reply_that_was_cut_while_being_written_is_asked_again(
    endpoint: ChatEndpoint, server: Server, tmp_path: Path
) -> None:
    path = tmp_path / "replies.jsonl"
    replies = Replies(endpoint, path)
    replies("a"), replies("b")
    path.write_text(path.read_text()[:-20])
    again = Replies(ChatEndpoint(server.url, "small"), path)
    assert [again("a"), again("b")] == ["yes", "yes"]
    assert len(server.seen) == 3
    assert len(Replies(endpoint, path)._known) == 2


def test_another_file_is_not_taken_for_replies(endpoint: ChatEndpoint, tmp_path: Path) -> None:
    path = tmp_path / "replies.jsonl"
    path.write_text('{"prompt": "why ?"}\n')
    with pytest.raises(DataError, match=r"replies\.jsonl:1: not a reply"):
        Replies(endpoint, path)
    assert path.read_text() == '{"prompt": "why ?"}\n'
