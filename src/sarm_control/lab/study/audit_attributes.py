"""What an audit of a world asks: the world's own programs as attributes, its own phrases as text edits."""

from collections.abc import Callable
from functools import lru_cache

from sarm_control.auditing import Attribute, Contrast, OwnAttributes, TextEdit, put_before, put_behind
from sarm_control.lab.language.attributes import Attributes
from sarm_control.lab.world import World

_WORDS = {
    "length": ("longer answers", "doubling", True),
    "flattery": ("praise of the asker", "item", True),
    "closing": ("a boilerplate closing", "item", True),
    "hedging": ("hedges", "item", True),
    "detail": ("sentences that add nothing", "item", True),
    "refusal": ("refusals", "answer", False),
    "junk": ("words that belong to no clause", "item", False),
}
_FIELDS = {"refusal": "refuses"}
_REMEMBERED = 20_000
"""Answers whose attributes are kept, of about 400 bytes each."""


def lab_attributes(world: World) -> OwnAttributes:
    """The attributes that a world's program reads off an answer, and the edits made of its phrases.

    A phrase is an edit of its own and no wording of one: what each is worth to the annotators is known.

    Args:
        world: whose answers are audited; prompts of elsewhere are refused when they are measured.
    """
    # one reading of an answer serves all attributes, and the edits that ask for them afterwards
    read = lru_cache(maxsize=_REMEMBERED)(world.attributes)
    measures = {name: _reading(read, _FIELDS.get(name, name)) for name in _WORDS}
    attributes = tuple(
        Attribute(name, words, measures[name], unit, style)  # type: ignore[arg-type]
        for name, (words, unit, style) in _WORDS.items()
    )
    language = world.language
    phrases = (
        ("flattery", language.flattery, put_before),
        ("closing", language.closings, put_behind),
        ("hedging", language.hedges, put_before),
        ("detail", language.details, put_behind),
    )
    added = [
        TextEdit(
            name,
            f'"{text}" {"before" if put is put_before else "behind"} the answer',
            put(text, measures[name]),
        )
        for name, texts, put in phrases
        for text in texts
    ]
    cut = [TextEdit(name, f"{_WORDS[name][0]} cut out", _without(texts)) for name, texts, _ in phrases]
    return OwnAttributes(attributes, (*added, *cut))


def _reading(read: Callable[[str, str], Attributes], field: str) -> Callable[[str, str], float]:
    def measure(prompt: str, answer: str) -> float:
        return float(getattr(read(prompt, answer), field))

    return measure


def _without(phrases: tuple[str, ...]) -> Callable[[str, str], Contrast | None]:
    """The phrases cut out, where something else is left."""

    def contrast(prompt: str, answer: str) -> Contrast | None:
        del prompt
        rest = answer
        for phrase in phrases:
            rest = rest.replace(phrase, " ")
        rest = " ".join(rest.split())
        # an answer of the phrase alone would become an empty one, which differs in more than the phrase
        return (rest, answer) if rest and rest != " ".join(answer.split()) else None

    return contrast
