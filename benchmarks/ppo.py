"""A PPO step of ours against one of TRL 1.12.0's PPOTrainer, the last there was: seconds and memory.

Both train a policy of SmolLM2-135M's shape (random weights, LoRA of rank 16 on every linear layer) on
16 answers of 64 tokens to prompts of 64, one epoch, one update, no dropout. The reward models have 15
layers of the same shape. TRL's way needs a value model as well, here of the policy's shape; ours values
the policy's own states. The sides take turns, each in a process of its own; the first step of every
process is not counted. Peak memory is the process's own, model building included. Linux only.

`floor` is the time that the matrix products of a step of ours would take at the rate of the best large
float32 product of this machine: no float32 program that makes these passes is faster here. Fused attention
while decoding and the adapters' in-place sums are not counted, so the true floor is somewhat higher.

    python benchmarks/ppo.py [--rounds 3] [--steps 2] [--json benchmarks/results/ppo.json]

TRL 1.12.0 is installed once into a folder of its own, beside the packages of this environment.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from machine import Watch, machine
from torch.utils.flop_counter import FlopCounterMode

from sarm_control.control import Controls
from sarm_control.reward_model.trunk.torch_backend import has_bfloat16
from sarm_control.training.algorithm.reward import PolicyReward
from sarm_control.training.algorithm.trainer import Trainer
from sarm_control.training.config.run_config import TrainingConfig

HERE = Path(__file__).resolve().parent
TRL = "trl==1.12.0"
SIDES = {
    "ours": ("ours",),
    "ours, bfloat16": ("ours", "--half"),
    "TRL": ("trl",),
    "TRL, its defaults": ("trl", "--half"),
}


def run_ours(options: argparse.Namespace) -> dict[str, object]:
    """Steps of our trainer, in this process."""
    from random_models import SHAPES, make_policy, make_prompts, make_reward_model

    shape = SHAPES[options.shape]
    policy = make_policy(shape, rank=16, half=options.half, device="cpu")
    reward = PolicyReward(make_reward_model(shape, half=options.half, device="cpu"), Controls())
    settings = TrainingConfig(
        prompts_per_step=options.answers,
        answers_per_prompt=1,
        max_new_tokens=options.new_tokens,
        reference_answers=options.answers,
    )
    prompts = make_prompts(policy, 4 * options.answers, options.prompt_tokens, options.new_tokens)
    trainer = Trainer(policy, reward, prompts, settings)
    trainer.calibrate()
    with FlopCounterMode(display=False) as counter:
        trainer.step()
    timings = [trainer.step().timing for _ in range(options.steps)]
    phases = [name.removeprefix("seconds/") for name in timings[0] if name.startswith("seconds/")]
    return {
        "seconds": [timing["seconds/step"] for timing in timings],
        "phases": {
            phase: statistics.median(timing[f"seconds/{phase}"] for timing in timings) for phase in phases
        },
        "peak_mib": timings[-1]["peak_mib"],
        **({} if options.half else {"floor": floor(counter.get_total_flops())}),
    }


def floor(flops: int, *, size: int = 2048, seconds: float = 3.0) -> dict[str, float]:
    """The least time for that many operations, at the best rate of square products over some seconds."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    times: list[float] = []
    while sum(times) < seconds:
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    rate = 2 * size**3 / min(times)
    return {"flops": flops, "flops_a_second": rate, "seconds": flops / rate}


def run_trl(options: argparse.Namespace) -> dict[str, object]:
    """Steps of TRL's trainer, in this process."""
    from ppo_trl import run

    return run(options)


def trl_folder() -> Path:
    """Where TRL 1.12.0 lies, installed when it does not yet."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = cache / "sarm-control" / "benchmarks" / TRL.replace("==", "-")
    if not (folder / "trl").is_dir():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), TRL]
        subprocess.run(pip, check=True)
    return folder


def measure(side: str, options: argparse.Namespace, trl: Path) -> dict[str, object]:
    """One side in a process of its own."""
    sizes = ("shape", "answers", "prompt_tokens", "new_tokens", "steps")
    words = [word for name in sizes for word in (f"--{name.replace('_', '-')}", str(getattr(options, name)))]
    command = [sys.executable, __file__, "--side", *SIDES[side], *words]
    path = {"PYTHONPATH": os.pathsep.join((str(trl), str(HERE)))}
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **path}, check=False)
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr[-3000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def summary(
    found: dict[str, list[dict[str, Any]]], options: argparse.Namespace, others: float
) -> dict[str, object]:
    """Medians, and the ratios of the sides of one round; `others` ran beside."""

    def ratios(kind: str, over: str, under: str) -> float:
        def value(one: dict[str, Any]) -> float:
            return float(statistics.median(one["seconds"]) if kind == "seconds" else one["peak_mib"])

        pairs = zip(found[over], found[under], strict=True)
        return statistics.median(value(a) / value(b) for a, b in pairs)

    sides = {
        side: {
            "seconds_a_step": statistics.median(s for one in rounds for s in one["seconds"]),
            "peak_mib": statistics.median(one["peak_mib"] for one in rounds),
            **({"phases": rounds[-1]["phases"]} if "phases" in rounds[-1] else {}),
            **_lowest_floor(rounds),
        }
        for side, rounds in found.items()
    }
    against = [
        (over, under) for over in found if over.startswith("TRL") for under in found if "ours" in under
    ]
    compared = {
        f"{over} / {under}": {
            "times": ratios("seconds", over, under),
            "memory": ratios("peak_mib", over, under),
        }
        for over, under in against
    }
    sizes = {name: getattr(options, name) for name in ("shape", "answers", "prompt_tokens", "new_tokens")}
    about = {
        **machine(others),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "bfloat16 units": has_bfloat16(torch.device("cpu")),
    }
    kept = {"rounds": options.rounds, "steps": options.steps, "found": found}
    return {**sizes, **kept, "sides": sides, "compared": compared, "machine": about}


def _lowest_floor(rounds: list[dict[str, Any]]) -> dict[str, object]:
    """That of the round with the fastest products."""
    floors = [one["floor"] for one in rounds if "floor" in one]
    return {"floor": min(floors, key=lambda one: one["seconds"])} if floors else {}


def main() -> None:
    """All rounds, or one side of one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--side", choices=("ours", "trl"), help=argparse.SUPPRESS)
    parser.add_argument("--half", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--sides", nargs="+", choices=tuple(SIDES), default=list(SIDES))
    parser.add_argument("--shape", default="smollm2")
    parser.add_argument("--answers", type=int, default=16)
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.side:
        print(json.dumps({"ours": run_ours, "trl": run_trl}[options.side](options)))
        return
    trl = trl_folder()
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in options.sides}
    watch = Watch()
    for number in range(options.rounds):
        for side in options.sides:
            found[side].append(measure(side, options, trl))
            seconds = statistics.median(found[side][-1]["seconds"])
            print(
                f"round {number + 1}: {side}: {seconds:.1f} s a step, {found[side][-1]['peak_mib']:.0f} MiB"
            )
    result = summary(found, options, watch.others())
    print(json.dumps(result, indent=2))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
