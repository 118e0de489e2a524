"""The present value of a drifting mean: exact on lines (property), honest about noise (oracle)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sarm_control.control.discriminator import Means, present_value


@given(st.integers(3, 40), st.floats(-5, 5), st.floats(-1, 1), st.floats(0.5, 50))
def test_property_a_line_is_followed_to_its_end(count: int, start: float, slope: float, half: float) -> None:
    line = start + slope * np.arange(count, dtype=np.float64)
    found = present_value(Means(line, np.zeros(count)), half_life=half)
    assert found.value == pytest.approx(line[-1], abs=1e-6)


def test_two_batches_are_averaged_by_age() -> None:
    found = present_value(Means(np.array([0.0, 3.0]), np.ones(2)), half_life=1.0)
    assert found.value == pytest.approx(2.0)
    assert found.variance == pytest.approx(1 / 9 + 4 / 9)


def test_oracle_the_variance_is_that_of_repeated_draws() -> None:
    rng = np.random.default_rng(0)
    spread = np.linspace(0.5, 1.5, 20)
    draws = [present_value(Means(rng.normal(0, spread), spread**2), half_life=6.0) for _ in range(4000)]
    assert np.var([one.value for one in draws]) == pytest.approx(draws[0].variance, rel=0.08)


def test_oracle_means_of_batches() -> None:
    rng = np.random.default_rng(1)
    batches = [rng.normal(size=5), rng.normal(size=8), np.array([2.0])]
    found = Means.of(batches)
    np.testing.assert_allclose(found.values, [b.mean() for b in batches])
    np.testing.assert_allclose(found.variances[:2], [b.var(ddof=1) / len(b) for b in batches[:2]])
    assert found.variances[2] == pytest.approx(np.concatenate(batches).var())
