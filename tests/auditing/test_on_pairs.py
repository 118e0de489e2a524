"""Oracle: accuracy on pairs by kind and style, and the share of the longer, against counts by hand."""

from typing import Any

import numpy as np
import pytest

from sarm_control.auditing import BATTERY, accuracy, attribute_table, attributes_named
from sarm_control.data import Kind, parse_row
from sarm_control.errors import DataError
from sarm_control.latents import ScoredRows
from tests.latents.folders import make_scores

STYLES = ("concise", "a longer plain answer", "**a longer answer in Markdown**")


def data_of(rows: list[dict[str, Any]], rewards: list[float], lengths: list[int] | None = None) -> ScoredRows:
    from dataclasses import replace
    from pathlib import Path

    every: frozenset[Kind] = frozenset({"pair", "candidates", "answer"})
    read = [parse_row(row, path=Path("rows.jsonl"), line=n + 1, want=every) for n, row in enumerate(rows)]
    scored = make_scores(read)
    given = np.array(rewards, dtype=np.float32)
    long = scored.lengths if lengths is None else np.array(lengths, dtype=np.int64)
    return ScoredRows(read, replace(scored, rewards=given, lengths=long))


def test_oracle_kinds_are_those_of_the_first_column_that_says_them() -> None:
    rows = [
        {"prompt": f"p{n}", "chosen": "yes", "rejected": "no", "domain": "chat" if n % 2 else "code"}
        for n in range(20)
    ]
    right = [n % 2 == 1 or n < 4 for n in range(20)]
    data = data_of(rows, [value for good in right for value in ((1.0, 0.0) if good else (0.0, 1.0))])
    found = accuracy(data, attribute_table(data, attributes_named(["length"])))
    assert found.column == "domain"
    assert found.pairs.mean == pytest.approx(12 / 20)
    assert found.kinds["chat"].mean == 1.0
    assert found.kinds["code"].mean == pytest.approx(2 / 10)
    assert (found.kinds["chat"].n, found.kinds["code"].n) == (10, 10)
    assert found.styles == {}


def test_oracle_styles_of_rm_bench_where_markdown_is_paid_for() -> None:
    """A reward of the style alone prefers every easy pair, no hard one, and ties count as wrong."""
    rows = [
        {"prompt": f"p{n}", "chosen": list(STYLES), "rejected": list(STYLES), "domain": "chat"}
        for n in range(6)
    ]
    data = data_of(rows, [0.0, 1.0, 2.0] * 12)
    found = accuracy(data, attribute_table(data, attributes_named(["length"])))
    assert [found.styles[name].mean for name in ("easy", "normal", "hard")] == [1.0, 0.0, 0.0]


def test_oracle_the_longer_answer_and_its_correlation() -> None:
    rows = [{"prompt": f"p{n}", "chosen": "a", "rejected": "b"} for n in range(12)]
    rewards = [value for n in range(12) for value in ((2.0, 1.0) if n < 9 else (1.0, 2.0))]
    data = data_of(rows, rewards, [8, 4] * 11 + [5, 5])
    found = accuracy(data, attribute_table(data, attributes_named(["length"])))
    assert found.longer.n == 11, "answers of one length say nothing"
    assert found.longer.mean == pytest.approx(9 / 11)
    x = np.array([0.5, -0.5] * 11 + [0.0, 0.0])
    y = np.array([0.5, -0.5] * 9 + [-0.5, 0.5] * 3)
    assert found.length_correlation == pytest.approx(float(x @ y / np.sqrt((x @ x) * (y @ y))))


def test_refusals_where_the_chosen_answer_answers() -> None:
    no = "I'm sorry, but I can't help with that."
    rows = [{"prompt": f"p{n}", "chosen": "Boil it for ten minutes.", "rejected": no} for n in range(10)]
    rows += [{"prompt": f"q{n}", "chosen": no, "rejected": "Boil it."} for n in range(5)]
    data = data_of(rows, [0.0, 1.0] * 3 + [1.0, 0.0] * 12)
    found = accuracy(data, attribute_table(data, BATTERY))
    assert found.refused is not None
    assert found.refused.n == 10
    assert found.refused.mean == pytest.approx(0.3)
    assert found.as_json()["refused_when_it_should_answer"]["n"] == 10


def test_data_without_pairs() -> None:
    data = data_of([{"prompt": "p", "response": "a"}, {"prompt": "q", "response": "b"}], [0.0, 1.0])
    with pytest.raises(DataError, match="no row has chosen and rejected answers"):
        accuracy(data, attribute_table(data, attributes_named(["length"])))
