"""`sarm label` against a real chat server: the one that transformers ships, serving the policy of the lab."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from sarm_control.cli import main
from sarm_control.embedded import world_folder

for needed in ("fastapi", "openai", "uvicorn"):
    pytest.importorskip(needed, reason='transformers\' own server wants "transformers[serving]"')

pytestmark = pytest.mark.long


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_up(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as reply:
            return int(reply.status) == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def policy() -> str:
    return str(world_folder() / "policy")


@pytest.fixture(scope="module")
def url(policy: str) -> Iterator[str]:
    port = free_port()
    command = [
        sys.executable,
        "-c",
        "from transformers.cli.transformers import main; main()",
        "serve",
        policy,
    ]
    server = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 180
        while not is_up(port) and server.poll() is None and time.monotonic() < end:
            time.sleep(0.5)
        assert is_up(port)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(30)


def test_a_served_model_is_asked_once_and_its_tokens_are_counted(
    url: str, policy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = tmp_path / "found"
    assert main(["discover", "lab:audit", "-o", str(found), "-q"]) == 0
    out = tmp_path / "labels.json"
    words = ["label", f"{found / 'features.json'}#harms[:1]", "--data", "lab:audit", "-o", str(out)]
    words += ["--endpoint", url, "--label-model", policy, "--price-in", "1", "--price-out", "2"]
    assert main(words) == 0
    first = json.loads(out.read_text())
    name, asked = first["labels"][0]["name"], first["asked"]
    # one question for the name, ten for each side
    assert (name["active"], name["matched"], asked["requests"]) == (10, 10, 21)
    assert name["text"]
    assert asked["prompt_tokens"] > 21
    assert asked["completion_tokens"] >= 21
    assert asked["cost"] == pytest.approx((asked["prompt_tokens"] + 2 * asked["completion_tokens"]) / 1e6)
    assert name["text"] in capsys.readouterr().out

    out.unlink()
    replies = out.with_name("labels.json.replies.jsonl")
    lines = replies.read_text()
    unreachable = [word if word != url else "http://127.0.0.1:9/v1" for word in words]
    assert main(unreachable) == 0
    assert json.loads(out.read_text()) == first
    assert replies.read_text() == lines
