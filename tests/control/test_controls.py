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


def test_oracle_rates_count_values_above_0_and_variances_are_shares_of_the_totals() -> None:
    z = np.array([[0.5, 0.0], [-0.5, 1.0], [0.0, 1.0], [2.0, 0.0]])
    scored = scored_from(z, np.array([1.0, 0.5]))
    controls = Controls(edits=[Edit(1, add=0.0)], penalties=[Penalty(0, tau=0.5, alpha=0.25, form="hinge")])
    shaped = controls.shape(scored)
    total, amount = np.array([0.5, 0.0, 0.5, 2.0 - 0.375]), np.array([0.0, 0.0, 0.0, 0.375])
    np.testing.assert_allclose(shaped.total, total)
    assert (shaped.info["latent/0/rate"], shaped.info["latent/1/rate"]) == (0.5, 0.5)
    # a value at the threshold does not fire
    assert shaped.info["penalty/0/rate"] == 0.25
    assert shaped.info["penalty/0/variance_share"] == pytest.approx(amount.var() / total.var())
    # rewards that are all equal have no variance to share
    flat = Controls(penalties=[Penalty(0, tau=0.0, alpha=1.0)]).shape(scored_from(np.array([[1.0], [1.0]])))
    assert flat.info["penalty/0/variance_share"] == 0.0


@pytest.mark.long
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


@pytest.mark.parametrize("form", ["indicator", "hinge", "sigmoid"])
def test_oracle_an_alpha_in_sds_is_that_many_sds_whatever_the_form(form: Any) -> None:
    reference = ReferenceStatistics.from_scored(scored_from(np.array([[0.0], [2.0], [4.0]]), np.array([1.0])))
    resolved = Controls(penalties=[Penalty(0, 1.0, "0.5sd", form)]).resolve(reference)
    assert resolved.penalties[0].alpha == pytest.approx(0.5 * 2.0)
    # what fixes the scale is kept only where something learns
    assert resolved.reward_sd is None
    assert Controls(penalties=[Penalty(0, 1.0, target_rate=0.1)]).resolve(reference).reward_sd == reference.sd


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


def test_a_state_that_learns_nothing_is_no_state_for_the_human_kl_term() -> None:
    with pytest.raises(ConfigError, match="human_kl needs the state of a run"):
        EVERYTHING.shape(random_scored(0), ControlState())


def test_the_rows_held_out_by_no_seed_are_those_of_seed_0() -> None:
    def learnt(*seed: int) -> ControlState:
        state = EVERYTHING.start(HumanBuffer.from_scored(random_scored(90, n=100), range(6)), *seed)
        state.learn(random_scored(91, n=60))
        return state

    names = [
        {name: array.tobytes() for name, array in learnt(*seed).state_dict().items()}
        for seed in ((), (0,), (1,), (-1,))
    ]
    assert names[0] == names[1]
    assert names[0] not in names[2:]


def test_shaping_checks_the_latents_and_the_head() -> None:
    with pytest.raises(ConfigError, match="latent 10 does not exist: this reward model has 10 latents"):
        Controls(edits=[Edit(10, set=0.0)]).shape(random_scored(0))
    for other in ("head-b", "head-0"):
        with pytest.raises(ModelError, match=f"made for head {other}, this reward model has head-a"):
            Controls(fingerprint=other).shape(random_scored(0))
    # a head that nobody names is not compared
    Controls(fingerprint="head-b").check(10)


def test_controls_that_clash_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^latent 5 has two edits$"):
        Controls(edits=[Edit(5, max=1.0), Edit(5, min=0.0)])
    with pytest.raises(ConfigError, match=r"^latent 5 has two penalties of the form hinge$"):
        Controls(penalties=[Penalty(5, 1, 1, "hinge"), Penalty(5, 2, 1, "hinge")])
    with pytest.raises(ConfigError, match=r"^controls: unknown key 'edit'; did you mean edits\?$"):
        Controls(edit=[])  # type: ignore[call-arg]  # wrong on purpose
    with pytest.raises(ConfigError, match=r"^controls penalties\[0\]: unknown key 'alfa'"):
        Controls(penalties=[{"latent": 1, "tau": 1, "alfa": 1}])  # type: ignore[list-item]  # wrong on purpose


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
        ({"human_kl": 3}, "^human_kl must be a mapping with keys, not 3$"),
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
    silent: tuple[dict[str, Any], ...] = (
        {"alpha": 0.2},
        {"pays": None},
        {"form": "hinge"},
        {"form": "sigmoid"},
        {"alpha": None, "target_rate": 0.1},
    )
    for fields in silent:
        assert told(**fields) == ()
    assert told((Edit(5, max=1.0),)) == told((Edit(5, set=0.0),)) == ()
    assert "less than the 0.18 " in told((Edit(5, max=1.8), Edit(6, set=0.0)))[0]
    # what similar latents add comes on top of what an edit leaves
    similar = "less than the 0.22 that the latent and similar ones typically add: firing"
    assert similar in told((Edit(5, max=1.2),), pays=(0.2, 0.1))[0]
    assert told(pays=(0.1, 0.05), alpha=0.15) == ()
    # a latent without weight is not turned into z
    head[5] = 0.0
    assert len(told((Edit(5, max=1.0),))) == 1


def test_every_charge_that_is_too_small_is_told_whatever_stands_before_it() -> None:
    controls = Controls(
        penalties=[
            Penalty("residual", 0.0, 0.1, pays=0.2),
            Penalty(1, 0.0, 0.1),
            Penalty(5, 0.0, 0.15, pays=0.2),
            Penalty(6, 0.0, 0.15, pays=0.3),
        ]
    )
    told = controls.shortfalls(np.full(8, 0.1))
    assert [line.partition(",")[0] for line in told] == [
        "the penalty on latent 5 takes 0.15",
        "the penalty on latent 6 takes 0.15",
    ]
