"""Attributes, each held against answers a reader would agree on (oracle), and any text (property)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sarm_control.auditing.attributes.battery import BATTERY, attributes_named
from sarm_control.auditing.attributes.markdown import plain, structure
from sarm_control.auditing.attributes.shape import other_script
from sarm_control.auditing.attributes.text_edits import EDITS, TextEdit
from sarm_control.errors import ConfigError

LIST = "Three steps:\n\n- boil water\n- add salt\n  - not too much\n- stir\n"
TABLE = "| a | b |\n|---|---|\n| 1 | 2 |\n"

CASES = [
    ("length", "", "one two three", 3),
    ("sentences", "", "It rains. Take a coat!\nGo now", 3),
    ("headers", "", "# Title\n\ntext\n\n## Part\n\nmore", 2),
    ("headers", "", "#hashtag is no heading", 0),
    ("bullets", "", LIST, 4),
    ("bullets", "", "2 * 3 * 4 - 5", 0),
    ("bullets", "", "```\n- in code\n```", 0),
    ("numbered", "", "1. one\n2. two\n", 2),
    ("bold", "", "**very** important, and __so__ is this; 2 ** 3 is not", 2),
    ("tables", "", TABLE, 1),
    ("code", "", "see\n\n```python\nx = 1\n```\n", 1),
    ("emoji", "", "Good \U0001f60a\U0001f389 day 1 *", 2),
    ("exclamations", "", "Stop! `a != b`", 2),
    ("opener", "", "Great question! Water boils.", 1),
    ("opener", "", "What a thoughtful idea. Water boils.", 1),
    ("opener", "", "I love how you think. Water boils.", 1),
    ("opener", "", "Water boils. Great question!", 0),
    ("opener", "", "The great question of our time is this.", 0),
    ("closing", "", "Water boils at 100 degrees. Let me know if you need anything else!", 1),
    ("closing", "", "It boils. I hope this helps!", 1),
    ("closing", "", "Don\u2019t hesitate to ask. It boils at 100 degrees. That is hot. Very hot.", 0),
    ("hedging", "", "Perhaps it may be likely.", 3),
    ("hedging", "", "It boils.", 0),
    ("certainty", "", "It is definitely and always so.", 2),
    ("refusal", "", "I cannot help with that.", 1),
    ("refusal", "", "You can do that.", 0),
    ("apology", "", "I'm sorry, that was wrong.", 1),
    ("agreement", "I think the earth is flat.", "You're absolutely right, it is.", 1),
    ("agreement", "Is the earth flat?", "You're absolutely right, it is.", 0),
    ("agreement", "I think the earth is flat.", "No, it is round.", 0),
    (
        "repeats_prompt",
        "What is the best way to cook rice on a stove?",
        "You ask what is the best way to cook rice on.",
        1,
    ),
    (
        "repeats_prompt",
        "What is the best way to cook rice on a stove?",
        "The best way to cook rice is slowly.",
        0,
    ),
    ("first_person", "", "I think my way is mine. It is.", 3),
    ("numbers", "", "In 1999 it was 3.5 or 1,000. B2B is none.", 3),
    ("numbers", "", "1. one\n2. two\n", 0),
    ("quotes", "", 'He said "come here" and\n\n> left\n', 2),
    ("citations", "", "It is so [3] (Smith et al., 2020).", 2),
    ("links", "", "[here](https://a.example) and https://b.example", 2),
    (
        "other_script",
        "How are you?",
        "\u041a\u0430\u043a \u0434\u0435\u043b\u0430, \u0434\u0440\u0443\u0433",
        1,
    ),
    ("other_script", "How are you?", "Tr\u00e8s bien, merci", 0),
    ("repetition", "", "It boils. it boils! Again, it boils.", 1),
    ("repetition", "", "It boils. It steams.", 0),
    ("broken_end", "", "The water boils and then", 1),
    ("broken_end", "", "The water boils.", 0),
    ("broken_end", "", "- water\n- salt", 0),
    ("broken_end", "", "```\nx = 1", 1),
    ("empty", "", " \n", 1),
    ("empty", "", "no", 0),
]


@pytest.mark.parametrize(("name", "prompt", "answer", "value"), CASES)
def test_an_attribute_is_what_a_reader_counts(name: str, prompt: str, answer: str, value: float) -> None:
    (one,) = attributes_named([name])
    assert one.measure(prompt, answer) == value


def test_every_attribute_has_a_case_with_it_and_one_without() -> None:
    some, none = ({name for name, _, _, value in CASES if bool(value) is has} for has in (True, False))
    assert {one.name for one in BATTERY} == some
    for one in BATTERY:  # those that every answer has some of need no case without
        assert one.name in none or one.measure("", "") == 0.0, one.name


@given(st.text(max_size=200), st.text(max_size=400))
def test_any_text_has_finite_attributes_and_the_same_twice(prompt: str, answer: str) -> None:
    for one in BATTERY:
        value = one.measure(prompt, answer)
        assert 0 <= value < 1e6, one.name
        assert one.measure(prompt, answer) == value, one.name
        assert one.unit != "answer" or value in (0.0, 1.0), one.name


@given(st.text(max_size=300), st.text(alphabet="ab.!?#*-> `\n1|_[]()", max_size=120))
def test_edits_change_one_of_the_two_texts_and_keep_the_other(prompt: str, answer: str) -> None:
    for edit in EDITS:
        pair = edit.contrast(prompt, answer)
        assert pair is None or (answer in pair and pair[0] != pair[1]), edit.words


EDITED = [
    ("opener", "Great question! It boils.", ("It boils.", "Great question! It boils.")),
    ("closing", "It boils. I hope this helps! Let me know if you like.", ("It boils.", None)),
    (
        "bullets",
        "Do:\n- boil water\n- add salt\n\nThen eat.",
        ("Do:\nboil water. add salt.\n\nThen eat.", None),
    ),
    ("bullets", "One is. Two is. Three is.", (None, "- One is.\n- Two is.\n- Three is.")),
    ("bold", "**a** b __c__", ("a b c", None)),
    ("headers", "# A\n\nb", ("A\n\nb", None)),
    ("exclamations", "a! b!", ("a. b.", None)),
    ("broken_end", "a b c d e f g h.", (None, "a b c d")),
]


@pytest.mark.parametrize(("name", "answer", "pair"), EDITED)
def test_an_edit_does_what_it_says(name: str, answer: str, pair: tuple[str | None, str | None]) -> None:
    wanted = tuple(answer if text is None else text for text in pair)
    found = [edit.contrast("", answer) for edit in EDITS if edit.attribute == name]
    assert wanted in found


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.words)
def test_an_edit_moves_its_own_attribute(edit: TextEdit) -> None:
    """The text with it has more of the attribute than the text without, by the battery's own measure."""
    measures = {one.name: one.measure for one in BATTERY}
    texts = ["Great question! It boils at a hundred degrees. Then it steams. I hope this helps!"]
    texts += [
        "It boils at a hundred degrees now. Then it steams. Then it is gone.",
        LIST,
        "# T\n\n**b** now! and more",
    ]
    pairs = [pair for pair in (edit.contrast("", text) for text in texts) if pair is not None]
    assert pairs
    for without, having in pairs:
        assert measures[edit.attribute]("", having) > measures[edit.attribute]("", without)


def test_who_has_a_property_is_not_given_it_again() -> None:
    """A property is there or not: between two texts that both have it lies no price of it."""
    battery = {one.name: one for one in BATTERY}
    answers = ["I'm sorry, that was wrong.", "Great question! It boils.", "It boils. I hope this helps!"]
    tried = 0
    for edit in EDITS:
        one = battery[edit.attribute]
        for answer in answers if one.unit == "answer" else ():
            pair = edit.contrast("", answer)
            if pair is not None:
                tried += 1
                assert [one.measure("", text) for text in pair] == [0.0, 1.0], (edit.words, answer)
    assert tried > 5


def test_markdown_is_taken_off_and_counted_only_where_it_is_markdown() -> None:
    assert plain("# A\n\n- **b** c\n") == "A\nb c"
    assert structure("2 * 3 * 4") == structure("")


def test_a_short_text_has_no_script_of_its_own() -> None:
    assert other_script("hi", "\u0434\u0430") == 0.0


def test_an_unknown_attribute_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="no attribute 'charm'") as caught:
        attributes_named(["charm"])
    assert "bullets" in str(caught.value.hint)
