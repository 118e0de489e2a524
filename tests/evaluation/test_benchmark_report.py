"""Figures, baselines and tests of a benchmark: oracle by hand and against statsmodels, metamorphic."""

from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from sarm_control.evaluation.benchmarks.report import benchmark_results
from sarm_control.evaluation.benchmarks.reward_bench_2 import SUBSETS, reward_bench_2
from sarm_control.evaluation.benchmarks.rm_bench import rm_bench
from sarm_control.evaluation.benchmarks.text import benchmark_text
from sarm_control.statistics.intervals import mean_interval
from sarm_control.statistics.mcnemar import flips
from sarm_control.statistics.shares import share_interval
from sarm_control.statistics.sign_flips import sign_flip_test
from sarm_control.statistics.stratified import mean_of_means, strata_of
from tests.evaluation.benchmark_rows import parsed, reward_bench_rows, rm_bench_rows
from tests.present import present

WHOLE = reward_bench_2(parsed(reward_bench_rows(each=8)))
COUNT = len(WHOLE.unit_of_answer)
DOMAINS = ("chat", "code", "math", "safety")
MANY = rm_bench(parsed(rm_bench_rows(domains=(*DOMAINS[:3], "safety-refuse", "safety-response"))))
OWN = len(MANY.unit_of_answer)


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
    for one, longest, shortest in zip(
        results[:-1],
        benchmark_results(WHOLE, lengths, lengths),
        benchmark_results(WHOLE, -lengths, lengths),
        strict=False,
    ):
        assert present(one.baselines).longest == pytest.approx(longest.figures["score"].mean)
        assert present(one.baselines).shortest == pytest.approx(shortest.figures["score"].mean)
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


def test_oracle_of_several_figures_the_first_is_compared_and_tested() -> None:
    """RM-Bench has four: average, easy, normal and hard."""
    before, after = random_scores(10, OWN), random_scores(11, OWN)
    lengths = np.random.default_rng(12).integers(1, 40, OWN).astype(float)
    average, edited, short, long = (
        MANY.credit(scores)[:, 0] for scores in (before, after, -lengths, lengths)
    )
    *subsets, total = benchmark_results(MANY, before, lengths, after)
    assert [one.name for one in subsets] == [*DOMAINS, "safety-refuse", "safety-response"]
    for one in subsets:
        units = MANY.units_of([one.name])
        changed, baselines = present(one.changed), present(one.baselines)
        assert (one.units, one.chance) == (units.sum(), 0.5)
        assert one.figures["hard"].mean == pytest.approx(MANY.credit(before)[units, 3].mean())
        assert changed.after.mean == pytest.approx(edited[units].mean())
        assert changed.change.mean == pytest.approx((edited - average)[units].mean())
        assert changed.flips == flips(average[units], edited[units])
        assert (baselines.shortest, baselines.longest) == (short[units].mean(), long[units].mean())
    changed = present(total.changed)
    assert changed.after.mean == pytest.approx(
        np.mean([edited[MANY.subset == one].mean() for one in DOMAINS])
    )
    change = [(edited - average)[MANY.subset == one].mean() for one in DOMAINS]
    assert changed.change.mean == pytest.approx(np.mean(change))
    assert changed.flips == flips(average, edited)
    assert changed.q == changed.flips.p
    assert (total.units, total.chance, total.baselines) == (30, None, None)
    for column, name in enumerate(MANY.figures):
        means = [MANY.credit(before)[MANY.subset == one, column].mean() for one in DOMAINS]
        assert total.figures[name].mean == pytest.approx(np.mean(means))


def test_oracle_the_model_is_tested_against_the_better_of_both_lengths() -> None:
    """In chat chosen answers are mostly the shorter ones, elsewhere mostly the longer ones."""
    rows = parsed(rm_bench_rows(domains=DOMAINS))
    benchmark, generator = rm_bench(rows), np.random.default_rng(13)
    right = np.tile([1.0, 1.0, 1.0, 0.0, 0.0, 0.0], len(rows))
    longer = np.where(benchmark.subset == "chat", -1, 1)[benchmark.unit_of_answer]
    lengths = 10 + 3 * longer * right + generator.integers(0, 4, len(right))
    scores = right + generator.normal(0, 0.8, len(right))
    average, short, long = (benchmark.credit(one)[:, 0] for one in (scores, -lengths, lengths))
    results = benchmark_results(benchmark, scores, lengths, seed=3)
    for one in results[:-1]:
        units = benchmark.units_of([one.name])
        better, worse = (short, long) if one.name == "chat" else (long, short)
        assert better[units].mean() > worse[units].mean() + 0.2
        p, other = (float(sign_flip_test((average - by)[units, None], seed=3)[0]) for by in (better, worse))
        assert present(one.baselines).p == p != other


def test_the_signs_that_no_seed_draws_are_those_of_seed_0() -> None:
    benchmark = rm_bench(parsed(rm_bench_rows() * 4))
    count = len(benchmark.unit_of_answer)
    scores = random_scores(16, count) + np.tile([0.3, 0.3, 0.3, 0, 0, 0], count // 6)
    lengths = np.random.default_rng(17).integers(1, 9, count).astype(float)

    def p(**seed: Any) -> list[float]:
        return [present(one.baselines).p for one in benchmark_results(benchmark, scores, lengths, **seed)]

    assert p() == p(seed=0)
    assert p() not in (p(seed=1), p(seed=-1))


def test_results_as_json_hold_what_there_is() -> None:
    scores, lengths = random_scores(14), (np.arange(COUNT) % 7).astype(np.float64)
    plain, edited = (benchmark_results(WHOLE, scores, lengths, after) for after in (None, random_scores(15)))
    safety, total = plain[SUBSETS.index("Safety")], plain[-1]
    baselines = present(safety.baselines)
    assert safety.as_json() == {
        "name": "Safety",
        "units": 8,
        "figures": {"score": safety.figures["score"].as_json()},
        "chance": 0.25,
        "length_baselines": {
            "shortest": baselines.shortest,
            "longest": baselines.longest,
            "p": baselines.p,
            "q": baselines.q,
        },
        "edits": None,
    }
    assert (total.as_json()["length_baselines"], total.as_json()["chance"]) == (None, None)
    for one in edited:
        changed = present(one.changed)
        assert one.as_json()["edits"] == {
            "after": changed.after.as_json(),
            "change": changed.change.as_json(),
            "n": one.units,
            "gained": changed.flips.gained,
            "lost": changed.flips.lost,
            "p": changed.flips.p,
            "q": changed.q,
        }


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
