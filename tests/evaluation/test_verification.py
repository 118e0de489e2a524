"""Verification: oracle of the bfloat16 step, a tiny model with its own records, the published file."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from sarm_control.cli import main
from sarm_control.control import Edit, edit_delta
from sarm_control.errors import DataError
from sarm_control.evaluation.annotated_rows import score_rows
from sarm_control.evaluation.recorded.verification import (
    PUBLISHED_STEERED_LATENTS,
    bfloat16_step,
    read_recorded,
    verify,
)
from sarm_control.reward_model import RewardModel, Scored, SparseLatents
from tests.present import present

STEERED = (1, 2, 3, 5, 8, 13, 21, 34, 55)
PROMPTS = ["how do i cook bread ?", "how do i open the lock ?", "what is a bomb ?", "why not ?"]
ANSWERS = ["sure here steps one two", "sorry cannot", "no"]

# set, before, after, delta, changed: the table in SCIENCE.md ("rmb" is RM-Bench).
PUBLISHED_TABLE = [
    ("rb2_safety_chosen", -0.0229, -0.0229, 0.0000, 2),
    ("rb2_safety_rejected", -0.1070, -0.1062, 0.0008, 232),
    ("rmb_safety_chosen", -0.0255, -0.0255, 0.0000, 5),
    ("rmb_safety_rejected", -0.1282, -0.1272, 0.0011, 224),
]


def as_bfloat16(values: ArrayLike) -> list[float]:
    return torch.tensor(np.asarray(values)).to(torch.bfloat16).double().tolist()


@pytest.fixture
def records(tiny_sarm: RewardModel, tmp_path: Path) -> Path:
    """A file of rewards that the tiny model gave, rounded to bfloat16 as the published ones are."""
    pairs = [(prompt, answer) for prompt in PROMPTS for answer in ANSWERS]
    scored = tiny_sarm.score(*map(list, zip(*pairs, strict=True)))
    steered = scored.rewards + edit_delta(scored, [Edit(latent, set=0.0) for latent in STEERED])
    z = scored.latents.columns(STEERED)
    rows = [
        {
            "prompt": prompt,
            "response": answer,
            "reward": before,
            "reward_steered": after,
            "active_steered_latents": [latent for i, latent in enumerate(STEERED) if z[j, i] != 0],
        }
        for j, ((prompt, answer), before, after) in enumerate(
            zip(pairs, as_bfloat16(scored.rewards), as_bfloat16(steered), strict=True)
        )
    ]
    assert any(row["active_steered_latents"] for row in rows)
    return write(tmp_path / "recorded.jsonl", rows)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def change(path: Path, line: int, **fields: Any) -> Path:
    rows = [json.loads(text) for text in path.read_text().splitlines()]
    rows[line - 1] |= fields
    return write(path, rows)


def run(folder: Path, records: Path, *flags: str) -> int:
    steered = ",".join(map(str, STEERED))
    return main(["verify", "--model", str(folder), str(records), "--steered-latents", steered, *flags])


def hand_made(rewards: Sequence[float]) -> Scored:
    """Scores without any latents."""
    n = len(rewards)
    latents = SparseLatents(np.zeros(n + 1, np.int64), np.empty(0, np.int32), np.empty(0, np.float32), 4)
    zeros = np.zeros(n, np.int64)
    return Scored(
        np.array(rewards, np.float32), latents, np.zeros(4, np.float32), zeros, zeros == 0, zeros, "none"
    )


def test_oracle_step_is_the_gap_to_the_next_bfloat16() -> None:
    bits = torch.arange(0, 0x7F7F, dtype=torch.int16)  # every bfloat16 >= 0 but the largest
    value = bits.view(torch.bfloat16)
    following = (bits + 1).view(torch.bfloat16)
    gap = (following.double() - value.double()).numpy()
    np.testing.assert_array_equal(bfloat16_step(value.double().numpy()), gap)
    np.testing.assert_array_equal(bfloat16_step(-value.double().numpy()), gap)


@given(st.floats(2.0**-126, 1e30), st.sampled_from([1, -1]))
def test_property_a_step_is_the_magnitude_s_power_of_two_over_128(value: float, sign: int) -> None:
    step = float(bfloat16_step(np.array([sign * value]))[0])
    assert 128 * step <= value < 256 * step


def test_step_near_the_released_rewards_is_that_of_the_published_file() -> None:
    assert bfloat16_step(np.array([-0.1]))[0] == 2.0**-11


@pytest.mark.parametrize(
    ("steps_away", "inside"), [(0, True), (2, True), (-2, True), (2.01, False), (-2.01, False)]
)
def test_tolerance_is_inclusive_and_two_sided(tmp_path: Path, steps_away: float, inside: bool) -> None:
    path = write(tmp_path / "r.jsonl", [{"prompt": "p", "response": "r", "reward": -0.125}])
    scored = hand_made([-0.125 + steps_away * 2.0**-10])
    result = verify(read_recorded(path), scored, steps=2)
    assert result.passed is inside
    assert result.rewards[0].largest == pytest.approx(abs(steps_away), rel=1e-5)
    assert result.active is None


def test_nan_is_never_within_the_tolerance(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", [{"prompt": "p", "response": "r", "reward": -0.125}])
    assert not verify(read_recorded(path), hand_made([np.nan]), steps=1e9).passed


def test_steered_rewards_are_compared_only_where_they_are_recorded(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "response": "r", "reward": 1.0}, {"prompt": "p", "response": "r", "reward": 1.0}]
    rows[1]["reward_steered"] = 1.0
    result = verify(
        read_recorded(write(tmp_path / "r.jsonl", rows)), hand_made([1.0, 1.0]), steered_latents=(0,)
    )
    assert [(check.name, check.n) for check in result.rewards] == [("reward", 2), ("reward_steered", 1)]


def test_model_agrees_with_its_own_records(tiny_sarm: RewardModel, records: Path) -> None:
    recorded = read_recorded(records)
    result = verify(recorded, score_rows(tiny_sarm, recorded.rows), steered_latents=STEERED, steps=1)
    assert result.passed
    assert [check.n for check in result.rewards] == [12, 12]
    assert all(0 < check.largest <= 0.51 for check in result.rewards)
    assert result.active == (12, 12)


def test_other_head_fails(tiny_sarm: RewardModel, records: Path) -> None:
    recorded = read_recorded(records)
    other = tiny_sarm.with_head(-tiny_sarm.head.weight)
    assert not verify(recorded, score_rows(other, recorded.rows), steered_latents=STEERED).passed


def test_command_passes_on_the_model_s_own_records(
    tiny_sarm_folder: Path, records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = tmp_path / "verify.json"
    assert run(tiny_sarm_folder, records, "--json", str(summary)) == 0
    printed = capsys.readouterr().out
    assert "reward: n = 12, largest difference 0." in printed
    assert "100.00 % within 2 steps" in printed
    assert "active steered latents: equal in 12 of 12 rows\nverified\n" in printed
    found = json.loads(summary.read_text())
    assert found["passed"] is True
    assert [check["share_within"] for check in found["rewards"]] == [1.0, 1.0]


def test_one_corrupted_record_fails_and_is_named(
    tiny_sarm_folder: Path, records: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reward = json.loads(records.read_text().splitlines()[6])["reward"]
    change(records, 7, reward=reward + 4 * float(bfloat16_step(np.array([reward]))[0]))
    assert run(tiny_sarm_folder, records) == 1
    printed = capsys.readouterr().out
    assert "91.67 % within 2 steps" in printed
    assert printed.count("recorded.jsonl:") == 1
    assert "recorded.jsonl:7: recorded " in printed
    assert printed.endswith("not verified\n")
    assert run(tiny_sarm_folder, records, "--steps", "8") == 0
    assert run(tiny_sarm_folder, records, "--share", "0.92") == 1
    assert run(tiny_sarm_folder, records, "--share", "0.91") == 0


def test_corrupted_steered_record_fails(
    tiny_sarm_folder: Path, records: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(records, 3, reward_steered=99.0)
    assert run(tiny_sarm_folder, records) == 1
    assert "recorded.jsonl:3: recorded 99" in capsys.readouterr().out


def test_activity_that_differs_is_reported_and_decides_nothing(
    tiny_sarm_folder: Path, records: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(records, 1, active_steered_latents=list(STEERED))
    assert run(tiny_sarm_folder, records) == 0
    assert "equal in 11 of 12 rows" in capsys.readouterr().out


def test_at_most_five_rows_are_listed(
    tiny_sarm_folder: Path, records: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for line in range(1, 9):
        change(records, line, reward=99.0)
    assert run(tiny_sarm_folder, records) == 1
    printed = capsys.readouterr().out
    assert printed.count("recorded 99") == 5
    assert "and 3 more rows" in printed


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"reward": None}, r"recorded\.jsonl:2: no reward field"),
        ({"reward": "high"}, r"recorded\.jsonl:2: reward is not a number"),
        ({"reward_steered": True}, r"recorded\.jsonl:2: reward_steered is not a number"),
        ({"active_steered_latents": [1.5]}, r"recorded\.jsonl:2: active_steered_latents is not a list"),
    ],
)
def test_bad_records_are_named(records: Path, fields: dict[str, Any], message: str) -> None:
    change(records, 2, **fields)
    with pytest.raises(DataError, match=message):
        read_recorded(records)


@pytest.mark.parametrize(
    ("latents", "message"),
    [
        ("1,x", "'1,x' is not a list of distinct latent numbers"),
        ("1,1", "'1,1'"),
        ("64", "latent 64 does not exist"),
    ],
)
def test_bad_steered_latents_are_refused(
    tiny_sarm_folder: Path, records: Path, capsys: pytest.CaptureFixture[str], latents: str, message: str
) -> None:
    assert main(["verify", "--model", str(tiny_sarm_folder), str(records), "--steered-latents", latents]) == 2
    assert message in capsys.readouterr().err


def test_published_file_holds_the_published_table(shared_data: Path) -> None:
    """Removal of the five latents raises rejected answers and leaves chosen ones: a loss of safety."""
    recorded = read_recorded(shared_data / "llama_sarm_4b_scores.jsonl")
    sets = np.array([row.raw["set"] for row in recorded.rows])
    for name, before, after, delta, changed in PUBLISHED_TABLE:
        rows = sets == name
        difference = recorded.steered[rows] - recorded.reward[rows]
        assert rows.sum() == 400
        assert recorded.reward[rows].mean() == pytest.approx(before, abs=5e-5)
        assert recorded.steered[rows].mean() == pytest.approx(after, abs=5e-5)
        assert difference.mean() == pytest.approx(delta, abs=5.1e-5)
        assert (difference != 0).sum() == changed
        assert difference.min() >= 0
    assert set(sets) == {row[0] for row in PUBLISHED_TABLE}


def test_published_rewards_are_whole_bfloat16_and_change_only_where_a_steered_latent_was_active(
    shared_data: Path,
) -> None:
    recorded = read_recorded(shared_data / "llama_sarm_4b_scores.jsonl")
    assert as_bfloat16(recorded.reward) == recorded.reward.tolist()
    assert frozenset[int]().union(*(present(latents) for latents in recorded.active)) == set(
        PUBLISHED_STEERED_LATENTS
    )
    changed = recorded.reward != recorded.steered
    active = np.array([bool(latents) for latents in recorded.active])
    assert not (changed & ~active).any()
    assert (active.sum(), changed.sum()) == (473, 463)
