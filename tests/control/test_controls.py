"""Controls as a whole: columns that sum, order and neighbours that do not matter, messages."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from sarm_control.control import Controls, ControlState, Edit, HumanKL, Penalty, ReferenceStatistics
from sarm_control.errors import ConfigError, ModelError
from sarm_control.latents import HumanBuffer
from tests.control.batches import random_scored, scored_from

EVERYTHING = Controls(
    edits=[Edit(1, max=0.5), Edit(2, add=0.3)],
    penalties=[Penalty(3, 0.2, 0.7), Penalty(3, 0.1, 0.4, "hinge"), Penalty(1, 0.3, 0.2, "sigmoid")],
    human_kl=HumanKL(0.3),
)


def started(controls: Controls = EVERYTHING) -> ControlState:
    state = controls.start(HumanBuffer.from_scored(random_scored(90, n=100), range(6)))
    state.learn(random_scored(91, n=60))
    return state


def test_oracle_two_answers_by_hand() -> None:
    scored = scored_from(np.array([[3.0, 1.0], [0.0, 2.0]]), np.array([0.5, -1.0]))
    controls = Controls(edits=[Edit(0, max=2.0)], penalties=[Penalty(0, tau=2.5, alpha=0.1)])
    shaped = controls.shape(scored)
    np.testing.assert_allclose(shaped.reward_model, [0.5, -2.0])
    np.testing.assert_allclose(shaped.edited, [0.0, -2.0])
    np.testing.assert_allclose(shaped.penalties, [[0.1], [0.0]])
    np.testing.assert_allclose(shaped.total, [-0.1, -2.0])
    assert shaped.log_ratio is None
    assert shaped.info["latent/0/rate"] == 0.5
    assert shaped.info["penalty/0/rate"] == 0.5
    assert shaped.info["reward/penalty/0"] == pytest.approx(-0.05)
    assert shaped.info["reward/total"] == pytest.approx(-1.05)


@given(st.integers(0, 30))
def test_property_the_columns_sum_to_the_total(seed: int) -> None:
    columns = EVERYTHING.shape(random_scored(seed), started()).columns()
    total = columns.pop("reward/total")
    assert list(columns) == [
        "reward/model", "reward/edits", "reward/penalty/3", "reward/penalty/1", "reward/human_kl",
    ]  # fmt: skip
    np.testing.assert_allclose(sum(columns.values()), total, atol=1e-9)


@pytest.mark.long
@given(st.integers(0, 10), st.permutations(range(12)))
def test_metamorphic_the_order_of_rows_permutes_the_result(seed: int, order: list[int]) -> None:
    scored, state = random_scored(seed), started()
    whole = EVERYTHING.shape(scored, state)
    permuted = EVERYTHING.shape(scored.take(np.array(order)), state)
    for name, column in permuted.columns().items():
        np.testing.assert_allclose(column, whole.columns()[name][order], atol=1e-12, err_msg=name)


def test_metamorphic_another_row_changes_no_row() -> None:
    scored, state = random_scored(4), started()
    whole, part = EVERYTHING.shape(scored, state), EVERYTHING.shape(scored.take(np.arange(11)), state)
    for name, column in part.columns().items():
        np.testing.assert_allclose(column, whole.columns()[name][:11], atol=1e-12, err_msg=name)


@pytest.mark.parametrize(
    "nothing",
    [
        Controls(),
        Controls(penalties=[Penalty(3, 0.0, 0.0), Penalty(4, 0.0, 0.0, "hinge")]),
        Controls(edits=[Edit(3, scale=1.0), Edit(4, add=0.0)]),
    ],
)
def test_metamorphic_controls_of_strength_zero_are_the_identity(nothing: Controls) -> None:
    scored = random_scored(1)
    np.testing.assert_array_equal(nothing.shape(scored).total, scored.rewards.astype(np.float64))


def test_beta_zero_is_the_identity_whatever_was_learnt() -> None:
    controls = Controls(human_kl=HumanKL(0.0))
    scored = random_scored(1)
    np.testing.assert_array_equal(controls.shape(scored, started(controls)).total, scored.rewards)


def test_penalties_read_the_unedited_latent() -> None:
    scored = scored_from(np.array([[3.0], [0.0]]), np.array([1.0]))
    controls = Controls(edits=[Edit(0, set=0.0)], penalties=[Penalty(0, 1.0, 0.5)])
    np.testing.assert_allclose(controls.shape(scored).total, [-0.5, 0.0])


def test_oracle_resolve_uses_quantiles_and_sds_of_the_reference() -> None:
    z = np.zeros((5, 2))
    z[3:, 0] = [2.0, 4.0]
    reference = ReferenceStatistics.from_scored(scored_from(z, np.array([1.0, 0.0])), [0])
    symbolic = Controls(
        penalties=[Penalty(0, "q0.75", "0.5sd"), Penalty(1, 3.0, 0.1)], human_kl=HumanKL("0.1sd")
    )
    resolved = symbolic.resolve(reference)
    sd = np.std([0, 0, 0, 2, 4], ddof=1)
    assert resolved.penalties[0].tau == 2.0
    assert resolved.penalties[0].alpha == pytest.approx(0.5 * sd)
    assert resolved.penalties[1] == symbolic.penalties[1]
    assert resolved.human_kl is not None
    assert resolved.human_kl.beta == pytest.approx(0.1 * sd)
    assert resolved.resolve(reference) == resolved


@pytest.mark.parametrize(
    "symbolic",
    [
        Controls(penalties=[Penalty(0, "q0.9", 0.1)]),
        Controls(penalties=[Penalty(0, 1.0, "0.5sd")]),
        Controls(human_kl=HumanKL("0.1sd")),
    ],
)
def test_shaping_before_resolving_is_refused(symbolic: Controls) -> None:
    with pytest.raises(ConfigError, match="still given as a quantile or in SDs") as caught:
        symbolic.shape(random_scored(0))
    assert "controls.resolve(" in str(caught.value.hint)


@pytest.mark.parametrize(
    "controls",
    [
        Controls(edits=[Edit(70000, set=0.0)]),
        Controls(penalties=[Penalty(70000, 1.0, 0.1)]),
        Controls(human_kl=HumanKL(0.1, (1, 70000))),
    ],
)
def test_a_latent_that_does_not_exist_is_named(controls: Controls) -> None:
    message = r"^latent 70000 does not exist: this reward model has 65536 latents \(0\.\.65535\)$"
    with pytest.raises(ConfigError, match=message):
        controls.check(65536, "head-a")
    controls.check(70001, "head-a")


def test_shaping_checks_the_latents_and_the_head() -> None:
    with pytest.raises(ConfigError, match="latent 10 does not exist: this reward model has 10 latents"):
        Controls(edits=[Edit(10, set=0.0)]).shape(random_scored(0))
    with pytest.raises(ModelError, match="made for head head-b, this reward model has head-a"):
        Controls(fingerprint="head-b").shape(random_scored(0))


def test_controls_that_clash_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^latent 5 has two edits$"):
        Controls(edits=[Edit(5, max=1.0), Edit(5, min=0.0)])
    with pytest.raises(ConfigError, match=r"^latent 5 has two penalties of the form hinge$"):
        Controls(penalties=[Penalty(5, 1, 1, "hinge"), Penalty(5, 2, 1, "hinge")])
    with pytest.raises(ConfigError, match=r"^controls: unknown key 'edit'; did you mean edits\?$"):
        Controls(edit=[])  # type: ignore[call-arg]  # wrong on purpose


def test_latents_are_those_of_every_control() -> None:
    controls = Controls([Edit(7, set=0.0)], [Penalty(3, "q0.9", 1.0)], HumanKL(0.1, (9, 3)))
    assert controls.latents() == (3, 7, 9)
    assert controls.quantile_latents() == (3,)


def test_controls_survive_plain_values_and_a_pydantic_model() -> None:
    controls = Controls(
        edits=[Edit(7, min=0.0, max=2.0)],
        penalties=[Penalty(3, "q0.9", "0.5sd", "sigmoid", 0.5)],
        human_kl=HumanKL("0.1sd", (9, 3), mode="batch"),
        fingerprint="head-a",
    )
    assert Controls.from_dict(json.loads(json.dumps(controls.to_dict()))) == controls
    assert Controls.from_dict(Controls().to_dict()) == Controls()

    class Run(BaseModel):
        controls: Controls

    run = Run(controls=controls)
    assert Run.model_validate_json(run.model_dump_json()) == run
    assert hash(controls) == hash(run.controls)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"edits": [{"latent": 1, "set": 0}, {"latent": 2, "set": 0, "max": 1}]},
         r"^edits\[1\]: edit of latent 2: set and max cannot be combined$"),
        ({"penalties": [{"latent": 1, "tau": 1, "alpha": -0.1}]},
         r"^penalties\[0\]: penalty on latent 1: alpha is -0.1, it must be >= 0$"),
        ({"penalties": [{"latent": 1, "tau": 1, "alfa": 0.1}]}, r"unknown key 'alfa'; did you mean alpha\?"),
        ({"penaltys": []}, r"^controls: unknown key 'penaltys'; did you mean penalties\?$"),
        ({"edits": {"latent": 1}}, "^edits must be a list$"),
        ({"edits": ["1=0"]}, r"^edits\[0\] must be a mapping with keys, not '1=0'$"),
    ],
)  # fmt: skip
def test_bad_plain_values_are_named_with_their_place(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Controls.from_dict(values)


def test_a_charge_below_what_the_latent_pays_is_told_unless_an_edit_takes_the_payment() -> None:
    head = np.full(8, 0.1)

    def told(edits: tuple[Edit, ...] = (), **fields: Any) -> tuple[str, ...]:
        values: dict[str, Any] = {"latent": 5, "tau": 0.0, "alpha": 0.15, "pays": 0.2, **fields}
        penalty = Penalty(**values)
        return Controls(edits=edits, penalties=[penalty]).shortfalls(head)

    assert told() == (
        "the penalty on latent 5 takes 0.15, less than the 0.2 that the latent typically adds: "
        "firing still raises the reward; give a larger alpha",
    )
    for fields in ({"alpha": 0.2}, {"pays": None}, {"form": "hinge"}, {"alpha": None, "target_rate": 0.1}):
        assert told(**fields) == ()
    assert told((Edit(5, max=1.0),)) == told((Edit(5, set=0.0),)) == ()
    assert "less than the 0.18 " in told((Edit(5, max=1.8), Edit(6, set=0.0)))[0]
