"""Which latents fire in given answers, how often, and how much of the reward's spread each one makes.

A latent fires where `z > 0`. Its part of the spread is `w_i^2 var z_i` over the sum of these over all
latents; what two latents have in common is left out of both. Answers are read part by part, so that memory
does not grow with them.

Shapes: `N` answers, `P` prompts, `L` latents, `S` latents that are listed.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.evaluation.answer_places import Floats
from sarm_control.latents import ScoredRows
from sarm_control.notebooks import data_frame
from sarm_control.statistics import Interval, mean_interval, share_intervals

ALWAYS = 0.98
"""A latent that fires in at least this share of the answers tells them hardly apart."""

_EDGES = (0.0, 0.001, 0.01, 0.1, 0.5, ALWAYS)


class Firing(NamedTuple):
    """One latent in the answers.

    Args:
        latent: its number.
        weight: its head weight.
        rate: share of a prompt's answers in which it fires, mean over prompts.
        mean: its mean z over all answers.
        spread: its part of the reward's spread, 0..1.
    """

    latent: int
    weight: float
    rate: Interval
    mean: float
    spread: float

    def as_json(self) -> dict[str, Any]:
        """The same as a JSON object."""
        return {**self._asdict(), "rate": self.rate.as_json()}


class AnswerCoverage(NamedTuple):
    """The latents of N answers to P prompts.

    Args:
        answers: N.
        prompts: P.
        latents: the latents that were looked at: all L, or those that were asked for or kept.
        numbers: their numbers.
        rates: share of all answers in which each of them fires.
        firing: latents that fire in one answer, mean over prompts.
        listed: those that make most of the reward's spread.
    """

    answers: int
    prompts: int
    latents: int
    numbers: tuple[int, ...]
    rates: Floats
    firing: Interval
    listed: tuple[Firing, ...]

    def as_json(self) -> dict[str, Any]:
        """The same as a JSON object; rates as counts of latents by their rate."""
        never = int((self.rates == 0).sum())
        bins = [{"low": 0.0, "high": 0.0, "latents": never}]
        for low, high in zip(_EDGES, (*_EDGES[1:], 1.0), strict=True):
            # from the last edge on both ends count: what always fires is in it
            inside = (self.rates > low if low < ALWAYS else self.rates >= low) & (
                self.rates < high if high == ALWAYS else self.rates <= high
            )
            bins.append({"low": low, "high": high, "latents": int(inside.sum())})
        return {
            "answers": self.answers,
            "prompts": self.prompts,
            "latents": self.latents,
            "never": never,
            "always": bins[-1]["latents"],
            "firing": self.firing.as_json(),
            "rates": bins,
            "listed": [one.as_json() for one in self.listed],
        }

    def to_pandas(self) -> Any:
        """A pandas frame with a row for each latent that was looked at, and the share of answers it fires in.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        rows = zip(self.numbers, self.rates.tolist(), strict=True)
        return data_frame(({"latent": latent, "rate": rate} for latent, rate in rows), "latent")


def answer_coverage(
    parts: Callable[[], Iterable[ScoredRows]], *, chosen: Sequence[int] | None = None, most: int = 12
) -> AnswerCoverage:
    """Counts the latents of scored answers.

    Args:
        parts: gives the answers, part by part; it is called twice.
        chosen: the latents to look at; None for all.
        most: S at most.
    """
    head, moments, prompts, firing = _first_pass(parts())
    numbers = np.arange(len(head)) if chosen is None else np.array(sorted(chosen), dtype=np.int64)
    answers = len(prompts)
    mean = moments[1] / answers
    # rounding may leave the difference of two equal numbers below 0
    variance = np.maximum(moments[2] / answers - mean**2, 0.0)
    spread = head.astype(np.float64) ** 2 * variance
    share = spread / (spread[numbers].sum() or 1.0)
    listed = numbers[np.argsort(-spread[numbers], kind="stable")][:most]
    listed = listed[spread[listed] > 0]
    # read again, since [P, L] of all latents would be large and which are listed is known only now
    by_prompt = _by_prompt(parts(), listed, prompts)
    ends = list(share_intervals(by_prompt)) if len(listed) else []
    return AnswerCoverage(
        answers,
        len(by_prompt),
        len(numbers),
        tuple(map(int, numbers)),
        moments[0][numbers] / answers,
        mean_interval(_prompt_means(firing, prompts)),
        tuple(
            Firing(int(one), float(head[one]), rate, float(mean[one]), float(share[one]))
            for one, rate in zip(listed, ends, strict=True)
        ),
    )


class _FirstPass(NamedTuple):
    head: NDArray[np.float32]
    moments: Floats
    prompts: NDArray[np.int64]
    firing: Floats


def _first_pass(parts: Iterable[ScoredRows]) -> _FirstPass:
    """The head; [3, L] answers that fire, sums of z and of z^2; [N] prompts and latents that fire."""
    moments: Floats | None = None
    head: NDArray[np.float32] | None = None
    places: dict[str, int] = {}
    prompts: list[int] = []
    firing: list[Floats] = []
    for part in parts:
        latents = part.scored.latents
        if moments is None or head is None:
            head, moments = part.scored.head, np.zeros((3, latents.size))
        fires = latents.values > 0
        values = latents.values.astype(np.float64)
        moments[0] += np.bincount(latents.indices[fires], minlength=latents.size)
        moments[1] += np.bincount(latents.indices, weights=values, minlength=latents.size)
        moments[2] += np.bincount(latents.indices, weights=values**2, minlength=latents.size)
        rows = latents.row_ids()[fires]
        firing.append(np.bincount(rows, minlength=len(part.scored)).astype(np.float64))
        for row in part.rows:
            prompts += [places.setdefault(row.prompt_key, len(places))] * len(row.answers)
    if moments is None or head is None:
        raise ValueError("no answers were given")
    return _FirstPass(head, moments, np.array(prompts, dtype=np.int64), np.concatenate(firing))


def _by_prompt(parts: Iterable[ScoredRows], listed: NDArray[np.int64], prompts: NDArray[np.int64]) -> Floats:
    """[P, S] the share of a prompt's answers in which each listed latent fires."""
    counts = np.bincount(prompts)
    sums = np.zeros((len(counts), len(listed)))
    start = 0
    for part in parts:
        own = prompts[start : start + len(part.scored)]
        if len(listed):
            # a prompt may have several answers here, and indexed += would add only one of them
            np.add.at(sums, own, part.scored.latents.columns(listed.tolist()) > 0)
        start += len(own)
    return np.asarray(sums / counts[:, None])


def _prompt_means(values: Floats, prompts: NDArray[np.int64]) -> Floats:
    return np.asarray(np.bincount(prompts, weights=values) / np.bincount(prompts))
