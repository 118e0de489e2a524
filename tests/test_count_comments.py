"""`scripts/count_comments.py`, oracle: words and tokens counted by hand."""

from pathlib import Path
from types import ModuleType

import pytest

from tests.outside import load

SCRIPT = Path(__file__).parents[1] / "scripts" / "count_comments.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load(SCRIPT)


@pytest.mark.parametrize(
    ("source", "words", "tokens"),
    [
        ("x = 1\n", 0, 3),
        ("# why it is so - and no other way\nx = 1\n", 8, 3),
        ("x = 1  # half of 3.5\n", 3, 3),
        ("# ------\n# ----- one part -----\nx = 1\n", 2, 3),
        ("x = 1  # noqa: F401\n", 0, 3),
        ("x = 1  # type: ignore[misc]  # SAELens is loaded here\n", 4, 3),
        ("x = 1  # the type: of things\n", 4, 3),
        ('"""Of the module, in words."""\nx = 1\n"""Of the attribute."""\n', 0, 3),
        ('def f():\n    """Of the function,\n\n    in two lines.\n    """\n    return "text"\n', 0, 7),
        ("y = f'{x + 1} and {f\"{z}\"}'\n", 0, 3),
        ('x = (\n    "# no comment",\n)\n', 0, 6),
        ("", 0, 0),
    ],
)
def test_words_and_tokens_are_those_counted_by_hand(
    script: ModuleType, source: str, words: int, tokens: int
) -> None:
    assert script.of_source(source) == (words, tokens)


def test_the_table_has_the_thinnest_first_and_the_total_last(script: ModuleType) -> None:
    counts = {
        "much": script.Counts(30, 200),
        "little": script.Counts(10, 1800),
        "none": script.Counts(0, 0),
    }
    assert script.table(counts, "room") == [
        "  room    words  tokens  words per 100 tokens",
        "  none        0       0                  0.00",
        "  little     10   1,800                  0.56",
        "  much       30     200                 15.00",
        "  total      40   2,000                  2.00",
    ]
