"""`sarm data`, and forms of rows in other commands: oracle tests against the plain file, and bad input."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sarm_control.cli import main
from sarm_control.data import FORMS, Form, Kind, read_rows
from sarm_control.reward_model import RewardModel

ROWS = [
    {"prompt": "how do i bake a cake ?", "chosen": "first mix the flour .", "rejected": "i do not know ."},
    {"prompt": "how do i open the door ?", "chosen": "turn the key .", "rejected": "what a question !"},
    {"prompt": "How do I  open the door ?", "chosen": "use the key .", "rejected": ""},
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def turns(prompt: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]


def ultrafeedback(row: dict[str, Any]) -> dict[str, Any]:
    sides = {side: turns(row["prompt"], row[side]) for side in ("chosen", "rejected")}
    return {"prompt": row["prompt"], **sides, "score_chosen": 8.0}


def transcripts(row: dict[str, Any]) -> dict[str, Any]:
    return {side: f"\n\nHuman: {row['prompt']}\n\nAssistant: {row[side]}" for side in ("chosen", "rejected")}


def renamed(row: dict[str, Any]) -> dict[str, Any]:
    return {"question": row["prompt"], "best": row["chosen"], "worst": row["rejected"]}


def repeating(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, **{side: f"{row['prompt']} {row[side]}" for side in ("chosen", "rejected")}}


COLUMNS = ("--columns", "prompt=question,chosen=best,rejected=worst")
WAYS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "UltraFeedback": (ultrafeedback, ()),
    "transcripts": (transcripts, ()),
    "other names": (renamed, COLUMNS),
    "repeated prompts": (repeating, ()),
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("plain") / "rows.jsonl", ROWS)


@pytest.fixture(scope="module")
def plain_scores(plain: Path) -> list[Any]:
    out = plain.with_name("scores.jsonl")
    assert main(["score", str(plain), "-o", str(out)]) == 0
    return [(row["chosen_scores"], row["rejected_scores"]) for row in read(out)]


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS)
def test_oracle_every_form_has_the_scores_of_the_plain_file_to_the_bit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], plain_scores: list[Any], way: str
) -> None:
    form, flags = WAYS[way]
    rows = [form(row) for row in ROWS]
    out = tmp_path / "scores.jsonl"
    assert main(["score", str(write(tmp_path / "rows.jsonl", rows)), "-o", str(out), *flags]) == 0
    scored = read(out)
    assert [(row["chosen_scores"], row["rejected_scores"]) for row in scored] == plain_scores
    assert [{name: row[name] for name in raw} for row, raw in zip(scored, rows, strict=True)] == rows
    assert "read as: " in capsys.readouterr().err


def scores_of_latents(data: Path, folder: Path, *flags: str) -> list[Any]:
    """By way of a folder of two shards: the second is read from the middle of the file."""
    assert main(["latents", str(data), "-o", str(folder / "latents"), "--shard-size", "2", *flags]) == 0
    assert main(["score", str(folder / "latents"), "-o", str(folder / "scores.jsonl")]) == 0
    return [(row["chosen_scores"], row["rejected_scores"]) for row in read(folder / "scores.jsonl")]


@pytest.fixture(scope="module")
def plain_latents(tmp_path_factory: pytest.TempPathFactory, plain: Path) -> list[Any]:
    return scores_of_latents(plain, tmp_path_factory.mktemp("folder"))


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS)
def test_a_latents_folder_of_any_form_is_read_back_as_its_rows(
    tmp_path: Path, plain_latents: list[Any], way: str
) -> None:
    form, flags = WAYS[way]
    data = write(tmp_path / "rows.jsonl", [form(row) for row in ROWS])
    assert scores_of_latents(data, tmp_path, *flags) == plain_latents


@pytest.mark.long
@pytest.mark.parametrize("command", [["probe", "--edit", "8=0"], ["rerank", "--edit", "8=0"]])
def test_oracle_columns_serve_other_commands_that_read_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], plain: Path, command: list[str]
) -> None:
    other = write(tmp_path / "rows.jsonl", [renamed(row) for row in ROWS])
    assert main([command[0], str(plain), *command[1:]]) == 0
    expected = capsys.readouterr().out
    assert main([command[0], str(other), *command[1:], *COLUMNS]) == 0
    found = capsys.readouterr()
    assert found.out == expected
    assert "have the prompt of another row in other case or white space; they count as one" in found.err


@pytest.mark.long
def test_oracle_a_discovery_on_another_form_is_that_on_the_plain_file(tmp_path: Path) -> None:
    audit = [row.raw for row in read_rows("lab:audit", want={"pair"})][:120]
    found = []
    for name, rows in (("plain", audit), ("other", [ultrafeedback(row) for row in audit])):
        data, out = write(tmp_path / f"{name}.jsonl", rows), tmp_path / name
        assert main(["discover", str(data), "-o", str(out), "--min-prompts", "3", "--random-sets", "20"]) == 0
        found.append(json.loads((out / "features.json").read_text()))
    assert found[0]["lists"] == found[1]["lists"]


@pytest.mark.long
def test_columns_of_a_run_are_a_setting_of_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = write(tmp_path / "rows.jsonl", [{"q": "how do i bake a cake ?"}, {"q": "what is rain ?"}])
    flags = ["--prompts", str(prompts), "--columns", "prompt=q", "--steps", "1", "-o", str(tmp_path / "run")]
    assert main(["train", *flags, "--dry-run"]) == 0
    assert f"{prompts} read as: plain rows, 2 rows, prompt from q" in capsys.readouterr().err
    assert main(["config", "show", "--prompts", str(prompts), "--columns", "prompt=q"]) == 0
    assert "prompt: q" in capsys.readouterr().out
    assert main(["config", "show", "--prompts", str(prompts), "--columns", "promt=q"]) == 2
    assert "did you mean prompt?" in capsys.readouterr().err


def test_build_reads_pairs_of_any_form(tmp_path: Path) -> None:
    from sarm_control.build import read_pairs, read_texts
    from sarm_control.data import RowOptions, parse_columns

    other = write(tmp_path / "rows.jsonl", [renamed(row) for row in ROWS])
    options = RowOptions(parse_columns(COLUMNS[1]))
    for rows in (read_pairs([other], options=options), read_texts([other], options)):
        assert [row.answers for row in rows] == [(row["chosen"], row["rejected"]) for row in ROWS]
    for rows in (read_pairs([other], options=options, limit=2), read_texts([other], options, limit=2)):
        assert [row.answers for row in rows] == [(row["chosen"], row["rejected"]) for row in ROWS[:2]]


def test_check_says_what_a_file_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write(tmp_path / "rows.jsonl", [ultrafeedback(row) for row in ROWS])
    assert main(["data", "check", str(data), "--json", str(tmp_path / "found.json")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{data} read as: UltraFeedback messages, 3 rows",
        "  3 pairs",
        "  empty answers: 1",
        "  rows with the prompt of an earlier one: 1, 1 of them in other case or white space",
    ]
    assert json.loads((tmp_path / "found.json").read_text()) == {
        "file": "rows.jsonl",
        "form": "UltraFeedback messages, 3 rows",
        "rows": 3,
        "usable": 3,
        "kinds": {"pair": 3},
        "problems": [],
        "empty_answers": 1,
        "repeated_prompts": 1,
        "respelled_prompts": 1,
        "tokens": None,
        "too_long": None,
    }


def test_check_counts_problems_by_kind_with_their_first_places(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tool: dict[str, Any] = {"messages": [{"role": "user", "content": "u"}, {"role": "tool", "content": "t"}]}
    rows = [ROWS[0], tool, {"x": 1}, *[tool] * 3, {"prompt": "p", "prompt2": "q", "chosen": "a"}]
    data = write(tmp_path / "rows.jsonl", rows)
    with data.open("a") as stream:
        stream.write('{"prompt": "a", "prompt": "b"}\n')
    assert main(["data", "check", str(data), "--json", str(tmp_path / "found.json")]) == 2
    out = capsys.readouterr().out
    assert (
        "4 cannot be used: tool turns are not read: messages[1] is a turn of role tool (rows.jsonl:2, " in out
    )
    assert "rows.jsonl:4, rows.jsonl:5, ...)" in out
    assert "1 cannot be used: no prompt field: has keys [x], wants prompt or messages (rows.jsonl:3)" in out
    assert "1 cannot be used: not JSON: the key 'prompt' is there twice (rows.jsonl:8)" in out
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["rows"], found["usable"], found["kinds"]) == (8, 2, {"pair": 1, "prompt": 1})
    assert found["problems"][0]["lines"] == [2, 4, 5]


def test_check_counts_tokens_and_finds_what_the_template_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tiny_sarm: RewardModel, tiny_sarm_folder: Path
) -> None:
    data = write(tmp_path / "rows.jsonl", ROWS)
    found = tmp_path / "found.json"
    model = ["--model", str(tiny_sarm_folder)]
    assert main(["data", "check", str(data), *model, "--max-length", "12", "--json", str(found)]) == 0
    rows = read_rows(data, want={"pair"})
    encoded = [tiny_sarm.template.encode(row.prompt, answer) for row in rows for answer in row.answers]
    lengths = sorted(len(one.input_ids) for one in encoded)
    tokens = json.loads(found.read_text())["tokens"]
    assert (tokens["total"], tokens["max"], tokens["conversations"]) == (sum(lengths), lengths[-1], 6)
    assert json.loads(found.read_text())["too_long"] == sum(length > 12 for length in lengths) > 0
    assert f"tokens: {sum(lengths)} in 6 conversations" in capsys.readouterr().out


def test_check_finds_rows_that_the_template_of_a_model_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tiny_sarm_folder: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_sarm_folder, model)
    file = next(file for file in model.iterdir() if file.suffix == ".jinja")
    refusal = "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
    file.write_text(refusal + file.read_text())
    system = {"role": "system", "content": "be brief ."}
    data = write(
        tmp_path / "rows.jsonl", [{"messages": turns("u", "a")}, {"messages": [system, *turns("u", "a")]}]
    )
    assert main(["data", "check", str(data)]) == 0
    capsys.readouterr()
    assert main(["data", "check", str(data), "--model", str(model)]) == 2
    out = capsys.readouterr().out
    assert "1 cannot be used: " in out
    assert "no system turn" in out
    assert "(rows.jsonl:2)" in out


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.how[:24])
def test_a_converted_file_is_read_as_the_file_itself(tmp_path: Path, form: Form) -> None:
    data, out = write(tmp_path / "rows.jsonl", [{**form.example, "id": 7}] * 2), tmp_path / "plain.jsonl"
    assert main(["data", "convert", str(data), "-o", str(out), "--json", str(tmp_path / "sum.json")]) == 0
    want: tuple[Kind, ...] = ("pair", "candidates", "answer", "prompt")
    before, after = (read_rows(path, want=want) for path in (data, out))
    assert [(row.kind, row.prompt_text, row.answers) for row in after] == [
        (row.kind, row.prompt_text, row.answers) for row in before
    ]
    assert [row.raw["id"] for row in after] == [7, 7]
    assert json.loads((tmp_path / "sum.json").read_text()) == {"rows": 2, "kinds": {before[0].kind: 2}}
    assert json.loads((tmp_path / "plain.jsonl.manifest.json").read_text())["command"] == "data convert"


def test_convert_stops_at_a_bad_row_or_sets_it_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = write(tmp_path / "rows.jsonl", [ROWS[0], {"x": 1}]), tmp_path / "plain.jsonl"
    assert main(["data", "convert", str(data), "-o", str(out)]) == 2
    error = capsys.readouterr().err
    assert f"error: {data}:2: no prompt field: has keys [x]" in error
    assert f"hint: sarm data check {data} says what the rows are" in error
    assert not out.exists()
    assert main(["data", "convert", str(data), "-o", str(out), "--skip-bad-rows", str(tmp_path / "bad")]) == 0
    assert read(out) == [ROWS[0]]
    assert main(["data", "convert", str(data), "-o", str(data), "--overwrite"]) == 2
    assert "is an input too" in capsys.readouterr().err


def test_the_command_that_a_hint_names_puts_the_file_right(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = write(tmp_path / "rows.jsonl", [{"query": "q ?", "reply": "a"}]), tmp_path / "rows2.jsonl"
    assert main(["score", str(data)]) == 2
    (hint,) = [line for line in capsys.readouterr().err.splitlines() if "hint: " in line]
    words = hint.split("sarm ")[1].replace("rows.jsonl", "rows.jsonl").split()
    assert words[:2] == ["data", "convert"]
    assert main([*words[:-1], str(out)]) == 0
    assert read(out) == [{"prompt": "q ?", "response": "a"}]


def test_where_some_answers_repeat_their_prompt_the_flag_of_the_hint_decides(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "rows.jsonl", [ROWS[0], repeating(ROWS[1])])
    assert main(["score", str(data), "-o", str(tmp_path / "a")]) == 2
    error = capsys.readouterr().err
    assert "of 2 rows with answers 1 repeat it" in error
    assert "--repeated-prompts strip" in error
    for number, how in enumerate(("strip", "keep")):
        out = tmp_path / f"out{number}.jsonl"
        assert main(["data", "convert", str(data), "-o", str(out), "--repeated-prompts", how]) == 0
    assert read(tmp_path / "out0.jsonl") == ROWS[:2]
    assert read(tmp_path / "out1.jsonl") == [ROWS[0], repeating(ROWS[1])]


def test_an_empty_file_and_one_that_is_not_there_are_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "check", str(write(tmp_path / "empty.jsonl", []))]) == 2
    assert "the file has no rows" in capsys.readouterr().err
    assert main(["data", "check", str(tmp_path / "none.jsonl")]) == 2
    assert "No such file" in capsys.readouterr().err
