"""Oracle and properties of the adaptive KL coefficient."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sarm_control.training.algorithm.losses import next_kl_coef

coefs = st.floats(1e-6, 1e3)
kls = st.floats(-100, 100)
targets = st.floats(1e-3, 100)


def test_oracle_numbers_of_the_paper() -> None:
    """e = clip((KL - target) / target, -0.2, 0.2); coef (1 + 0.1 e)."""
    assert next_kl_coef(0.15, 6.6, 6.0) == pytest.approx(0.15 * 1.01)
    assert next_kl_coef(0.15, 60.0, 6.0) == pytest.approx(0.15 * 1.02)
    assert next_kl_coef(0.15, -1.0, 6.0) == pytest.approx(0.15 * 0.98)
    assert next_kl_coef(0.15, 6.0, 6.0) == 0.15


@given(coefs, kls, targets)
def test_property_a_step_is_bounded_and_towards_the_target(coef: float, kl: float, target: float) -> None:
    after = next_kl_coef(coef, kl, target)
    assert 0.98 * coef * (1 - 1e-12) <= after <= 1.02 * coef * (1 + 1e-12)
    assert (after - coef) * (kl - target) >= 0
    assert after > 0


@given(coefs, targets, kls, kls)
def test_property_more_divergence_never_lowers_the_coefficient(
    coef: float, target: float, one: float, other: float
) -> None:
    low, high = sorted((one, other))
    assert next_kl_coef(coef, low, target) <= next_kl_coef(coef, high, target)


@given(coefs, kls)
def test_property_without_a_target_nothing_moves(coef: float, kl: float) -> None:
    assert next_kl_coef(coef, kl, None) == coef


@pytest.mark.long
@given(st.floats(0.01, 1.0), st.floats(0.5, 4.0))
def test_property_a_policy_that_obeys_is_brought_to_the_target(start: float, target: float) -> None:
    """KL that falls as the coefficient rises, `1 / coef`, settles where it should."""
    coef = start
    for _ in range(600):
        coef = next_kl_coef(coef, 1 / coef, target)
    assert 1 / coef == pytest.approx(target, rel=0.02)
