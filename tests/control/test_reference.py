"""Reference statistics: oracle values, an exact round trip, and messages."""

from pathlib import Path

import numpy as np
import pytest

from sarm_control.control import ReferenceStatistics
from sarm_control.errors import ConfigError, DataError, ModelError
from tests.control.batches import random_scored, scored_from


def test_oracle_moments_and_quantiles_over_all_answers() -> None:
    scored = scored_from(np.array([[0.0], [0.0], [0.0], [4.0]]), np.array([0.5]))
    reference = ReferenceStatistics.from_scored(scored, [0])
    assert (reference.n, reference.mean) == (4, 0.5)
    assert reference.sd == pytest.approx(1.0)
    assert reference.quantile(0, 0.5) == 0.0
    assert reference.quantile(0, 1.0) == 4.0
    assert reference.quantile(0, 0.9) == pytest.approx(0.7 * 4)


def test_oracle_values_are_kept_ascending_and_two_answers_are_enough() -> None:
    z = np.array([[4.0, 0.0], [0.0, 3.0], [1.0, -2.0]])
    reference = ReferenceStatistics.from_scored(scored_from(z), [1, 0])
    assert dict(reference.latents) == {0: (0.0, 1.0, 4.0), 1: (-2.0, 0.0, 3.0)}
    two = ReferenceStatistics.from_scored(scored_from(np.array([[0.0], [0.25]]), np.array([1.0])))
    assert (two.n, two.sd) == pytest.approx((2, 0.25 / 2**0.5))


def test_statistics_of_another_head_are_refused() -> None:
    reference = ReferenceStatistics.from_scored(random_scored(3))
    reference.check("head-a")
    for other in ("head-0", "head-b"):
        with pytest.raises(ModelError, match=f"statistics of head head-a, but this reward model has {other}"):
            reference.check(other)


def test_round_trip_is_exact(tmp_path: Path) -> None:
    reference = ReferenceStatistics.from_scored(random_scored(3), [4, 1, 4])
    reference.save(tmp_path / "reference.json")
    assert ReferenceStatistics.load(tmp_path / "reference.json") == reference


def test_bad_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least 2 answers, there are 1"):
        ReferenceStatistics.from_scored(random_scored(3, n=1))
    with pytest.raises(DataError, match="rewards are all equal or not finite"):
        ReferenceStatistics.from_scored(scored_from(np.ones((3, 2))))
    with pytest.raises(DataError, match="rewards are all equal or not finite"):
        ReferenceStatistics.from_scored(scored_from(np.array([[1.0, 2.0], [np.nan, 1.0]])))
    with pytest.raises(ConfigError, match="hold no values of latent 2"):
        ReferenceStatistics.from_scored(random_scored(3), [1]).quantile(2, 0.5)
    (tmp_path / "reference.json").write_text('{"n": 2}')
    with pytest.raises(DataError, match=r"reference\.json: not reference statistics"):
        ReferenceStatistics.load(tmp_path / "reference.json")
