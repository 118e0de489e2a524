"""Forms of rows: oracle tests against the plain form, properties of the round trip, and bad rows."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sarm_control.data import (
    FORMS,
    Form,
    Kind,
    Row,
    RowOptions,
    as_messages,
    forms_table,
    parse_columns,
    parse_row,
    plain_row,
    prompt_key,
    read_rows,
)
from sarm_control.errors import ConfigError, DataError
from sarm_control.latents import score_rows
from sarm_control.reward_model import RewardModel

EVERY: set[Kind] = {"pair", "candidates", "answer", "prompt"}
USER, SYSTEM = {"role": "user", "content": "how do i bake ?"}, {"role": "system", "content": "be brief ."}
GOOD, BAD = {"role": "assistant", "content": "first mix ."}, {"role": "assistant", "content": "no idea ."}
MORE = [USER, {"role": "assistant", "content": "mix ."}, {"role": "user", "content": "and then ?"}]
PAIR = {"prompt": "how do i bake ?", "chosen": "first mix .", "rejected": "no idea ."}
ANSWER = {"prompt": "how do i bake ?", "response": "first mix ."}
HH = "\n\nHuman: how do i bake ?\n\nAssistant:"


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def one(raw: Mapping[str, Any], options: RowOptions | None = None, want: set[Kind] = EVERY) -> Row:
    return parse_row(raw, path=Path("data.jsonl"), line=1, want=want, options=options or RowOptions())


def said(row: Row) -> tuple[Any, ...]:
    """What a row says, however its prompt is written."""
    sides = (row.response, row.chosen, row.rejected, row.candidates, row.ended)
    return (row.kind, as_messages(row.prompt), *sides)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form.name}: {form.how[:20]}")
def test_oracle_every_form_of_the_table_is_read_as_its_plain_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], form: Form
) -> None:
    (row,) = read_rows(write(tmp_path / "rows.jsonl", form.example), want=EVERY)
    assert said(row) == said(one(form.plain))
    assert row.raw == form.example
    spoken = capsys.readouterr().err
    assert (
        ("read as" not in spoken)
        if form.name == "plain rows"
        else (f"read as: {form.name}, 1 row\n" in spoken)
    )


@pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form.name}: {form.how[:20]}")
def test_oracle_every_form_has_the_rewards_of_its_plain_row_to_the_bit(
    tiny_sarm: RewardModel, form: Form
) -> None:
    row, plain = one(form.example), one(form.plain)
    if row.answers:
        rewards = [score_rows(tiny_sarm, [each]).rewards for each in (row, plain)]
        np.testing.assert_array_equal(rewards[0], rewards[1])
        assert np.ptp(rewards[0]) > 0 or len(row.answers) == 1


VARIANTS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "the whole conversation again",
        {"prompt": [USER], "chosen": [USER, GOOD], "rejected": [USER, BAD]},
        PAIR,
    ),
    ("answers as one message each", {"prompt": [USER], "chosen": GOOD, "rejected": BAD}, PAIR),
    ("a text and one message each", {"prompt": "how do i bake ?", "chosen": [GOOD], "rejected": [BAD]}, PAIR),
    (
        "messages are the prompt",
        {"messages": [SYSTEM, USER], "chosen": [GOOD], "rejected": [BAD]},
        {**PAIR, "prompt": [SYSTEM, USER]},
    ),
    (
        "the published UltraFeedback has messages, too",
        {
            "prompt": "how do i bake ?",
            "chosen": [USER, GOOD],
            "rejected": [USER, BAD],
            "messages": [USER, GOOD],
        },
        PAIR,
    ),
    (
        "a question and messages",
        {"question": "how do i bake ?", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
        PAIR,
    ),
    (
        "the prompt's white space",
        {"prompt": " how do  i bake ?", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
        PAIR,
    ),
    (
        "system and several turns",
        {"chosen": [SYSTEM, *MORE, GOOD], "rejected": [SYSTEM, *MORE, BAD]},
        {**PAIR, "prompt": [SYSTEM, *MORE]},
    ),
    (
        "a transcript of three turns",
        {
            "chosen": f"{HH} mix .\n\nHuman: and then ?\n\nAssistant: first mix .",
            "rejected": f"{HH} mix .\n\nHuman: and then ?\n\nAssistant: no idea .",
        },
        {**PAIR, "prompt": MORE},
    ),
    (
        "a prompt beside transcripts",
        {"prompt": "how do i bake ?", "chosen": f"{HH} first mix .", "rejected": f"{HH} no idea ."},
        PAIR,
    ),
    (
        "an open transcript and answers",
        {"prompt": HH, "chosen": " first mix .", "rejected": "no idea ."},
        PAIR,
    ),
    ("an open transcript and a completion", {"prompt": HH, "completion": " first mix ."}, ANSWER),
    (
        "an empty answer of a transcript",
        {"chosen": f"{HH} first mix .", "rejected": HH},
        {**PAIR, "rejected": ""},
    ),
    (
        "an answer in paragraphs",
        {"chosen": f"{HH} first.\n\nThen\n", "rejected": f"{HH} no idea ."},
        {**PAIR, "chosen": "first.\n\nThen\n"},
    ),
    (
        "ShareGPT with its system",
        {
            "system": "be brief .",
            "conversations": [
                {"from": "human", "value": "how do i bake ?"},
                {"from": "gpt", "value": "first mix ."},
            ],
        },
        {**ANSWER, "prompt": [SYSTEM, USER]},
    ),
    (
        "ShareGPT pairs",
        {
            "conversations": [{"from": "human", "value": "how do i bake ?"}],
            "chosen": {"from": "gpt", "value": "first mix ."},
            "rejected": {"from": "gpt", "value": "no idea ."},
        },
        PAIR,
    ),
    (
        "ShareGPT that asks",
        {"conversations": [{"from": "human", "value": "how do i bake ?"}]},
        {"prompt": "how do i bake ?"},
    ),
    ("conversations with roles", {"conversations": [USER, GOOD]}, ANSWER),
    ("a completion of messages", {"prompt": [USER], "completion": [GOOD]}, ANSWER),
    (
        "a completion that was cut",
        {"prompt": "how do i bake ?", "completion": "first mix .", "ended": False},
        {**ANSWER, "ended": False},
    ),
    (
        "Alpaca without an input",
        {"instruction": "how do i bake ?", "input": "", "output": "first mix ."},
        ANSWER,
    ),
    (
        "Alpaca pairs",
        {"instruction": "how do i bake ?", "chosen": "first mix .", "rejected": "no idea ."},
        PAIR,
    ),
    (
        "Alpaca with its past",
        {
            "instruction": "and then ?",
            "history": [["how do i bake ?", "mix ."]],
            "system": "be brief .",
            "output": "first mix .",
        },
        {**ANSWER, "prompt": [SYSTEM, *MORE]},
    ),
    (
        "HelpSteer3, the first is better",
        {"context": [USER], "response1": "first mix .", "response2": "no idea .", "overall_preference": -1},
        PAIR,
    ),
    (
        "HelpSteer3, neither is",
        {
            "context": "how do i bake ?",
            "response1": "first mix .",
            "response2": "no idea .",
            "overall_preference": 0,
        },
        {"prompt": "how do i bake ?", "candidates": ["first mix .", "no idea ."]},
    ),
    (
        "our own names win",
        {**ANSWER, "completion": "x", "context": "y", "instruction": "z", "output": "o"},
        ANSWER,
    ),
]


@pytest.mark.parametrize(
    ("raw", "plain"), [case[1:] for case in VARIANTS], ids=[case[0] for case in VARIANTS]
)
def test_oracle_variants_of_a_form_are_read_as_the_plain_row(
    raw: dict[str, Any], plain: dict[str, Any]
) -> None:
    assert said(one(raw)) == said(one(plain))


@pytest.mark.parametrize(
    ("raw", "plain"), [case[1:] for case in VARIANTS], ids=[case[0] for case in VARIANTS]
)
def test_the_plain_row_of_a_variant_says_the_same(raw: dict[str, Any], plain: dict[str, Any]) -> None:
    assert said(one(plain_row(one({**raw, "id": 7})))) == said(one(plain))
    assert plain_row(one({**raw, "id": 7}))["id"] == 7


CASES = {
    "ultrafeedback": ("pair", "How do I keep bread fresh?", 2),
    "skywork_messages": ("pair", "How do I keep bread fresh?", 2),
    "answers_repeat_prompt": ("pair", "how do i bake a cake ?", 2),
    "content_parts": ("answer", "how do i bake a cake ?", 1),
    "sharegpt": ("answer", "how do i bake a cake ?", 1),
    "completion": ("answer", "how do i bake a cake ?", 1),
}


@pytest.mark.parametrize("name", CASES)
def test_oracle_the_inputs_that_failed_are_read(shared_cases: Path, name: str) -> None:
    (row,) = read_rows(shared_cases / "rows" / f"{name}.jsonl", want=EVERY)
    kind, prompt, answers = CASES[name]
    assert (row.kind, row.prompt_text, len(row.answers)) == (kind, prompt, answers)
    assert not any(answer.startswith(prompt) for answer in row.answers)


def test_oracle_transcripts_of_the_cases_have_a_prompt_of_three_turns(shared_cases: Path) -> None:
    (row,) = read_rows(shared_cases / "rows" / "hh_transcripts.jsonl", want={"pair"})
    assert [turn["role"] for turn in as_messages(row.prompt)] == ["user", "assistant", "user"]
    assert row.answers == ("then you bake it .", "i do not know .")


def test_tool_turns_of_the_cases_are_refused_by_name(shared_cases: Path) -> None:
    with pytest.raises(DataError, match=r"tool_turns\.jsonl:1: tool turns are not read: messages\[1\]"):
        read_rows(shared_cases / "rows" / "tool_turns.jsonl", want=EVERY)


BAD_ROWS: list[tuple[dict[str, Any], str]] = [
    (
        {"messages": [USER, {"role": "tool", "content": "rain"}]},
        r"tool turns .* messages\[1\] is a turn of role tool",
    ),
    (
        {"messages": [USER, {**GOOD, "tool_calls": [{"id": 1}]}]},
        r"tool turns .* messages\[1\] has tool_calls",
    ),
    ({"conversations": [{"from": "function_call", "value": "x"}]}, "tool turns .* of role function_call"),
    ({"conversations": [{"from": "narrator", "value": "x"}]}, r"conversations\[0\].from is 'narrator'"),
    ({"conversations": []}, "conversations is an empty list"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        r"content\[0\] is a part of type 'image_url'",
    ),
    ({"messages": [{"role": "user", "content": ["x"]}]}, r'content\[0\] is a string, wants {"type": "text"'),
    ({"chosen": [USER, GOOD], "rejected": [{**USER, "content": "else"}, BAD]}, "answers to other turns"),
    ({"chosen": [USER, GOOD], "rejected": [USER]}, "rejected ends with the turn of user"),
    ({"chosen": [GOOD], "rejected": [BAD]}, "chosen holds only the assistant's message, no prompt"),
    ({"chosen": [USER, GOOD]}, "no rejected field beside the messages"),
    (
        {"prompt": "else", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
        "prompt is not what a turn of chosen asks",
    ),
    (
        {"prompt": [SYSTEM], "chosen": [USER, GOOD], "rejected": [USER, BAD]},
        "the turns of chosen before its answer",
    ),
    ({"chosen": HH + " a", "rejected": "b"}, "rejected is a text without turns"),
    ({"chosen": HH + " a", "rejected": HH.replace("bake", "cook") + " b"}, "answers to other turns"),
    ({"prompt": HH + " a", "response": "b"}, "prompt ends with the assistant's message"),
    ({"instruction": "x", "output": 3}, "output is a number, wants a string"),
    ({"instruction": " ", "output": "x"}, "instruction is empty"),
    (
        {"instruction": "x", "output": "y", "history": [["a"]]},
        r"history\[0\] is not an \[instruction, output\] pair",
    ),
    ({"context": "x", "response1": "a", "response2": "b"}, "overall_preference is null"),
    ({"prompt": "x", "completion": [USER, GOOD]}, "completion holds 2 messages"),
    (
        {"conversations": [USER], "instruction": "x", "output": "y"},
        "could be ShareGPT conversations or Alpaca",
    ),
]


@pytest.mark.parametrize(("raw", "reason"), BAD_ROWS)
def test_bad_rows_of_a_form_name_place_and_reason(tmp_path: Path, raw: dict[str, Any], reason: str) -> None:
    with pytest.raises(DataError, match=rf"rows\.jsonl:1: .*{reason}"):
        read_rows(write(tmp_path / "rows.jsonl", raw), want=EVERY)


def test_two_equal_responses_of_helpsteer_are_no_pair_and_can_be_set_aside() -> None:
    raw = {"context": "x", "response1": "a", "response2": "b", "overall_preference": 0}
    with pytest.raises(DataError, match="overall_preference is 0") as caught:
        one(raw, want={"pair"})
    assert "--skip-bad-rows" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("raw", "want", "hint"),
    [
        (
            {"query": "q", "best": "a", "worst": "b"},
            "pair",
            "prompt + chosen + rejected: sarm data convert data.jsonl "
            "--columns prompt=query,chosen=best,rejected=worst",
        ),
        ({"problem": "q", "solution": "a"}, "answer", "--columns prompt=problem,response=solution -o"),
        ({"promt": "q", "respones": "a"}, "answer", "--columns prompt=promt,response=respones -o"),
        (
            {"dialogue": [USER]},
            "answer",
            "messages: sarm data convert data.jsonl --columns messages=dialogue",
        ),
        ({"x": 1}, "answer", "sarm data check data.jsonl says what the rows are"),
    ],
)
def test_what_nobody_can_read_is_told_the_nearest_form_and_the_command(
    raw: dict[str, Any], want: Kind, hint: str
) -> None:
    with pytest.raises(DataError, match="no prompt field") as caught:
        one(raw, want={want})
    assert hint in str(caught.value.hint)


def test_a_file_that_mixes_forms_names_both(tmp_path: Path) -> None:
    plain, alpaca = PAIR, {"instruction": "x", "output": "y"}
    path = write(tmp_path / "rows.jsonl", alpaca, alpaca, plain)
    with pytest.raises(DataError, match=r"rows\.jsonl:3: a row of plain rows in a file of Alpaca"):
        read_rows(path, want=EVERY)
    aside = tmp_path / "bad.jsonl"
    assert len(read_rows(path, want=EVERY, skip_bad_rows=aside)) == 2
    assert json.loads(aside.read_text())["line"] == 3


def test_a_row_that_is_nothing_is_bad_by_itself_in_a_file_of_another_form(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", {"instruction": "x", "output": "y"}, {"text": "z"})
    with pytest.raises(DataError, match=r"rows\.jsonl:2: no prompt field: has keys \[text\]"):
        read_rows(path, want=EVERY)


def test_a_late_row_of_another_form_is_found_past_the_first_rows(tmp_path: Path) -> None:
    rows = [{"prompt": f"p {number}", "response": "r"} for number in range(200)]
    path = write(tmp_path / "rows.jsonl", *rows, {"conversations": [USER, GOOD]})
    with pytest.raises(DataError, match=r":201: a row of ShareGPT conversations in a file of plain rows"):
        read_rows(path, want=EVERY)


# Answers that repeat their prompt.

QUESTIONS = ["how do i bake a cake ?", "what is the time ?", "hi"]


def repeated(rest: str = "first mix .", *, joint: str = " ") -> list[dict[str, Any]]:
    return [
        {"prompt": text, "chosen": f"{text}{joint}{rest}", "rejected": f"{text}\nno ."} for text in QUESTIONS
    ]


def test_a_prompt_that_all_answers_repeat_is_taken_off_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = read_rows(write(tmp_path / "rows.jsonl", *repeated()), want={"pair"})
    assert [row.answers for row in rows] == [("first mix .", "no .")] * 3
    assert "the prompt taken off the answers of 3 rows that repeat it" in capsys.readouterr().err


@pytest.mark.parametrize("odd", [0, 1, 70])
def test_where_some_repeat_it_is_an_error_with_counts(tmp_path: Path, odd: int) -> None:
    """Wherever the odd row is: first, among the first, or behind the rows that the form is found by."""
    rows = [row for _ in range(30) for row in repeated()[:2]] + repeated()[:2] * 10
    rows[odd] = PAIR
    with pytest.raises(
        DataError, match=r"begins? with the prompt; of 80 rows with answers 79 repeat"
    ) as caught:
        read_rows(write(tmp_path / "rows.jsonl", *rows), want={"pair"})
    assert "--repeated-prompts strip" in str(caught.value.hint)


def test_one_that_repeats_among_many_that_do_not_is_an_error_with_counts(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", PAIR, PAIR, repeated()[0], PAIR)
    with pytest.raises(
        DataError, match=r"rows\.jsonl:3: the answers begin with the prompt; of 4 rows with answers 1 "
    ):
        read_rows(path, want={"pair"})
    aside = tmp_path / "bad.jsonl"
    assert len(read_rows(path, want={"pair"}, skip_bad_rows=aside)) == 3


@pytest.mark.parametrize("place", [0, 60, 199])
def test_one_row_of_hundreds_that_repeats_by_chance_is_left_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: int
) -> None:
    rows = [{"prompt": f"what is {number} times two ?", "response": "a number"} for number in range(200)]
    rows[place]["response"] = rows[place]["prompt"] + " a number"
    read = read_rows(write(tmp_path / "rows.jsonl", *rows), want={"answer"})
    assert [row.response for row in read] == [row["response"] for row in rows]
    assert "answers of 1 row that begin with their prompt left as they are" in capsys.readouterr().err


def test_the_user_decides_where_some_repeat(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", PAIR, repeated()[0])
    strip, keep = (
        [row.answers for row in read_rows(path, want={"pair"}, options=RowOptions(repeated=how))]
        for how in ("strip", "keep")
    )
    assert strip == [("first mix .", "no idea ."), ("first mix .", "no .")]
    assert keep == [("first mix .", "no idea ."), (repeated()[0]["chosen"], repeated()[0]["rejected"])]


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("hi", "hi there"),
        ("cat", "category"),
        ("what is it", "what is items"),
        ("what is it ?", "What is it ?"),
    ],
)
def test_what_begins_an_answer_by_chance_stays(tmp_path: Path, prompt: str, answer: str) -> None:
    (row,) = read_rows(
        write(tmp_path / "rows.jsonl", {"prompt": prompt, "response": answer}), want={"answer"}
    )
    assert row.response == answer


def test_the_last_turn_of_a_conversation_is_what_answers_repeat() -> None:
    row = one({"prompt": MORE, "response": "and then ? bake"}, RowOptions(repeated="strip"))
    assert row.response == "bake"


# Other names.


def test_columns_give_fields_other_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = {"q": "how do i bake ?", "best": "first mix .", "worst": "no idea .", "chosen": "unused"}
    options = RowOptions(parse_columns("prompt=q, chosen=best,rejected=worst"))
    (row,) = read_rows(write(tmp_path / "rows.jsonl", raw), want={"pair"}, options=options)
    assert said(row) == said(one(PAIR))
    assert row.raw == raw
    assert "prompt from q, chosen from best, rejected from worst" in capsys.readouterr().err
    assert said(one(plain_row(row))) == said(row)


def test_a_column_that_is_not_there_is_not_replaced_by_the_field_of_our_name() -> None:
    with pytest.raises(DataError, match="no answer field") as caught:
        one(PAIR, RowOptions((("chosen", "bset"),)), want={"pair"})
    assert caught.value.hint == "--columns reads chosen from bset, which the row does not have"


def test_columns_serve_every_form() -> None:
    raw = {"dialog": [{"from": "human", "value": "how do i bake ?"}, {"from": "gpt", "value": "first mix ."}]}
    for own in ("conversations", "messages"):
        assert said(one(raw, RowOptions(((own, "dialog"),)))) == said(one(ANSWER))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("prompt", "'prompt' is not OURS=THEIRS"),
        ("prompt=", "is not OURS=THEIRS"),
        ("prompt=a,prompt=b", "prompt is there twice"),
        ("promt=a", "no form of rows has a field promt; did you mean prompt?"),
    ],
)
def test_columns_nobody_can_read_are_refused(text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason.replace("?", r"\?")):
        parse_columns(text)


# One prompt.


def test_prompts_that_differ_in_case_and_white_space_are_one() -> None:
    assert prompt_key(" How  do\nI ") == prompt_key([{"role": "user", "content": "how do i"}])
    assert prompt_key([SYSTEM, USER]) == prompt_key([SYSTEM, {**USER, "content": "HOW DO I BAKE ?"}])
    assert prompt_key("how do i") != prompt_key("how do i?")


def test_the_table_of_the_page_is_that_of_the_code() -> None:
    """`python scripts/forms.py` writes it anew."""
    page = Path(__file__).resolve().parents[2] / "docs" / "data.md"
    assert forms_table() in page.read_text(encoding="utf-8")


# Properties.

letters = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
words = letters.filter(str.strip)
user_turns = st.builds(lambda text: {"role": "user", "content": text}, words)
pasts = st.lists(st.tuples(words, letters), max_size=2).map(
    lambda pairs: [
        {"role": role, "content": text}
        for asked, said_then in pairs
        for role, text in (("user", asked), ("assistant", said_then))
    ]
)
systems: st.SearchStrategy[list[dict[str, str]]] = st.just([]) | words.map(
    lambda text: [{"role": "system", "content": text}]
)
prompts = st.tuples(systems, pasts, user_turns).map(lambda parts: [*parts[0], *parts[1], parts[2]])


def parts(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in turns]


def sharegpt(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    return [{"from": names[turn["role"]], "value": turn["content"]} for turn in turns]


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


PAIR_WRITERS: dict[str, Callable[..., dict[str, Any]]] = {
    "plain": lambda p, a, b: {"prompt": p, "chosen": a, "rejected": b},
    "UltraFeedback": lambda p, a, b: {
        "prompt": p[-1]["content"],
        "chosen": [*p, assistant(a)],
        "rejected": [*p, assistant(b)],
    },
    "conversations": lambda p, a, b: {"chosen": [*p, assistant(a)], "rejected": [*p, assistant(b)]},
    "parts": lambda p, a, b: {"chosen": parts([*p, assistant(a)]), "rejected": parts([*p, assistant(b)])},
    "TRL": lambda p, a, b: {"prompt": p, "chosen": [assistant(a)], "rejected": [assistant(b)]},
    "ShareGPT": lambda p, a, b: {
        "conversations": sharegpt(p),
        "chosen": sharegpt([assistant(a)])[0],
        "rejected": b,
    },
    "HelpSteer3": lambda p, a, b: {"context": p, "response1": b, "response2": a, "overall_preference": 3},
}
ANSWER_WRITERS: dict[str, Callable[..., dict[str, Any]]] = {
    "messages": lambda p, a: {"messages": [*p, assistant(a)]},
    "parts": lambda p, a: {"messages": parts([*p, assistant(a)])},
    "ShareGPT": lambda p, a: {"conversations": sharegpt([*p, assistant(a)])},
    "completion": lambda p, a: {"prompt": p, "completion": a},
    "completion messages": lambda p, a: {"prompt": p, "completion": [assistant(a)]},
}


@given(prompt=prompts, a=letters, b=letters, name=st.sampled_from(sorted(PAIR_WRITERS)))
def test_property_a_pair_written_in_any_form_is_read_back(
    prompt: list[dict[str, Any]], a: str, b: str, name: str
) -> None:
    row = one(PAIR_WRITERS[name](prompt, a, b))
    assert (row.kind, as_messages(row.prompt), row.answers) == ("pair", prompt, (a, b))
    assert said(one(plain_row(row))) == said(row)


@given(prompt=prompts, a=letters, name=st.sampled_from(sorted(ANSWER_WRITERS)))
def test_property_an_answer_written_in_any_form_is_read_back(
    prompt: list[dict[str, Any]], a: str, name: str
) -> None:
    row = one(ANSWER_WRITERS[name](prompt, a))
    assert (row.kind, as_messages(row.prompt), row.answers) == ("answer", prompt, (a,))
    assert said(one(plain_row(row))) == said(row)


lines = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12).filter(
    lambda text: not text.startswith(" ")
)


@given(turns=st.lists(st.tuples(lines.filter(str.strip), lines), min_size=1, max_size=3), other=lines)
def test_property_a_transcript_is_read_back(turns: list[tuple[str, str]], other: str) -> None:
    text = "".join(f"\n\nHuman: {asked}\n\nAssistant: {said_then}" for asked, said_then in turns)
    last = turns[-1][1]
    row = one({"chosen": text, "rejected": text[: len(text) - len(last)] + other})
    expected = [text for pair in turns for text in pair][:-1]
    assert [turn["content"] for turn in as_messages(row.prompt)] == expected
    assert row.answers == (last, other)
    assert said(one(plain_row(row))) == said(row)


names = st.sampled_from(
    [
        "prompt",
        "question",
        "messages",
        "response",
        "answer",
        "chosen",
        "rejected",
        "candidates",
        "completion",
        "conversations",
        "instruction",
        "input",
        "output",
        "system",
        "history",
        "context",
        "response1",
        "response2",
        "overall_preference",
        "role",
        "content",
        "from",
        "value",
        "type",
        "text",
        "tool_calls",
        "ended",
        "x",
    ]
)
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from(
        [
            "",
            " ",
            "user",
            "assistant",
            "human",
            "gpt",
            "tool",
            "text",
            "hi",
            HH,
            f"{HH} yes",
            "\n\nHuman:",
            "Human: a",
        ]
    )
)
values = st.recursive(
    leaves | st.builds(lambda r, c: {"role": r, "content": c}, leaves, leaves),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
wants = st.sets(st.sampled_from(sorted(EVERY)), min_size=1)
repeats = st.sampled_from(["auto", "strip", "keep"])


@given(raw=st.dictionaries(names, values, max_size=6), want=wants, how=repeats)
def test_fuzz_any_object_is_a_row_or_our_error(
    raw: dict[str, Any], want: set[Kind], how: Literal["auto", "strip", "keep"]
) -> None:
    try:
        row = one(raw, RowOptions(repeated=how), want=want)
    except DataError as error:
        refused = str(error)
        row = None
    if row is None:
        assert refused.startswith("data.jsonl:1: ")
        return
    assert row.kind in want
    assert row.raw == raw
    assert all(isinstance(answer, str) for answer in row.answers)
    assert as_messages(row.prompt)
    try:
        again = one(plain_row(one(raw, RowOptions(repeated=how))))
    except DataError:
        return
    assert said(again) == said(one(raw, RowOptions(repeated=how)))


@given(raws=st.lists(st.dictionaries(names, values, max_size=5), min_size=1, max_size=8), how=repeats)
def test_fuzz_no_row_of_a_file_is_lost(
    tmp_path_factory: pytest.TempPathFactory,
    raws: list[dict[str, Any]],
    how: Literal["auto", "strip", "keep"],
) -> None:
    folder = tmp_path_factory.getbasetemp()
    path, aside = write(folder / "fuzz.jsonl", *raws), folder / "fuzz.bad.jsonl"
    aside.unlink(missing_ok=True)
    try:
        rows = read_rows(path, want=EVERY, skip_bad_rows=aside, options=RowOptions(repeated=how))
    except DataError as error:
        rows, refused = [], str(error)
    assert rows or "none of the" in refused
    bad = [json.loads(line)["line"] for line in aside.read_text(encoding="utf-8").splitlines()]
    assert sorted([*bad, *(row.line for row in rows)]) == list(range(1, len(raws) + 1))
    assert [row.raw for row in rows] == [raws[row.line - 1] for row in rows]
