"""Golden: a small PPO run on the lab, every control on, gives the learning curve that is committed.

`python tests/training/test_lab_curve.py` records it again: only when the algorithm was meant to change.

Tolerance: the same arithmetic gives the same digits. Another processor rounds otherwise, which eight steps
grow to about 1e-4; should it draw a single other word, a mean over 32 answers moves by 1 % or so.
"""

import json
import tempfile
from pathlib import Path

import pytest

from sarm_control.training.config.run_config import RunConfig
from sarm_control.training.run.train import build_trainer

GOLDEN = Path(__file__).parent / "golden" / "lab_curve.json"
STEPS = 8
CONFIG = {
    "policy": {"model": "lab", "lora": None},
    "reward": {
        "model": "lab",
        "edits": ["8:max=2"],
        "penalties": ["15:tau=q0.9,alpha=0.5sd", {"latent": 17, "tau": 0.0, "target_rate": 0.1}],
        "human_kl": {"beta": "0.1sd"},
    },
    "data": {"prompts": "lab:train_prompts", "human": "lab:human"},
    "training": {
        "steps": STEPS,
        "prompts_per_step": 16,
        "max_new_tokens": 16,
        "minibatches": 4,
        "epochs": 1,
        "micro_batch": 8,
        "learning_rate": 4e-4,
        "kl_coef": 0.1,
        "kl_target": 2.0,
        "reference_answers": 32,
        "seed": 1,
    },
}
ABSOLUTE = {"policy/loss": 4e-4}
"""Whitened advantages sum to 0, so the loss of one update a minibatch is a few thousandths of either sign."""
METRICS = (
    "reward/model",
    "reward/total",
    "reward/edits",
    "reward/penalty/15",
    "reward/human_kl",
    "penalty/17/alpha",
    "objective/kl",
    "objective/kl_coef",
    "policy/loss",
    "policy/entropy",
    "policy/grad_norm",
    "value/loss",
    "value/explained_variance",
    "answers/length",
)


def curve(folder: Path) -> dict[str, list[float]]:
    """The metrics of every step, in order."""
    trainer = build_trainer(RunConfig.model_validate(CONFIG), folder)
    trainer.calibrate()
    rows = [trainer.step().metrics for _ in range(STEPS)]
    return {name: [row[name] for row in rows] for name in METRICS}


@pytest.mark.long
def test_the_learning_curve_is_the_committed_one(tmp_path: Path) -> None:
    expected, found = json.loads(GOLDEN.read_text()), curve(tmp_path)
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, rel=0.01, abs=ABSOLUTE.get(name, 0.003)), name


def test_no_column_is_so_small_that_its_tolerance_would_let_zeros_pass() -> None:
    expected = json.loads(GOLDEN.read_text())
    for name, values in expected.items():
        assert pytest.approx(values, rel=0.01, abs=ABSOLUTE.get(name, 0.003)) != [0.0] * STEPS, name
        if name == "policy/loss":
            assert sorted(values) != pytest.approx(values, abs=ABSOLUTE[name])


def test_the_committed_curve_learns() -> None:
    """A golden file that holds a run gone wrong would be met as well."""
    found = json.loads(GOLDEN.read_text())
    reward = found["reward/total"]
    assert sum(reward[-3:]) / 3 > sum(reward[:3]) / 3 + 0.1
    assert found["value/explained_variance"][-1] > 0.1
    assert sum(found["value/loss"][-3:]) < 0.5 * sum(found["value/loss"][:3])
    assert found["reward/human_kl"][-1] > found["reward/human_kl"][0] + 0.1
    assert found["objective/kl"][0] == pytest.approx(0.0, abs=1e-6)
    assert found["objective/kl"][-1] > 0.3
    assert len(set(found["penalty/17/alpha"])) > 4
    assert len(set(found["objective/kl_coef"])) > 2


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        recorded = curve(Path(temporary))
    lines = [f' "{name}": {json.dumps([round(value, 6) for value in row])}' for name, row in recorded.items()]
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")
