"""Time of scoring N answers to one prompt, the prompt computed once or with every answer.

The claims: rewards equal within 1e-6, and at least twice as fast where the prompt is half of a row.
Both ways score the same rows in turn in one process; times are compared by the median of the paired ratios.
Random weights in the width of SmolLM2-135M, float32.

    python benchmarks/shared_prompts.py [--rounds 5] [--json benchmarks/results/shared_prompts.json]

Of N answers with P tokens of prompt and A of answer, N (P + A) tokens become P + N A: where P = A this is a
factor of 2 N / (N + 1), always below 2. `expected_ratio` says what the sizes give.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from attached import VOCABULARY, bare_model
from machine import Watch, machine

from sarm_control.conversation import Encoded

BAR = 2.0


def rows_of(answers: int, prompt: int, answer: int) -> list[Encoded]:
    """One random prompt with random answers of one length."""
    generator = torch.Generator().manual_seed(1)
    shared = torch.randint(3, VOCABULARY, (prompt,), generator=generator).tolist()
    return [
        Encoded(
            [*shared, *torch.randint(3, VOCABULARY, (answer,), generator=generator).tolist()], prompt, 0, True
        )
        for _ in range(answers)
    ]


def main() -> None:
    """Times both ways and prints what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--answers", type=int, default=16)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--answer", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompts", type=int, nargs="+", default=[64, 192])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    model, watch = bare_model(arguments.layers, arguments.width), Watch()
    found = []
    for prompt in arguments.prompts:
        rows = rows_of(arguments.answers, prompt, arguments.answer)
        seconds: dict[bool, list[float]] = {False: [], True: []}
        for number in range(arguments.rounds + 1):  # the first is not counted
            rewards = {}
            for reuse in (False, True):
                start = time.perf_counter()
                rewards[reuse] = model.score_encoded(rows, prefix_reuse=reuse).rewards
                if number:
                    seconds[reuse].append(time.perf_counter() - start)
        every, once = (
            arguments.answers * (prompt + arguments.answer),
            prompt + arguments.answers * arguments.answer,
        )
        found.append(
            {
                "prompt": prompt,
                "seconds": {
                    "whole rows": statistics.median(seconds[False]),
                    "shared": statistics.median(seconds[True]),
                },
                "ratio": statistics.median(a / b for a, b in zip(seconds[False], seconds[True], strict=True)),
                "expected_ratio": every / once,
                "largest_difference": float(np.abs(rewards[True] - rewards[False]).max()),
                "sd_of_rewards": float(rewards[False].std()),
            }
        )
    result = {
        "machine": machine(watch.others()),
        "shape": {key: getattr(arguments, key) for key in ("answers", "answer", "layers", "width", "rounds")},
        "bar": BAR,
        "prompts": found,
    }
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
