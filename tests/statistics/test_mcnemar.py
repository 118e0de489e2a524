"""Exact McNemar: oracle by hand and against statsmodels, property (hypothesis), bad input."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar

from sarm_control.errors import DataError
from sarm_control.statistics.mcnemar import flips

binary = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40)


def test_oracle_by_hand() -> None:
    # Five units gain, one loses: 2 (C(6,0) + C(6,1)) / 2^6.
    found = flips([0, 0, 0, 0, 0, 1, 1, 0], [1, 1, 1, 1, 1, 0, 1, 0])
    assert (found.n, found.gained, found.lost) == (8, 5, 1)
    assert found.p == pytest.approx(2 * 7 / 64)


@settings(deadline=None, max_examples=60)
@given(binary)
def test_oracle_statsmodels_on_right_and_wrong(units: list[tuple[bool, bool]]) -> None:
    before, after = np.array(units, dtype=float).T
    table = [[sum(x == (i, j) for x in units) for j in (True, False)] for i in (True, False)]
    found = flips(before, after)
    assert (found.gained, found.lost) == (table[1][0], table[0][1])
    assert found.p == pytest.approx(min(1.0, mcnemar(table, exact=True).pvalue))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30))
def test_property_the_other_way_round_gains_and_losses_swap(units: list[tuple[float, float]]) -> None:
    before, after = np.array(units).T
    there, back = flips(before, after), flips(after, before)
    assert (there.gained, there.lost) == (back.lost, back.gained)
    assert there.p == pytest.approx(back.p)


def test_nothing_changed_is_no_evidence() -> None:
    assert flips([0.5, 1.0], [0.5, 1.0]) == (2, 0, 0, 1.0)


def test_other_units_are_refused() -> None:
    with pytest.raises(DataError, match="2 units before but 1 after"):
        flips([0, 1], [1])
