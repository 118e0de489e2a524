"""What a dictionary's latents contribute to rewards, and whether one of them is the reward itself.

A latent whose direction is the head's would explain the whole reward and say nothing: its contribution is
the reward under another name. So directions are compared with the head's.

Shapes: `N` answers, `L` latents, `D` hidden size.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sarm_control.console import ProgressFactory, no_progress
from sarm_control.discovery import AnswerCorpus, label_from
from sarm_control.reward_model import AttachedAutoencoder, StateHead

MOST_ALIGNED = 0.3
"""|cos| of a latent's direction and the head's above which the dictionary is flagged."""
ALWAYS_ON = 0.99
"""Firing rate from which a latent is always on."""
SHOWN = 20
WORDS = 3
"""Words or short phrases that a latent is named by at most."""
TRIVIAL_SHARE = 0.5
"""A latent above `MOST_ALIGNED` that makes more than this share of the variance is the reward direction."""


class LatentContribution(NamedTuple):
    """One latent's contributions `w_i z_i` over the held-out answers.

    Args:
        latent: its number.
        share: of the sum of all latents' variances of contribution.
        sd: standard deviation of its contribution, in reward units.
        firing_rate: share of answers on which it is active.
        weight: reward per unit.
        cosine: of its direction and the head's.
        words: those that set answers with it apart from matched ones without it, the strongest first; none
            where no answers' texts were at hand, or nothing sets them apart.
    """

    latent: int
    share: float
    sd: float
    firing_rate: float
    weight: float
    cosine: float
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Contributions:
    """What all latents contribute over N answers.

    Args:
        top: the latents with the most variance of contribution, largest first.
        most_aligned: max |cos(d_i, w)| over latents that fire.
        for_half: latents that make 50 % of the sum of variances.
        for_most: latents that make 90 % of it.
        dead: share of latents that never fire.
        always_on: share of latents that fire on at least 99 % of the answers.
        latents: L.
        answers: N.
    """

    top: tuple[LatentContribution, ...]
    most_aligned: float
    for_half: int
    for_most: int
    dead: float
    always_on: float
    latents: int
    answers: int

    @property
    def trivial(self) -> LatentContribution | None:
        """The latent that is the reward direction; None where there is none."""
        first = self.top[0] if self.top else None
        found = first is not None and first.share > TRIVIAL_SHARE and abs(first.cosine) > MOST_ALIGNED
        return first if found else None

    @property
    def shape(self) -> dict[str, float]:
        """The same without single latents, for JSON."""
        return {
            "max_abs_cosine": self.most_aligned,
            "latents_for_50_percent": self.for_half,
            "latents_for_90_percent": self.for_most,
            "dead_share": self.dead,
            "always_on_share": self.always_on,
            "latents": self.latents,
            "answers": self.answers,
        }

    def as_json(self) -> dict[str, Any]:
        """The same as a JSON object."""
        return {**self.shape, "top_latents": [one._asdict() for one in self.top]}


def cosines(autoencoder: AttachedAutoencoder, head: StateHead) -> NDArray[np.float64]:
    """[L] of each latent's direction and the head's; 0 for a direction of length 0."""
    decoder = autoencoder.decoder.weight.detach().cpu().double().numpy()
    weight = head.weight.astype(np.float64)
    lengths = np.linalg.norm(decoder, axis=0) * np.linalg.norm(weight)
    products = weight @ decoder
    return np.asarray(products / np.where(lengths > 0, lengths, 1.0), dtype=np.float64)


def contributions(autoencoder: AttachedAutoencoder, head: StateHead, states: Tensor) -> Contributions:
    """Of the states [N, D] of held-out answers."""
    weights = autoencoder.latent_weights(head).weight.astype(np.float64)
    # By variance of contribution: a latent that gives every answer the same orders none of them. It is a sum
    # of variances, not the variance of the sum, so contributions that cancel each other count in full.
    sums, squares, fired = moments(autoencoder, states)
    answers = len(states)
    mean = sums / answers
    # rounding can leave a variance just below 0
    variance = np.maximum(squares / answers - mean**2, 0.0) * weights**2
    rates, found = fired / answers, cosines(autoencoder, head)
    total = float(variance.sum())
    order = np.argsort(-variance, kind="stable")
    reached = np.cumsum(variance[order]) / total if total > 0 else np.zeros(0)
    top = tuple(
        LatentContribution(
            int(i),
            float(variance[i] / total),
            float(np.sqrt(variance[i])),
            float(rates[i]),
            float(weights[i]),
            float(found[i]),
        )
        for i in (order[:SHOWN] if total > 0 else ())
        if variance[i] > 0
    )
    return Contributions(
        top,
        most_aligned=float(np.abs(found[rates > 0]).max(initial=0.0)),
        for_half=int(np.searchsorted(reached, 0.5) + 1) if total > 0 else 0,
        for_most=int(np.searchsorted(reached, 0.9) + 1) if total > 0 else 0,
        dead=float((rates == 0).mean()),
        always_on=float((rates >= ALWAYS_ON).mean()),
        latents=len(weights),
        answers=answers,
    )


def named(
    found: Contributions, corpus: AnswerCorpus, *, seed: int = 0, progress: ProgressFactory = no_progress
) -> Contributions:
    """The same with the words of `sarm label` for each of the top latents; no model is asked.

    Args:
        found: of the dictionary.
        corpus: answers with the dictionary's latents.
        seed: of the draw where a latent is active on very many answers.
        progress: counts latents.
    """
    top = []
    with progress("Words", len(found.top)) as advance:
        for one in found.top:
            examples = corpus.examples(one.latent, seed=seed)
            words = label_from(examples, one.latent, "", words=WORDS, shown=0).words
            top.append(one._replace(words=tuple(word.text for word in words)))
            advance(1)
    return replace(found, top=tuple(top))


class Moments(NamedTuple):
    """Of each latent, [L] each: sums of its values and of their squares, and on how many answers it fired."""

    sums: NDArray[np.float64]
    squares: NDArray[np.float64]
    fired: NDArray[np.float64]


@torch.no_grad()
def moments(autoencoder: AttachedAutoencoder, states: Tensor, *, chunk: int = 512) -> Moments:
    """Moments of the latents of states [N, D]; codes are summed part by part."""
    latents = autoencoder.encoder.out_features
    found = [np.zeros(latents) for _ in range(3)]
    for part in states.float().split(chunk):
        kept = autoencoder.encode(part.to(autoencoder.pre_bias.device))
        where, values = kept.indices.flatten().cpu().numpy(), kept.values.flatten().double().cpu().numpy()
        # by a value other than 0: the zeros that fill up rows of a ready-made dictionary did not fire
        for total, weight in zip(found, (values, values**2, (values != 0).astype(np.float64)), strict=True):
            total += np.bincount(where, weights=weight, minlength=latents)
    return Moments(*found)
