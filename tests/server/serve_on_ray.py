"""A reward deployment on a local Ray; says what came of it as JSON.

Run by test_ray.py in a process of its own, so that Ray's threads, warnings and handlers are not pytest's.

    python -m tests.server.serve_on_ray ANSWERS CONTROLS STATE_FILE WINDOW UPDATES
"""

import asyncio
import json
import logging
import socket
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from sarm_control.engines.server_client import ServerSettings, post
from sarm_control.server.ray import ask, reward_deployment
from sarm_control.server.ray.settings import AnswerReward, AnswerToScore, RewardSettings, require_serve
from tests.server.ray_answers import answers

serve = require_serve()
import ray  # noqa: E402 - quietly, by the line above


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def replicas() -> list[str]:
    names = [one["name"] for one in ray.util.list_named_actors(all_namespaces=True)]
    return sorted(name for name in names if "#reward#" in name)


def over_http(port: int, asked: Sequence[AnswerToScore]) -> list[dict[str, Any]]:
    server = ServerSettings(f"http://127.0.0.1:{port}", timeout=60, patience=120)

    def one(answer: AnswerToScore) -> dict[str, Any]:
        body = {"prompts": [answer["prompt"]], "responses": [answer["response"]], "ended": [answer["ended"]]}
        reward: dict[str, Any] = post(server, "/v1/score", body)["results"][0]
        return reward

    with ThreadPoolExecutor(16) as threads:
        return list(threads.map(one, asked))


async def over_handle(handle: Any, asked: Sequence[AnswerToScore]) -> list[AnswerReward]:
    limit = asyncio.Semaphore(16)

    async def one(answer: AnswerToScore) -> AnswerReward:
        async with limit:
            return (await ask(handle, [answer], patience=120))[0]

    return list(await asyncio.gather(*map(one, asked)))


def kill(port: int, asked: Sequence[AnswerToScore]) -> dict[str, Any]:
    """Two replicas asked from both sides at once, one of them killed meanwhile."""
    handle = serve.run(reward_deployment(RewardSettings(replicas=2, batch_tokens=2048, cpus=0.5)))
    before = replicas()
    started = time.perf_counter()
    with ThreadPoolExecutor(2) as sides:
        http = sides.submit(over_http, port, asked)
        inside = sides.submit(asyncio.run, over_handle(handle, asked))
        time.sleep(1)
        busy = not http.done() and not inside.done()
        ray.kill(ray.get_actor(before[0], namespace="serve"))
        answer_rewards = {"http": http.result(), "handle": inside.result()}
    seconds = time.perf_counter() - started
    return {
        "killed": before[0],
        "after": replicas(),
        "busy": busy,
        "seconds": seconds,
        "answer_rewards": answer_rewards,
    }


def learn(asked: Sequence[AnswerToScore], controls: Path, state: Path, window: int) -> list[AnswerReward]:
    """A window of answers at a time, the next once the controls have learnt from it."""
    settings = RewardSettings(
        replicas=2, cpus=0.5, controls=controls, state_file=state, learn_window=window, batch_tokens=10**6
    )
    handle = serve.run(reward_deployment(settings))
    answer_rewards: list[AnswerReward] = []
    for start in range(0, len(asked), window):
        answer_rewards += handle.score.remote(list(asked[start : start + window])).result(timeout_s=120)
        until = time.monotonic() + 120
        while learnt(state) <= start // window:
            assert time.monotonic() < until, "the controls do not learn"
            time.sleep(0.02)
    return answer_rewards


def main(count: int, controls: Path, state: Path, window: int, updates: int) -> dict[str, Any]:
    """Both, one after the other, on one Ray."""
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port}, logging_config={"log_level": "ERROR"})
    killed = kill(port, answers(count))
    learnt_from = learn(answers(window * updates), controls, state, window)
    serve.shutdown()
    ray.shutdown()
    return {"kill": killed, "learn": learnt_from}


def learnt(state: Path) -> int:
    return int(load_file(state)["learnt_batches"]) if state.exists() else 0


if __name__ == "__main__":
    count, controls, state, window, updates = sys.argv[1:]
    found = main(int(count), Path(controls), Path(state), int(window), int(updates))
    sys.stdout.write(json.dumps(found) + "\n")
