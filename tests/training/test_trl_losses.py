"""Golden against another library: TRL 1.12.0's PPO arithmetic on one frozen batch.

`scripts/record_trl_losses.py` ran TRL's own lines. Where the definitions agree ours give the same numbers;
where ours differ on purpose the test says by how much and why.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sarm_control.training.algorithm.losses import (
    gae,
    kl_k1,
    length_mask,
    policy_loss,
    token_rewards,
    value_loss,
    whiten,
)

RECORD: dict[str, Any] = json.loads((Path(__file__).parent / "golden" / "trl_1_12_losses.json").read_text())
ARGS = RECORD["settings"]
WIDTH = 6


class Frozen:
    """One of the two batches: `full` has no padding, `ragged` has."""

    def __init__(self, name: str) -> None:
        self.lengths: list[int] = RECORD[name]["lengths"]
        self.given = {k: torch.tensor(v, dtype=torch.float64) for k, v in RECORD[name]["given"].items()}
        self.found: dict[str, Any] = RECORD[name]["found"]
        self.mask = length_mask(self.lengths, WIDTH)

    def table(self, name: str) -> Tensor:
        return torch.tensor(self.found[name], dtype=torch.float64)

    def kl(self) -> Tensor:
        kl = kl_k1(self.given["logprobs"], self.given["ref_logprobs"])
        return torch.where(self.mask, kl, 0.0)

    def losses(self, rows: list[int], advantages: Tensor) -> tuple[float, float]:
        """Ours on some rows, as sums over tokens."""
        mask = self.mask[rows]
        new, old, values, new_values = (
            self.given[name][rows][mask] for name in ("new_logprobs", "logprobs", "values", "new_values")
        )
        policy = policy_loss(new, old, advantages[rows][mask], ARGS["cliprange"])
        value = value_loss(new_values, values, self.table("returns")[rows][mask], ARGS["cliprange_value"])
        return float(policy.loss), float(value)


def close(ours: Tensor, theirs: Tensor, tolerance: float = 2e-6) -> None:
    torch.testing.assert_close(ours.double(), theirs, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("name", ["full", "ragged"])
def test_the_kl_of_a_token_is_trls_k1(name: str) -> None:
    frozen = Frozen(name)
    close(frozen.kl(), frozen.table("kl"), 1e-12)


def test_without_padding_rewards_advantages_and_returns_are_trls() -> None:
    frozen = Frozen("full")
    rewards = token_rewards(frozen.given["scores"], frozen.kl(), frozen.mask, ARGS["kl_coef"])
    estimate = gae(rewards, frozen.given["values"], frozen.mask, ARGS["gamma"], ARGS["lam"])
    close(rewards, frozen.table("rewards"))
    close(estimate.returns, frozen.table("returns"))
    # TRL divides by the unbiased SD, which is larger by sqrt(n / (n - 1)).
    n = int(frozen.mask.sum())
    whitened = whiten(estimate.advantages, frozen.mask)
    close(whitened * ((n - 1) / n) ** 0.5, frozen.table("advantages"), 1e-5)


def test_without_padding_the_losses_are_trls() -> None:
    frozen = Frozen("full")
    policy, value = frozen.losses([0, 1, 2, 3], frozen.table("advantages"))
    n, theirs = int(frozen.mask.sum()), frozen.found["whole"]
    assert policy / n == pytest.approx(theirs["pg_loss"], abs=1e-9)
    assert value / n == pytest.approx(theirs["vf_loss"], abs=1e-9)
    assert (policy + ARGS["vf_coef"] * value) / n == pytest.approx(theirs["loss"], abs=1e-9)
    # Micro-batches of equal token counts are the case where a mean of means is the mean.
    assert frozen.found["mean_of_two_micro_batches"]["loss"] == pytest.approx(theirs["loss"], abs=1e-9)
    new, old = (frozen.given[name][frozen.mask] for name in ("new_logprobs", "logprobs"))
    advantages = frozen.table("advantages")[frozen.mask]
    assert float(policy_loss(new, old, advantages, ARGS["cliprange"]).clipped) / n == theirs["clipped"]


def test_with_padding_the_policy_loss_of_one_micro_batch_is_trls() -> None:
    frozen = Frozen("ragged")
    policy, _ = frozen.losses([0, 1, 2, 3], frozen.table("advantages"))
    assert policy / sum(frozen.lengths) == pytest.approx(frozen.found["whole"]["pg_loss"], abs=1e-9)


def test_ours_differs_on_purpose_the_score_is_on_the_last_token_and_the_value_after_it_is_0() -> None:
    """TRL's answer is one column longer where there is room; on answers that long ours would agree."""
    frozen = Frozen("ragged")
    theirs_at = frozen.found["score_at"]
    assert theirs_at == [5, 2, 4, 1], "one past the last token, except in the row without padding"
    ours = token_rewards(frozen.given["scores"], frozen.kl(), frozen.mask, ARGS["kl_coef"])
    assert not torch.allclose(ours.double(), frozen.table("rewards"), atol=1e-3)

    longer = length_mask([min(n + 1, WIDTH) for n in frozen.lengths], WIDTH)
    rewards = token_rewards(frozen.given["scores"], frozen.kl(), longer, ARGS["kl_coef"])
    close(rewards, frozen.table("rewards"))
    estimate = gae(rewards, frozen.given["values"], longer, ARGS["gamma"], ARGS["lam"])
    close(estimate.returns, frozen.table("returns"))
    n = sum(frozen.lengths)
    whitened = whiten(estimate.advantages, frozen.mask)
    close(whitened * ((n - 1) / n) ** 0.5, frozen.table("advantages"), 1e-5)


def test_ours_differs_on_purpose_the_value_of_no_state_is_fitted() -> None:
    frozen = Frozen("ragged")
    _, value = frozen.losses([0, 1, 2, 3], frozen.table("advantages"))
    assert abs(value / sum(frozen.lengths) - frozen.found["whole"]["vf_loss"]) > 1e-3


def test_ours_differs_on_purpose_a_token_counts_the_same_in_every_micro_batch() -> None:
    """8 tokens in one micro-batch and 5 in the other: TRL's mean of means weighs the 5 more."""
    frozen = Frozen("ragged")
    advantages = frozen.table("advantages")
    parts = [frozen.losses(rows, advantages)[0] for rows in ([0, 1], [2, 3])]
    theirs = frozen.found["mean_of_two_micro_batches"]["pg_loss"]
    whole = frozen.found["whole"]["pg_loss"]
    assert (parts[0] / 8 + parts[1] / 5) / 2 == pytest.approx(theirs, abs=1e-9)
    assert sum(parts) / 13 == pytest.approx(whole, abs=1e-9)
    assert abs(theirs - whole) > 1e-3


def test_every_difference_is_written_down_in_the_record() -> None:
    assert {"score", "whitening", "micro-batches", "value after the end"} <= set(RECORD["differences"])
    assert RECORD["source"].startswith("trl 1.12.0")
