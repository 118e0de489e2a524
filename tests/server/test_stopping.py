"""`sarm serve` as a process: it answers what it took before it stops, and killed it gives no wrong number."""

import json
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from sarm_control import RewardModel
from tests.server.conftest import Rows
from tests.server.serving import Command, command

pytestmark = pytest.mark.long

MANY = 24


def ask(url: str, rows: Rows, n: int) -> list[float] | None:
    """Totals of a request of several conversations; None when there was no answer."""
    body = {"prompts": rows.prompts[n:] + rows.prompts[:n], "responses": rows.answers[n:] + rows.answers[:n]}
    try:
        reply = httpx.post(f"{url}/v1/score", json=body, timeout=60)
    except httpx.TransportError:
        return None
    if reply.status_code != 200:
        assert reply.status_code in (429, 503)
        assert "error" in reply.json()
        return None
    return [one["total"] for one in reply.json()["results"]]


def under_load(server: Command, rows: Rows, stop: signal.Signals) -> list[list[float] | None]:
    """What many requests get when the signal comes in the middle of them."""
    started = threading.Event()

    def one(n: int) -> list[float] | None:
        started.set()
        return ask(server.url, rows, n)

    with ThreadPoolExecutor(8) as pool:
        found = [pool.submit(one, n) for n in range(MANY)]
        started.wait(30)
        while sum(one.done() for one in found) < 4:
            time.sleep(0.01)
        server.process.send_signal(stop)
        return [one.result() for one in found]


def check(found: list[list[float] | None], rows: Rows, lab: RewardModel) -> int:
    """Every answer is right; how many there were."""
    expected = lab.score(rows.prompts, rows.answers).rewards.tolist()
    answered = 0
    for n, totals in enumerate(found):
        if totals is not None:
            assert totals == pytest.approx(expected[n:] + expected[:n], abs=1e-6, rel=0)
            answered += 1
    return answered


def test_a_server_that_gets_a_signal_answers_what_it_took(rows: Rows, lab: RewardModel) -> None:
    with command("--batch-answers", "1", "--workers-on", "cpu,cpu") as server:
        assert httpx.get(f"{server.url}/v1/model").json()["devices"] == ["cpu", "cpu"]
        port = int(server.url.rpartition(":")[2])
        body = json.dumps({"prompts": rows.prompts, "responses": rows.answers}).encode()
        head = (
            "POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", port)) as one:
            one.sendall(head.encode() + body)
            while 'sarm_cache_total{result="miss"} 0.0' in httpx.get(f"{server.url}/metrics").text:
                time.sleep(0.005)
            server.process.send_signal(signal.SIGTERM)
            reply = b""
            while part := one.recv(65_536):
                reply += part
        totals = [one["total"] for one in json.loads(reply.partition(b"\r\n\r\n")[2])["results"]]
        assert check([totals], rows, lab) == 1
        assert server.process.wait(60) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.url}/healthz", timeout=30)


def test_a_server_that_is_killed_gives_errors_and_no_wrong_number(rows: Rows, lab: RewardModel) -> None:
    with command() as server:
        found = under_load(server, rows, signal.SIGKILL)
        assert check(found, rows, lab) >= 4
        assert None in found
        assert server.process.wait(30) == -signal.SIGKILL


def test_a_server_under_load_that_stops_gives_right_numbers_or_errors(rows: Rows, lab: RewardModel) -> None:
    with command("--queue", "100") as server:
        # the queue holds little, so most are refused; what was taken is answered all the same
        assert check(under_load(server, rows, signal.SIGINT), rows, lab) >= 1
        assert server.process.wait(60) == 0
        assert "Traceback" not in server.log()


def test_a_run_without_the_extra_says_what_to_install() -> None:
    import sys

    code = (
        "import sys; sys.modules['fastapi'] = None\n"
        "from sarm_control.cli import main; sys.exit(main(['serve', '--port', '0']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert 'pip install ".[serve]" in the clone' in done.stderr
