"""`sarm serve` keeps the memory of its forward passes; the system need not hand it out again."""

import sys
from pathlib import Path

import httpx
import pytest

from tests.server.conftest import Rows
from tests.server.serving import command

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and only glibc has mallopt"),
]

PASSES = 20


def page_faults(pid: int) -> int:
    """Pages of memory that a process was handed so far."""
    return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[7])


@pytest.mark.long
def test_memory_of_a_pass_serves_the_next_one(rows: Rows) -> None:
    count = 64
    body = {"prompts": (rows.prompts * count)[:count], "responses": [f"{n} hello" * 4 for n in range(count)]}
    with command("--cache-mb", "0") as server, httpx.Client(base_url=server.url, timeout=60) as client:
        counts = []
        for _ in range(2 * PASSES):
            assert client.post("/v1/score", json=body).status_code == 200
            counts.append(page_faults(server.process.pid))
    # a pass over 64 answers needs thousands of pages
    assert (counts[-1] - counts[PASSES]) / (PASSES * count) < 4
