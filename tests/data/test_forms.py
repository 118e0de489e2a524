"""Oracle: every form gives the records of plain JSON Lines. Metamorphic: reading goes on from any place."""

import io
import itertools
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from sarm_control.data.files import BadRecord, Record, read_records
from sarm_control.data.files.places.opening import local_file
from sarm_control.data.rows import read_rows, stream_rows
from sarm_control.embedded import copies_of
from sarm_control.errors import DataError
from sarm_control.files import manifest, sha256_file
from tests.data.forms import FORMS, LINES, Fields, jsonl

ROWS: Fields = [
    {
        "prompt": f'Question {number}: ünïcode, "quotes",\nnew lines; and\ttabs',
        "chosen": [f"good {number}", "[not] a list"],
        "rejected": [f"bad {number}"],
        "subset": "Ties" if number % 2 else "Focus",
        "length": number,
        "score": number / 7,
        "ended": number % 3 == 0,
    }
    for number in range(11)
]


def usable(path: Path, **named: Any) -> list[Record]:
    """Every record of a file none of whose records is bad."""
    records = list(read_records(path, **named))
    assert not [record for record in records if not isinstance(record, Record)]
    return [record for record in records if isinstance(record, Record)]


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path: Path = tmp_path / request.param
    FORMS[request.param](path, ROWS)
    return path


def test_oracle_every_form_gives_the_records_of_json_lines(form: Path) -> None:
    records = usable(form)
    assert [record.fields for record in records] == ROWS
    assert [list(record.fields) for record in records] == [list(row) for row in ROWS]
    kinds = [[type(value) for value in row.values()] for row in ROWS]
    assert [[type(value) for value in record.fields.values()] for record in records] == kinds


def test_oracle_every_form_gives_the_rows_of_json_lines(form: Path, tmp_path: Path) -> None:
    jsonl(tmp_path / "plain.jsonl", ROWS)
    plain = read_rows(tmp_path / "plain.jsonl", want={"pair"})
    rows = read_rows(form, want={"pair"})
    assert [(row.kind, row.prompt, row.chosen, row.rejected, row.raw) for row in rows] == [
        (row.kind, row.prompt, row.chosen, row.rejected, row.raw) for row in plain
    ]


def test_places_are_named_by_line_or_row(form: Path) -> None:
    row = read_rows(form, want={"pair"})[3]
    assert row.where == (
        f"{form}:{7 if form.name == 'b.rows' else 4}" if form.name in LINES else f"{form}: row 4"
    )


def test_metamorphic_reading_goes_on_from_every_place(form: Path) -> None:
    records = list(read_records(form))
    for number, record in enumerate(records):
        assert list(read_records(form, start=record.place)) == records[number:]


def test_a_limit_stops_early(form: Path) -> None:
    assert len(list(read_records(form, limit=4))) == 4
    assert [row.raw for row in read_rows(form, want={"pair"}, limit=2)] == ROWS[:2]


def test_bad_rows_are_set_aside_in_every_form(form: Path, tmp_path: Path) -> None:
    """Rows without a prompt, here in the fourth place."""
    rows = [*ROWS[:3], {**ROWS[3], "prompt": " "}, *ROWS[4:]]
    if form.is_dir():
        pytest.skip("the folder is there already")
    FORMS[form.name](form, rows)
    with pytest.raises(DataError, match=r"(:[47]|: row 4): prompt is empty"):
        read_rows(form, want={"pair"})
    kept = read_rows(form, want={"pair"}, skip_bad_rows=tmp_path / "bad.jsonl")
    assert len(kept) == len(ROWS) - 1
    (bad,) = read_records(tmp_path / "bad.jsonl")
    assert isinstance(bad, Record)
    assert bad.fields["reason"] == "prompt is empty"
    assert bad.fields["line" if form.name in LINES else "row"] == (7 if form.name == "b.rows" else 4)


def test_standard_input_is_read_twice_and_hashed(
    form: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if form.is_dir():
        pytest.skip("no folder comes through a pipe")
    monkeypatch.setattr("sarm_control.embedded._COPIES", {})
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(form.read_bytes())))
    for _ in range(2):
        assert [row.raw for row in read_rows("-", want={"pair"})] == ROWS
    assert f"standard input: {form.stat().st_size} bytes kept" in capsys.readouterr().err
    assert manifest("score", inputs=[Path("-")], config={})["inputs"] == {"-": sha256_file(form)}
    assert set(copies_of([Path("-")])) == {"-"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_with_a_name_is_read_twice(
    form: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if form.is_dir():
        pytest.skip("no folder comes through a pipe")
    monkeypatch.setattr("sarm_control.embedded._COPIES", {})
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(form.read_bytes()))
    writer.start()
    try:
        first, second = (read_rows(pipe, want={"pair"}) for _ in range(2))
    finally:
        writer.join()
    assert [row.raw for row in first] == [row.raw for row in second] == ROWS
    assert sha256_file(pipe) == sha256_file(form)
    assert local_file(pipe) != pipe


def test_a_terminal_is_no_file_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sarm_control.embedded._COPIES", {})
    monkeypatch.setattr(sys, "stdin", Terminal())
    with pytest.raises(DataError, match="-: standard input is a terminal"):
        read_rows("-", want={"pair"})


def test_rows_come_as_they_are_asked_for(tmp_path: Path) -> None:
    """The first rows of a file are there before its damaged end is met."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"prompt": "p"}\n' * 3 + b"nope\n")
    found = stream_rows(path, want={"prompt"})
    assert [placed.row.prompt for placed in itertools.islice(found, 3)] == ["p"] * 3
    with pytest.raises(DataError, match=r"rows\.jsonl:4: not JSON"):
        next(found)


CSV = b"""prompt,response,n,flag,note
p,"7",7,true,
7,7,"7",False,x
"a ""b"", c","",0.5,-1e3,007
"""


def test_cells_are_text_numbers_truth_or_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(CSV)
    fields = [record.fields for record in usable(tmp_path / "a.csv")]
    assert fields == [
        {"prompt": "p", "response": "7", "n": 7, "flag": True, "note": None},
        {"prompt": "7", "response": "7", "n": "7", "flag": False, "note": "x"},
        {"prompt": 'a "b", c', "response": "", "n": 0.5, "flag": -1000.0, "note": "007"},
    ]
    fields = [
        record.fields
        for record in usable(tmp_path / "a.csv", columns=[("prompt", "n"), ("response", "flag")])
    ]
    assert [(one["n"], one["flag"]) for one in fields] == [("7", "true"), ("7", "False"), ("0.5", "-1e3")]


def test_json_in_a_cell_stays_text_unless_the_column_holds_lists(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        'prompt,response,chosen,extra\np,"[1, 2]","[""a"", ""b""]","[1]"\nq,"{""a"": 1}","[""c""]","{}"\n'
    )
    first, second = (record.fields for record in usable(tmp_path / "a.csv"))
    assert first == {"prompt": "p", "response": "[1, 2]", "chosen": ["a", "b"], "extra": "[1]"}
    assert second == {"prompt": "q", "response": '{"a": 1}', "chosen": ["c"], "extra": "{}"}
    # one answer of plain text among the first rows: the column is text
    (tmp_path / "b.csv").write_text('prompt,chosen\np,"[""a""]"\nq,plain\n')
    assert [record.fields["chosen"] for record in usable(tmp_path / "b.csv")] == ['["a"]', "plain"]


def test_text_in_a_column_of_lists_is_a_bad_row(tmp_path: Path) -> None:
    lines = ['p,"[""a""]"'] * 100 + ["q,plain"]
    (tmp_path / "a.csv").write_text("prompt,chosen\n" + "\n".join(lines) + "\n")
    *_, last = read_records(tmp_path / "a.csv")
    assert isinstance(last, BadRecord)
    assert "chosen is text, and a list in the file's first rows" in str(last.reason)


def test_values_of_tables_become_json_values(tmp_path: Path) -> None:
    import datetime
    import decimal

    import pyarrow as pa
    from pyarrow import parquet

    table = pa.table(
        {
            "day": [datetime.date(2026, 1, 31)],
            "time": [datetime.datetime(2026, 1, 31, 12, 30)],
            "price": [decimal.Decimal("1.50")],
            "nested": [[{"a": None, "b": [1.5]}]],
            "kind": pa.array(["x"]).dictionary_encode(),
        }
    )
    parquet.write_table(table, tmp_path / "a.parquet")
    (record,) = read_records(tmp_path / "a.parquet")
    assert isinstance(record, Record)
    assert record.fields == {
        "day": "2026-01-31",
        "time": "2026-01-31T12:30:00",
        "price": "1.50",
        "nested": [{"a": None, "b": [1.5]}],
        "kind": "x",
    }
