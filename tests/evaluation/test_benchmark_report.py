"""Figures, baselines and tests of a benchmark: oracle by hand and against statsmodels, metamorphic."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from sarm_control.evaluation.benchmarks.report import benchmark_results
from sarm_control.evaluation.benchmarks.reward_bench_2 import SUBSETS, reward_bench_2
from sarm_control.evaluation.benchmarks.rm_bench import rm_bench
from sarm_control.evaluation.benchmarks.text import benchmark_text
from sarm_control.statistics.intervals import mean_interval
from sarm_control.statistics.shares import share_interval
from sarm_control.statistics.stratified import mean_of_means, strata_of
from tests.evaluation.benchmark_rows import parsed, reward_bench_rows, rm_bench_rows
from tests.present import present

WHOLE = reward_bench_2(parsed(reward_bench_rows(each=8)))
COUNT = len(WHOLE.unit_of_answer)


def random_scores(seed: int, count: int = COUNT) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=count)


def test_oracle_the_total_is_the_unweighted_mean_of_the_subsets() -> None:
    scores = random_scores(0)
    results = {one.name: one for one in benchmark_results(WHOLE, scores, np.ones(COUNT))}
    assert list(results) == [*SUBSETS, "total"]
    means = [results[name].figures["score"].mean for name in SUBSETS]
    assert results["total"].figures["score"].mean == pytest.approx(np.mean(means))
    assert results["Safety"].chance == 0.25
    assert results["Ties"].chance is None
    safety = WHOLE.credit(scores)[WHOLE.units_of(["Safety"]), 0]
    assert results["Safety"].figures["score"] == share_interval(safety)


@pytest.mark.parametrize("each", [2, 3])
def test_no_interval_of_a_share_leaves_0_to_1_at_very_small_n(each: int) -> None:
    small = reward_bench_2(parsed(reward_bench_rows(each=each)))
    count = len(small.unit_of_answer)
    for seed in range(5):
        results = benchmark_results(
            small, random_scores(seed, count), np.ones(count), random_scores(seed + 9, count)
        )
        for one in results:
            assert one.changed is not None
            for share in (one.figures["score"], one.changed.after):
                # where nothing varies between 0 and 1 there is none; credit of Ties passes both by .01
                low, high = (share.low, share.high) if share.given else (0, 1)
                assert min(0, share.mean) <= low <= share.mean <= high <= max(1, share.mean), (one, share)
            assert not one.changed.change.given or one.changed.change.low >= -1
            assert not one.changed.change.given or one.changed.change.high <= 1


def test_oracle_length_baselines_score_as_the_lengths_would() -> None:
    scores, lengths = random_scores(1), np.random.default_rng(2).integers(1, 40, COUNT).astype(float)
    results = benchmark_results(WHOLE, scores, lengths)
    as_model = {one.name: one.figures["score"].mean for one in benchmark_results(WHOLE, lengths, lengths)}
    for one in results[:-1]:
        assert one.baselines is not None
        assert one.baselines.longest == pytest.approx(as_model[one.name])
    corrected = multipletests([present(one.baselines).p for one in results[:-1]], method="fdr_bh")[1]
    np.testing.assert_allclose(np.array([present(one.baselines).q for one in results[:-1]]), corrected)


def test_a_model_that_picks_the_longest_is_no_better_than_length() -> None:
    lengths = np.random.default_rng(3).integers(1, 40, COUNT).astype(float)
    benchmark = rm_bench(parsed(rm_bench_rows()))
    own = lengths[: len(benchmark.unit_of_answer)]
    for one in benchmark_results(benchmark, own, own):
        assert one.baselines is not None
        assert one.baselines.longest == pytest.approx(one.figures["average"].mean)
        assert one.baselines.shortest > one.baselines.longest or one.baselines.p == 1.0


def test_a_model_that_is_clearly_below_length_is_marked_as_worse() -> None:
    rows = parsed(rm_bench_rows() * 8)
    benchmark = rm_bench(rows)
    right = np.concatenate([[1.0] * len(row.chosen) + [0.0] * len(row.rejected) for row in rows])
    lengths = 10 + right
    assert "(worse)" in benchmark_text(benchmark, benchmark_results(benchmark, -right, lengths))
    assert "(worse)" not in benchmark_text(benchmark, benchmark_results(benchmark, right, 21 - lengths))


def test_oracle_edits_are_compared_unit_by_unit() -> None:
    before, after = random_scores(4), random_scores(5)
    credits = [WHOLE.credit(scores)[:, 0] for scores in (before, after)]
    results = benchmark_results(WHOLE, before, np.ones(COUNT), after)
    for one in results[:-1]:
        units = WHOLE.units_of([one.name])
        assert one.changed is not None
        assert one.changed.after.mean == pytest.approx(credits[1][units].mean())
        assert one.changed.change.mean == pytest.approx((credits[1] - credits[0])[units].mean())
        assert one.changed.flips.gained == (credits[1] > credits[0])[units].sum()
    p = [present(one.changed).flips.p for one in results[:-1]]
    corrected = multipletests(p, method="fdr_bh")[1]
    np.testing.assert_allclose(np.array([present(one.changed).q for one in results[:-1]]), corrected)


def test_metamorphic_an_edit_that_shifts_all_rewards_flips_nothing() -> None:
    scores = random_scores(6)
    for one in benchmark_results(WHOLE, scores, np.ones(COUNT), 2 * scores + 1):
        assert one.changed is not None
        assert (one.changed.flips.gained, one.changed.flips.lost, one.changed.flips.p) == (0, 0, 1.0)


def test_without_every_subset_there_is_no_total_and_the_text_says_why() -> None:
    benchmark = rm_bench(parsed(rm_bench_rows()))
    count = len(benchmark.unit_of_answer)
    results = benchmark_results(benchmark, random_scores(7, count), np.ones(count))
    assert [one.name for one in results] == ["chat", "safety"]
    assert "these rows lack code, math" in benchmark_text(benchmark, results)


def test_oracle_the_interval_of_a_mean_of_means_is_normal_for_many_units() -> None:
    generator = np.random.default_rng(8)
    strata = np.repeat(["a", "b"], [400, 900])
    values = np.where(strata == "a", generator.random(1300), generator.normal(3, 2, 1300))
    found = mean_of_means(values, strata)
    means = [values[strata == name].mean() for name in "ab"]
    errors = [values[strata == name].var() / (strata == name).sum() for name in "ab"]
    assert found.mean == pytest.approx(np.mean(means))
    half = 1.96 * np.sqrt(sum(errors)) / 2
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.06)
    assert found.low < found.mean < found.high


def test_one_subset_has_the_interval_of_a_plain_mean() -> None:
    values = random_scores(9, 50)
    assert mean_of_means(values, ["a"] * 50) == mean_interval(values)


def test_a_mean_of_means_that_do_not_vary_says_that_all_units_are_alike() -> None:
    # of each subset alone: they differ from one another
    found = mean_of_means([1.0, 1.0, 0.0, 0.0, 0.0], list("aabbb"))
    assert (found.mean, found.n, found.apart, found.given) == (0.5, 5, 0, False)
    alone = mean_of_means([1.0, 0.5, 0.0], list("aab"))
    assert (alone.mean, alone.n, alone.given) == (0.375, 3, False)


def test_oracle_a_mean_of_means_has_welchs_error_and_satterthwaites_freedom() -> None:
    generator = np.random.default_rng(12)
    values = np.concatenate([generator.normal(size=12), generator.normal(3, 2, 30)])
    strata = np.repeat(["a", "b"], [12, 30])
    found = strata_of(values, strata)
    # Welch's test of a and -b is one of their sum, which is twice the mean of means
    theirs = stats.ttest_ind(values[:12], -values[12:], equal_var=False)
    assert found.mean / np.sqrt(found.variance) == pytest.approx(theirs.statistic, rel=1e-9)
    assert found.freedom == pytest.approx(theirs.df, rel=1e-9)
    cubes = [
        stats.moment(part, 3) * len(part) / ((len(part) - 1) * len(part)) ** 1.5
        for part in (values[:12], values[12:])
    ]
    plain = strata_of(values, ["a"] * 42)
    assert plain.skewness == pytest.approx(stats.skew(values) / np.sqrt(42), rel=1e-9)
    assert found.skewness == pytest.approx(sum(cubes) / 8 / found.variance**1.5, rel=1e-9)
    assert (found.counts.tolist(), found.apart) == ([12, 30], 42)
