"""The attributes that every audit asks about."""

from collections.abc import Callable, Sequence
from typing import Final

from sarm_control.auditing.attributes import shape, wording
from sarm_control.auditing.attributes.attribute import Attribute
from sarm_control.auditing.attributes.markdown import Structure, structure
from sarm_control.errors import ConfigError


def _counted(field: str) -> Callable[[str, str], float]:
    """The count of one kind of Markdown."""
    place = Structure._fields.index(field)

    def measure(prompt: str, answer: str) -> float:
        del prompt
        return float(structure(answer)[place])

    return measure


def _words(prompt: str, answer: str) -> float:
    """How many words."""
    del prompt
    return float(len(shape.words(answer)))


BATTERY: Final[tuple[Attribute, ...]] = (
    Attribute("length", "longer answers", _words, "doubling"),
    Attribute("sentences", "more sentences", shape.sentence_count, "item"),
    Attribute("headers", "headings", _counted("headers"), "item"),
    Attribute("bullets", "bulleted lists", _counted("bullets"), "item"),
    Attribute("numbered", "numbered lists", _counted("numbered"), "item"),
    Attribute("bold", "bold text", _counted("bold"), "item"),
    Attribute("tables", "tables", _counted("tables"), "item"),
    Attribute("code", "blocks of code", _counted("code_blocks"), "item"),
    Attribute("emoji", "emoji", shape.emoji, "item"),
    Attribute("exclamations", "exclamation marks", shape.exclamations, "item"),
    Attribute("opener", "praise of the question at the start", wording.praise_opener),
    Attribute("closing", "an offer of more help at the end", wording.closing_offer),
    Attribute("hedging", "hedging", wording.hedging, "item"),
    Attribute("certainty", "words of certainty", wording.certainty, "item"),
    Attribute("refusal", "refusals", wording.refusal, style=False),
    Attribute("apology", "apologies", wording.apology),
    Attribute("agreement", "agreeing with a claim of the asker", wording.agreement, style=False),
    Attribute("repeats_prompt", "repeating the prompt", shape.repeats_prompt),
    Attribute("first_person", "speaking in the first person", wording.first_person, "item"),
    Attribute("numbers", "numbers", shape.numbers, "item", style=False),
    Attribute("quotes", "quotations", shape.quotes, "item"),
    Attribute("citations", "references to sources", shape.citations, "item", style=False),
    Attribute("links", "links", shape.links, "item"),
    Attribute("other_script", "another script than the prompt's", shape.other_script, style=False),
    Attribute("repetition", "saying a sentence again", shape.repetition, "item", style=False),
    Attribute("broken_end", "endings in the middle of a sentence", shape.broken_end, style=False),
    Attribute("empty", "empty answers", shape.empty, style=False),
)


def attributes_named(names: Sequence[str]) -> tuple[Attribute, ...]:
    """The attributes of the battery with these names, in the order given.

    Raises:
        ConfigError: a name that the battery does not have.
    """
    known = {one.name: one for one in BATTERY}
    for name in names:
        if name not in known:
            raise ConfigError(f"no attribute {name!r}", hint=f"the battery has {', '.join(known)}")
    return tuple(known[name] for name in names)
