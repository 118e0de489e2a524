"""The training reward without a reference and with one, oracle by hand; what needs a reference is said."""

from dataclasses import replace

import numpy as np
import pytest

from sarm_control.control import Controls, HumanKL, Penalty, ReferenceStatistics, RewardRule
from sarm_control.errors import ConfigError
from tests.control.batches import scored_from

SCORED = replace(
    scored_from(np.array([[1.0], [2.0], [4.0]]), np.array([0.5])), ended=np.array([True, False, True])
)
REFERENCE = ReferenceStatistics(4, mean=1.5, sd=2.0, fingerprint="head-a", latents={0: (0.0, 1.0, 2.0, 3.0)})


def test_oracle_a_rule_of_nothing_is_the_reward_itself() -> None:
    for rule in (RewardRule(Controls()), RewardRule.of(Controls(), 0.0, None, standardize=False)):
        found = rule.breakdown(SCORED)
        np.testing.assert_array_equal(found.scores, [0.5, 1.0, 2.0])
        np.testing.assert_array_equal(found.columns["reward/missing_end"], [0.0, 0.0, 0.0])
        assert set(found.columns) == {
            "reward/model", "reward/edits", "reward/human_kl", "reward/missing_end", "reward/total",
        }  # fmt: skip


@pytest.mark.parametrize(("amount", "taken"), [(0.25, 0.25), ("0sd", 0.0), (0.0, 0.0)])
def test_oracle_an_answer_without_an_end_loses_what_was_asked(amount: float | str, taken: float) -> None:
    rule = RewardRule.of(Controls(), amount, None, standardize=False)
    np.testing.assert_array_equal(rule.breakdown(SCORED).scores, [0.5, 1.0 - taken, 2.0])


@pytest.mark.parametrize(("standardize", "scale"), [(True, 2.0), (False, 1.0)])
def test_oracle_with_a_reference_the_mean_is_subtracted_and_sds_are_its_own(
    standardize: bool, scale: float
) -> None:
    controls = Controls(penalties=[Penalty(0, "q0.5", "0.25sd")])
    found = RewardRule.of(controls, "0.5sd", REFERENCE, standardize=standardize)
    assert (found.missing_end, found.mean, found.scale, found.par_sd) == (1.0, 1.5, scale, None)
    # latents 2 and 4 are above the median of the reference, 1.5
    total = np.array([0.5, 1.0 - 1.0 - 0.5, 2.0 - 0.5])
    np.testing.assert_allclose(found.breakdown(SCORED).scores, (total - 1.5) / scale)
    shaped = RewardRule.of(controls, 0.0, REFERENCE, standardize=standardize, shaping="par")
    assert shaped.par_sd == 2.0
    bounded = 1.5 + 2.0 / (1 + np.exp(-(np.array([0.5, 0.5, 1.5]) - 1.5) / 2.0))
    np.testing.assert_allclose(shaped.breakdown(SCORED).columns["reward/total"], bounded)
    # around two reference answers to each prompt it is the mean of both
    around = shaped.breakdown(SCORED, reference=np.array([[0.5, 2.5]] * 3)).columns["reward/total"]
    each = [1.5 + 2.0 / (1 + np.exp(-(np.array([0.5, 0.5, 1.5]) - other) / 2.0)) for other in (0.5, 2.5)]
    np.testing.assert_allclose(around, np.mean(each, axis=0))


@pytest.mark.parametrize(
    ("controls", "missing_end", "standardize", "what"),
    [
        (
            Controls(penalties=[Penalty(3, "q0.5", 1.0)]),
            0.0,
            False,
            "the penalty on latent 3 is given in SDs",
        ),
        (Controls(penalties=[Penalty(3, 1.0, "1sd")]), 0.0, False, "the penalty on latent 3 is given in SDs"),
        (
            Controls(penalties=[Penalty(3, 1.0, target_rate=0.1)]),
            0.0,
            False,
            "the penalty on latent 3 is given",
        ),
        (Controls(human_kl=HumanKL("1sd")), 0.0, False, "the beta of human_kl is given in SDs"),
        (Controls(), "1sd", False, "missing_end_penalty is given in SDs or quantiles"),
        (Controls(), 0.0, True, "standardised rewards"),
    ],
)
def test_what_needs_a_reference_says_so(
    controls: Controls, missing_end: float | str, standardize: bool, what: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{what}.*: that needs answers of the reference policy$"):
        RewardRule.of(controls, missing_end, None, standardize=standardize)


def test_numbers_need_no_reference() -> None:
    resolved = Controls(penalties=[Penalty(0, 1.0, target_rate=0.1)], human_kl=HumanKL(0.1), reward_sd=2.0)
    for controls in (Controls(penalties=[Penalty(0, 1.0, 0.1)]), resolved):
        rule = RewardRule.of(controls, 0.5, None, standardize=False)
        assert (rule.controls, rule.missing_end, rule.mean, rule.scale) == (controls, 0.5, 0.0, 1.0)
    # of rewards that never change, what learns is no part
    frozen = replace(RewardRule(resolved), par_sd=1.0).frozen()
    assert (frozen.controls.penalties, frozen.controls.human_kl, frozen.par_sd) == ((), None, None)
