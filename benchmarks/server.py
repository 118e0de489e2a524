"""The reward server under load: nothing lost, nothing wrong, and what batching across requests buys.

64 clients, each with one connection that it keeps, send the lab's answers one a request in OpenRLHF's form;
every conversation is another one, and the cache is off. Requests are made before and answers looked at after,
because the clients share the server's processors. Each answer is held against `RewardModel.score` in this
process, within 1e-6. The same server with one request a forward pass
(`--batch-answers 1`) takes turns with it, a fifth of the requests each, and the ratio is the median
of the pairs. Then all requests go through one server, whose memory is read after every twentieth.
Servers compute in as many threads as users get: torch chooses unless OMP_NUM_THREADS says otherwise.
The exit code is 1 when an answer was lost or wrong, or a made-up call was answered with a server error.

    python benchmarks/server.py [--requests 20000] [--clients 64] [--json benchmarks/results/server.json]
    python benchmarks/server.py --fuzz 10000      # calls made up from the server's own OpenAPI document
"""

import argparse
import asyncio
import gc
import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import uvloop

os.environ.setdefault("HF_HUB_OFFLINE", "1")

PAIRS = 5
PARTS = 20
TOLERANCE = 1e-6
WARM_UP = 256


class Job(NamedTuple):
    """One request as bytes, and the reward it has to give."""

    request: bytes
    reward: float


class Load(NamedTuple):
    """What came of a load: `wrong` and `lost` count requests, times are in seconds."""

    requests: int
    lost: int
    wrong: int
    worst: float
    seconds: float
    latencies: list[float]

    def as_json(self) -> dict[str, Any]:
        """For the results file."""
        at = statistics.quantiles(self.latencies, n=100) if len(self.latencies) > 1 else [0.0] * 99
        return {
            "requests": self.requests,
            "lost": self.lost,
            "wrong": self.wrong,
            "largest_difference": self.worst if math.isfinite(self.worst) else None,
            "seconds": round(self.seconds, 2),
            "requests_per_second": round((self.requests - self.lost) / self.seconds, 1),
            "p50_ms": round(at[49] * 1e3, 2),
            "p99_ms": round(at[98] * 1e3, 2),
        }


def make_jobs(count: int) -> list[Job]:
    """Distinct conversations of the lab: its prompts, each with another of its answers."""
    from sarm_control import RewardModel
    from sarm_control.data.rows import read_rows

    rows = read_rows("lab:preferences", want={"pair"})
    prompts = list(dict.fromkeys(str(row.prompt) for row in rows))
    answers = list(dict.fromkeys(answer for row in rows for answer in row.answers))
    pairs = [
        (prompts[i % len(prompts)], answers[(i // len(prompts) + i) % len(answers)]) for i in range(count)
    ]
    pairs = list(dict.fromkeys(pairs))
    if len(pairs) < count:
        raise SystemExit(f"the lab has {len(pairs)} distinct conversations of this kind")
    model = RewardModel.from_pretrained("lab")
    rewards = model.score([prompt for prompt, _ in pairs], [answer for _, answer in pairs]).rewards
    return [
        Job(request_of(model.template, *pair), float(reward))
        for pair, reward in zip(pairs, rewards, strict=True)
    ]


def request_of(template: Any, prompt: str, answer: str) -> bytes:
    """What OpenRLHF posts for one sample."""
    asked = template.words([{"role": "user", "content": prompt}], generation=True)
    end = template.tokenizer.convert_ids_to_tokens(template.end_of_turn_id)
    body = json.dumps({"query": [f"{asked}{answer} {end}"], "prompts": [asked], "labels": [None]}).encode()
    head = (
        "POST /get_reward HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


# --- clients ---


class Answers:
    """What came back for jobs 0..N-1; looked at afterwards, as clients share the server's processors."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = jobs
        self.next = 0
        self.bodies: list[bytes | None] = [None] * len(jobs)
        self.sent = [0.0] * len(jobs)
        self.got = [0.0] * len(jobs)

    def take(self) -> int | None:
        """The number of the next job to ask about."""
        number = self.next
        self.next += 1
        return number if number < len(self.jobs) else None

    def load(self, seconds: float) -> Load:
        """Counts what is lost and what is wrong."""
        found = [(number, body) for number, body in enumerate(self.bodies) if body is not None]
        differences = [difference(body, self.jobs[number].reward) for number, body in found]
        return Load(
            requests=len(self.jobs),
            lost=len(self.jobs) - len(found),
            wrong=sum(one > TOLERANCE for one in differences),
            worst=max(differences, default=0.0),
            seconds=seconds,
            latencies=[self.got[number] - self.sent[number] for number, _ in found],
        )


def difference(body: bytes, reward: float) -> float:
    """How far an answer is from the reward it has to give; infinity where it is no number."""
    try:
        apart = abs(float(json.loads(body)["rewards"]) - reward)
    except (ValueError, KeyError, TypeError):
        return math.inf
    return math.inf if math.isnan(apart) else apart


class Client(asyncio.Protocol):
    """One connection, one request at a time; a request that gets no answer or an error is lost."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.buffer = b""
        self.job: int | None = None

    def connection_made(self, transport: Any) -> None:
        """Asks for the first answer."""
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        """Sends the next request, or hangs up."""
        self.job = self.answers.take()
        if self.job is None:
            self.transport.close()
        else:
            self.answers.sent[self.job] = time.perf_counter()
            self.transport.write(self.answers.jobs[self.job].request)

    def data_received(self, data: bytes) -> None:
        """Keeps a body that is whole."""
        self.buffer += data
        head, end, body = self.buffer.partition(b"\r\n\r\n")
        if not end:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) >= length:
            assert self.job is not None
            self.answers.got[self.job] = time.perf_counter()
            if head.startswith(b"HTTP/1.1 200"):
                self.answers.bodies[self.job] = body
            self.buffer = b""
            self.ask()

    def connection_lost(self, _: Exception | None) -> None:
        """The request that was under way is lost."""
        self.done.set_result(None)


async def run_clients(port: int, answers: Answers, clients: int) -> float:
    """Sends all jobs; the seconds it took."""
    loop = asyncio.get_running_loop()

    async def one_client() -> None:
        # a connection that the server closes is opened again while there are jobs
        while answers.next < len(answers.jobs):
            _, client = await loop.create_connection(lambda: Client(answers), "127.0.0.1", port)
            await client.done

    started = time.perf_counter()
    await asyncio.gather(*(one_client() for _ in range(clients)))
    return time.perf_counter() - started


def load(port: int, jobs: Sequence[Job], clients: int) -> Load:
    """All jobs through `clients` connections, from a process that is not the server's."""
    answers = Answers(jobs)
    # the clients are not to wait for a search of this process's packages and model for garbage
    gc.collect()
    gc.freeze()
    seconds = uvloop.run(run_clients(port, answers, clients))
    gc.unfreeze()
    return answers.load(seconds)


# --- servers ---


class Served(NamedTuple):
    """Where a server listens, and its process."""

    port: int
    pid: int


@contextmanager
def server(*flags: str) -> Any:
    """A `sarm serve` of its own."""
    sarm = str(Path(sys.executable).with_name("sarm"))
    words = [sarm, "serve", "--model", "lab", "--port", "0", "--cache-mb", "0", *flags]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        found = None
        while found is None:
            line = process.stderr.readline()
            if not line:
                raise SystemExit(f"the server did not start (exit code {process.wait()})")
            found = re.search(r"serving on http://127\.0\.0\.1:(\d+)", line)
        yield Served(int(found[1]), process.pid)
    finally:
        process.terminate()
        process.wait(60)


def resident_mb(pid: int) -> float:
    """Memory of a process now."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    found = re.search(r"VmRSS:\s+(\d+) kB", text)
    return round(int(found[1]) / 1024, 1) if found else 0.0


def cpu_seconds(pid: int) -> float:
    """Processor time a process has used; a busy machine changes it less than the time on the wall."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def timed(one: Served, jobs: Sequence[Job], clients: int) -> dict[str, Any]:
    """A load, with the server's processor time of a request."""
    before = cpu_seconds(one.pid)
    found = load(one.port, jobs, clients).as_json()
    return {**found, "cpu_ms": round((cpu_seconds(one.pid) - before) / len(jobs) * 1e3, 3)}


def compare(jobs: Sequence[Job], clients: int) -> dict[str, Any]:
    """Batches across requests against one request a forward pass, in turn."""
    share = max(WARM_UP, len(jobs) // 5)
    pairs = []
    with server() as batched, server("--batch-answers", "1") as single:
        for one in (batched, single):
            load(one.port, jobs[:WARM_UP], clients)
        for _ in range(PAIRS):
            fast = timed(batched, jobs[:share], clients)
            slow = timed(single, jobs[:share], clients)
            ratio = fast["requests_per_second"] / slow["requests_per_second"]
            pairs.append({"batched": fast, "one_request_one_pass": slow, "ratio": round(ratio, 2)})
            print(f"{fast['requests_per_second']} and {slow['requests_per_second']} a second: {ratio:.2f}")
            print(f"processor time {fast['cpu_ms']} and {slow['cpu_ms']} ms a request")
    return {"pairs": pairs, "ratio": statistics.median(pair["ratio"] for pair in pairs)}


def whole(jobs: Sequence[Job], clients: int) -> dict[str, Any]:
    """Every request through one server; its memory at the start, and after every twentieth of them."""
    found = []
    with server() as one:
        memory = [resident_mb(one.pid)]
        for part in range(PARTS):
            share = jobs[len(jobs) * part // PARTS : len(jobs) * (part + 1) // PARTS]
            found.append(load(one.port, share, clients))
            memory.append(resident_mb(one.pid))
    result = Load(
        requests=sum(part.requests for part in found),
        lost=sum(part.lost for part in found),
        wrong=sum(part.wrong for part in found),
        worst=max(part.worst for part in found),
        seconds=sum(part.seconds for part in found),
        latencies=[latency for part in found for latency in part.latencies],
    ).as_json()
    return {**result, "memory_mb": memory}


def fuzz(url: str, cases: int) -> dict[str, int]:
    """Calls made up from the server's own description, right and wrong ones; what came back."""
    import httpx
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import strategies as st
    from schemathesis import GenerationMode
    from schemathesis.core.result import Err

    with httpx.Client(base_url=url, timeout=60) as client:
        schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
    operations = []
    for one in schema.get_all_operations():
        if isinstance(one, Err):
            raise one.err()
        operations.append(one.ok())
    modes = GenerationMode.from_choice("all")
    made_up = st.one_of([each.as_strategy(generation_mode=mode) for each in operations for mode in modes])
    counts = {"cases": 0, "server_errors": 0, "accepted": 0, "refused": 0}

    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=made_up)
    def call(case: Any) -> None:
        status = case.call(base_url=url).status_code
        counts["cases"] += 1
        counts["server_errors"] += status >= 500
        counts["accepted"] += status < 400
        counts["refused"] += 400 <= status < 500

    # a strategy may run out of new cases before the number is reached
    while counts["cases"] < cases:
        call()
    return counts


def code() -> dict[str, Any]:
    """Which code this is, and what it runs on."""
    here = Path(__file__).resolve().parent
    words = (["git", "rev-parse", "HEAD"], ["git", "status", "--porcelain", "--untracked-files=no"])
    commit, changed = (
        subprocess.run(one, cwd=here, capture_output=True, text=True, check=False).stdout.strip()
        for one in words
    )
    names = ("torch", "transformers", "tokenizers", "fastapi", "uvicorn", "pydantic")
    versions = {"python": platform.python_version(), **{name: version(name) for name in names}}
    return {"commit": commit, "changed": bool(changed), "versions": versions}


def failed(found: dict[str, Any]) -> bool:
    """Whether anything was lost or wrong, or a server error."""
    if "fuzz" in found:
        return bool(found["fuzz"]["server_errors"])
    pairs = found["compared"]["pairs"]
    loads = [found["all"], *(pair[name] for pair in pairs for name in ("batched", "one_request_one_pass"))]
    return any(one["lost"] or one["wrong"] for one in loads)


def main() -> int:
    """Runs what was asked for and prints it."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--fuzz", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.fuzz:
        with server() as one:
            called = fuzz(f"http://127.0.0.1:{one.port}", options.fuzz)
        found: dict[str, Any] = {"fuzz": {**called, **code()}}
        print(json.dumps(found))
    else:
        found = measure(options.requests, options.clients)
    if options.json is not None:
        known = json.loads(options.json.read_text(encoding="utf-8")) if options.json.exists() else {}
        options.json.write_text(json.dumps({**known, **found}, indent=1) + "\n", encoding="utf-8")
    return 1 if failed(found) else 0


def measure(requests: int, clients: int) -> dict[str, Any]:
    """The comparison, and all requests through one server."""
    from machine import Watch, machine

    jobs, watch = make_jobs(requests), Watch()
    result = {
        "model": "lab",
        "clients": clients,
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        **code(),
        "compared": compare(jobs, clients),
        "all": whole(jobs, clients),
        "machine": machine(watch.others()),
    }
    print(json.dumps(result["all"], indent=1))
    print(f"ratio {result['compared']['ratio']}")
    return result


if __name__ == "__main__":
    sys.exit(main())
