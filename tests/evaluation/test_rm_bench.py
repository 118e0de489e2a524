"""RM-Bench: oracle by hand and by plain loops, metamorphic (labels swapped, affine), real rows, bad input."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarm_control.data.rows import read_rows
from sarm_control.errors import DataError
from sarm_control.evaluation.benchmarks.rm_bench import rm_bench
from tests.evaluation.benchmark_rows import parsed, rm_bench_rows

BENCHMARK = rm_bench(parsed(rm_bench_rows()))
ANSWERS = len(BENCHMARK.unit_of_answer)
scores = st.lists(st.integers(-3, 3).map(float), min_size=ANSWERS, max_size=ANSWERS).map(np.array)


def test_oracle_one_row_by_hand() -> None:
    benchmark = rm_bench(parsed(rm_bench_rows()[:1]))
    # chosen 1, 4, 2 against rejected 3, 2, 0: wins are 001, 111, 001.
    credit = dict(zip(benchmark.figures, benchmark.credit(np.array([1, 4, 2, 3, 2, 0.0]))[0], strict=True))
    assert credit["average"] == pytest.approx(5 / 9)
    assert credit["normal"] == pytest.approx((0 + 1 + 1) / 3)
    assert credit["hard"] == pytest.approx((0 + 1 + 1) / 3)
    assert credit["easy"] == pytest.approx((1 + 0 + 0) / 3)


@settings(deadline=None, max_examples=40)
@given(scores)
def test_oracle_the_published_matrix_by_loops(values: np.ndarray) -> None:
    rows = values.reshape(-1, 2, 3)
    matrix = np.zeros((3, 3))
    for chosen, rejected in rows:
        for i in range(3):
            for j in range(3):
                matrix[i, j] += (chosen[i] > rejected[j]) / len(rows)
    found = dict(zip(BENCHMARK.figures, BENCHMARK.credit(values).mean(axis=0), strict=True))
    assert found["average"] == pytest.approx(matrix.mean())
    assert found["normal"] == pytest.approx(np.trace(matrix) / 3)
    assert found["hard"] == pytest.approx((matrix[0, 1] + matrix[0, 2] + matrix[1, 2]) / 3)
    assert found["easy"] == pytest.approx((matrix[1, 0] + matrix[2, 0] + matrix[2, 1]) / 3)


@settings(deadline=None, max_examples=40)
@given(scores)
def test_metamorphic_labels_swapped_give_one_minus_accuracy_minus_ties(values: np.ndarray) -> None:
    sides = values.reshape(-1, 2, 3)
    swapped = sides[:, ::-1].reshape(-1)
    ties = (sides[:, 0, :, None] == sides[:, 1, None, :]).mean(axis=(1, 2))
    there, back = BENCHMARK.credit(values)[:, 0], BENCHMARK.credit(swapped)[:, 0]
    np.testing.assert_allclose(back, 1 - there - ties, atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(scores, st.sampled_from([0.5, 4.0]), st.integers(-4, 4))
def test_metamorphic_affine_rewards_change_nothing(values: np.ndarray, scale: float, shift: int) -> None:
    np.testing.assert_array_equal(BENCHMARK.credit(scale * values + shift), BENCHMARK.credit(values))


def test_the_two_safety_files_are_one_domain_with_its_parts_apart() -> None:
    benchmark = rm_bench(parsed(rm_bench_rows(domains=("safety-refuse", "chat", "safety-response"))))
    sizes = {name: int(units.sum()) for name, units in benchmark.groups().items()}
    assert sizes == {"chat": 6, "safety": 12, "safety-refuse": 6, "safety-response": 6}
    assert benchmark.missing() == ("code", "math")


def test_oracle_every_row_is_a_unit_of_six_answers_with_a_chance_of_one_half() -> None:
    rows = rm_bench_rows(domains=("safety-refuse", "chat"))
    del rows[7]["id"]
    benchmark = rm_bench(parsed(rows))
    # a row without an id is named by its line
    assert benchmark.units == ("0", "1", "2", "3", "4", "5", "0", "8", "2", "3", "4", "5")
    assert benchmark.unit_of_answer.tolist() == [unit for unit in range(12) for _ in range(6)]
    assert benchmark.chance.tolist() == [0.5] * 12
    assert (benchmark.subset.tolist(), benchmark.part.tolist()) == (
        ["safety"] * 6 + ["chat"] * 6,
        ["safety-refuse"] * 6 + ["chat"] * 6,
    )


def test_real_rows_are_all_read(shared_data: Path) -> None:
    files = ("rm_bench_chat", "rm_bench_safety-refuse", "rm_bench_safety-response")
    rows = [row for name in files for row in read_rows(shared_data / f"{name}.jsonl", want={"pair"})]
    sizes = {name: int(units.sum()) for name, units in rm_bench(rows).groups().items()}
    assert sizes == {"chat": 129, "safety": 441, "safety-refuse": 284, "safety-response": 157}


def test_rows_of_another_form_are_refused() -> None:
    row = rm_bench_rows()[0]
    for chosen, rejected in ((2, 3), (3, 2), (3, 4), (4, 3)):
        other = {**row, "chosen": ["a"] * chosen, "rejected": ["b"] * rejected}
        with pytest.raises(DataError, match=f"rows.jsonl:2: {chosen} chosen and {rejected} rejected answers"):
            rm_bench(parsed([row, other]))
    with pytest.raises(DataError, match="'poems' is not a domain of RM-Bench"):
        rm_bench(parsed([{**row, "domain": "poems"}]))
