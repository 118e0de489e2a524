"""The report of a dictionary's fit: as JSON for `attach.json`, and as lines for a terminal."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sarm_control.attaching.contributions import MOST_ALIGNED, Contributions
from sarm_control.attaching.explained import Explained
from sarm_control.attaching.stability import Stability
from sarm_control.console import aligned
from sarm_control.errors import ModelError
from sarm_control.statistics import Interval, with_ends

LEAST_EXPLAINED = 0.5
"""Of the reward's variance, below which a dictionary is refused."""
_NAMES = {
    "": "dictionary",
    "pca": "PCA of equal k",
    "mean_squared_error": "plain squared error",
    "topk": "k of every state",
    "batch-topk": "k on average",
    "matryoshka": "k on average, nested groups",
    "whitened": "half whitened states",
    "not_whitened": "states as they are",
}


@dataclass(frozen=True)
class FitReport:
    """How much of a reward model's states, rewards and margins a dictionary explains, and by what.

    Args:
        held_out: on the answers of held-out prompts.
        evaluation: on other sets, by name.
        contributions: of the latents, on the held-out answers.
        baselines: of other reconstructions, by kind and then by set; "" is the held-out one.
        k: latents active on a state, on average.
        scale: `s`.
        constant: what every answer gets, in reward units.
        stability: against dictionaries of other seeds.
        curve: step and mean squared error of the training.
        tried: the latents of dictionaries that were trained beside it, by kind, on the held-out answers.
    """

    held_out: Explained
    evaluation: Mapping[str, Explained]
    contributions: Contributions
    baselines: Mapping[str, Mapping[str, Explained]]
    k: int
    scale: float
    constant: float
    stability: tuple[Stability, ...] = ()
    curve: tuple[tuple[int, float], ...] = field(default=())
    tried: Mapping[str, Contributions] = field(default_factory=dict)

    @property
    def warnings(self) -> list[str]:
        """What is wrong with the dictionary, short of being useless."""
        found, most = [], self.contributions.most_aligned
        if most > MOST_ALIGNED:
            found.append(
                f"a latent's direction has |cos| {most:.2f} with the head's, above {MOST_ALIGNED:g}: "
                "it may be the reward under another name"
            )
        return found

    def check(self, *, force: bool = False) -> None:
        """Refuses a dictionary that explains too little, or all by one latent.

        Args:
            force: let it pass.

        Raises:
            ModelError: with the number that decides.
        """
        if force:
            return
        share = self.held_out.reward
        if share is not None and share < LEAST_EXPLAINED:
            raise ModelError(
                f"the dictionary explains {share:.3f} of the reward's variance on held-out prompts, less "
                f"than {LEAST_EXPLAINED:g}: most of the reward would be residual",
                hint="train on more answers, or on some like those it is for; --force attaches it anyway",
            )
        trivial = self.contributions.trivial
        if trivial is not None:
            raise ModelError(
                f"latent {trivial.latent} lies along the head (cos {trivial.cosine:+.2f}) "
                f"and makes {trivial.share:.2f} of the variance: the dictionary says nothing of the reward",
                hint="train with more answers or a smaller --reward-weight; --force attaches it anyway",
            )

    def as_json(self) -> dict[str, Any]:
        """The same as a JSON object."""
        return {
            "variance_explained": self.held_out.shares,
            "held_out": self.held_out.as_json(),
            "evaluation": {name: one.as_json() for name, one in self.evaluation.items()},
            "contributions": self.contributions.as_json(),
            "tried": {kind: one.shape for kind, one in self.tried.items()},
            "baselines": {
                kind: {name or "held_out": one.as_json() for name, one in sets.items()}
                for kind, sets in self.baselines.items()
            },
            "stability": [one.as_json() for one in self.stability],
            "k": self.k,
            "scale": self.scale,
            "constant": self.constant,
            "curve": [{"step": step, "mean_squared_error": error} for step, error in self.curve],
            "warnings": self.warnings,
        }

    def lines(self) -> Iterator[str]:
        """The report for people, line by line."""
        yield "share of variance explained:"
        yield from aligned(list(self._shares()), left=2)
        yield from self._residual()
        yield from self._latents()
        for one in self.stability:
            effects = "" if one.effects is None else f", rank correlation of effects {one.effects:.2f}"
            yield (
                f"seeds {one.seeds[0]} and {one.seeds[1]}: nearest latents' median cosine "
                f"{one.median_cosine:.2f}, {100 * one.close:.0f} % of at least 0.7, by variance of "
                f"contribution {one.weighted_cosine:.2f}{effects}"
            )
        for warning in self.warnings:
            yield f"warning: {warning}"

    def _shares(self) -> Iterator[list[str]]:
        yield ["answers of", "by", "state", "reward", "margin", "answers", "prompts"]
        sets = {"": self.held_out, **self.evaluation}
        for name, mine in sets.items():
            for kind in ("", *self.baselines):
                found = mine if not kind else self.baselines[kind][name]
                numbers = [_number(found.shares[key], found.intervals[key]) for key in found.shares]
                where = name or "held-out prompts"
                yield [
                    where,
                    _NAMES[kind],
                    *numbers,
                    str(found.answers),
                    str(found.prompts) if found.prompts else "-",
                ]

    def _residual(self) -> Iterator[str]:
        for name, found in {"held-out prompts": self.held_out, **self.evaluation}.items():
            if found.residual_sd is None:
                continue
            pairs = ""
            if found.residual_accuracy is not None and found.reward_accuracy is not None:
                pairs = (
                    f"; it alone orders {with_ends(found.residual_accuracy, '.3f')} of the pairs right, "
                    f"the reward {found.reward_accuracy.mean:.3f}"
                )
            yield f"{name}: the residual's SD is {found.residual_sd:.3f} reward SDs{pairs}"

    def _latents(self) -> Iterator[str]:
        found = self.contributions
        yield _shape(found)
        for kind, other in self.tried.items():
            yield f"{_NAMES[kind]}: {_shape(other)}"
        if not found.top:
            return
        yield "latents with the most variance of contribution:"
        # words are for people; a fit of states alone has none
        named = any(one.words for one in found.top)
        rows = [["latent", *(["words"] if named else []), "share", "SD", "fires", "weight", "cos"]]
        rows += [
            [
                str(one.latent),
                *([", ".join(f'"{word}"' for word in one.words) or "-"] if named else []),
                f"{one.share:.3f}",
                f"{one.sd:.3g}",
                f"{100 * one.firing_rate:.0f} %",
                f"{one.weight:+.3g}",
                f"{one.cosine:+.2f}",
            ]
            for one in found.top
        ]
        yield from aligned(rows, left=2 if named else 0)


def _shape(found: Contributions) -> str:
    return (
        f"{found.for_half} latents make 50 % of the variance of contributions, {found.for_most} make 90 "
        f"%; {100 * found.dead:.0f} % of {found.latents} never fire, "
        f"{100 * found.always_on:.1f} % always; "
        f"max |cos| with the head {found.most_aligned:.2f} (limit {MOST_ALIGNED:g})"
    )


def _number(value: float | None, interval: Interval | None) -> str:
    if value is None or interval is None:
        return "-"
    return with_ends(interval, ".3f") if interval.given else f"{value:.3f}"
