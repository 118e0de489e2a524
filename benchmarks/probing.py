"""What a hundred latents do to rewards: from stored latents, or by a forward pass for each latent.

The claim: at least a hundred times as fast. Rewards are linear in the latents, so that taking one out needs
no model: the difference from a model without that latent is printed. A forward pass is timed on part of the
rows and scaled up;
it is the same for every latent. Random weights in the width of SmolLM2-135M.

    python benchmarks/probing.py [--rounds 5] [--json benchmarks/results/probing.json]
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from machine import Watch, machine
from random_models import SHAPES, make_reward_model

from sarm_control.control import Edit, edited_rewards
from sarm_control.conversation import Encoded

BAR = 100.0


def main() -> None:
    """Times both ways and prints what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="smollm2")
    parser.add_argument("--rows", type=int, default=1_000)
    parser.add_argument("--timed-rows", type=int, default=20, help="rows of a forward pass that is timed")
    parser.add_argument("--latents", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    shape, watch = SHAPES[arguments.shape], Watch()
    model = make_reward_model(shape, half=False, device="cpu")
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, shape.vocabulary, (arguments.timed_rows, arguments.tokens), generator=generator)
    end = model.template.end_of_turn_id
    rows = [Encoded([*row.tolist()[:-1], end], 1, 0, True) for row in ids]
    some = model.score_encoded(rows)
    every = some.take(np.arange(arguments.rows) % len(rows))
    latents = np.random.default_rng(0).choice(model.config.latents, arguments.latents, replace=False)
    forward: list[float] = []
    algebra: list[float] = []
    for number in range(arguments.rounds + 1):  # the first is not counted
        start = time.perf_counter()
        model.score_encoded(rows)
        middle = time.perf_counter()
        for latent in latents:
            edited_rewards(every, [Edit(int(latent), set=0.0)])
        if number:
            forward.append((middle - start) * arguments.rows / len(rows) * len(latents))
            algebra.append(time.perf_counter() - middle)
    latent = int(np.bincount(some.latents.to_scipy().tocsr().indices).argmax())
    without = np.where(np.arange(model.config.latents) == latent, 0.0, model.head.weight).astype(np.float32)
    exact = model.with_head(without).score_encoded(rows).rewards
    result = {
        "machine": machine(watch.others()),
        "shape": {key: getattr(arguments, key) for key in ("shape", "rows", "latents", "tokens", "rounds")},
        "seconds": {"forward passes": statistics.median(forward), "algebra": statistics.median(algebra)},
        "ratio": statistics.median(a / b for a, b in zip(forward, algebra, strict=True)),
        "largest_change": float(np.abs(edited_rewards(some, [Edit(latent, set=0.0)]) - some.rewards).max()),
        "largest_difference": float(np.abs(edited_rewards(some, [Edit(latent, set=0.0)]) - exact).max()),
        "bar": BAR,
    }
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
