"""Tuning: the loss goes down, the same seed repeats it, only what should move moves."""

import copy
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sarm_control.build.autoencoder import AutoencoderConfig, train_autoencoder
from sarm_control.build.head.comparisons import PreferenceRow
from sarm_control.build.states.texts import Conversation
from sarm_control.build.tune import TuneConfig, schedule, tune_after, tune_before
from sarm_control.errors import ConfigError, MissingExtraError, TrainingError
from tests.conftest import make_sarm

PROMPTS = [f"how do i {a} {b} ?" for a in ("cook", "bomb", "pick") for b in ("bread", "door", "lock")]
ANSWERS = [
    Conversation(prompt, text, number)
    for number, prompt in enumerate(PROMPTS)
    for text in ("sorry i cannot help you .", "sure here steps one two .")
]
ROWS = [PreferenceRow(number, (2 * number,), (2 * number + 1,)) for number in range(len(PROMPTS))]


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_oracle_the_loss_falls_below_chance_and_the_trunk_is_put_back(mode: Literal["lora", "full"]) -> None:
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


@given(st.integers(1, 3000))
def test_property_the_rates_rise_once_fall_once_and_are_never_zero(updates: int) -> None:
    shares = [schedule(done, updates) for done in range(updates)]
    peak = shares.index(max(shares))
    assert max(shares) == 1.0
    assert peak + 1 == max(1, updates // 20)
    assert shares[: peak + 1] == sorted(shares[: peak + 1])
    assert shares[peak:] == sorted(shares[peak:], reverse=True)
    assert 0 < shares[-1] <= 1.0
    assert schedule(updates, updates) == 0.0


def test_oracle_weights_move_no_further_than_the_rates_add_up_to() -> None:
    """An update of Adam is about as large as its rate where the gradients agree, and hardly ever larger."""
    moved = []
    for epochs in (1, 8):
        model = make_sarm(seed=5)
        before = {name: weight.clone() for name, weight in model.trunk.state_dict().items()}
        config = TuneConfig(epochs=epochs, mode="full", rows=len(ROWS), learning_rate=1e-3)
        tune_before(model.trunk, model.template, ANSWERS, ROWS, config)
        changes = [(weight - before[name]).abs().max() for name, weight in model.trunk.state_dict().items()]
        moved.append(float(max(changes)))
    # no update is larger than the rate; eight take at most the sum of their shares of it
    assert moved[0] <= 1.001e-3
    assert moved[1] <= 1.001e-3 * sum(schedule(done, 8) for done in range(8))


def test_golden_the_same_seed_tunes_to_the_same_bits() -> None:
    first, again = make_sarm(seed=3), make_sarm(seed=3)
    for model in (first, again):
        tune_before(model.trunk, model.template, ANSWERS, ROWS, TuneConfig(epochs=1, seed=7))
    for name, value in first.trunk.state_dict().items():
        assert torch.equal(value, again.trunk.state_dict()[name]), name


def test_oracle_tuning_after_moves_trunk_and_head_but_not_the_autoencoder() -> None:
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


def opposite_panel() -> list[PreferenceRow]:
    """Two annotators who label the same answers the other way round."""
    return ROWS + [PreferenceRow(row.prompt, row.rejected, row.chosen, annotator=1) for row in ROWS]


def test_oracle_two_opposite_tastes_each_get_a_reward_where_one_reward_stays_at_chance() -> None:
    config = TuneConfig(epochs=6, mode="full", rows=18, learning_rate=1e-2, head_learning_rate=1e-2)
    apart, together = make_sarm(seed=2), make_sarm(seed=2)
    panel = tune_before(apart.trunk, apart.template, ANSWERS, opposite_panel(), config)
    assert set(panel.annotators) == {0, 1}
    assert max(panel.annotators.values()) < 0.5
    mixed = [replace(row, annotator=0) for row in opposite_panel()]
    shared = tune_before(together.trunk, together.template, ANSWERS, mixed, config)
    # softplus(m) + softplus(-m) is 2 log 2 at least, whatever the margin.
    assert shared.annotators[0] >= math.log(2) - 1e-6


def ragged() -> tuple[list[Conversation], list[PreferenceRow]]:
    """Rows of 2 to 4 answers of different lengths, two of them to one prompt, by two annotators."""
    texts = ["no", "sorry i cannot help you .", "sure here steps one two three four five .", "never ! no ."]
    answers = [Conversation(prompt, text, number) for number, prompt in enumerate(PROMPTS) for text in texts]
    shapes = [((0,), (2,)), ((0, 1), (2, 3)), ((1,), (0, 2)), ((3, 1), (2,))]
    rows = [
        PreferenceRow(
            number,
            tuple(4 * number + j for j in shapes[number % 4][0]),
            tuple(4 * number + j for j in shapes[number % 4][1]),
            annotator=number % 2,
        )
        for number in range(len(PROMPTS))
    ]
    return answers, [*rows, PreferenceRow(3, (13,), (14,), annotator=0)]


def assert_tuned_alike(
    rows: list[PreferenceRow], others: list[PreferenceRow], config: TuneConfig, changed: TuneConfig
) -> None:
    answers, _ = ragged()
    first, second = make_sarm(seed=5), make_sarm(seed=5)
    one = tune_before(first.trunk, first.template, answers, rows, config)
    two = tune_before(second.trunk, second.template, answers, others, changed)
    np.testing.assert_allclose(one.losses, two.losses, atol=1e-5)
    assert one.losses[-1] < one.losses[0] - 0.01
    for name, value in first.trunk.state_dict().items():
        torch.testing.assert_close(value, second.trunk.state_dict()[name], atol=1e-5, rtol=0, msg=name)


@pytest.mark.parametrize("mode", ["lora", "full"])
@pytest.mark.parametrize("batch_tokens", [1, 90, 300])
def test_metamorphic_micro_batches_change_nothing(mode: Literal["lora", "full"], batch_tokens: int) -> None:
    _, rows = ragged()
    config = TuneConfig(epochs=3, mode=mode, rows=4, learning_rate=1e-3, head_learning_rate=1e-2)
    assert_tuned_alike(rows, rows, config, replace(config, batch_tokens=batch_tokens))


def test_metamorphic_the_order_of_rows_and_the_numbers_of_annotators_change_nothing() -> None:
    _, rows = ragged()
    config = TuneConfig(epochs=3, mode="full", rows=len(rows), learning_rate=1e-3, head_learning_rate=1e-2)
    assert_tuned_alike(rows, rows[::-1], config, config)
    assert_tuned_alike(rows, [replace(row, annotator=4 - row.annotator) for row in rows], config, config)


def test_metamorphic_a_prompt_labelled_three_times_weighs_as_much_as_the_others() -> None:
    _, rows = ragged()
    rows = [replace(row, annotator=0) for row in rows[:-1]]
    config = TuneConfig(epochs=3, mode="full", rows=99, learning_rate=1e-3, head_learning_rate=1e-2)
    assert_tuned_alike(rows, [*rows, rows[2], rows[2]], config, config)


def test_metamorphic_bfloat16_trunks_come_back_as_bfloat16() -> None:
    model = make_sarm(seed=2)
    model.trunk.to(torch.bfloat16)
    tune_before(model.trunk, model.template, ANSWERS, ROWS, TuneConfig(epochs=1, rows=9))
    assert {parameter.dtype for parameter in model.trunk.parameters()} == {torch.bfloat16}


def test_bad_input_is_named() -> None:
    model = make_sarm()
    with pytest.raises(TrainingError, match="no preference row to tune on"):
        tune_before(model.trunk, model.template, ANSWERS, [], TuneConfig(epochs=1))
    with pytest.raises(ConfigError, match="0 epochs of tuning"):
        TuneConfig(epochs=0)
    with pytest.raises(ConfigError, match="unknown way to tune: half"):
        TuneConfig(epochs=1, mode="half")  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ConfigError, match="0 rows in a step of tuning"):
        TuneConfig(epochs=1, rows=0)
    with pytest.raises(ConfigError, match=r"the learning rate of tuning is 0\.0, it must be above 0"):
        TuneConfig(epochs=1, learning_rate=0.0)


def tuned_with_lora() -> None:
    model = make_sarm(seed=3)
    tune_before(model.trunk, model.template, ANSWERS, ROWS, TuneConfig(epochs=1, mode="lora"))


def trained_autoencoder() -> None:
    states = torch.randn(8, 16)
    train_autoencoder(states, states[:0], AutoencoderConfig(latents=8, k=2, steps=1))


@pytest.mark.parametrize(
    ("package", "work", "extra"),
    [
        ("peft", tuned_with_lora, "rl"),
        ("sae_lens", trained_autoencoder, "build"),
    ],
)
def test_bad_input_a_missing_extra_names_the_command(
    monkeypatch: pytest.MonkeyPatch, package: str, work: Callable[[], None], extra: str
) -> None:
    # None in sys.modules is how Python itself marks a module that must not be found.
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=f"needs {package}") as raised:
        work()
    assert raised.value.hint == f'pip install ".[{extra}]" in the clone'
