"""Attributes of the user's own: what each way measures (oracle), and every mistake with its line."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sarm_control.auditing.attributes.judge import Judge
from sarm_control.auditing.attributes.own_attributes import load_attributes
from sarm_control.auditing.table import attribute_table
from sarm_control.data import parse_row
from sarm_control.discovery import ChatEndpoint, Replies
from sarm_control.embedded import LAB
from sarm_control.errors import ConfigError, DataError
from sarm_control.latents import ScoredRows, score_rows
from sarm_control.reward_model import RewardModel
from tests.auditing.judge_endpoint import Endpoint, serving

FILE = """\
exclaims: {pattern: '!', unit: item, words: exclamation marks}
shouts:
  pattern: '\\b[A-Z]{3,}\\b'
  style: false
rating: {column: rating, unit: doubling}
rhymes: {function: "mine.py:rhymes", behind: "roses are red ."}
"""


@pytest.fixture
def written(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text("def rhymes(prompt, answer):\n    return answer.endswith('red .')\n")
    (tmp_path / "own.yaml").write_text(FILE)
    return tmp_path / "own.yaml"


def scored(raw: dict[str, object]) -> ScoredRows:
    rows = [parse_row(raw, path=Path("made.jsonl"), line=7, want={"candidates"})]
    return ScoredRows(rows, score_rows(RewardModel.from_pretrained(LAB), rows))


def test_each_way_measures_what_it_says(written: Path) -> None:
    found = load_attributes(written)
    exclaims, shouts, rating, rhymes = found.attributes
    assert (exclaims.words, exclaims.unit, exclaims.style) == ("exclamation marks", "item", True)
    assert exclaims.measure("", "a! b!!") == 3
    assert (shouts.measure("", "NOW or never"), shouts.measure("", "no"), shouts.style) == (1, 0, False)
    assert rhymes.measure("", "all is red .") == 1
    data = scored({"prompt": "what is it ?", "candidates": ["the big red .", "no"], "rating": [4, 2.5]})
    table = attribute_table(data, found.attributes)
    assert table.values.tolist() == [[0, 0, 4, 1], [0, 0, 2.5, 0]]
    assert found.files == (written.parent / "mine.py",)
    with pytest.raises(DataError, match="the column rating is known of the answers of the data alone"):
        rating.measure("", "new")


def test_their_edits_give_and_take_the_attribute(written: Path) -> None:
    edits = {edit.words: edit for edit in load_attributes(written).edits}
    assert set(edits) == {
        "exclamation marks cut out",
        "shouts cut out",
        '"roses are red ." behind the answer',
    }
    assert edits["exclamation marks cut out"].contrast("", "a ! b !") == ("a b", "a ! b !")
    assert edits["shouts cut out"].contrast("", "quiet") is None
    assert edits["shouts cut out"].contrast("", "NOW") is None  # nothing would be left
    behind = edits['"roses are red ." behind the answer']
    assert behind.contrast("", "it is .") == ("it is .", "it is . roses are red .")
    assert behind.contrast("", "all is red .") is None


def test_a_list_of_texts_is_wordings_of_one_edit(written: Path) -> None:
    written.write_text("thanks: {pattern: '(?i)thank', behind: [Thank you., Many thanks.], before: Thanks.}")
    before, behind, cut = load_attributes(written).edits
    assert before.words == '"Thanks." before the answer'
    assert before.wordings == ()
    assert behind.words == "one of 2 texts behind the answer"
    assert [one.text for one in behind.wordings] == ["Thank you.", "Many thanks."]
    assert behind.wordings[1].contrast("", "It is.") == ("It is.", "It is. Many thanks.")
    assert behind.wordings[1].contrast("", "Thank you, it is.") is None
    assert cut.words == "thanks cut out"


MISTAKES = [
    ("a: {pattern: '('}", r"own\.yaml:1: a: pattern: '\(' is not a regular expression"),
    ("a:\n  pattern: 'b*'", r"own\.yaml:2: a: pattern: it matches nothing at all"),
    ("a: {pattern: b}\n\nc: {}", r"own\.yaml:3: c: none of pattern, column, function, judge is needed"),
    ("a: {pattern: b, column: c}", r"own\.yaml:1: a: pattern and column: one of"),
    ("a:\n  pattern: b\n  colour: red", r"own\.yaml:3: a: colour: unknown key"),
    ("a:\n  pattern: b\n  unit: furlong", r"own\.yaml:3: a: unit: 'furlong' is no unit"),
    ("a: {pattern: 3}", r"own\.yaml:1: a: pattern: 3 is not text"),
    ("a: {pattern: b, style: perhaps}", r"own\.yaml:1: a: style: 'perhaps' is not true or false"),
    ("a: bold", r"own\.yaml:1: a: not a mapping of keys"),
    ("bold: {pattern: b}", r"own\.yaml:1: bold: every audit has an attribute of that name"),
    ("reward: {pattern: b}", r"own\.yaml:1: reward: tables of answers have a column of that name"),
    ("A-1: {pattern: b}", r"own\.yaml:1: A-1: a name is made of"),
    ("a: {function: mine}", r"own\.yaml:1: a: function: 'mine' is not FILE\.py:FUNCTION"),
    ("a: {function: 'gone.py:f'}", r"own\.yaml:1: a: function: no Python file .*gone\.py"),
    ("a: {function: 'mine.py:f'}", r"own\.yaml:1: a: function: .*mine\.py has no function f"),
    ("a: {function: 'bad.py:f'}", r"own\.yaml:1: a: function: .*bad\.py cannot be run: ZeroDivisionError"),
    ("a: {judge: is it rude}", r"own\.yaml:1: a: judge: nobody to ask"),
    ("a: {pattern: b, behind: []}", r"own\.yaml:1: a: behind: a list of no texts"),
    ("a:\n  pattern: b\n  before: [b, 3]", r"own\.yaml:3: a: before: 3 is not text"),
    ("a: {pattern: b, behind: [b, ' ']}", r"own\.yaml:1: a: behind: ' ' is not text"),
    ("a: {pattern: b, behind: [b, c, b]}", r"own\.yaml:1: a: behind: 'b' stands there twice"),
    ("a: {pattern: [b]}", r"own\.yaml:1: a: pattern: \['b'\] is not text"),
    ("a: {column: b, behind: [c]}", r"own\.yaml:1: a: a column says nothing of changed answers"),
    ("a: {column: b, behind: c}", r"own\.yaml:1: a: a column says nothing of changed answers"),
    ("- a", r"own\.yaml:1: expected keys"),
    ("a: &x {pattern: b}", r"own\.yaml:1: .*anchors"),
    ("", r"own\.yaml: the file is empty"),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES)
def test_a_mistake_is_named_with_its_line(written: Path, text: str, message: str) -> None:
    (written.parent / "bad.py").write_text("1 / 0\n")
    written.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_attributes(written)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({}, r"made\.jsonl:7: no column rating for the attribute rating: has prompt, candidates"),
        ({"rating": [1]}, r"made\.jsonl:7: rating is not 2 numbers, one for each"),
        ({"rating": [1, -2]}, r"made\.jsonl:7: the attribute rating gave -2\.0"),
    ],
)
def test_a_column_that_does_not_fit_names_the_row(
    written: Path, raw: dict[str, object], message: str
) -> None:
    rating = load_attributes(written).attributes[2]
    with pytest.raises(DataError, match=message):
        attribute_table(scored({"prompt": "p ?", "candidates": ["a", "b"], **raw}), [rating])


def test_a_count_without_a_unit_is_refused(written: Path) -> None:
    (written.parent / "mine.py").write_text("def rhymes(prompt, answer):\n    return 3\n")
    rhymes = load_attributes(written).attributes[3]
    with pytest.raises(DataError, match=r"the attribute rhymes gave 3\.0, and its unit is answer: 0 or 1"):
        attribute_table(scored({"prompt": "p ?", "candidates": ["a"]}), [rhymes])


@pytest.fixture
def endpoint() -> Iterator[str]:
    with serving() as url:
        yield url


def test_a_judge_is_asked_once_for_an_answer_and_goes_on_after_a_failure(
    endpoint: str, written: Path, tmp_path: Path
) -> None:
    written.write_text("rude: {judge: 'Does the answer insult?'}")

    def judge() -> Judge:
        return Judge(Replies(ChatEndpoint(endpoint, "m", attempts=1), tmp_path / "replies.jsonl"))

    first = judge()
    (rude,) = load_attributes(written, judge=first).attributes
    data = scored({"prompt": "p ?", "candidates": ["you fool", "hello", "hm", "down"]})
    with pytest.raises(DataError, match=r"made\.jsonl:7: the attribute rude failed: .* refused the request"):
        attribute_table(data, [rude])
    assert len(Endpoint.asked) == 4
    second = judge()
    (rude,) = load_attributes(written, judge=second).attributes
    data = scored({"prompt": "p ?", "candidates": ["you fool", "hello", "hm", "fine"]})
    assert attribute_table(data, [rude]).values[:, 0].tolist() == [1, 0, 0, 0]
    assert len(Endpoint.asked) == 5  # the first three are known
    assert second.unread == 1
    assert second.replies.usage.prompt_tokens == 40
    assert "you fool" in Endpoint.asked[0]
    assert "Does the answer insult?" in Endpoint.asked[0]
