"""Reference statistics: oracle values, an exact round trip, and messages."""

from pathlib import Path

import numpy as np
import pytest

from sarm_control.control import ReferenceStatistics
from sarm_control.errors import ConfigError, DataError
from tests.control.batches import random_scored, scored_from


def test_oracle_moments_and_quantiles_over_all_answers() -> None:
    scored = scored_from(np.array([[0.0], [0.0], [0.0], [4.0]]), np.array([0.5]))
    reference = ReferenceStatistics.from_scored(scored, [0])
    assert (reference.n, reference.mean) == (4, 0.5)
    assert reference.sd == pytest.approx(1.0)
    assert reference.quantile(0, 0.5) == 0.0
    assert reference.quantile(0, 1.0) == 4.0
    assert reference.quantile(0, 0.9) == pytest.approx(0.7 * 4)


def test_round_trip_is_exact(tmp_path: Path) -> None:
    reference = ReferenceStatistics.from_scored(random_scored(3), [4, 1, 4])
    reference.save(tmp_path / "reference.json")
    assert ReferenceStatistics.load(tmp_path / "reference.json") == reference


def test_bad_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least 2 answers, there are 1"):
        ReferenceStatistics.from_scored(random_scored(3, n=1))
    with pytest.raises(DataError, match="rewards are all equal or not finite"):
        ReferenceStatistics.from_scored(scored_from(np.ones((3, 2))))
    with pytest.raises(ConfigError, match="hold no values of latent 2"):
        ReferenceStatistics.from_scored(random_scored(3), [1]).quantile(2, 0.5)
    (tmp_path / "reference.json").write_text('{"n": 2}')
    with pytest.raises(DataError, match=r"reference\.json: not reference statistics"):
        ReferenceStatistics.load(tmp_path / "reference.json")
