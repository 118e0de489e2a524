"""Rows of a data file: examples of every form, properties of the reader, and bad input with its message."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sarm_control.data.rows import Kind, Row, count_empty_answers, read_rows
from sarm_control.errors import DataError, OutputError

ANY_ANSWER: set[Kind] = {"answer", "pair", "candidates"}

# No lone surrogates: they are no characters and UTF-8 has no bytes for them.
texts = st.text(st.characters(exclude_categories=["Cs"]))
prompts = texts.filter(str.strip)
numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
RESERVED = {
    "prompt",
    "question",
    "messages",
    "response",
    "answer",
    "chosen",
    "rejected",
    "candidates",
    "ended",
}
extras = st.dictionaries(texts.filter(lambda name: name not in RESERVED), values, max_size=3)


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data.jsonl"


def read_bytes(path: Path, content: bytes, want: set[Kind] = ANY_ANSWER) -> list[Row]:
    path.write_bytes(content)
    return read_rows(path, want=want)


def test_answer_row_keeps_its_fields_in_order(data: Path) -> None:
    raw = {"id": 7, "prompt": "Hi", "note": None, "response": "Hello"}
    (row,) = read_rows(write(data, raw), want={"answer"})
    assert (row.kind, row.prompt, row.response, row.answers) == ("answer", "Hi", "Hello", ("Hello",))
    assert list(row.raw.items()) == list(raw.items())
    assert row.where == f"{data}:1"


def test_question_and_answer_are_aliases_and_the_own_names_win(data: Path) -> None:
    alias, both = read_rows(
        write(
            data,
            {"question": "q", "answer": "a"},
            {"prompt": "p", "question": "q", "response": "r", "answer": "a"},
        ),
        want={"answer"},
    )
    assert (alias.prompt, alias.response) == ("q", "a")
    assert (both.prompt, both.response) == ("p", "r")


def test_pair_takes_a_string_or_a_list_on_each_side(data: Path) -> None:
    (row,) = read_rows(write(data, {"prompt": "p", "chosen": "a", "rejected": ["b", "c"]}), want={"pair"})
    assert (row.kind, row.chosen, row.rejected, row.answers) == ("pair", ("a",), ("b", "c"), ("a", "b", "c"))


def test_candidates_row(data: Path) -> None:
    (row,) = read_rows(write(data, {"prompt": "p", "candidates": ["a", "b"]}), want=ANY_ANSWER)
    assert (row.kind, row.answers) == ("candidates", ("a", "b"))


def test_messages_ending_with_the_assistant_are_an_answer(data: Path) -> None:
    turns = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "a"},
    ]
    (row,) = read_rows(write(data, {"messages": turns}), want=ANY_ANSWER)
    assert (row.kind, row.prompt, row.response) == ("answer", turns[:-1], "a")
    (row,) = read_rows(write(data, {"messages": turns[:-1]}), want={"prompt"})
    assert (row.kind, row.prompt, row.response) == ("prompt", turns[:-1], None)


def test_messages_are_the_prompt_of_a_row_with_answer_fields(data: Path) -> None:
    turns = [{"role": "user", "content": "u"}]
    rows = read_rows(
        write(data, {"messages": turns, "response": "a"}, {"prompt": turns, "chosen": "a", "rejected": "b"}),
        want=ANY_ANSWER,
    )
    assert [(row.kind, row.prompt) for row in rows] == [("answer", turns), ("pair", turns)]


def test_wanting_prompts_accepts_every_row(data: Path) -> None:
    rows = read_rows(
        write(
            data,
            {"prompt": "a"},
            {"prompt": "b", "response": "x"},
            {"prompt": "c", "chosen": "x", "rejected": "y"},
            {"messages": [{"role": "user", "content": "d"}, {"role": "assistant", "content": "x"}]},
        ),
        want={"prompt"},
    )
    assert [row.prompt_key for row in rows] == ["a", "b", "c", "d"]
    assert {row.kind for row in rows} == {"prompt"}
    assert [row.answers for row in rows] == [()] * 4


def test_row_of_two_kinds_is_read_as_the_wanted_one(data: Path) -> None:
    write(data, {"prompt": "p", "response": "r", "chosen": "c", "rejected": "d"})
    assert read_rows(data, want={"answer"})[0].kind == "answer"
    assert read_rows(data, want=ANY_ANSWER)[0].kind == "pair"


def test_null_counts_as_absent(data: Path) -> None:
    (row,) = read_rows(write(data, {"prompt": "p", "response": "r", "chosen": None}), want=ANY_ANSWER)
    assert row.kind == "answer"


def test_empty_answers_are_legal_and_counted(data: Path) -> None:
    rows = read_rows(
        write(data, {"prompt": "p", "response": ""}, {"prompt": "p", "candidates": ["", "x", ""]}),
        want=ANY_ANSWER,
    )
    assert rows[0].answers == ("",)
    assert count_empty_answers(rows) == 3


@pytest.mark.parametrize(
    ("fields", "ended"),
    [
        ({}, True),
        ({"ended": False}, False),
        ({"finish_reason": "length"}, False),
        ({"finish_reason": "stop"}, True),
    ],
)
def test_row_says_whether_its_answer_ended(data: Path, fields: dict[str, object], ended: bool) -> None:
    (row,) = read_rows(write(data, {"prompt": "p", "response": "r", **fields}), want={"answer"})
    assert row.ended is ended


def test_same_prompt_as_text_or_as_one_user_message_has_one_key(data: Path) -> None:
    user = {"role": "user", "content": "p"}
    rows = read_rows(
        write(
            data, {"prompt": "p"}, {"prompt": [user]}, {"prompt": [{"role": "system", "content": "s"}, user]}
        ),
        want={"prompt"},
    )
    assert rows[0].prompt_key == rows[1].prompt_key != rows[2].prompt_key


def test_bom_blank_lines_and_crlf_are_tolerated_and_lines_counted(data: Path) -> None:
    rows = read_bytes(
        data, b'\xef\xbb\xbf{"prompt":"a","response":"x"}\r\n\r\n  \t\n{"prompt":"b","response":"y"}'
    )
    assert [(row.line, row.response) for row in rows] == [(1, "x"), (4, "y")]


@given(
    rows=st.lists(st.tuples(prompts, texts, extras), min_size=1, max_size=4),
    newline=st.sampled_from(["\n", "\r\n"]),
)
def test_property_any_row_written_as_json_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, dict[str, object]]], newline: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "property.jsonl"
    written = [{**extra, "prompt": prompt, "response": response} for prompt, response, extra in rows]
    text = "".join(json.dumps(row, ensure_ascii=False) + newline for row in written)
    path.write_bytes(text.encode("utf-8"))
    read = read_rows(path, want=ANY_ANSWER)
    assert [row.raw for row in read] == written
    assert [(row.prompt, row.response) for row in read] == [row[:2] for row in rows]


@given(texts=st.lists(st.text("ab\u2028\u2029\x85\x0b\x0c\x1c\r", min_size=1), min_size=1))
def test_property_only_newlines_split_rows(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    path = tmp_path_factory.getbasetemp() / "separators.jsonl"
    rows = [json.dumps({"prompt": "p", "response": text}, ensure_ascii=False) for text in texts]
    path.write_bytes("\n".join(rows).encode("utf-8"))
    assert [row.response for row in read_rows(path, want=ANY_ANSWER)] == texts


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"prompt": "p", "response": "\xff"}', "not UTF-8 at byte 30 of the line"),
        (b"{prompt: 1}", "not JSON: .* at column 2"),
        (b'{"prompt": "p", "response": "r", "x": NaN}', "not JSON: NaN is not a JSON number"),
        (b'{"prompt": "p", "response": "r", "x": -Infinity}', "not JSON: -Infinity is not a JSON number"),
        (b'{"prompt": "p", "response": "r", "x": 1e999}', "1e999 is too large"),
        (b"[" * 100_000, "not JSON: "),
        (b'["p", "r"]', "not an object but a list"),
        (b'{"prompt":"a","prompt":"b","response":"x"}', "not JSON: the key 'prompt' is there twice"),
        (b'{"prompt":"a","response":"x","m":{"k":1,"k":1}}', "not JSON: the key 'k' is there twice"),
        (b'{"prompt": "p", "response": "\\ud800"}', r"half a character \(.ud800"),
        (
            b'{"prompt": "p"}',
            r"no answer field: has keys \[prompt\], wants one of \[response \(or answer\), chosen",
        ),
        (b'{"prompt": "p", "response": null}', r"no answer field: has keys \[prompt, response \(null\)\]"),
        (b'{"prompt": "p", "chosen": "a"}', r"no rejected field: has keys \[prompt, chosen\]"),
        (b'{"prompt": "p", "rejected": "a"}', r"no chosen field: has keys \[prompt, rejected\]"),
        (b'{"response": "r"}', r"no prompt field: has keys \[response\]"),
        (b'{"prompt": " ", "response": "r"}', "prompt is empty"),
        (b'{"prompt": [], "response": "r"}', "prompt is an empty list, wants a list of .* messages"),
        (b'{"prompt": 3, "response": "r"}', "prompt is a number, wants a string or a list of messages"),
        (b'{"prompt": "p", "response": ["r"]}', "response is a list, wants a string"),
        (b'{"prompt": "p", "chosen": [], "rejected": "r"}', "chosen is an empty list"),
        (b'{"prompt": "p", "chosen": ["a", 2], "rejected": "r"}', r"chosen\[1\] is a number, wants a string"),
        (b'{"prompt": "p", "candidates": "a"}', "candidates is a string, wants a list of strings"),
        (b'{"prompt": "p", "response": "r", "ended": "no"}', "ended is a string, wants true or false"),
        (b'{"prompt": "p", "messages": []}', "has both prompt and messages"),
        (b'{"messages": [{"role": "user"}]}', r"messages\[0\] is not a .* message"),
        (
            b'{"messages": [{"role": "user", "content": []}]}',
            r"messages\[0\].content is an empty list, wants a string",
        ),
        (b'{"messages": [{"role": "assistant", "content": "a"}]}', "only the assistant's message"),
        (
            b'{"prompt": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]}',
            "prompt ends with the assistant's message",
        ),
    ],
)
def test_bad_row_names_file_line_and_reason(data: Path, line: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=rf"data\.jsonl:2: .*{reason}"):
        read_bytes(data, b'{"prompt": "p", "response": "r"}\n' + line + b"\n")


@pytest.mark.parametrize("content", [b"", b"\n \r\n", b"\xef\xbb\xbf"])
def test_file_without_rows_is_an_error(data: Path, content: bytes) -> None:
    with pytest.raises(DataError, match=r"data\.jsonl: the file has no rows"):
        read_bytes(data, content)


def test_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl: No such file"):
        read_rows(tmp_path / "none.jsonl", want=ANY_ANSWER)
    with pytest.raises(DataError, match="holds no data file"):
        read_rows(tmp_path, want=ANY_ANSWER)


def test_bad_rows_are_set_aside_with_line_reason_and_text(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data.write_bytes(
        b'{"prompt": "p", "response": "r"}\nnope\n\n{"prompt": "\xff"}\n{"prompt": "q", "response": ""}\n'
    )
    aside = tmp_path / "bad.jsonl"
    rows = read_rows(data, want=ANY_ANSWER, skip_bad_rows=aside)
    assert [row.line for row in rows] == [1, 5]
    bad = [json.loads(line) for line in aside.read_text(encoding="utf-8").splitlines()]
    assert [(row["line"], row["text"]) for row in bad] == [(2, "nope"), (4, '{"prompt": "\\xff"}')]
    assert "not UTF-8 at byte 13" in bad[1]["reason"]
    assert "2 of 4 rows set aside in" in capsys.readouterr().err


def test_file_of_bad_rows_only_is_an_error_and_they_are_still_set_aside(data: Path, tmp_path: Path) -> None:
    data.write_text("nope\nnope\n")
    aside = tmp_path / "bad.jsonl"
    with pytest.raises(DataError, match="none of the 2 rows can be used; line 1: not JSON"):
        read_rows(data, want=ANY_ANSWER, skip_bad_rows=aside)
    assert len(aside.read_text().splitlines()) == 2


def test_bad_rows_never_overwrite_the_data(data: Path) -> None:
    data.write_text("nope\n")
    with pytest.raises(DataError, match="would overwrite the data file"):
        read_rows(data, want=ANY_ANSWER, skip_bad_rows=data)
    assert data.read_text() == "nope\n"


def test_place_for_bad_rows_that_cannot_be_written_is_refused_first(data: Path, tmp_path: Path) -> None:
    data.write_text("nope\n")
    blocker = tmp_path / "file"
    blocker.touch()
    with pytest.raises(OutputError, match="cannot write"):
        read_rows(data, want=ANY_ANSWER, skip_bad_rows=blocker / "bad.jsonl")
