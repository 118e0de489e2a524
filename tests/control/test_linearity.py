"""Whether the log ratio is linear: laws of known divergence (oracle), and linear ones that must pass."""

import math

import numpy as np
import pytest
from kl_laws import CoFiring, HeavyTails, Law, Spread, TwoModes, five, further

from sarm_control import KLEstimate, estimate_kl
from sarm_control.control import LogRatio
from sarm_control.control.density_ratio.model_check.linearity import LEVEL, Linearity, Rows, check_linear
from sarm_control.control.density_ratio.separation import excess, sure_bound
from sarm_control.latents import HumanBuffer
from tests.control.batches import laws_with_kl

LAWS = five()


def name_of(law: Law) -> str:
    return law.name


def drawn(law: Law, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([seed, 70])
    return law.draw(rows, True, rng), law.draw(rows, False, rng)


def found(law: Law, rows: int = 1024, seed: int = 0) -> KLEstimate:
    return estimate_kl(*drawn(law, rows, seed))


def linear(kl: float, width: int, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([seed, 71])
    policy, human = laws_with_kl(kl, width, rng)
    return policy.draw(rows, rng), human.draw(rows, rng)


def checked(policy: np.ndarray, human: np.ndarray) -> Linearity:
    buffer = HumanBuffer(tuple(range(policy.shape[1])), human, "")
    return check_linear(*(Rows.distinct(z, buffer.features(z)) for z in (policy, human)), seed=0)


@pytest.mark.long
@pytest.mark.parametrize("law", [*LAWS, *further()], ids=name_of)
def test_oracle_the_laws_have_the_divergence_they_name(law: Law) -> None:
    policy, human = (law.log_ratio(z.astype(np.float64)) for z in drawn(law, 100_000, 0))
    assert policy.mean() == pytest.approx(law.kl, abs=4 * policy.std() / math.sqrt(len(policy)))
    ratios = np.exp(human)
    assert ratios.mean() == pytest.approx(1.0, abs=5 * ratios.std() / math.sqrt(len(ratios)))


@pytest.mark.long
@pytest.mark.parametrize("law", LAWS, ids=name_of)
def test_oracle_what_a_linear_log_ratio_cannot_see_is_said_and_no_number_is_given_for_it(law: Law) -> None:
    """The mean log ratio of the linear fit is near 0 in all of them."""
    for seed in range(2):
        estimate = found(law, seed=seed)
        assert abs(estimate.log_ratio.mean()) < 0.05
        assert estimate.model_fits is False
        assert estimate.bound
        assert estimate.high == math.inf
        assert 0 < estimate.low == estimate.value <= law.kl
        assert f"at least {estimate.value:.3g} nats" in repr(estimate)
        assert "model_fits=False" in repr(estimate)


@pytest.mark.long
@pytest.mark.parametrize(
    ("law", "least"),
    [(CoFiring(), 0.75), (Spread("collapsed", 5, 0.5), 0.85), (TwoModes(), 0.9), (HeavyTails(), 0.2)],
    ids=["co-firing", "collapsed", "two modes", "heavy tails"],
)
def test_oracle_the_wider_model_sees_most_of_it(law: Law, least: float) -> None:
    seen = [one.wider for one in (found(law, seed=seed) for seed in range(2)) if one.wider is not None]
    assert len(seen) == 2
    assert least * law.kl < np.mean(seen) < 1.3 * law.kl


@pytest.mark.long
def test_a_shift_beside_what_is_not_linear_is_part_of_the_bound() -> None:
    law = further()[-1]
    estimate = found(law)
    assert law.name == "co-firing and a shift"
    assert estimate.model_fits is False
    assert 2.0 < estimate.value <= law.kl


@pytest.mark.long
@pytest.mark.parametrize(("kl", "width"), [(0.0, 16), (0.5, 16), (2.0, 16), (0.5, 64)])
def test_oracle_a_linear_log_ratio_fits(kl: float, width: int) -> None:
    results = [checked(*linear(kl or 1e-9, width, 1024, seed)) for seed in range(12)]
    assert [one.fits for one in results] == [True] * 12
    # as often below a half as above it, or on the safe side
    assert sum(one.p < 0.5 for one in results) <= 10


def test_an_estimate_that_fits_is_the_number_it_was() -> None:
    estimate = estimate_kl(*linear(0.5, 16, 1024, 1))
    assert estimate.model_fits is True
    assert not estimate.bound
    assert estimate.wider is None
    assert estimate.low < 0.5 < estimate.high < 1.0
    assert "at least" not in repr(estimate)
    assert "model_fits=True" in repr(estimate)


def test_few_rows_leave_it_open_whether_the_model_fits() -> None:
    estimate = estimate_kl(*linear(0.3, 8, 100, 0))
    assert estimate.model_fits is None
    assert "model_fits=None" in repr(estimate)


def test_so_do_few_rows_for_many_features() -> None:
    few, many = (checked(*linear(0.3, 60, rows, 0)) for rows in (300, 600))
    assert few.fits is None
    assert 200 < few.in_doubt < 240
    assert many.fits is True


def test_oracle_the_rows_in_doubt_of_unequal_samples_of_one_law() -> None:
    """Every row is of the policy with a chance of 3/4, so that 2 p (1 - p) of each are in doubt."""
    policy, human = (np.random.default_rng(4).normal(size=(n, 2)).astype(np.float32) for n in (600, 200))
    for sides in ((policy, human), (human, policy)):
        found = checked(*sides)
        assert found.in_doubt == pytest.approx(2 * 800 * 3 / 16, rel=0.03)
        assert found.fits is True


def test_rows_that_are_told_apart_cannot_show_that_the_model_fits() -> None:
    policy, human = np.random.default_rng(3).normal(size=(2, 1024, 10)).astype(np.float32)
    estimate = estimate_kl(policy + np.float32(1.2), human)
    assert estimate.saturated
    assert estimate.model_fits is None


def test_few_rows_may_show_that_it_does_not_fit() -> None:
    assert found(CoFiring(), 150).model_fits is False


def test_oracle_samples_of_one_law_that_hold_copies_fit() -> None:
    """A collapsed policy gives each answer several times, which is no departure of its own."""
    for seed in range(4):
        policy, human = np.random.default_rng([seed, 72]).normal(size=(2, 300, 4)).astype(np.float32)
        assert checked(np.repeat(policy, 8, axis=0), human).fits is True


@pytest.mark.long
def test_metamorphic_the_order_of_rows_changes_nothing() -> None:
    policy, human = linear(0.5, 8, 400, 0)
    rng = np.random.default_rng(0)
    assert checked(policy, human).p == checked(rng.permutation(policy), rng.permutation(human)).p
    policy, human = drawn(TwoModes(), 400, 0)
    first, second = estimate_kl(policy, human), estimate_kl(rng.permutation(policy), rng.permutation(human))
    assert first.value == pytest.approx(second.value, abs=1e-3)


@pytest.mark.long
def test_other_estimators_are_not_said_to_fit() -> None:
    policy, human = linear(0.5, 4, 600, 0)
    assert estimate_kl(policy, human, estimator="mahalanobis").model_fits is None
    assert estimate_kl(*drawn(TwoModes(), 600, 0), estimator="mahalanobis").model_fits is False
    assert estimate_kl(policy[:60], human[:60], estimator="mlp").model_fits is None


def test_a_check_begins_where_it_is_told_and_ends_at_the_same() -> None:
    buffer = HumanBuffer((0, 1, 2), linear(0.3, 3, 300, 1)[1], "")
    sides = [Rows.distinct(z, buffer.features(z)) for z in linear(0.3, 3, 300, 1)]
    plain = check_linear(sides[0], sides[1], seed=0)
    start = LogRatio(np.full(6, 0.5), -0.5)
    assert check_linear(sides[0], sides[1], seed=0, start=start).in_doubt == pytest.approx(
        plain.in_doubt, rel=1e-3
    )


def test_the_level_is_what_399_draws_can_show() -> None:
    assert checked(*drawn(CoFiring(), 400, 0)).p == LEVEL == 1 / 400


def test_what_log_ratios_show_at_least() -> None:
    """Whatever they are: of the true ones nearly all, of wrong ones less, of nonsense nothing."""
    law = Spread("wider", 10, 1.25)
    policy, human = (law.log_ratio(z.astype(np.float64)) for z in drawn(law, 20_000, 0))
    assert 0.85 * law.kl < sure_bound(policy, human) < law.kl
    assert 0.0 < sure_bound(0.3 * policy + 5, 0.3 * human + 5) < 0.6 * law.kl
    assert sure_bound(-policy, -human) == 0.0
    assert sure_bound(policy[:1], human) == sure_bound(policy, human[:1]) == 0.0
    assert excess(human) == pytest.approx(0.0, abs=0.05)
    assert excess(np.full(4, 0.7)) == pytest.approx(0.7)
    assert excess(np.full(4, -0.7)) == 0.0
