"""Rows of both benchmarks in their own form, with words that the tiny model knows."""

from pathlib import Path
from typing import Any

import numpy as np

from sarm_control.data.rows import Row, parse_row

WORDS = ("sure", "no", "sorry", "cannot", "here", "steps", "one", "two", "please", "help")


def parsed(rows: list[dict[str, Any]]) -> list[Row]:
    """The rows as a file of them would be read."""
    return [
        parse_row(row, path=Path("rows.jsonl"), line=line, want={"pair"})
        for line, row in enumerate(rows, start=1)
    ]


def texts(generator: np.random.Generator, count: int) -> list[str]:
    """Answers of 1 to 6 words."""
    return [" ".join(generator.choice(WORDS, generator.integers(1, 7))) for _ in range(count)]


def reward_bench_rows(seed: int = 0, *, each: int = 4, ties: int = 3) -> list[dict[str, Any]]:
    """Rows of all six subsets; Ties with several correct and incorrect answers."""
    generator = np.random.default_rng(seed)
    rows = [
        {
            "id": f"{subset}-{number}",
            "prompt": f"how do i open door {number} ?",
            "chosen": texts(generator, 1),
            "rejected": texts(generator, 3),
            "subset": subset,
        }
        for subset in ("Factuality", "Precise IF", "Math", "Safety", "Focus")
        for number in range(each)
    ]
    for number in range(ties):
        for kind, correct in (("ref", 1), ("tied", int(generator.integers(1, 5)))):
            rows.append(
                {
                    "id": f"{kind}:{number}",
                    "prompt": f"what is {kind} {number} ?",
                    "chosen": texts(generator, correct),
                    "rejected": texts(generator, int(generator.integers(1, 5))),
                    "subset": "Ties",
                }
            )
    return rows


def rm_bench_rows(
    seed: int = 0, domains: tuple[str, ...] = ("chat", "safety-refuse")
) -> list[dict[str, Any]]:
    """Six rows of each domain, three styles on each side."""
    generator = np.random.default_rng(seed)
    return [
        {
            "id": number,
            "domain": domain,
            "prompt": f"how do i lock the {domain} {number} ?",
            "chosen": texts(generator, 3),
            "rejected": texts(generator, 3),
        }
        for domain in domains
        for number in range(6)
    ]
