"""Property: what is written is what is read; and whatever is done to a file, only our errors come out."""

import csv
import json
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from sarm_control.data.files import BadRecord, Record, read_records
from sarm_control.data.files.writing import output_form, write_rows
from sarm_control.errors import LONGEST_MESSAGE, OutputError, SarmError
from tests.data.forms import FORMS

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
names = texts | st.sampled_from(["prompt", "response", "chosen", "n", "messages", "a b"])
numbers = st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False)
cells = (
    st.none()
    | st.booleans()
    | numbers
    | texts
    | st.sampled_from(["7", "true", "", " ", "[1]", '"', "1e5", "-0"])
)
values = st.recursive(
    cells, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)
any_rows = st.lists(st.dictionaries(names, values, max_size=4), max_size=5)
TEXT_FORMS = ("rows.jsonl", "rows.jsonl.gz", "rows.jsonl.zst")


def fields(path: Path) -> list[dict[str, Any]]:
    found = list(read_records(path))
    assert not [one for one in found if isinstance(one, BadRecord)]
    return [one.fields for one in found if isinstance(one, Record)]


def refusal(path: Path, rows: Any, reason: str) -> bool:
    """Whether the rows were refused, for this reason; else they are written."""
    message = ""
    try:
        write_rows(path, rows)
    except OutputError as error:
        message = str(error)
    assert not message or reason in message
    return bool(message)


def exact(value: Any) -> str:
    """Types and the order of fields count too; so does the sign of a zero."""
    return json.dumps(value)


@settings(max_examples=60)
@given(any_rows, st.sampled_from(TEXT_FORMS))
def test_property_json_lines(tmp_path_factory: pytest.TempPathFactory, rows: Any, name: str) -> None:
    path = tmp_path_factory.getbasetemp() / name
    assert write_rows(path, rows) == len(rows)
    assert exact(fields(path)) == exact(rows)


@settings(max_examples=60)
@given(any_rows, st.sampled_from([None, 0, 2]))
def test_property_json_arrays(
    tmp_path_factory: pytest.TempPathFactory, rows: Any, indent: int | None
) -> None:
    path = tmp_path_factory.getbasetemp() / "rows.json"
    path.write_text(json.dumps(rows, indent=indent, ensure_ascii=False))
    assert exact(fields(path)) == exact(rows)


tables = st.lists(names, min_size=2, max_size=4, unique=True).flatmap(
    lambda columns: st.lists(st.fixed_dictionaries(dict.fromkeys(columns, cells)), min_size=1, max_size=5)
)
TEXT = {"prompt", "response", "chosen"}


def as_text(name: str, value: Any) -> Any:
    return json.dumps(value) if name in TEXT and not isinstance(value, str | None) else value


@settings(max_examples=60)
@given(tables, st.sampled_from(["rows.csv", "rows.tsv", "rows.csv.gz", "rows.tsv.zst"]))
def test_property_csv(tmp_path_factory: pytest.TempPathFactory, rows: Any, name: str) -> None:
    """Numbers and truth in a column of text become text; everything else is as it was."""
    path = tmp_path_factory.getbasetemp() / name
    if refusal(path, rows, "holds text and lists"):
        return
    # the columns of the first row say the order
    rows = [{key: row[key] for key in rows[0]} for row in rows]
    expected = [{key: as_text(key, value) for key, value in row.items()} for row in rows]
    assert exact(fields(path)) == exact(expected)


@settings(max_examples=60)
@given(
    st.lists(names, min_size=1, max_size=4, unique=True).flatmap(
        lambda columns: st.lists(
            st.lists(texts, min_size=len(columns), max_size=len(columns)), max_size=5
        ).map(lambda rows: (columns, rows))
    ),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_property_csv_of_python(
    tmp_path_factory: pytest.TempPathFactory, table: Any, quoting: Literal[1, 2], end: str
) -> None:
    """What Python's writer puts into quotes is read as it was."""
    columns, rows = table
    path = tmp_path_factory.getbasetemp() / "python.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, quoting=quoting, lineterminator=end)
        writer.writerows([columns, *rows])
    found = fields(path)
    lists = {key for row in found for key, value in row.items() if isinstance(value, list)}
    assert [{key: value for key, value in row.items() if key not in lists} for row in found] == [
        {key: value for key, value in zip(columns, row, strict=True) if key not in lists} for row in rows
    ]


def same(value: Any, kept: Any) -> bool:
    """Null and absent are one in Parquet, and so are 1 and 1.0 in a column of both."""
    if isinstance(value, dict):
        return isinstance(kept, dict) and all(
            same(value.get(key), kept.get(key)) for key in {**value, **kept}
        )
    if isinstance(value, list):
        return isinstance(kept, list) and len(value) == len(kept) and all(map(same, value, kept))
    return bool(value == kept) and isinstance(value, bool) == isinstance(kept, bool)


@settings(max_examples=60)
@given(any_rows)
def test_property_parquet_keeps_rows_or_refuses_them(
    tmp_path_factory: pytest.TempPathFactory, rows: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / "rows.parquet"
    if refusal(path, rows, "Parquet has one type a column"):
        return
    found = fields(path)
    assert len(found) == len(rows)
    assert all(same(row, kept) for row, kept in zip(rows, found, strict=True))


messages = st.builds(lambda role, content: {"role": role, "content": content}, texts, texts)
typed = st.fixed_dictionaries(
    {
        "prompt": texts,
        "chosen": st.lists(texts, max_size=3),
        "messages": st.lists(messages, max_size=3),
        "n": st.integers(-(2**62), 2**62),
        "x": st.floats(allow_nan=False, allow_infinity=False),
        "ok": st.booleans() | st.none(),
    }
)


@settings(max_examples=60)
@given(st.lists(typed, min_size=1, max_size=5))
def test_property_typed_rows_survive_parquet_exactly(
    tmp_path_factory: pytest.TempPathFactory, rows: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / "typed.parquet"
    rows = [{name: row[name] for name in rows[0]} for row in rows]
    write_rows(path, rows)
    assert exact(fields(path)) == exact(rows)
    assert exact(parquet.read_table(path).to_pylist()) == exact(rows)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet", "rows.csv", "rows.tsv.gz"])
def test_rows_that_come_once_are_written_alike(tmp_path: Path, name: str) -> None:
    """More than one batch, of types that only later rows show."""
    rows = [
        {"prompt": f"p{i}", "n": None if i < 1500 else i, "x": i if i < 2000 else i / 3} for i in range(2500)
    ]
    (tmp_path / "once").mkdir()
    write_rows(tmp_path / name, rows)
    assert write_rows(tmp_path / "once" / name, iter(rows)) == 2500
    assert (tmp_path / name).read_bytes() == (tmp_path / "once" / name).read_bytes()
    assert fields(tmp_path / name) == rows


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("a.parquet", [{"x": 1}, {"x": "a"}], "Parquet has one type a column: x: "),
        ("a.parquet", [{"x": 2**70}], "Parquet has one type a column: x: "),
        ("a.parquet", [{"x": {}}], "Parquet has one type a column: "),
        ("a.csv", [{"chosen": "a", "n": 1}, {"chosen": ["b"], "n": 1}], "chosen holds text and lists"),
        ("a.csv", [{"chosen": '["a"]', "n": 1}], "chosen holds text and lists"),
        ("a.csv", [{"x": 1}, {"x": None}], "row 2 is empty, which CSV cannot hold"),
        ("a.xlsx", [{"x": 1}], "rows are not written in this form"),
        ("a.parquet.gz", [{"x": 1}], "rows are not written in this form"),
    ],
)
def test_what_a_form_cannot_hold_is_refused(tmp_path: Path, name: str, rows: Any, message: str) -> None:
    with pytest.raises(OutputError, match=rf"{name}: {message}"):
        write_rows(tmp_path / name, rows)
    assert not list(tmp_path.iterdir())


def test_the_suffix_says_the_form() -> None:
    named = {
        "a.jsonl": "JSON Lines",
        "a": "JSON Lines",
        "a.PARQUET": "Parquet",
        "a.csv.gz": "CSV",
        "a.tsv": "TSV",
    }
    assert {name: output_form(Path(name)) for name in named} == named


ROWS = [
    {"prompt": f"p {i}", "chosen": ["a", 'b"\n'], "rejected": ["c"], "n": i, "x": i / 3} for i in range(8)
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("forms")
    for name, write in FORMS.items():
        write(folder / name, ROWS)
    return folder


@settings(max_examples=60)
@given(data=st.data(), name=st.sampled_from([name for name in FORMS if name != "n"]))
def test_property_a_damaged_file_is_one_of_our_errors(
    whole: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, name: str
) -> None:
    content = bytearray((whole / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        kind = data.draw(st.sampled_from(["cut", "flip", "insert"]))
        place = data.draw(st.integers(0, max(len(content) - 1, 0)))
        if kind == "cut":
            content = content[:place]
        elif kind == "flip" and content:
            content[place] ^= data.draw(st.integers(1, 255))
        else:
            content[place:place] = data.draw(
                st.sampled_from([b"\x00", b"[" * 300, b"9" * 5000, b"\xff", b"NaN", b'"', b",", b"\n", b"{"])
            )
    path = tmp_path_factory.getbasetemp() / f"damaged-{name}"
    path.write_bytes(content)
    message = ""
    try:
        for record in read_records(path):
            assert isinstance(record, Record | BadRecord)
            assert record.place.line >= 1
            held = record.fields if isinstance(record, Record) else record.text
            json.dumps(held, allow_nan=False).encode()
    except SarmError as error:
        message = str(error)
    assert not message or str(path) in message
    assert "\n" not in message
    assert len(message) <= LONGEST_MESSAGE + 100
