"""A reward deployment under load on a local Ray; one replica is killed. Says what came of it as JSON.

Run by test_ray.py in a process of its own, so that Ray's threads, warnings and handlers are not pytest's.

    python -m tests.engines.serve_on_ray ANSWERS
"""

import asyncio
import json
import logging
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from sarm_control.embedded import data_file
from sarm_control.engines.ray import Answer, Paid, RewardSettings, ask, require_serve, reward_deployment
from sarm_control.engines.server_client import ServerSettings, post

serve = require_serve()
import ray  # noqa: E402


def answers(count: int) -> list[Answer]:
    from pathlib import Path

    rows = [json.loads(line) for line in data_file(Path("lab:human")).read_text().splitlines()]
    return [
        Answer(prompt=row["prompt"], response=row["response"] + " yes" * (j // len(rows)), ended=j % 7 != 0)
        for j, row in enumerate((rows * (count // len(rows) + 1))[:count])
    ]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def replicas() -> list[str]:
    names = [one["name"] for one in ray.util.list_named_actors(all_namespaces=True)]
    return sorted(name for name in names if "#reward#" in name)


def over_http(port: int, asked: list[Answer]) -> list[Paid]:
    server = ServerSettings(f"http://127.0.0.1:{port}", timeout=60, patience=120)

    def one(answer: Answer) -> Paid:
        body = {"prompts": [answer["prompt"]], "responses": [answer["response"]], "ended": [answer["ended"]]}
        return post(server, "/v1/score", body)["results"][0]

    with ThreadPoolExecutor(16) as threads:
        return list(threads.map(one, asked))


async def over_handle(handle: object, asked: list[Answer]) -> list[Paid]:
    limit = asyncio.Semaphore(16)

    async def one(answer: Answer) -> Paid:
        async with limit:
            return (await ask(handle, [answer], patience=120))[0]

    return list(await asyncio.gather(*map(one, asked)))


def main(count: int) -> None:
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port}, logging_config={"log_level": "ERROR"})
    handle = serve.run(reward_deployment(RewardSettings(replicas=2, batch_tokens=2048, cpus=0.5)))
    asked = answers(count)
    before = replicas()
    started = time.perf_counter()
    with ThreadPoolExecutor(2) as sides:
        http = sides.submit(over_http, port, asked)
        inside = sides.submit(asyncio.run, over_handle(handle, asked))
        time.sleep(0.5)
        killed_at = sum(one.done() for one in (http, inside))
        ray.kill(ray.get_actor(before[0], namespace="serve"))
        paid = {"http": http.result(), "handle": inside.result()}
    seconds = time.perf_counter() - started
    found = {"before": before, "busy": killed_at < 2, "after": replicas(), "seconds": seconds, "paid": paid}
    sys.stdout.write(json.dumps(found) + "\n")
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]))
