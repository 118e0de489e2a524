"""Asking the reward server from an engine: what is tried again, what is an error, what is sent (contract)."""

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sarm_control.engines import openrlhf, verl
from sarm_control.engines.ms_swift import SarmReward
from sarm_control.engines.server_client import ServerSettings, post
from sarm_control.errors import ConfigError, DataError, SarmError, TrainingError
from tests.engines.scripted_server import Said, scripted_server

BUSY = Said(429, {"error": "busy"}, {"Retry-After": "0.05"})
FINE = Said(200, {"fine": True})
ONE = {
    "score": 0.5,
    "total": 0.3,
    "reward_model": 0.75,
    "edited": 0.5,
    "penalties": {"7": 0.25},
    "human_kl": -0.05,
    "missing_end": 0.0,
    "ended": True,
    "truncated": 0,
    "tokens": 9,
    "human_kl_version": 3,
}
PARTS = {
    "reward/model": 0.75,
    "reward/edits": -0.25,
    "reward/penalty/7": -0.25,
    "reward/human_kl": 0.05,
    "reward/missing_end": 0.0,
    "reward/total": 0.3,
    "human_kl/version": 3.0,
    "truncated": 0.0,
    "ended": 1.0,
}
SCORED = Said(200, {"results": [ONE]})
MESSAGES = [{"role": "user", "content": "Why?"}]


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("URL", "TOKEN_FILE", "TIMEOUT", "PATIENCE", "LEARN"):
        monkeypatch.delenv(f"SARM_REWARD_{name}", raising=False)


@pytest.mark.parametrize("first", [BUSY, Said(503, "starting"), Said(500, ""), Said(408, "")])
def test_a_busy_or_failing_server_is_asked_again(first: Said) -> None:
    with scripted_server([first, first, FINE]) as server:
        assert post(ServerSettings(server.url, patience=20), "/x", {"a": 1}) == {"fine": True}
    assert [one.body for one in server.asked] == [{"a": 1}] * 3


CUT = b'HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"rewards": 0.12'


@pytest.mark.parametrize("raw", [CUT % b"200 OK", CUT % b"503 Busy", b"garbage\r\n\r\n", b""])
def test_a_reply_that_breaks_off_or_is_none_is_asked_for_again(raw: bytes) -> None:
    with scripted_server([Said(0, raw), FINE]) as server:
        assert post(ServerSettings(server.url, patience=20), "/x", {}) == {"fine": True}
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("raw", "match"),
    [
        (CUT % b"200 OK", r"tries: IncompleteRead: .*16 bytes read, 84 more expected"),
        (b"garbage\r\n\r\n", r"tries: BadStatusLine: garbage"),
    ],
)
def test_a_reply_that_always_breaks_off_is_an_error_in_the_log(
    raw: bytes, match: str, caplog: pytest.LogCaptureFixture
) -> None:
    with scripted_server([Said(0, raw)]) as server, pytest.raises(TrainingError, match=match):
        post(ServerSettings(server.url, patience=0.2), "/x", {})
    assert "no reward from" in caplog.text


@pytest.mark.parametrize("said", ["nan", "inf", "-inf", "soon"])
def test_a_pause_that_is_no_number_of_seconds_is_not_heeded(said: str) -> None:
    with scripted_server([Said(429, "", {"Retry-After": said}), FINE]) as server:
        assert post(ServerSettings(server.url, patience=2), "/x", {}) == {"fine": True}
    assert len(server.asked) == 2


def test_patience_ends() -> None:
    with (
        scripted_server([BUSY]) as server,
        pytest.raises(TrainingError, match=r"tries: 429 busy; is `sarm serve`"),
    ):
        post(ServerSettings(server.url, patience=0.3), "/x", {})
    assert len(server.asked) > 2


def test_nobody_there() -> None:
    with scripted_server([FINE]) as server:
        pass
    with pytest.raises(TrainingError, match=r"no reward from http.*/x in .*refused.*SARM_REWARD_URL"):
        post(ServerSettings(server.url, patience=0.3), "/x", {})


@pytest.mark.parametrize(
    ("said", "kind", "match"),
    [
        (
            Said(401, {"error": "no"}),
            ConfigError,
            r"does not accept the token \(401\); SARM_REWARD_TOKEN_FILE",
        ),
        (Said(404, ""), ConfigError, r"/x is not there \(404\)"),
        (
            Said(413, {"error": "the text is too long", "hint": "cut it"}),
            DataError,
            r"refuses the request: 413 the text is too long \(cut it\)",
        ),
        (Said(422, {"error": "unknown key 'x'", "hint": None}), DataError, r"422 unknown key 'x'$"),
        (
            Said(422, {"detail": [{"loc": ["body"]}]}),
            DataError,
            r'422 \{"detail": \[\{"loc": \["body"\]\}\]\}',
        ),
        (Said(200, "<html>hello"), TrainingError, r"not JSON: '<html>hello'"),
    ],
)
def test_what_would_fail_again_is_not_tried_again(said: Said, kind: type[SarmError], match: str) -> None:
    with scripted_server([said]) as server, pytest.raises(kind, match=match):
        post(ServerSettings(server.url, patience=20), "/x", {})
    assert len(server.asked) == 1


def test_settings_come_from_the_environment_and_from_what_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("\n secret \nanother line\n")
    monkeypatch.setenv("SARM_REWARD_URL", "http://there:1/")
    monkeypatch.setenv("SARM_REWARD_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("SARM_REWARD_TIMEOUT", "7")
    found = ServerSettings.from_environment(patience=9, url=None)
    assert found == ServerSettings("http://there:1", "secret", 7.0, 9.0)
    assert found.headers["Authorization"] == "Bearer secret"
    assert "secret" not in repr(found)
    assert "X-Sarm-Learn" not in found.headers
    monkeypatch.setenv("SARM_REWARD_LEARN", "False")
    assert ServerSettings.from_environment().headers["X-Sarm-Learn"] == "false"
    assert ServerSettings.from_environment(learn=True).learn
    with scripted_server([FINE]) as server:
        post(ServerSettings.from_environment(url=server.url), "/x", {})
    assert server.asked[0].headers["Authorization"] == "Bearer secret"


def test_settings_nobody_can_use(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'adress': the reward server takes url, token_file"):
        ServerSettings.from_environment(adress="x")
    with pytest.raises(ConfigError, match=r"the token file nowhere cannot be read"):
        ServerSettings.from_environment(token_file="nowhere")
    with pytest.raises(ConfigError, match=r"SARM_REWARD_LEARN is 'maybe', which is neither true nor false"):
        ServerSettings.from_environment(learn="maybe")
    monkeypatch.setenv("SARM_REWARD_PATIENCE", "long")
    with pytest.raises(ConfigError, match=r"SARM_REWARD_PATIENCE is 'long'"):
        ServerSettings.from_environment()
    for name in ("patience", "timeout"):
        for value in (0, "0", -1, float("nan"), float("inf"), [1]):
            with pytest.raises(
                ConfigError, match=rf"SARM_REWARD_{name.upper()} is .* not a number of seconds"
            ):
                ServerSettings.from_environment(**{"patience": 1, name: value})


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"\xff\xfe\x00", r"cannot be read: it is not UTF-8"),
        (b" \n\n", r"has no token"),
        ("größer".encode(), r"has no token of printable ASCII"),
    ],
)
def test_token_files_nobody_can_use(content: bytes, match: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(ConfigError, match=match):
        ServerSettings.from_environment(token_file=tmp_path / "token")


@pytest.mark.parametrize(
    "url", ["localhost:8000", "host", "http://", "ftp://host", "http://host:x", "//host"]
)
def test_addresses_nobody_can_ask(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"SARM_REWARD_URL is '.*', which is not the address of a server"):
        ServerSettings.from_environment(url=url)
    monkeypatch.setenv("SARM_REWARD_URL", url)
    with pytest.raises(ConfigError, match=r"not the address of a server"):
        openrlhf.reward_func(["q"], ["p"], [None])


@pytest.mark.parametrize("url", ["http://any:s3cret@host:1", "s3cret@host", "http://any:s3c@ret@host:x"])
def test_a_token_in_the_address_is_refused_and_not_shown(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """OpenRLHF's own client takes one there; ours sends a header and has a file for it."""
    monkeypatch.setenv("SARM_REWARD_URL", url)
    with pytest.raises(ConfigError, match=r"before '@host") as raised:
        openrlhf.reward_func(["q"], ["p"], [None])
    assert raised.value.hint is not None
    assert "SARM_REWARD_TOKEN_FILE" in raised.value.hint
    assert "before '@host" in caplog.text
    assert "s3c" not in f"{raised.value} {caplog.text}"


def asked_of_openrlhf(url: str, monkeypatch: pytest.MonkeyPatch, count: int = 1) -> dict[str, Any]:
    monkeypatch.setenv("SARM_REWARD_URL", url)
    monkeypatch.setenv("SARM_REWARD_PATIENCE", "0.2")
    return openrlhf.reward_func(["q"] * count, ["p"] * count, [None] * count, some_new_argument=1)


def test_openrlhf_gets_a_number_for_one_query_and_a_list_for_several(monkeypatch: pytest.MonkeyPatch) -> None:
    said = [Said(200, {"rewards": [0.25], "scores": [0.5], "extra_logs": {"a": 1.0}})]
    said += [Said(200, {"rewards": [1, 2], "scores": [1, 2], "extra_logs": {"a": [1.0, 2.0]}})]
    with scripted_server(said) as server:
        assert asked_of_openrlhf(server.url, monkeypatch) == {
            "rewards": 0.25,
            "scores": 0.5,
            "extra_logs": {"a": 1.0},
        }
        assert asked_of_openrlhf(server.url, monkeypatch, 2)["rewards"] == [1.0, 2.0]
    assert server.asked[0].path == "/get_reward"
    assert server.asked[0].body == {"query": ["q"], "prompts": ["p"], "labels": [None]}


@pytest.mark.parametrize(
    ("body", "match"),
    [
        ({"rewards": None}, r"answered None for a reward"),
        ('{"rewards": NaN}', r"answered nan for a reward"),
        ({"rewards": [1.0, 2.0]}, r"answered 2 rewards for 1 answers"),
        ({"score": 1.0}, r"answered without rewards"),
    ],
)
def test_openrlhf_gets_no_wrong_number_and_the_log_says_why(
    body: Any, match: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        scripted_server([Said(200, body)]) as server,
        caplog.at_level(logging.ERROR, "sarm_control.engines"),
        pytest.raises(TrainingError, match=match),
    ):
        asked_of_openrlhf(server.url, monkeypatch)
    assert "/get_reward answered" in caplog.text


def test_openrlhf_is_told_the_path_of_the_file() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sarm_control.engines.openrlhf"], capture_output=True, text=True, check=True
    )
    assert Path(done.stdout.strip()) == Path(openrlhf.__file__)


def test_verl_compute_score_sends_the_prompt_and_returns_the_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SARM_REWARD_URL", "http://127.0.0.1:1")
    with scripted_server([SCORED]) as server:
        found = verl.compute_score(
            "lab",
            "Because.",
            None,
            {"raw_prompt": MESSAGES, "num_turns": 2},
            url=server.url,
            reward_router_address="x",
        )
    assert found == {"score": 0.5, **PARTS}
    assert server.asked[0].path == "/v1/score"
    assert server.asked[0].body == {"prompts": [MESSAGES], "responses": ["Because."], "ended": [True]}


def test_verl_compute_score_without_a_prompt_is_an_error() -> None:
    with pytest.raises(DataError, match=r"no prompt in \['index'\].*raw_prompt"):
        verl.compute_score("lab", "Because.", None, {"index": 3})


@pytest.mark.parametrize("results", [[], [ONE, ONE], None])
def test_verl_wants_one_reward_an_answer(results: Any) -> None:
    with (
        scripted_server([Said(200, {"results": results})]) as server,
        pytest.raises(TrainingError, match=r"1 rewards"),
    ):
        verl.compute_score("lab", "x", None, {"prompt": "Why?"}, url=server.url)


def test_an_engine_imports_nothing_heavy_for_it() -> None:
    """Workers of engines load these modules; torch or httpx there would be ours to answer for."""
    code = (
        "import sys; import sarm_control.engines.openrlhf, sarm_control.engines.verl;"
        "print([one for one in ('torch', 'numpy', 'httpx', 'pydantic', 'ray', 'verl') if one in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_ms_swift_sends_what_came_before_the_answer_and_whether_it_was_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = [[*MESSAGES, {"role": "assistant", "content": text}] for text in ("Because.", "Becau")]
    with scripted_server([Said(200, {"results": [ONE, {**ONE, "score": 2.0}]})]) as server:
        monkeypatch.setenv("SARM_REWARD_URL", server.url)
        reward = SarmReward(args=None)
        row: dict[str, Any] = {
            "messages": turns,
            "is_truncated": [False, True],
            "finish_reason": ["stop", "length"],
        }
        assert reward(["Because.", "Becau"], trainer_state=None, **row) == [0.5, 2.0]
    sent = {"prompts": [MESSAGES, MESSAGES], "responses": ["Because.", "Becau"], "ended": [True, False]}
    assert server.asked[0].body == sent
    with pytest.raises(DataError, match="0 conversations came with 1 answers"):
        reward(["Because."])
