"""How time grows with rows, latents, length, answers a step and attributes: at 1, 4 and 16 times the size.

Times are processor seconds of one thread, which other work on the machine does not lengthen much; the median
of the rounds. The exponent is the slope of log time over log size from 4 to 16 times, where fixed costs weigh
least: 1 is linear. Anything above 1.1 has its reason in docs/scaling.md. Shapes are small: what counts is the
growth.

    python benchmarks/scaling.py [--only rows length] [--rounds 5] [--json benchmarks/results/scaling.json]
    python benchmarks/scaling.py --processes [--json benchmarks/results/scaling.json]
    python benchmarks/scaling.py --ray [--json benchmarks/results/scaling.json]

`--processes` scores the same rows by one process and by two, each on one core, by the clock; `--ray` does so
by one and two replicas of a local Ray. Both want a machine with two idle cores.
"""

import argparse
import json
import math
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attached import VOCABULARY, bare_model
from machine import Watch, machine
from random_models import SHAPES, make_policy, make_prompts, make_reward_model

from discovery import planted_world
from sarm_control.auditing import Attribute, audit
from sarm_control.control import Controls
from sarm_control.conversation import Encoded
from sarm_control.data import read_rows
from sarm_control.discovery.effects.effects import replicated_effects
from sarm_control.embedded import AUDIT, data_file
from sarm_control.latents import ScoredRows, score_rows
from sarm_control.reward_model import Autoencoder, RewardModel
from sarm_control.training.algorithm.reward import PolicyReward
from sarm_control.training.algorithm.trainer import Trainer
from sarm_control.training.config.run_config import TrainingConfig

Work = Callable[[], object]
WIDTH, LAYERS = 192, 4


def random_rows(count: int, tokens: int) -> list[Encoded]:
    """Random ids of one length."""
    ids = torch.randint(3, VOCABULARY, (count, tokens), generator=torch.Generator().manual_seed(1))
    return [Encoded(row.tolist(), 1, 0, True) for row in ids]


def scored_rows() -> Iterator[tuple[int, Work]]:
    """Rows that are scored, 64 tokens each."""
    model = bare_model(LAYERS, WIDTH)
    for rows in (64, 256, 1024):
        yield rows, partial(model.score_encoded, random_rows(rows, 64))


def length() -> Iterator[tuple[int, Work]]:
    """Tokens of a row; as many rows at every length."""
    model = bare_model(LAYERS, WIDTH)
    for tokens in (64, 256, 1024):
        yield tokens, partial(model.score_encoded, random_rows(16, tokens))


def latents() -> Iterator[tuple[int, Work]]:
    """Latents of a dictionary: 64 states of width 192 are encoded, k = 64."""
    states = torch.randn(64, WIDTH, generator=torch.Generator().manual_seed(1))
    for size in (16_384, 65_536, 262_144):
        torch.manual_seed(0)
        yield size, partial(torch.no_grad()(Autoencoder(WIDTH, size, 64).encode), states)


def discovery_prompts() -> Iterator[tuple[int, Work]]:
    """Prompts of a discovery, two answers a side, 400 latents."""
    pairs, _ = planted_world(0)
    for prompts in (200, 800, 3200):
        chosen = np.arange(prompts) % pairs.prompts
        half = len(chosen) // 2
        sides = pairs.take_prompts(chosen[:half]), pairs.take_prompts(chosen[half:])
        yield prompts, partial(replicated_effects, *sides, seed=0)


def lab_rows(copies: int) -> ScoredRows:
    """Pairs of the lab, each several times under prompts of its own."""
    rows = read_rows(data_file(AUDIT), want={"pair"})[:50]
    scored = score_rows(RewardModel.from_pretrained("lab"), rows)
    many = [replace(row, prompt=f"{row.prompt} {copy}") for copy in range(copies) for row in rows]
    return ScoredRows(many, scored.take(np.tile(np.arange(len(scored)), copies)))


def audit_answers() -> Iterator[tuple[int, Work]]:
    """Answers of an audit, eight attributes, no text is changed."""
    model = RewardModel.from_pretrained("lab")
    for copies in (4, 16, 64):
        data = lab_rows(copies)
        yield len(data.scored), partial(audit, model, data, attributes=words(8), edits=())


def attributes() -> Iterator[tuple[int, Work]]:
    """Attributes of an audit of 800 answers."""
    model, data = RewardModel.from_pretrained("lab"), lab_rows(8)
    for count in (8, 32, 128):
        yield count, partial(audit, model, data, attributes=words(count), edits=())


def words(count: int) -> tuple[Attribute, ...]:
    """Attributes that are the number of one word or pair of letters in an answer."""
    letters = [one + two for one in "aeioustrnlmd" for two in "aeioustrnlmd"]

    def counted(part: str, _: str, answer: str) -> float:
        return float(answer.count(part))

    return tuple(
        Attribute(f"part_{part}", f"the letters {part}", partial(counted, part), unit="item")
        for part in letters[:count]
    )


def answers_a_step() -> Iterator[tuple[int, Work]]:
    """Answers of a PPO step, 16 tokens each."""
    shape = SHAPES["tiny"]
    policy = make_policy(shape, rank=4, half=False, device="cpu")
    model = make_reward_model(shape, half=False, device="cpu")
    for count in (16, 64, 256):
        settings = TrainingConfig(
            prompts_per_step=count,
            answers_per_prompt=1,
            max_new_tokens=16,
            micro_batch=16,
            reference_answers=16,
        )
        prompts = make_prompts(policy, count, 16, 16)
        trainer = Trainer(policy, PolicyReward(model, Controls()), prompts, settings)
        trainer.calibrate()
        yield count, trainer.step


SERIES: dict[str, Callable[[], Iterator[tuple[int, Work]]]] = {
    "rows": scored_rows,
    "latents": latents,
    "length": length,
    "answers a step": answers_a_step,
    "prompts of a discovery": discovery_prompts,
    "answers of an audit": audit_answers,
    "attributes": attributes,
}


def grown(name: str, rounds: int) -> dict[str, Any]:
    """Processor seconds of one series at its three sizes, and its exponent."""
    sizes, seconds = [], []
    for size, work in SERIES[name]():
        taken = []
        for number in range(rounds + 1):  # the first is not counted
            start = time.process_time()
            work()
            if number:
                taken.append(time.process_time() - start)
        sizes.append(size)
        seconds.append(statistics.median(taken))
    slope = math.log(seconds[2] / seconds[1]) / math.log(sizes[2] / sizes[1])
    print(f"{name}: {sizes}, {[round(value, 3) for value in seconds]} s, exponent {slope:.2f}", flush=True)
    return {
        "what": (SERIES[name].__doc__ or "").strip(),
        "sizes": sizes,
        "seconds": seconds,
        "exponent": slope,
    }


def _score(rows: int, ready: Any, go: Any) -> None:
    """Scores in a process of its own, on one core."""
    torch.set_num_threads(1)
    model, data = bare_model(LAYERS, WIDTH), random_rows(rows, 64)
    model.score_encoded(data[:32])
    ready.release()
    go.wait()
    model.score_encoded(data)


def by_processes(rounds: int, rows: int = 1024) -> dict[str, Any]:
    """Rows a second of one process and of two that share the rows."""
    context = multiprocessing.get_context("spawn")
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for count in rates:
            ready, go = context.Semaphore(0), context.Event()
            tasks = [context.Process(target=_score, args=(rows // count, ready, go)) for _ in range(count)]
            for task in tasks:
                task.start()
            for _task in tasks:
                ready.acquire()
            start = time.perf_counter()
            go.set()
            for task in tasks:
                task.join()
            rates[count].append(rows / (time.perf_counter() - start))
    return _speed_up(rates)


def by_ray(rounds: int, rows: int = 1024) -> dict[str, Any]:
    """The same by one and two actors of a local Ray, of one core each."""
    import ray

    class Scorer:
        def __init__(self) -> None:
            torch.set_num_threads(1)
            self.model = bare_model(LAYERS, WIDTH)

        def score(self, part: list[Encoded]) -> np.ndarray:
            return self.model.score_encoded(part).rewards

    remote: Any = ray.remote(num_cpus=1)(Scorer)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        actors, data = [remote.remote() for _ in range(2)], random_rows(rows, 64)
        ray.get([actor.score.remote(data[:32]) for actor in actors])
        rates: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(rounds):
            for count in rates:
                parts = [data[start::count] for start in range(count)]
                start_time = time.perf_counter()
                ray.get([actor.score.remote(part) for actor, part in zip(actors, parts, strict=False)])
                rates[count].append(rows / (time.perf_counter() - start_time))
    finally:
        ray.shutdown()
    return _speed_up(rates)


def _speed_up(rates: dict[int, list[float]]) -> dict[str, Any]:
    found = {
        "rows_a_second": {str(count): statistics.median(taken) for count, taken in rates.items()},
        "speed_up": statistics.median(two / one for one, two in zip(*rates.values(), strict=True)),
    }
    print(json.dumps(found), flush=True)
    return found


def main() -> None:
    """Measures what was asked for, beside what the file holds already."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SERIES, default=list(SERIES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=1024, help="of --processes and --ray")
    parser.add_argument("--processes", action="store_true", help="one process and two")
    parser.add_argument("--ray", action="store_true", help="one replica of a local Ray and two")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    known = json.loads(options.json.read_text()) if options.json and options.json.is_file() else {}
    torch.set_num_threads(1)
    watch = Watch()
    if options.processes:
        known["processes"] = {
            **by_processes(options.rounds, options.rows),
            "machine": machine(watch.others()),
        }
    if options.ray:
        # a cluster's processes are not children that end here: what runs beside is looked at before
        others = Watch.before()
        known["ray"] = {**by_ray(options.rounds, options.rows), "machine": machine(others)}
    if not options.processes and not options.ray:
        known["series"] = known.get("series", {}) | {
            name: grown(name, options.rounds) for name in options.only
        }
        known["machine"] = machine(watch.others())
    if options.json:
        options.json.write_text(json.dumps(known, indent=2) + "\n")


if __name__ == "__main__":
    main()
