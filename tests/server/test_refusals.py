"""Requests that are not answered with a reward: status, message, hint; and what is never logged."""

import logging
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from sarm_control import RewardModel
from sarm_control.cli import main
from sarm_control.engines.reward.controlled_reward import ControlledReward
from sarm_control.errors import ConfigError, DataError
from sarm_control.server.http.app import create_app
from sarm_control.server.http.security import check_bind, is_loopback, read_token
from sarm_control.server.settings import ServiceSettings
from tests.present import present
from tests.server.conftest import Served, hooked, post
from tests.server.serving import serving

TOKEN = "a-token-of-more-than-16-characters"
ONE = {"prompts": ["hello"], "responses": ["no ."]}
USER, ASSISTANT = {"role": "user", "content": "hello"}, {"role": "assistant", "content": "no ."}

WRONG: dict[str, tuple[str, Any, int, str]] = {
    "another field": ("/v1/score", {**ONE, "respones": []}, 422, r"respones: extra inputs"),
    "a number for a text": (
        "/v1/score",
        {"prompts": ["a"], "responses": [1]},
        422,
        r"responses\[0\]: input should",
    ),
    "nothing": ("/v1/score", {}, 422, r"give prompts and responses, or messages"),
    "nobody": ("/v1/score", {"prompts": [], "responses": []}, 422, r"no conversation"),
    "both forms": (
        "/v1/score",
        {**ONE, "messages": [[USER, ASSISTANT]]},
        422,
        r"give prompts and responses, or",
    ),
    "one of two": ("/v1/score", {"prompts": ["a"]}, 422, r"go together"),
    "another number": (
        "/v1/score",
        {"prompts": ["a"], "responses": ["b", "c"]},
        422,
        r"1 prompts, 2 responses",
    ),
    "flags": ("/v1/score", {**ONE, "ended": [True, False]}, 422, r"2 ended flags for 1"),
    "no answer": (
        "/v1/score",
        {"messages": [[ASSISTANT, USER]]},
        422,
        r"messages\[0\] does not end with an assist",
    ),
    "too many parts": ("/v1/score", {**ONE, "top": 10**6}, 422, r"top: input should be less"),
    "half a character": (
        "/v1/score",
        b'{"prompts":["\\ud800"],"responses":["a"]}',
        422,
        r"prompts\[0\]: holds half",
    ),
    "no JSON": ("/v1/score", b"{", 422, r"body.*not JSON"),
    "no object": ("/v1/score", b"[1]", 422, r"body: input should be"),
    "too long": (
        "/v1/score",
        {"prompts": ["a " * 600], "responses": ["b"]},
        413,
        r"1201 characters, at most 1000",
    ),
    "too many": ("/v1/score", {"prompts": ["a"] * 9, "responses": ["b"] * 9}, 413, r"9 answers.*at most 8"),
    "no template": (
        "/classify",
        {"input": "hello"},
        422,
        r"not a conversation in this reward model's chat template",
    ),
    "another template": ("/classify", {"input": "<|im_start|>user\nhi"}, 422, r"holds '<\|im_start\|>'"),
    "an activation": ("/classify", {"input": "a", "activation": True}, 422, r"without an activation"),
    "token ids": ("/v1/embeddings", {"input": [1, 2]}, 422, r"input"),
    "no prompt in it": (
        "/get_reward",
        {"query": ["b c"], "prompts": ["a"]},
        422,
        r"does not begin with its prompt",
    ),
    "fewer prompts": (
        "/get_reward",
        {"query": ["a b", "a c"], "prompts": ["a"]},
        422,
        r"1 prompts for 2 queries",
    ),
    "no query": ("/get_reward", {"prompts": ["a"]}, 422, r"query: field required"),
    "no response": ("/rm", {"prompt": "a"}, 422, r"response: field required"),
    "no path": ("/v2/score", ONE, 404, r"no such path"),
}


@pytest.fixture(scope="module")
def strict(lab: RewardModel) -> Any:
    settings = ServiceSettings(most_answers=8, most_characters=1000, body_bytes=20_000)
    with serving(create_app(ControlledReward(lab), settings)) as client:
        yield client


@pytest.mark.parametrize("name", WRONG)
def test_bad_requests_are_refused_with_the_reason(name: str, strict: httpx.Client) -> None:
    path, body, status, message = WRONG[name]
    content = {"content": body} if isinstance(body, bytes) else {"json": body}
    reply = strict.post(path, headers={"content-type": "application/json"}, **content)
    assert reply.status_code == status, reply.text
    error = reply.json()
    assert set(error) == {"error", "hint"}
    assert re.search(message, error["error"]), error


def test_latents_that_do_not_exist(plain: Served, lab: RewardModel) -> None:
    reply = plain.client.get(f"/v1/latents/{lab.config.latents}")
    assert (reply.status_code, reply.json()["error"]) == (404, f"there is no latent {lab.config.latents}")
    assert plain.client.get("/v1/latents/-1").status_code == 422
    assert plain.client.get("/v1/score").status_code == 405


def test_a_body_is_limited_by_what_arrives_not_by_what_it_says(strict: httpx.Client) -> None:
    large = b'{"prompts": ["' + b"a" * 30_000 + b'"]}'
    headers = {"content-type": "application/json"}
    said = strict.post("/v1/score", content=large, headers=headers)
    assert (said.status_code, said.json()["error"]) == (413, "the body is larger than 20000 bytes")
    for path in ("/v1/score", "/healthz"):
        chunked = strict.request("POST", path, content=iter([large[:9_000]] * 4), headers=headers)
        assert chunked.status_code in (405, 413)
    assert post(strict, "/v1/score", ONE)["results"]


def test_a_client_that_sends_all_before_it_reads_hears_why_it_is_refused(strict: httpx.Client) -> None:
    """As urllib, requests and aiohttp do; a connection that closes early is a broken pipe to them."""
    large = b'{"prompts": ["' + b"a" * 300_000 + b'"]}'
    address = (strict.base_url.host, present(strict.base_url.port))
    head = f"POST /v1/score HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(large)}\r\n\r\n"
    for _ in range(5):
        with socket.create_connection(address, timeout=20) as client:
            client.sendall(head.encode())
            for start in range(0, len(large), 60_000):
                time.sleep(0.02)
                client.sendall(large[start : start + 60_000])
            said = b"".join(iter(lambda: client.recv(65_536), b""))
        assert said.startswith(b"HTTP/1.1 413")
        assert b"the body is larger than 20000 bytes" in said


@pytest.mark.parametrize("headers", [{}, {"content-type": "text/plain"}])
def test_plain_text_is_no_request(plain: Served, headers: dict[str, str]) -> None:
    """What a page in a browser can send to another machine's port without asking."""
    reply = plain.client.post("/v1/score", content=b'{"prompts":["a"],"responses":["b"]}', headers=headers)
    assert reply.status_code == 422


def test_the_token_is_asked_for_everywhere_but_on_health(lab: RewardModel) -> None:
    with serving(create_app(ControlledReward(lab), ServiceSettings(token=TOKEN))) as client:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": TOKEN}):
            for path in ("/v1/model", "/v1/latents/1", "/metrics", "/openapi.json", "/nowhere"):
                reply = client.get(path, headers=headers)
                assert (reply.status_code, reply.json()["error"]) == (401, "the token is missing or wrong")
            for path in ("/v1/score", "/get_reward", "/classify", "/v1/embeddings", "/rm"):
                assert client.post(path, json={}, headers=headers).status_code == 401
        assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
        client.headers["authorization"] = f"Bearer {TOKEN}"
        assert post(client, "/v1/score", ONE)["results"]


def test_without_a_token_other_names_than_this_machines_are_refused(lab: RewardModel) -> None:
    settings = ServiceSettings(hosts=check_bind("127.0.0.1", None))
    with serving(create_app(ControlledReward(lab), settings)) as client:
        port = client.base_url.port
        for host in (f"localhost:{port}", f"127.0.0.1:{port}", "[::1]", "LOCALHOST"):
            assert client.get("/healthz", headers={"host": host}).status_code == 200
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example"):
            assert client.get("/healthz", headers={"host": host}).status_code == 421


@pytest.mark.long
def test_a_full_queue_says_when_to_come_back_and_late_answers_are_given_up(lab: RewardModel) -> None:
    gate = threading.Event()
    gate.set()

    def wait(*_: object) -> None:
        assert gate.wait(60)

    model = hooked(lab, wait)
    settings = ServiceSettings(queue=2, most_at_once=1, timeout=2.0, cache_bytes=0)
    with serving(create_app(ControlledReward(model), settings)) as client, ThreadPoolExecutor(8) as pool:
        expected = post(client, "/v1/score", ONE)
        gate.clear()
        asked = []
        for waiting in range(3):
            asked.append(pool.submit(client.post, "/v1/score", json=ONE))
            end = time.monotonic() + 20
            # the first is at work, the others wait
            while f"sarm_queue_answers {max(0, waiting)}.0" not in client.get("/metrics").text:
                assert time.monotonic() < end
                time.sleep(0.01)
        full = client.post("/v1/score", json=ONE)
        assert (full.status_code, full.json()["error"]) == (429, "the queue is full")
        assert int(full.headers["retry-after"]) >= 1
        late = [one.result() for one in asked]
        assert {one.status_code for one in late} == {504}
        assert late[0].json()["error"] == "no answer within 2 s"
        gate.set()
        assert post(client, "/v1/score", ONE) == expected


@pytest.mark.parametrize("kind", ["application/json", "application/x+json"])
def test_a_body_that_does_not_arrive_is_not_waited_for(lab: RewardModel, kind: str) -> None:
    with serving(create_app(ControlledReward(lab), ServiceSettings(timeout=0.5))) as client:
        port = client.base_url.port
        assert port is not None
        with socket.create_connection(("127.0.0.1", port), timeout=30) as one:
            head = f"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
            one.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
            reply = b""
            while part := one.recv(65_536):
                reply += part
        assert reply.startswith(b"HTTP/1.1 408 ")
        assert b"the body did not arrive within 0.5 s" in reply
        assert post(client, "/v1/score", ONE)["results"]


@pytest.mark.long
def test_a_server_that_stops_does_not_wait_for_a_pass_without_end(
    lab: RewardModel, caplog: pytest.LogCaptureFixture
) -> None:
    gate = threading.Event()
    gate.set()

    def wait(*_: object) -> None:
        gate.wait(60)

    app = create_app(ControlledReward(hooked(lab, wait)), ServiceSettings(timeout=0.5))
    with caplog.at_level(logging.ERROR):
        with serving(app) as client:
            gate.clear()
            assert client.post("/v1/score", json=ONE).status_code == 504
            stopping = time.monotonic()
        took = time.monotonic() - stopping
    gate.set()
    assert took < 30
    assert "stopped before everything was answered" in caplog.text


def test_a_model_that_breaks_is_an_error_and_no_number(lab: RewardModel) -> None:
    broken = threading.Event()
    model = hooked(lab, lambda _module, _inputs, states: states * float("nan") if broken.is_set() else states)
    with serving(create_app(ControlledReward(model))) as client:
        broken.set()
        reply = client.post("/v1/score", json=ONE)
        assert reply.status_code == 500
        assert reply.json()["error"] == "the reward could not be computed (ArithmeticError)"
        broken.clear()
        assert post(client, "/v1/score", ONE)["results"]


def test_no_text_is_logged_unless_asked(
    lab: RewardModel, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    secret = {"prompts": ["a secret question"], "responses": ["a secret answer"]}
    broken = threading.Event()
    model = hooked(lab, lambda _module, _inputs, states: states * float("nan") if broken.is_set() else states)
    with caplog.at_level(logging.DEBUG):
        with serving(create_app(ControlledReward(model), ServiceSettings(cache_bytes=0))) as client:
            assert client.post("/v1/score", json=secret).status_code == 200
            assert client.post("/classify", json={"input": "a secret text"}).status_code == 422
            assert client.post("/v1/score", json={"prompts": "a secret text"}).status_code == 422
            broken.set()
            assert client.post("/v1/score", json=secret).status_code == 500
        assert "ArithmeticError" in caplog.text
        assert "secret" not in caplog.text
        with serving(create_app(ControlledReward(lab), ServiceSettings(log_text=True))) as client:
            assert client.post("/v1/score", json=secret).status_code == 200
        assert "a secret answer" in caplog.text
    assert "secret" not in "".join(capfd.readouterr())


def test_a_public_bind_wants_a_token(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--host", "0.0.0.0"]) == 2
    assert "--host 0.0.0.0 can be reached from other machines" in capsys.readouterr().err
    short = tmp_path / "token"
    short.write_text("secret\n")
    assert main(["serve", "--host", "0.0.0.0", "--token-file", str(short)]) == 2
    shown = capsys.readouterr().err
    assert "at least 16 printable" in shown
    assert "secret" not in shown
    for host, here in (
        ("::1", True),
        ("127.0.0.9", True),
        ("localhost", True),
        ("10.0.0.1", False),
        ("::", False),
    ):
        assert is_loopback(host) == here
    with pytest.raises(ConfigError, match="needs a token"):
        check_bind("example.org", None)
    assert check_bind("0.0.0.0", TOKEN) is None


@pytest.mark.parametrize("content", ["", "\n \n", "with a space in it, long", "größer-als-sechzehn"])
def test_tokens_that_cannot_be_used(tmp_path: Path, content: str) -> None:
    path = tmp_path / "token"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match="16 printable ASCII"):
        read_token(path)
    with pytest.raises(DataError, match="No such file"):
        read_token(tmp_path / "nowhere")
    path.write_text(f"\n {TOKEN} \n", encoding="utf-8")
    assert read_token(path) == TOKEN


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", "--port", port]) == 2
    assert f"cannot serve on 127.0.0.1 port {port}: address already in use" in capsys.readouterr().err
    assert main(["serve", "--workers-on", "cpu,", "--port", "0"]) == 2
    assert "no list of devices" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["serve", "--port", "0", "--workers-on", "cpu,nonsense"], "nonsense"),
        (["serve", "--port", "0", "--workers-on", "cpu,cuda:99"], "cuda:99"),
        (["score", "--device", "nonsense", "lab:audit"], "nonsense"),
    ],
)
def test_a_device_that_is_not_here(words: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    shown = capsys.readouterr().err
    assert f"there is no device '{named}' here" in shown
    assert re.search(r"this machine has cpu", shown)
