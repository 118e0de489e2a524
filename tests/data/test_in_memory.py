"""Oracle: rows in memory give the rows of the same file, in every kind of container, at every door."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("datasets", reason='needs the extra "data"')
pytest.importorskip("polars", reason="rows in memory come from its frames, too")

import pandas as pd
import polars as pl
from datasets import Dataset, IterableDataset

from sarm_control.build.states.texts import read_pairs
from sarm_control.data.files import records_of
from sarm_control.data.rows import read_rows, rows_of
from sarm_control.discovery.pairs.prompt_pairs import group_by_prompt
from sarm_control.errors import DataError
from sarm_control.evaluation.annotated_rows import annotate
from sarm_control.latents.disjoint import check_disjoint
from sarm_control.latents.rows import score_rows
from sarm_control.reward_model import RewardModel
from tests.data.forms import jsonl

ROWS = [
    {"prompt": f"how do i {word}", "chosen": ["yes please"], "rejected": ["no", "sorry"], "n": n, "x": None}
    for n, word in enumerate(["cook bread", "open the door", "pick a lock"])
]
CONTAINERS = {
    "list": list,
    "tuple": tuple,
    "DataFrame": pd.DataFrame,
    "polars": pl.DataFrame,
    "Table": pa.Table.from_pylist,
    "RecordBatch": pa.RecordBatch.from_pylist,
    "Dataset": Dataset.from_list,
    "IterableDataset": lambda rows: IterableDataset.from_generator(lambda: iter(rows)),
    "generator": iter,
}


@pytest.fixture(params=CONTAINERS)
def container(request: pytest.FixtureRequest) -> Any:
    return CONTAINERS[request.param](ROWS)


def test_oracle_every_container_gives_the_records(container: Any) -> None:
    assert records_of(container) == ROWS


def test_a_data_set_that_was_shuffled_and_selected_keeps_its_order() -> None:
    chosen = Dataset.from_list(ROWS).select([2, 0])
    assert [row["n"] for row in records_of(chosen)] == [2, 0]


def test_oracle_scores_are_those_of_the_file_to_the_bit(tmp_path: Path) -> None:
    jsonl(tmp_path / "rows.jsonl", ROWS)
    model = RewardModel.from_pretrained("lab")
    rows = read_rows(tmp_path / "rows.jsonl", want={"pair"})
    scored = score_rows(model, rows)
    for name in ("list", "DataFrame", "polars", "Table", "Dataset"):
        given = CONTAINERS[name](ROWS)
        assert np.array_equal(score_rows(model, given).rewards, scored.rewards)
        assert annotate(given, scored) == annotate(rows, scored)
        assert group_by_prompt(given, scored).keys == group_by_prompt(rows, scored).keys
        assert [row.raw for row in read_pairs([given])] == ROWS
        with pytest.raises(DataError, match=r"3 of 3 prompts .* has the prompt of .*rows\.jsonl:1"):
            check_disjoint(given, [tmp_path / "rows.jsonl"])


def test_rows_pass_as_they_are() -> None:
    rows = read_rows(ROWS, want={"pair"})
    assert rows_of(rows, want={"pair"}) is rows
    assert rows[1].where == "<list>: row 2"


def test_missing_cells_of_a_frame_are_null() -> None:
    frame = pd.DataFrame(
        {"prompt": ["p", "q"], "response": ["r", "s"], "x": [1.5, np.nan], "n": [np.int64(1), 2]}
    )
    assert records_of(frame) == [
        {"prompt": "p", "response": "r", "x": 1.5, "n": 1},
        {"prompt": "q", "response": "s", "x": None, "n": 2},
    ]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([{"prompt": "p"}, 3], r"<list>: row 2: not a dict but a int"),
        ([{"prompt": "p", "x": float("nan")}], r"<list>: row 1: x is nan, which is no number"),
        ([{"prompt": "p", "x": b"a"}], r"<list>: row 1: x is bytes"),
        ([{"prompt": "p", "x": {"a": [object()]}}], r"<list>: row 1: x\.a is a object"),
        ([{"prompt": "\ud800"}], r"<list>: row 1: prompt holds half a character"),
        ([{"prompt": "p", 3: "x"}], r"<list>: row 1: a field is called 3"),
        ([{"prompt": "p", "x": 10**200}], r"<list>: row 1: x is a number of more than 100 digits"),
        (3, r"rows cannot be read from <int>"),
        ({"prompt": "p"}, r"rows cannot be read from <dict>"),
        (pd.DataFrame({"prompt": ["p", 3]}), r"<DataFrame>: .*prompt"),
        ([], r"<list>: the file has no rows"),
    ],
)
def test_what_is_no_row_is_named(source: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_rows(source, want={"prompt"})


def test_nested_without_end_is_refused() -> None:
    value: Any = []
    for _ in range(2000):
        value = [value]
    with pytest.raises(DataError, match="x is nested more than 100 deep"):
        read_rows([{"prompt": "p", "x": value}], want={"prompt"})


def test_numpy_values_are_numbers() -> None:
    row = {"prompt": "p", "n": np.int32(3), "x": np.float32(0.5), "v": np.arange(2), "ok": np.bool_(True)}
    assert records_of([row]) == [{"prompt": "p", "n": 3, "x": 0.5, "v": [0, 1], "ok": True}]
