"""Labels of latents: words, examples, and a tested name from a language model; and labels as text."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sarm_control.discovery.labels.distinctive_words import Word, separating_words
from sarm_control.discovery.labels.examples import AnswerCorpus, LabelExample, LabelExamples
from sarm_control.seeds import numpy_generator


class Name(NamedTuple):
    """A name from a language model, tested on examples that it had not seen.

    Args:
        text: the name.
        balanced_accuracy: mean of the shares of active and of matched answers judged correctly; 0.5 is
            chance.
        low: lower end of its 95 % interval.
        high: upper end.
        active: number of active answers in the test.
        matched: number of matched answers without the latent, which share prompts and words with them.
        unread: number of replies that were neither yes nor no; they count as wrong.
    """

    text: str
    balanced_accuracy: float
    low: float
    high: float
    active: int
    matched: int
    unread: int


@dataclass(frozen=True)
class Label:
    """The label of one latent.

    Args:
        latent: its number.
        kind: such as "paid-for-bad".
        rate: share of answers with it active.
        words: distinctive words of these answers.
        top: answers with the highest z.
        random: active answers drawn at random.
        name: from a language model; None offline.
    """

    latent: int
    kind: str
    rate: float
    words: tuple[Word, ...]
    top: tuple[LabelExample, ...]
    random: tuple[LabelExample, ...]
    name: Name | None = None

    def as_json(self) -> dict[str, Any]:
        """The label as a JSON object."""
        return {
            "latent": self.latent,
            "kind": self.kind,
            "name": None if self.name is None else self.name._asdict(),
            "rate": self.rate,
            "words": [one._asdict() for one in self.words],
            "top": [one._asdict() for one in self.top],
            "random": [one._asdict() for one in self.random],
        }


def offline_label(
    corpus: AnswerCorpus, latent: int, kind: str, *, words: int = 10, shown: int = 5, seed: int = 0
) -> Label:
    """Words and examples of a latent, without a language model.

    Args:
        corpus: the answers.
        latent: its number.
        kind: by its discovery.
        words: the largest number of words.
        shown: the largest number of examples, top and random each.
        seed: of the random examples.
    """
    found = corpus.examples(latent, seed=seed)
    return label_from(found, latent, kind, words=words, shown=shown, seed=seed)


def label_from(
    found: LabelExamples, latent: int, kind: str, *, words: int = 10, shown: int = 5, seed: int = 0
) -> Label:
    """The label of `offline_label`, from examples that were already drawn."""
    texts = [[one.answer for one in side] for side in (found.active, found.matched)]
    # The highest values show a latent where it is clearest. What else sets it off is seen in the others.
    rest = found.active[shown:]
    drawn = numpy_generator(seed, "shown examples", latent).permutation(len(rest))[:shown]
    return Label(
        latent=latent,
        kind=kind,
        rate=found.rate,
        words=separating_words(*texts, top=words),
        top=found.active[:shown],
        random=tuple(rest[n] for n in sorted(drawn)),
    )


_LONGEST = 100


def labels_text(labels: Sequence[Label], *, examples: int = 1, asked: bool = False) -> str:
    """The labels as text, a few lines per latent: how often it fires, its words, its name, and answers.

    Args:
        labels: of the latents.
        examples: number of answers shown of each.
        asked: whether names were requested from a language model.
    """
    return "\n\n".join("\n".join(_lines(label, examples, asked)) for label in labels) + "\n"


def _lines(label: Label, examples: int, asked: bool) -> Iterator[str]:
    yield f"{label.latent}  {label.kind}, active in {100 * label.rate:.1f} % of the answers"
    if label.name is not None:
        name = label.name
        unread = f", {name.unread} replies neither yes nor no" if name.unread else ""
        skill = f"balanced accuracy {name.balanced_accuracy:.2f} [{name.low:.2f}, {name.high:.2f}]"
        chance = "" if name.low > 0.5 else "no better than chance: "
        yield f"  name   {name.text} ({chance}{skill} on {name.active} + {name.matched} answers{unread})"
    elif asked:
        yield "  name   none: too few answers to give a name and to test it"
    words = ", ".join(
        f'"{one.text}" {100 * one.active:.0f} % against {100 * one.inactive:.0f} %' for one in label.words[:4]
    )
    yield f"  words  {words or 'none sets its answers apart from matched ones'}"
    for one in label.top[:examples]:
        yield f"  top    z = {one.z:.3g}: {_shortened(one.answer)}"


def _shortened(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= _LONGEST else f"... {plain[-_LONGEST:]}"
