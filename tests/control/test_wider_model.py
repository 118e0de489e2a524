"""The columns of the wider model: oracle against score tests of a logistic regression, written out."""

import numpy as np
import pytest

from sarm_control.control.density_ratio.logistic import Logistic
from sarm_control.control.density_ratio.model_check.wider import _chosen


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_oracle_columns_come_in_the_order_of_their_score_tests(seed: int) -> None:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(500, 3))
    # a label that two columns tell beside the features, where most rows lie far from even odds
    columns = np.concatenate([rng.normal(size=(500, 10)), np.square(features[:, :1])], axis=1)
    logit = 2 * features[:, 0] - features[:, 1] + 0.9 * columns[:, 3] - 0.7 * columns[:, 10]
    own = rng.random(500) < 1 / (1 + np.exp(-logit))
    chosen = _chosen(features, columns, own)

    fitted = Logistic().fit(features[own], features[~own]).at(features) + np.log(own.sum() / (~own).sum())
    p = 1 / (1 + np.exp(-fitted))
    roots = np.sqrt(p * (1 - p))[:, None]
    basis, _ = np.linalg.qr(roots * np.column_stack([features, np.ones(500)]))
    # Rao's score test of one column more: its score over the root of its information beside the features
    free = columns - basis @ (basis.T @ (roots * columns)) / roots
    scores = free.T @ (own - p) / np.sqrt((roots**2 * free**2).sum(axis=0))
    order = np.argsort(-np.abs(scores))
    assert chosen.tolist() == [at for at in order.tolist() if abs(scores[at]) > 3]
    assert set(chosen.tolist()) >= {3, 10}
