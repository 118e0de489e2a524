"""Penalties: oracles by hand, properties, and a message for every mistake."""

from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sarm_control.control import Penalty, parse_penalty
from sarm_control.errors import ConfigError

Z = np.array([-1000.0, 0.0, 3.0, 3.5, 1000.0])


def test_oracle_the_three_forms() -> None:
    np.testing.assert_allclose(Penalty(5, 3.0, 0.1).amount(Z), [0, 0, 0, 0.1, 0.1])
    np.testing.assert_allclose(Penalty(5, 3.0, 0.1, "hinge").amount(Z), [0, 0, 0, 0.05, 99.7])
    sigmoid = Penalty(5, 3.0, 0.1, "sigmoid", temperature=0.5).amount(Z)
    np.testing.assert_allclose(sigmoid, [0, 0.1 / (1 + np.exp(6)), 0.05, 0.1 / (1 + np.exp(-1)), 0.1])


def test_oracle_what_fires_is_above_the_threshold() -> None:
    for penalty in (Penalty(5, 3.0, 0.1), Penalty(5, 3.0, 0.1, "hinge")):
        assert penalty.fires(Z).tolist() == [False, False, False, True, True]


@pytest.mark.parametrize(("tau", "level"), [("q0", 0.0), ("q1", 1.0), ("q0.25", 0.25), (3.0, None)])
def test_a_quantile_lies_from_0_to_1(tau: float | str, level: float | None) -> None:
    assert Penalty(5, tau, 0.1).quantile == level


@given(st.lists(st.floats(-10, 10), min_size=1), st.sampled_from(["indicator", "hinge", "sigmoid"]))
def test_property_a_charge_is_never_negative_and_grows_with_z(
    z: list[float], form: Literal["indicator", "hinge", "sigmoid"]
) -> None:
    amount = Penalty(5, 1.0, 0.3, form).amount(np.sort(z))
    assert np.all(amount >= 0)
    assert np.all(np.diff(amount) >= 0)


@given(st.floats(-10, 10), st.floats(0.001, 5))
def test_metamorphic_a_charge_is_linear_in_alpha(z: float, alpha: float) -> None:
    one = Penalty(5, 1.0, 1.0, "sigmoid").amount(np.array([z]))
    np.testing.assert_allclose(Penalty(5, 1.0, alpha, "sigmoid").amount(np.array([z])), alpha * one)


def test_metamorphic_a_cold_sigmoid_is_the_indicator() -> None:
    cold = Penalty(5, 3.1, 0.1, "sigmoid", temperature=1e-6).amount(Z)
    np.testing.assert_allclose(cold, Penalty(5, 3.1, 0.1).amount(Z), atol=1e-12)


@pytest.mark.parametrize(
    ("text", "penalty"),
    [
        ("48659:tau=3,alpha=0.1", Penalty(48659, tau=3.0, alpha=0.1)),
        ("48659:alpha=0.5sd, tau=q0.9, form=hinge", Penalty(48659, "q0.9", "0.5sd", "hinge")),
        ("7:tau=-1,alpha=2,form=sigmoid,temperature=0.5", Penalty(7, -1.0, 2.0, "sigmoid", 0.5)),
    ],
)
def test_command_line_forms(text: str, penalty: Penalty) -> None:
    assert parse_penalty(text) == penalty


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5:tau=3,alpha=-0.1", "^penalty on latent 5: alpha is -0.1, it must be >= 0$"),
        ("5:tau=3,alpha=-0.1sd", "^penalty on latent 5: alpha is -0.1, it must be >= 0$"),
        ("5:tau=3,alpa=0.1", r"^penalty on latent 5: unknown key 'alpa'; did you mean alpha\?$"),
        ("5:tau=3,alpha=lots", "alpha is 'lots', it must be a number or a number of SDs such as 0.5sd"),
        ("5:tau=high,alpha=1", "tau is 'high', it must be a number or a quantile such as q0.9"),
        ("5:tau=q90,alpha=1", "tau is 'q90', a quantile lies in 0..1"),
        ("5:tau=q1.5,alpha=1", "tau is 'q1.5', a quantile lies in 0..1"),
        ("5:tau=q-0.5,alpha=1", "tau is 'q-0.5', a quantile lies in 0..1"),
        ("5:tau=nan,alpha=1", "tau is 'nan', it must be finite"),
        ("5:tau=1,alpha=1,form=step", "form is 'step', input should be 'indicator', 'hinge' or 'sigmoid'"),
        ("5:tau=1,alpha=1,temperature=0", "temperature is 0, it must be > 0"),
        ("5:tau=1,alpha=1,temperature=-1", "temperature is -1, it must be > 0"),
        ("5:tau=1", "penalty on latent 5: alpha is missing"),
        ("5", "penalty on latent 5: tau is missing"),
        ("5:tau=1,tau=2,alpha=1", "tau is given twice"),
        ("5:tau=,alpha=1", "tau has no value"),
        ("5:tau,alpha=1", "tau has no value"),
        ("high:tau=1,alpha=1", "does not begin with a latent number"),
    ],
)
def test_bad_text_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_penalty(text)


def test_a_symbolic_penalty_asks_to_be_resolved() -> None:
    with pytest.raises(ConfigError, match="not numbers yet") as caught:
        Penalty(5, "q0.9", 0.1).amount(Z)
    assert "resolve" in str(caught.value.hint)
