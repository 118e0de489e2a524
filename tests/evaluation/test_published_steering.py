"""The published steering run: golden on its recorded rewards, oracle by hand, bad input."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sarm_control.errors import DataError
from sarm_control.evaluation.recorded.published_steering import (
    PUBLISHED,
    from_model,
    from_records,
    published_text,
)
from sarm_control.evaluation.recorded.verification import PUBLISHED_STEERED_LATENTS, read_recorded
from tests.evaluation.scored_pairs import make_scored
from tests.present import present


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def record(
    side: str, prompt: str, before: float, after: float, active: tuple[int, ...] = ()
) -> dict[str, Any]:
    return {
        "set": f"rmb_safety_{side}",
        "prompt": prompt,
        "response": "x",
        "reward": before,
        "reward_steered": after,
        "active_steered_latents": list(active),
    }


SMALL = [
    record("chosen", "a", 1.0, 1.0),
    record("chosen", "b", 0.0, 0.0),
    record("rejected", "a", 0.0, 2.0, (48659,)),
    record("rejected", "b", -1.0, -1.0, (28879,)),
    record("rejected", "c", -1.0, -0.5, (28879,)),
]


def test_golden_the_recorded_rewards_give_the_published_table(shared_data: Path) -> None:
    found = from_records(read_recorded(shared_data / "llama_sarm_4b_scores.jsonl"))
    for one, published in zip(found.sets, PUBLISHED, strict=True):
        assert one.label == published.label
        assert one.n == 400
        assert round(one.before, 4) == published.before
        assert round(one.after, 4) == published.after
        assert round(one.change.mean, 4) == published.delta
        assert one.changed == published.changed
        # Every reward that changed rose: the five latents charge, and the charge was dropped.
        assert one.risen == one.changed
    assert [one.active for one in found.sets] == [2, 237, 5, 229]
    assert [round(present(found.sets[i].change_sd), 2) for i in (1, 3)] == [0.02, 0.03]
    for pair, accuracy in zip(found.pairs, (0.934, 0.954), strict=True):
        assert round(pair.before, 3) == round(pair.after, 3) == accuracy
        assert (pair.flips.gained, pair.flips.lost) == (0, 0)


def test_oracle_a_small_record_by_hand(tmp_path: Path) -> None:
    found = from_records(read_recorded(write(tmp_path / "r.jsonl", SMALL)))
    chosen, rejected = found.sets
    assert (chosen.n, chosen.changed, chosen.active) == (2, 0, 0)
    assert (rejected.changed, rejected.risen, rejected.active) == (2, 2, 3)
    assert rejected.change.mean == pytest.approx(2.5 / 3)
    (pairs,) = found.pairs
    assert (pairs.pairs, pairs.prompts, pairs.before, pairs.after) == (2, 2, 1.0, 0.5)
    text = published_text(found)
    assert "Of the 2 rewards that changed, 2 rose." in " ".join(text.split())


def test_oracle_a_model_gives_exact_changes(tmp_path: Path) -> None:
    recorded = read_recorded(write(tmp_path / "r.jsonl", SMALL))
    z, head = np.zeros((5, 50_000)), np.zeros(50_000)
    z[2, PUBLISHED_STEERED_LATENTS[0]] = 2.0
    z[4, PUBLISHED_STEERED_LATENTS[1]] = 1.0
    head[list(PUBLISHED_STEERED_LATENTS)] = -0.25
    found = from_model(recorded, make_scored(z, head))
    assert found.sets[1].change.mean == pytest.approx((0.5 + 0.25) / 3)
    assert (found.sets[1].changed, found.sets[1].active) == (2, 2)


def test_the_table_alone_needs_no_data() -> None:
    text = published_text()
    assert "RM-Bench safety, rejected       400  -0.1282  -0.1272  +0.0011      224" in text
    assert "they protect" in " ".join(text.split())


def test_other_rows_are_refused(tmp_path: Path) -> None:
    other = write(tmp_path / "r.jsonl", [{**SMALL[0], "set": "poems"}])
    with pytest.raises(DataError, match=r"r.jsonl:1: set is poems, which the published run does not have"):
        from_records(read_recorded(other))
    plain = {name: value for name, value in SMALL[0].items() if name != "reward_steered"}
    with pytest.raises(DataError, match="no reward_steered"):
        from_records(read_recorded(write(tmp_path / "p.jsonl", [plain])))
