"""The update takes over the pass that its log-probabilities were read from: same bits, one pass less."""

from typing import Any

import pytest
import torch

from sarm_control.training.algorithm.trainer import Trainer
from sarm_control.training.algorithm.update import Updater
from sarm_control.training.policy.policy import Policy
from tests.training.test_trainer import table_trainer, weights


def passes_of(trainer: Trainer, steps: int, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Any], int]:
    """Metrics of some steps, and how many passes with gradients the policy made."""
    plain, made = Policy.answer_stats, []

    def counted(self: Policy, *args: Any, **kwargs: Any) -> Any:
        made.append(torch.is_grad_enabled())
        return plain(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Policy, "answer_stats", counted)
        return [trainer.step().metrics for _ in range(steps)], len(made)


@pytest.mark.long
@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 1, "minibatches": 1, "micro_batch": 16},
        {"epochs": 1, "minibatches": 1, "micro_batch": 3},
        {"epochs": 3, "minibatches": 2},
        {"algorithm": "rloo", "minibatches": 3, "micro_batch": 16},
    ],
)
def test_a_kept_pass_changes_no_bit_and_saves_one_pass_a_step(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = table_trainer(**changes)
    with_kept = passes_of(kept, 3, monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(Updater, "kept_rows", lambda *_args: None)
        again = table_trainer(**changes)
        without = passes_of(again, 3, monkeypatch)
    assert without[1] - with_kept[1] == 3
    for ours, theirs in zip(with_kept[0], without[0], strict=True):
        # the check of the arithmetic needs a pass that is made twice, and looks at another micro-batch
        assert ours.pop("policy/ratio_first") <= 1e-6
        assert theirs.pop("policy/ratio_first") <= 1e-6
        assert ours == theirs
    assert torch.equal(weights(kept), weights(again))
