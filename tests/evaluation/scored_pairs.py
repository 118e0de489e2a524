"""Rows with made-up latents, for the tests of this folder: no model is needed for algebra."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from sarm_control.data.rows import Row, parse_row
from sarm_control.latents.rows import ScoredRows
from sarm_control.reward_model.scored import Scored
from sarm_control.reward_model.sparse import from_scipy


def make_scored(z: ArrayLike, head: ArrayLike, lengths: Sequence[int] | None = None) -> Scored:
    """Scores from dense latents [N, L] and head weights [L]."""
    from scipy.sparse import csr_array

    dense, weight = np.asarray(z, dtype=np.float32), np.asarray(head, dtype=np.float32)
    latents = from_scipy(csr_array(dense))
    count = len(dense)
    return Scored(
        rewards=latents.dot(weight),
        latents=latents,
        head=weight,
        truncated=np.zeros(count, dtype=np.int64),
        ended=np.ones(count, dtype=np.bool_),
        lengths=np.asarray(lengths if lengths is not None else range(1, count + 1), dtype=np.int64),
        fingerprint="0123456789abcdef",
    )


def make_row(**fields: object) -> Row:
    """One row as a data file would hold it."""
    return parse_row(fields, path=Path("rows.jsonl"), line=1, want={"pair", "candidates", "answer"})


def random_pairs(seed: int, *, prompts: int = 12, latents: int = 20) -> ScoredRows:
    """Rows with 1-3 chosen and 1-3 rejected answers each, some prompts twice, and sparse latents."""
    generator = np.random.default_rng(seed)
    rows = [
        make_row(
            prompt=f"question {int(generator.integers(prompts))}",
            chosen=[f"good {j}" for j in range(generator.integers(1, 4))],
            rejected=[f"bad {j}" for j in range(generator.integers(1, 4))],
        )
        for _ in range(prompts)
    ]
    count = sum(len(row.answers) for row in rows)
    z = np.where(generator.random((count, latents)) < 0.3, generator.normal(1, 1, (count, latents)), 0)
    head = generator.normal(0, 1, latents)
    lengths = generator.integers(1, 30, count).tolist()
    return ScoredRows(rows, make_scored(z, head, lengths))
