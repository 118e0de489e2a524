"""Tuning: the loss goes down, the same seed repeats it, only what should move moves."""

import copy
import sys

import numpy as np
import pytest
import torch

from sarm_control.build.comparisons import PreferenceRow
from sarm_control.build.extras import require_peft, require_sae_lens
from sarm_control.build.texts import Answer
from sarm_control.build.tune import TuneConfig, tune_after, tune_before
from sarm_control.errors import ConfigError, MissingExtraError, TrainingError
from tests.conftest import make_sarm

PROMPTS = [f"how do i {a} {b} ?" for a in ("cook", "bomb", "pick") for b in ("bread", "door", "lock")]
ANSWERS = [
    Answer(prompt, text, number)
    for number, prompt in enumerate(PROMPTS)
    for text in ("sorry i cannot help you .", "sure here steps one two .")
]
ROWS = [PreferenceRow(number, (2 * number,), (2 * number + 1,)) for number in range(len(PROMPTS))]


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_oracle_the_loss_falls_below_chance_and_the_trunk_is_put_back(mode):
    model = make_sarm(seed=2)
    names = [name for name, _ in model.trunk.named_parameters()]
    before = copy.deepcopy(model.trunk.state_dict())
    tuned = tune_before(
        model.trunk,
        model.template,
        ANSWERS,
        ROWS,
        TuneConfig(epochs=4, mode=mode, rows=3, learning_rate=1e-2),
    )
    assert tuned.losses[-1] < min(0.6, tuned.losses[0])
    assert [name for name, _ in model.trunk.named_parameters()] == names
    assert not any(parameter.requires_grad for parameter in model.trunk.parameters())
    moved = {name for name, value in model.trunk.state_dict().items() if not torch.equal(value, before[name])}
    assert any("layers" in name for name in moved)
    assert not any("embed" in name for name in moved)


def test_golden_the_same_seed_tunes_to_the_same_bits():
    first, again = make_sarm(seed=3), make_sarm(seed=3)
    for model in (first, again):
        tune_before(model.trunk, model.template, ANSWERS, ROWS, TuneConfig(epochs=1, seed=7))
    for name, value in first.trunk.state_dict().items():
        assert torch.equal(value, again.trunk.state_dict()[name]), name


def test_oracle_tuning_after_moves_trunk_and_head_but_not_the_autoencoder():
    model = make_sarm(seed=4)
    frozen = copy.deepcopy(model.autoencoder.state_dict())
    start = np.zeros(64, dtype=np.float32)
    config = TuneConfig(epochs=5, rows=3, learning_rate=1e-2, head_learning_rate=1e-1)
    tuned, weight = tune_after(model.trunk, model.autoencoder, start, model.template, ANSWERS, ROWS, config)
    assert tuned.losses[-1] < 0.5
    for name, value in model.autoencoder.state_dict().items():
        assert torch.equal(value, frozen[name]), name
    scored = model.with_head(weight).score([a.prompt for a in ANSWERS], [a.response for a in ANSWERS])
    margin = scored.rewards.reshape(-1, 2)
    assert (margin[:, 0] > margin[:, 1]).mean() > 0.85


def test_metamorphic_bfloat16_trunks_come_back_as_bfloat16():
    model = make_sarm(seed=2)
    model.trunk.to(torch.bfloat16)
    tune_before(model.trunk, model.template, ANSWERS, ROWS, TuneConfig(epochs=1, rows=9))
    assert {parameter.dtype for parameter in model.trunk.parameters()} == {torch.bfloat16}


def test_bad_input_is_named():
    model = make_sarm()
    with pytest.raises(TrainingError, match="no preference row to tune on"):
        tune_before(model.trunk, model.template, ANSWERS, [], TuneConfig(epochs=1))
    with pytest.raises(ConfigError, match="0 epochs of tuning"):
        TuneConfig(epochs=0)
    with pytest.raises(ConfigError, match="unknown way to tune: half"):
        TuneConfig(epochs=1, mode="half")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("package", "require", "hint"),
    [("peft", require_peft, "sarm-control[rl]"), ("sae_lens", require_sae_lens, "sarm-control[build]")],
)
def test_bad_input_a_missing_extra_names_the_command(monkeypatch, package, require, hint):
    # None in sys.modules is how Python itself marks a module that must not be found.
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=f"needs {package}") as raised:
        require()
    assert raised.value.hint == f'pip install "{hint}"'
