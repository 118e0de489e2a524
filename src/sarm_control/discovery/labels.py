"""What a latent may be called: words, examples, and a name that a language model gave and was tested on."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from sarm_control.discovery.examples import Corpus, Example, Examples
from sarm_control.discovery.words import Word, separating_words
from sarm_control.seeds import numpy_generator


class Name(NamedTuple):
    """A name from a language model, tested on examples it had not seen.

    Args:
        text: the name.
        balanced_accuracy: mean of the share of active and of matched answers told rightly; 0.5 is chance.
        low: lower end of its 95 % interval.
        high: upper end.
        active: active answers it was tested on.
        matched: matched answers without the latent, which share prompts and words with them.
        unread: replies that were neither yes nor no; they count as wrong.
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
    """One latent, as it can be read.

    Args:
        latent: its number.
        kind: such as "paid-for-bad".
        rate: share of answers with it active.
        words: what sets these apart.
        top: answers with the highest z.
        random: active answers drawn at random.
        name: from a language model; None offline.
    """

    latent: int
    kind: str
    rate: float
    words: tuple[Word, ...]
    top: tuple[Example, ...]
    random: tuple[Example, ...]
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
    corpus: Corpus, latent: int, kind: str, *, words: int = 10, shown: int = 5, seed: int = 0
) -> Label:
    """Words and examples of a latent; asks nobody.

    Args:
        corpus: the answers.
        latent: its number.
        kind: as its discovery names it.
        words: how many at most.
        shown: examples of each sort at most.
        seed: of what is drawn.
    """
    found = corpus.examples(latent, seed=seed)
    return label_from(found, latent, kind, words=words, shown=shown, seed=seed)


def label_from(
    found: Examples, latent: int, kind: str, *, words: int = 10, shown: int = 5, seed: int = 0
) -> Label:
    """As `offline_label`, from examples already drawn."""
    texts = [[one.answer for one in side] for side in (found.active, found.matched)]
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
