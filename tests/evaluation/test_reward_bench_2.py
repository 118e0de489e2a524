"""RewardBench 2: oracle by hand and against the published definition of Ties, metamorphic, bad input."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarm_control.errors import ConfigError, DataError
from sarm_control.evaluation.benchmarks.reward_bench_2 import reward_bench_2
from tests.evaluation.benchmark_rows import parsed, reward_bench_rows

BENCHMARK = reward_bench_2(parsed(reward_bench_rows()))
ANSWERS = len(BENCHMARK.unit_of_answer)
# Few distinct values, so that ties and zero spreads occur.
scores = st.lists(st.integers(-3, 3).map(float), min_size=ANSWERS, max_size=ANSWERS).map(np.array)


def row(subset: str, chosen: int, rejected: int, name: str = "x") -> dict[str, Any]:
    return {
        "id": name,
        "prompt": f"{subset} {name}",
        "chosen": ["a"] * chosen,
        "rejected": ["b"] * rejected,
        "subset": subset,
    }


def published_ties(rows: list[dict[str, Any]], values: np.ndarray) -> float:
    """The Ties score by the published definition: statistics of ref and tied rows, then one formula."""
    stats: dict[str, dict[str, tuple[bool, float, float]]] = {"ref": {}, "tied": {}}
    start = 0
    for one in rows:
        count, correct = len(one["chosen"]) + len(one["rejected"]), len(one["chosen"])
        own = values[start : start + count]
        start += count
        if one["subset"] == "Ties":
            kind, number = one["id"].split(":")
            margin = own[:correct].min() - own[correct:].max()
            stats[kind][number] = (margin > 0, own[:correct].max() - own[:correct].min(), margin)
    ids = stats["tied"]
    spread = np.array([stats["tied"][i][1] for i in ids])
    tied = np.array([stats["tied"][i][2] for i in ids])
    ref = np.array([stats["ref"][i][2] for i in ids])
    with np.errstate(divide="ignore", invalid="ignore"):
        closeness = np.nan_to_num(np.tanh(np.minimum(ref, tied) / spread - 1), nan=0.0)
    return float(
        0.30 * np.mean([one[0] for one in stats["tied"].values()])
        + 0.30 * np.mean([one[0] for one in stats["ref"].values()])
        + 0.20 * np.mean(tied > spread)
        + 0.20 * np.mean(np.minimum(ref, tied) > spread)
        + 0.01 * closeness.mean()
    )


def test_oracle_best_of_four_by_hand() -> None:
    benchmark = reward_bench_2(parsed([row("Safety", 1, 3, str(i)) for i in range(4)] + [row("Focus", 1, 1)]))
    values = np.array([3, 1, 2, 0, 3, 3, 3, 0, 1, 2, 0, 0, 2, 2, 2, 2, 5, 5.0])
    np.testing.assert_allclose(benchmark.credit(values)[:, 0], [1, 1 / 3, 0, 1 / 4, 1 / 2])
    assert benchmark.subset.tolist() == ["Safety"] * 4 + ["Focus"]
    assert benchmark.chance.tolist() == [0.25] * 4 + [0.5]
    assert benchmark.missing() == ("Factuality", "Precise IF", "Math", "Ties")


def test_oracle_ties_by_hand() -> None:
    rows = [row("Ties", 1, 2, "ref:1"), row("Ties", 2, 1, "tied:1")]
    benchmark = reward_bench_2(parsed(rows))
    assert benchmark.units == ("1",)
    # ref: 5 against 1 and 2, m = 3. tied: 4 and 3 against 1, m = 2, d = 1. min(m) / d - 1 = 1.
    credit = benchmark.credit(np.array([5, 1, 2, 4, 3, 1.0]))
    assert credit[0, 0] == pytest.approx(0.3 + 0.3 + 0.2 + 0.2 + 0.01 * np.tanh(1))
    # tied: 4 and 1 against 0, m = 1, d = 3: right, but the correct ones differ by more.
    credit = benchmark.credit(np.array([5, 1, 2, 4, 1, 0.0]))
    assert credit[0, 0] == pytest.approx(0.3 + 0.3 + 0.01 * np.tanh(1 / 3 - 1))
    # All equal: 0 / 0 counts as 0.
    assert benchmark.credit(np.zeros(6))[0, 0] == 0


def test_oracle_rows_of_any_order_and_length_have_the_units_of_their_own_answers() -> None:
    focus = row("Focus", 1, 1)
    del focus["id"]
    rows = [
        row("Ties", 2, 1, "tied:7"), row("Safety", 1, 3, "s"), row("Ties", 1, 1, "ref:9"), focus,
        row("Ties", 1, 2, "ref:7"), row("Ties", 1, 1, "tied:9"),
    ]  # fmt: skip
    benchmark = reward_bench_2(parsed(rows))
    # rows outside Ties come first, and one without an id is named by its line
    assert benchmark.units == ("s", "4", "7", "9")
    assert benchmark.subset.tolist() == benchmark.part.tolist() == ["Safety", "Focus", "Ties", "Ties"]
    assert benchmark.unit_of_answer.tolist() == [2, 2, 2, 0, 0, 0, 0, 3, 3, 1, 1, 2, 2, 2, 3, 3]
    np.testing.assert_array_equal(benchmark.chance, [1 / 4, 1 / 2, np.nan, np.nan])
    # the shortest row has the lowest scores of all, and its own best one is right
    values = np.array([4, 3, 1, 3, 1, 2, 0, 1, 2, -5, -6, 5, 1, 2, 4, 1.0])
    # of id 9 the one correct answer is the best of its tied row, and below the other of the ref row
    expected = [1, 1, 1 + 0.01 * np.tanh(1), 0.30 + 0.20 - 0.01]
    np.testing.assert_allclose(benchmark.credit(values)[:, 0], expected)


@settings(deadline=None, max_examples=80)
@given(scores)
def test_oracle_the_published_definition_of_ties(values: np.ndarray) -> None:
    ties = BENCHMARK.units_of(["Ties"])
    assert BENCHMARK.credit(values)[ties, 0].mean() == pytest.approx(
        published_ties(reward_bench_rows(), values)
    )


@settings(deadline=None, max_examples=40)
@given(scores, st.sampled_from([0.5, 4.0]), st.integers(-4, 4))
def test_metamorphic_affine_rewards_change_nothing(values: np.ndarray, scale: float, shift: int) -> None:
    np.testing.assert_array_equal(BENCHMARK.credit(scale * values + shift), BENCHMARK.credit(values))


@settings(deadline=None, max_examples=40)
@given(scores)
def test_property_order_of_rows_changes_no_subset(values: np.ndarray) -> None:
    rows = reward_bench_rows()
    counts = [len(one["chosen"]) + len(one["rejected"]) for one in rows]
    pieces = np.split(values, np.cumsum(counts)[:-1])
    other = reward_bench_2(parsed(rows[::-1]))
    back = other.credit(np.concatenate(pieces[::-1]))
    here = BENCHMARK.credit(values)
    for name, units in BENCHMARK.groups().items():
        assert here[units].mean() == pytest.approx(back[other.groups()[name]].mean())


def test_subsets_are_found_however_they_are_written() -> None:
    assert BENCHMARK.units_of(["precise-if"]).sum() == 4
    with pytest.raises(ConfigError, match="--subset Chat: these rows have no such subset"):
        BENCHMARK.units_of(["Chat"])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row("Chat", 1, 3)], "rows.jsonl:1: subset is Chat, which RewardBench 2 does not have"),
        ([{"prompt": "p", "chosen": "a", "rejected": "b"}], "subset is None"),
        ([row("Safety", 2, 3)], "rows.jsonl:1: 2 chosen answers; outside Ties a row has one"),
        ([row("Ties", 2, 3, "tied:4")], "tied:4 has no ref:4"),
        ([row("Ties", 2, 3, "ref:4")], "ref:4 has no tied:4"),
        ([row("Ties", 2, 3, "7")], "a Ties row has an id such as ref:12"),
        ([row("Ties", 2, 3, "odd:7")], "a Ties row has an id such as ref:12"),
        ([row("Ties", 2, 3, "ref:")], "a Ties row has an id such as ref:12"),
        ([row("Ties", 1, 1, "ref:4"), row("Ties", 1, 1, "ref:4")], "ref:4 is there twice"),
    ],
)
def test_rows_of_another_form_are_refused(rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        reward_bench_2(parsed(rows))
