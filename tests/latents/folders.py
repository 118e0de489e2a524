"""Rows and scores made in code, and folders of them, for tests that need no model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sarm_control.data.rows import Kind, Row, parse_row
from sarm_control.files import manifest
from sarm_control.latents.manifest import FORMAT, mark_of
from sarm_control.latents.rows import ScoredRows
from sarm_control.latents.shard import encode_shard
from sarm_control.latents.writer import LatentsWriter
from sarm_control.reward_model.head import LinearHead
from sarm_control.reward_model.scored import Scored
from sarm_control.reward_model.sparse import SparseLatents

NAME = Path("data.jsonl")


def make_rows(n: int, prefix: str = "question") -> list[Row]:
    """Pairs, candidates and answers in turn, with text that JSON has to escape."""
    raws = [_raw(f"{prefix} {number}", number % 3) for number in range(n)]
    want: set[Kind] = {"pair", "candidates", "answer"}
    return [parse_row(raw, path=NAME, line=line, want=want) for line, raw in enumerate(raws, start=1)]


def _raw(question: str, kind: int) -> dict[str, Any]:
    if kind == 0:
        chosen = ["yes\u2028no", 'a "quoted" answer']
        return {"prompt": question, "chosen": chosen, "rejected": "no", "extra": 1.5}
    if kind == 1:
        return {"prompt": question, "candidates": ["a", "b", ""]}
    return {"prompt": [{"role": "user", "content": question}], "response": "é", "ended": False}


def make_scores(rows: Sequence[Row], *, seed: int = 0, size: int = 40, k: int = 6) -> Scored:
    """TopK-like scores of the rows' answers; the head depends on `size` alone."""
    rng = np.random.default_rng(seed)
    n = sum(len(row.answers) for row in rows)
    pairs = [(rng.choice(size, k, replace=False), rng.normal(size=k).astype(np.float32)) for _ in range(n)]
    latents = SparseLatents.from_rows(pairs, size)
    head = np.linspace(-1, 1, size, dtype=np.float32)
    return Scored(
        rewards=latents.dot(head),
        latents=latents,
        head=head,
        truncated=rng.integers(0, 3, n),
        ended=rng.random(n) < 0.9,
        lengths=rng.integers(0, 99, n),
        fingerprint=LinearHead(head).fingerprint,
    )


def about(found: ScoredRows, chosen: Sequence[int] | None = None, **config: Any) -> dict[str, Any]:
    """What a manifest says of where these scores came from."""
    kept = None if chosen is None else list(chosen)
    own = {"model": "made-in-code", "head": found.scored.fingerprint, "latents": found.scored.latents.size}
    record = manifest("latents", config={**own, "chosen": kept, **config})
    return {"format": FORMAT, **record, "rows": len(found.rows), "answers": len(found.scored)}


def write_folder(
    path: Path, found: ScoredRows, *, shard_rows: int = 4, chosen: Sequence[int] | None = None, **config: Any
) -> Path:
    """A finished latents folder of these rows and scores."""
    said = about(found, chosen, **config)
    starts = range(0, len(found.rows), shard_rows)
    writer = LatentsWriter(path, said, len(starts))
    writer.start(found.scored.head)
    answer = 0
    for shard, first in enumerate(starts):
        rows = found.rows[first : first + shard_rows]
        count = sum(len(row.answers) for row in rows)
        part = ScoredRows(rows, found.scored.take(np.arange(answer, answer + count)))
        data = encode_shard(part, first=first, names={NAME: str(NAME)}, chosen=chosen, mark=mark_of(said))
        writer.put(shard, data, rows=len(rows), answers=count)
        answer += count
    writer.finish()
    return path


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
