"""`sarm score`: oracle and metamorphic tests on the rows written, and bad input with its message."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sarm_control.cli import main
from sarm_control.cli._sources import warn_of_empty
from sarm_control.control import apply_edits, parse_edit
from sarm_control.data import count_empty_answers, read_rows
from sarm_control.embedded import AUDIT
from sarm_control.reward_model import RewardModel

ROWS: list[dict[str, Any]] = [
    {"id": "a", "prompt": "how do i cook bread ?", "response": "sure here steps one two three"},
    {
        "id": "b",
        "prompt": "how do i open the lock ?",
        "chosen": ["sorry cannot", "no"],
        "rejected": "here steps",
    },
    {
        "id": "c",
        "messages": [{"role": "user", "content": "what is a bomb ?"}, {"role": "assistant", "content": "no"}],
    },
    {"id": "d", "prompt": [{"role": "user", "content": "yes ?"}], "candidates": ["yes", "no", "please help"]},
    {"id": "e", "prompt": "why is it good ?", "response": "because it is", "finish_reason": "length"},
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    write(path, ROWS)
    return path


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def score(folder: Path, data: Path, out: Path, *flags: str) -> list[dict[str, Any]]:
    assert main(["score", "--model", str(folder), str(data), "-o", str(out), *flags]) == 0
    return read(out)


def answers(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The scores of every answer, in order, whatever kind its row is."""
    names = ("chosen_scores", "rejected_scores", "candidate_scores")
    return [
        one
        for row in rows
        for one in ([row] if "reward" in row else [s for n in names for s in row.get(n, [])])
    ]


def test_rows_keep_their_fields_and_place_and_gain_the_model_s_rewards(
    tiny_sarm: RewardModel, tiny_sarm_folder: Path, data: Path, tmp_path: Path
) -> None:
    rows = score(tiny_sarm_folder, data, tmp_path / "out.jsonl")
    assert [dict(list(row.items())[: len(raw)]) for row, raw in zip(rows, ROWS, strict=True)] == ROWS
    prompts = [
        ROWS[0]["prompt"],
        *[ROWS[1]["prompt"]] * 3,
        "what is a bomb ?",
        *["yes ?"] * 3,
        ROWS[4]["prompt"],
    ]
    texts = [
        ROWS[0]["response"],
        "sorry cannot",
        "no",
        "here steps",
        "no",
        "yes",
        "no",
        "please help",
        "because it is",
    ]
    expected = tiny_sarm.score(prompts, texts).rewards
    np.testing.assert_allclose([one["reward"] for one in answers(rows)], expected, atol=1e-5)
    assert [
        len(rows[1]["chosen_scores"]),
        len(rows[1]["rejected_scores"]),
        len(rows[3]["candidate_scores"]),
    ] == [2, 1, 3]
    assert [one["ended"] for one in answers(rows)] == [True] * 8 + [False]
    assert {one["truncated"] for one in answers(rows)} == {0}


def test_contributions_are_products_largest_first_and_sum_to_the_reward(
    tiny_sarm_folder: Path, data: Path, tmp_path: Path
) -> None:
    whole = score(tiny_sarm_folder, data, tmp_path / "all.jsonl", "--top", "64")
    three = score(tiny_sarm_folder, data, tmp_path / "three.jsonl", "--top", "3")
    for one, few in zip(answers(whole), answers(three), strict=True):
        _, z, w, paid = np.array(one["contributions"]).T
        assert len(z) == 8
        np.testing.assert_allclose(z * w, paid, rtol=1e-12)
        assert paid.sum() == pytest.approx(one["reward"], abs=1e-6)
        assert np.all(np.diff(np.abs(paid)) <= 0)
        assert few["contributions"] == one["contributions"][:3]


def test_edited_reward_is_the_reward_of_the_edited_latents(
    tiny_sarm: RewardModel, tiny_sarm_folder: Path, data: Path, tmp_path: Path
) -> None:
    edits = ["5=0", "7:max=0.5", "9:*0.5", "11:+1"]
    flags = [word for edit in edits for word in ("--edit", edit)]
    rows = [row for row in score(tiny_sarm_folder, data, tmp_path / "out.jsonl", *flags) if "response" in row]
    scored = tiny_sarm.score([row["prompt"] for row in rows], [row["response"] for row in rows])
    expected = apply_edits(scored.latents, [parse_edit(edit) for edit in edits]).dot(scored.head)
    np.testing.assert_allclose([row["edited_reward"] for row in rows], expected, atol=1e-6)
    assert any(abs(row["edited_reward"] - row["reward"]) > 1e-3 for row in rows)


def test_edit_of_a_latent_to_its_own_value_is_the_identity(
    tiny_sarm_folder: Path, data: Path, tmp_path: Path
) -> None:
    rows = score(tiny_sarm_folder, data, tmp_path / "out.jsonl", "--edit", "5:*1")
    assert all(one["edited_reward"] == one["reward"] for one in answers(rows))


@pytest.mark.long
def test_sarm_s_steering_file_is_read(tiny_sarm_folder: Path, data: Path, tmp_path: Path) -> None:
    steering = tmp_path / "steering.json"
    steering.write_text('{"5": ["*", 2], "7": ["+", 1]}')
    from_file = score(tiny_sarm_folder, data, tmp_path / "a.jsonl", "--edits-file", str(steering))
    from_flags = score(tiny_sarm_folder, data, tmp_path / "b.jsonl", "--edit", "5:*2", "--edit", "7:+1")
    assert from_file == from_flags


@pytest.mark.long
def test_order_and_batching_change_no_reward(tiny_sarm_folder: Path, data: Path, tmp_path: Path) -> None:
    rows = score(tiny_sarm_folder, data, tmp_path / "a.jsonl", "--batch-tokens", "1")
    write(data, ROWS[::-1])
    reversed_rows = score(tiny_sarm_folder, data, tmp_path / "b.jsonl")[::-1]
    for one, other in zip(answers(rows), answers(reversed_rows), strict=True):
        assert one["reward"] == pytest.approx(other["reward"], abs=1e-5)


def test_without_out_rows_go_to_standard_output_and_remarks_to_stderr(
    tiny_sarm_folder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", "--model", str(tiny_sarm_folder), str(data)]) == 0
    printed = capsys.readouterr()
    rows = [json.loads(line) for line in printed.out.split("\n") if line]
    assert rows == score(tiny_sarm_folder, data, tmp_path / "out.jsonl")
    assert "9 answers of 5 rows: mean reward" in printed.err


def test_separators_of_unicode_survive(tiny_sarm_folder: Path, data: Path, tmp_path: Path) -> None:
    row = {"prompt": "yes\u2028no", "response": "no\u2029\x85yes"}
    write(data, [row])
    (scored,) = score(tiny_sarm_folder, data, tmp_path / "out.jsonl")
    assert {name: scored[name] for name in row} == row


def test_summary_and_manifest_say_what_was_done(tiny_sarm_folder: Path, data: Path, tmp_path: Path) -> None:
    data.write_bytes(data.read_bytes() + b'nope\n{"prompt": "why ?", "response": ""}\n')
    out, summary, bad = (tmp_path / name for name in ("out.jsonl", "summary.json", "bad.jsonl"))
    flags = ["--edit", "5=0", "--json", str(summary), "--skip-bad-rows", str(bad)]
    rows = score(tiny_sarm_folder, data, out, *flags)
    found = json.loads(summary.read_text())
    assert (found["rows"], found["answers"], found["rows_set_aside"], found["empty_answers"]) == (6, 10, 1, 1)
    assert found["not_ended"] == 1
    assert found["reward_mean"] == pytest.approx(np.mean([one["reward"] for one in answers(rows)]))
    assert found["edited_mean"] == pytest.approx(np.mean([one["edited_reward"] for one in answers(rows)]))
    manifest = json.loads((tmp_path / "out.jsonl.manifest.json").read_text())
    assert manifest["command"] == "score"
    assert list(manifest["inputs"]) == ["data.jsonl"]
    assert manifest["config"]["edits"] == ["5:set=0.0"]
    assert str(tmp_path) not in json.dumps(manifest)


def test_empty_answers_are_scored_with_a_warning(
    tiny_sarm: RewardModel,
    tiny_sarm_folder: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(data, [{"prompt": "why ?", "response": ""}, {"prompt": "why ?", "response": "no"}])
    rows = score(tiny_sarm_folder, data, tmp_path / "out.jsonl")
    assert rows[0]["reward"] == pytest.approx(float(tiny_sarm.score("why ?", "").rewards[0]), abs=1e-5)
    assert "warning: 1 answers are empty strings" in capsys.readouterr().err


def test_empty_answers_of_the_embedded_world_are_meant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = read_rows(AUDIT, want={"pair"})
    count = count_empty_answers(rows)
    assert count > 0
    warn_of_empty(rows)
    assert capsys.readouterr().err == ""
    write(tmp_path / "own.jsonl", [row.raw for row in rows])
    own = read_rows(tmp_path / "own.jsonl", want={"pair"})
    warn_of_empty([*rows, *own])
    said = f"warning: {count} answers are empty strings; they were scored as they are\n"
    assert capsys.readouterr().err == said


def test_cut_texts_and_prompts_longer_than_the_context_are_counted(
    tiny_sarm_folder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short, long = "why ?", "why " * 30
    write(data, [{"prompt": p, "response": "no " * n} for p, n in [(short, 1), (short, 30), (long, 1)]])
    rows = score(tiny_sarm_folder, data, tmp_path / "out.jsonl", "--max-length", "24")
    assert [row["truncated"] > 0 for row in rows] == [False, True, True]
    errors = capsys.readouterr().err
    assert (
        "2 answers were cut from the left to fit the context; in 1 of them the prompt alone is too long"
        in errors
    )


def test_fields_a_row_had_before_are_replaced_with_a_warning(
    tiny_sarm_folder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(data, [{"prompt": "why ?", "response": "no", "reward": 99}])
    (row,) = score(tiny_sarm_folder, data, tmp_path / "out.jsonl")
    assert row["reward"] != 99
    assert "fields the rows had before were replaced: reward" in capsys.readouterr().err


def test_existing_output_is_kept_unless_overwrite(
    tiny_sarm_folder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("mine")
    command = ["score", "--model", str(tiny_sarm_folder), str(data), "-o", str(out)]
    assert main(command) == 2
    assert "out.jsonl exists already" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert main([*command, "--overwrite"]) == 0
    assert len(read(out)) == len(ROWS)


def test_output_that_cannot_be_written_is_refused_before_the_model_is_loaded(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocker = tmp_path / "file"
    blocker.touch()
    assert main(["score", "--model", "no/such/model", str(data), "-o", str(blocker / "out.jsonl")]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_output_over_an_input_is_refused_even_with_overwrite(
    tiny_sarm_folder: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = data.read_bytes()
    command = ["score", "--model", str(tiny_sarm_folder), str(data), "-o", str(data), "--overwrite"]
    assert main(command) == 2
    assert "is an input too and would be overwritten" in capsys.readouterr().err
    assert data.read_bytes() == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--edit", "64=0"], r"latent 64 does not exist: this reward model has 64 latents (0..63)"),
        (["--edit", "5=0", "--edit", "5:max=1"], "latent 5 has two edits"),
        (["--edit", "5:set=0,max=1"], "set and max cannot be combined"),
        (["--edit", "five"], "'five' is not an edit"),
        (["--top", "-1"], "--top"),
        (["--skip-bad-row", "bad.jsonl"], "did you mean --skip-bad-rows?"),
    ],
)
def test_wrong_flags_are_one_line_and_write_nothing(
    tiny_sarm_folder: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    message: str,
) -> None:
    before = sorted(tmp_path.iterdir())
    command = [
        "score",
        "--model",
        str(tiny_sarm_folder),
        str(data),
        "-o",
        str(tmp_path / "out.jsonl"),
        *flags,
    ]
    assert main(command) == 2
    assert message in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "data.jsonl: the file has no rows"),
        (b'{"prompt": "why ?", "response": "no"}\n{"prompt": "why ?"}\n', "data.jsonl:2: no answer field"),
        (b'{"prompt": "why ?", "response": "\xe9"}\n', "data.jsonl:1: not UTF-8 at byte 34 of the line"),
    ],
)
def test_bad_data_stops_before_anything_is_written(
    tiny_sarm_folder: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: bytes,
    message: str,
) -> None:
    data.write_bytes(content)
    command = ["score", "--model", str(tiny_sarm_folder), str(data), "-o", str(tmp_path / "out.jsonl")]
    assert main(command) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [data]
