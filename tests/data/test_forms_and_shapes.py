"""Oracle: every form of rows in every form of file gives the plain rows; other names and pipes do too."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sarm_control.data import FORMS as SHAPES
from sarm_control.data import (
    Form,
    Kind,
    Row,
    RowOptions,
    as_messages,
    check_rows,
    parse_row,
    read_rows,
    stream_rows,
)
from sarm_control.errors import DataError
from tests.data.forms import FORMS, LINES, csv_file, gzipped, jsonl, parquet_file

EVERY: tuple[Kind, ...] = ("pair", "candidates", "answer", "prompt")


def said(row: Row) -> tuple[Any, ...]:
    """What a row says, whatever it was written as."""
    prompt = [dict(turn) for turn in as_messages(row.prompt)]
    return row.kind, prompt, row.response, row.chosen, row.rejected, row.candidates, row.ended


def plain(shape: Form) -> tuple[Any, ...]:
    return said(parse_row(shape.plain, path=Path("plain"), line=1, want=EVERY))


@pytest.mark.long
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape.name}: {shape.how[:20]}")
def test_oracle_every_shape_is_read_from_every_form_of_file(shape: Form, tmp_path: Path) -> None:
    rows = [{**shape.example, "id": number} for number in range(60)]
    for name, write in FORMS.items():
        write(tmp_path / name, rows)
        found = read_rows(tmp_path / name, want=EVERY, say_form=False)
        assert [row.raw["id"] for row in found] == list(range(60)), name
        assert {json.dumps(said(row)) for row in found} == {json.dumps(plain(shape))}, name


@pytest.mark.parametrize("name", FORMS)
def test_the_shape_is_told_and_held_against_every_row(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The stranger stands behind the rows by which the form is found."""
    pairs = next(shape for shape in SHAPES if shape.name == "HH-RLHF transcripts").example
    FORMS[name](tmp_path / name, [*[pairs] * 60, {"chosen": "yes", "rejected": "no"}])
    place = f"{name}:{121 if name == 'b.rows' else 61}" if name in LINES else f"{name}: row 61"
    with pytest.raises(DataError, match="no prompt field") as caught:
        read_rows(tmp_path / name, want={"pair"})
    assert place in str(caught.value)
    kept = read_rows(tmp_path / name, want={"pair"}, skip_bad_rows=tmp_path / "bad.jsonl")
    assert len(kept) == 60
    assert f"{name} read as: HH-RLHF transcripts, 60 rows" in capsys.readouterr().err
    found = check_rows(tmp_path / name)
    assert (found.usable, found.form) == (60, "HH-RLHF transcripts, 60 rows")
    assert [(one.lines, one.unit) for one in found.problems] == [
        ([121], "line") if name == "b.rows" else ([61], "line" if name in LINES else "row")
    ]


@pytest.mark.parametrize("name", FORMS)
def test_metamorphic_reading_goes_on_from_every_place_with_the_shape_of_the_file(
    name: str, tmp_path: Path
) -> None:
    """Answers that repeat their prompt: one row alone does not say so."""
    rows = [
        {"prompt": f"how do i bake {n} cakes ?", "response": f"how do i bake {n} cakes ? mix it ."}
        for n in range(55)
    ]
    FORMS[name](tmp_path / name, rows)
    placed = list(stream_rows(tmp_path / name, want={"answer"}))
    assert {one.row.response for one in placed} == {"mix it ."}
    for number in (1, 30, 54):
        again = list(stream_rows(tmp_path / name, want={"answer"}, start=placed[number].place))
        assert again == placed[number:]


@pytest.mark.parametrize("name", [name for name in FORMS if name != "n"])
def test_the_whole_of_standard_input_is_counted(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second reading finds the copy."""
    rows = [{"prompt": f"how do i bake {n} ?", "response": "mix it ."} for n in range(70)]
    rows[60] = {"prompt": "how do i bake it ?", "response": "how do i bake it ? mix it ."}
    rows[69] = {"prompt": "how do i eat it ?", "response": "how do i eat it ? eat it ."}
    FORMS[name](tmp_path / name, rows)
    monkeypatch.setattr("sarm_control.embedded._COPIES", {})
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((tmp_path / name).read_bytes())))
    with pytest.raises(DataError, match="of 70 rows with answers 2 repeat it"):
        read_rows("-", want={"answer"})


def as_generator(rows: list[dict[str, Any]]) -> Any:
    return (row for row in rows)


def as_reader(rows: list[dict[str, Any]]) -> Any:
    table = pa.Table.from_pylist(rows)
    return pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=7))


@pytest.mark.parametrize("give", [list, as_generator, pa.Table.from_pylist, as_reader])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape.name}: {shape.how[:20]}")
def test_oracle_every_shape_is_read_from_memory(shape: Form, give: Any) -> None:
    found = read_rows(give([shape.example] * 3), want=EVERY, say_form=False)
    assert [said(row) for row in found] == [plain(shape)] * 3


@pytest.mark.parametrize("give", [list, as_generator, as_reader])
def test_rows_that_come_once_are_counted_whole(give: Any) -> None:
    rows = [{"prompt": f"how do i bake {n} ?", "response": "mix it ."} for n in range(70)]
    rows[60] = {"prompt": "how do i bake it ?", "response": "how do i bake it ? mix it ."}
    with pytest.raises(DataError, match="row 61: the answers begin with the prompt") as caught:
        read_rows(give([*rows, rows[60]]), want={"answer"})
    assert "of 71 rows with answers 2 repeat it" in str(caught.value)


def test_a_row_in_memory_is_told_what_to_write_in_python() -> None:
    with pytest.raises(
        DataError, match=r"<list>: row 1: no prompt field: has keys \[query, reply\]"
    ) as caught:
        read_rows([{"query": "how ?", "reply": "so ."}], want={"answer"})
    hint = "options=RowOptions(columns=(('prompt', 'query'), ('response', 'reply')))"
    assert hint in str(caught.value.hint)
    with pytest.raises(DataError) as caught:
        read_rows([{"x": 1}], want={"answer"})
    assert "options=RowOptions(columns=" in str(caught.value.hint)


@pytest.mark.parametrize("name", FORMS)
def test_columns_of_other_names_are_read_as_those_of_ours(name: str, tmp_path: Path) -> None:
    """Text that looks like numbers or truth stays text, and lists are lists, in CSV as elsewhere."""
    texts = [{"q": text, "a": text, "n": 7} for text in ("7", "true", "0.5", "[1]", "so")]
    FORMS[name](tmp_path / name, texts)
    options = RowOptions(columns=(("prompt", "q"), ("response", "a")))
    found = read_rows(tmp_path / name, want={"answer"}, options=options)
    assert [(row.prompt, row.response, row.raw["n"]) for row in found] == [
        (one["q"], one["a"], 7) for one in texts
    ]
    other = tmp_path / "other"
    other.mkdir()
    turns = [{"role": "user", "content": "how ?"}, {"role": "assistant", "content": "so ."}]
    FORMS[name](other / name, [{"talk": turns, "answers": "[1]"}] * 2)
    options = RowOptions(columns=(("messages", "talk"),))
    found = read_rows(other / name, want={"answer"}, options=options)
    assert [(row.response, row.raw["answers"]) for row in found] == [("so .", "[1]")] * 2


def test_a_column_that_is_mapped_to_a_number_stays_one(tmp_path: Path) -> None:
    """`pref` is no text, and `text` is none where it is mapped to the preference."""
    rows = [{"context": "how ?", "response1": "7", "response2": "8", "text": value} for value in (2, -1)]
    csv_file(tmp_path / "a.csv", rows)
    options = RowOptions(columns=(("overall_preference", "text"),))
    found = read_rows(tmp_path / "a.csv", want={"pair"}, options=options)
    assert [(row.chosen, row.rejected) for row in found] == [(("8",), ("7",)), (("7",), ("8",))]


def test_fields_that_columns_add_as_null_are_absent(tmp_path: Path) -> None:
    """Tables have every column in every row: a pair beside an answer, turns with and without tool calls."""
    rows: list[dict[str, Any]] = [
        {"prompt": "how ?", "chosen": "so .", "rejected": "no ."},
        {"prompt": "why ?", "response": "because ."},
    ]
    for write in (jsonl, parquet_file, gzipped(csv_file)):
        names = list(dict.fromkeys(name for row in rows for name in row))
        write(tmp_path / "a.rows", [{name: row.get(name) for name in names} for row in rows])
        found = read_rows(tmp_path / "a.rows", want=EVERY)
        assert [row.kind for row in found] == ["pair", "answer"]
    calls = [{"name": "search"}]
    turns = [
        {"role": "user", "content": "how ?", "tool_calls": None},
        {"role": "assistant", "content": "so .", "tool_calls": None},
    ]
    parquet_file(
        tmp_path / "b.rows",
        [{"messages": turns}, {"messages": [turns[0], {**turns[1], "tool_calls": calls}]}],
    )
    (row,) = read_rows(tmp_path / "b.rows", want={"answer"}, skip_bad_rows=tmp_path / "bad.jsonl")
    assert (row.prompt, row.response) == ([{"role": "user", "content": "how ?"}], "so .")
    assert json.loads((tmp_path / "bad.jsonl").read_text())["reason"] == (
        "tool turns are not read: messages[1] has tool_calls"
    )
