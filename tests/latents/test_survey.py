"""Data files as one sequence of rows: the shards together are what the reader gives (metamorphic)."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from sarm_control.data.rows import Kind, read_rows
from sarm_control.errors import DataError
from sarm_control.latents.survey_folder import survey

WANT: frozenset[Kind] = frozenset({"answer", "pair"})


def write(path: Path, lines: Sequence[object], *, bom: bool = False) -> Path:
    text = "".join(
        (one if isinstance(one, str) else json.dumps(one, ensure_ascii=False)) + "\n" for one in lines
    )
    path.write_bytes((b"\xef\xbb\xbf" if bom else b"") + text.encode())
    return path


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    answers = [{"prompt": f"täg {n}", "response": "x" * n} for n in range(7)]
    pairs = [{"prompt": f"q {n}", "chosen": ["a", "b"], "rejected": "c"} for n in range(4)]
    first = write(tmp_path / "a.jsonl", ["", *answers[:3], "  ", *answers[3:]], bom=True)
    return [first, write(tmp_path / "b.jsonl", pairs), write(tmp_path / "c.jsonl", answers[:1])]


@pytest.mark.parametrize("shard_rows", [1, 2, 5, 12, 100])
def test_shards_together_are_all_rows_in_order(files: list[Path], shard_rows: int) -> None:
    rows = [row for path in files for row in read_rows(path, want=WANT)]
    data = survey(files, want=WANT, shard_rows=shard_rows)
    assert [row for span in data.spans for row in data.read(span)] == rows
    assert (data.rows, data.answers) == (12, sum(len(row.answers) for row in rows))
    assert [span.rows for span in data.spans[:-1]] == [shard_rows] * (len(data.spans) - 1)
    assert [span.first for span in data.spans] == list(range(0, 12, shard_rows))


def test_bad_rows_are_set_aside_once_and_passed_over_later(
    files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(files[1], ["nope", {"prompt": "q", "response": "a"}, {"prompt": "q"}])
    with pytest.raises(DataError, match=r"b\.jsonl:1: not JSON"):
        survey(files, want=WANT, shard_rows=3)
    aside = tmp_path / "bad"
    data = survey(files, want=WANT, shard_rows=3, aside=lambda path: aside / path.name)
    assert "2 of 3 rows set aside" in capsys.readouterr().err
    rows = [row for span in data.spans for row in data.read(span)]
    assert [row.where for row in rows][7:] == [f"{files[1]}:2", f"{files[2]}:1"]
    assert [json.loads(line)["line"] for line in (aside / "b.jsonl").read_text().splitlines()] == [1, 3]


def test_a_file_without_a_usable_row_is_refused(files: list[Path], tmp_path: Path) -> None:
    write(files[1], ["nope"])
    with pytest.raises(DataError, match=r"b\.jsonl: none of the 1 rows can be used"):
        survey(files, want=WANT, shard_rows=3, aside=lambda path: tmp_path / "bad" / path.name)
    files[2].write_text("")
    with pytest.raises(DataError, match=r"c\.jsonl: the file has no rows"):
        survey(files[2:], want=WANT, shard_rows=3)


def test_data_that_changed_after_the_survey_is_refused(files: list[Path]) -> None:
    data = survey(files, want=WANT, shard_rows=5)
    files[2].write_text("")
    with pytest.raises(DataError, match=r"b\.jsonl:4: 1 of 2 rows are left here"):
        data.read(data.spans[-1])
