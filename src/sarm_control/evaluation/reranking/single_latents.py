"""The latents whose removal alone changes which candidate wins.

All latents are handled in one pass of sparse algebra: a latent that is active in no candidate of a prompt
changes nothing there, so only active (prompt, latent) pairs are looked at.

Shapes: `P` prompts, `C` candidates, `m` candidates of a prompt, `A` latents active in one of them,
`L` latents, `M` latents that change a winner.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.control import unrounded_rewards
from sarm_control.evaluation.answer_places import Floats
from sarm_control.evaluation.reranking.candidates import CandidateSets
from sarm_control.notebooks import data_frame, ends_of
from sarm_control.reward_model import Scored
from sarm_control.statistics import Interval, mean_intervals, share_intervals


class LatentImpact(NamedTuple):
    """The effect on the choice when one latent is set to 0.

    Args:
        latent: its number.
        weight: its head weight.
        changed: share of prompts whose winner changes; ties count in part.
        attributes: name -> change of the winner's attribute, mean over all prompts.
    """

    latent: int
    weight: float
    changed: Interval
    attributes: dict[str, Interval]

    def as_json(self) -> dict[str, Any]:
        """The same as a JSON object."""
        attributes = {name: change.as_json() for name, change in self.attributes.items()}
        changed = self.changed.as_json()
        return {"latent": self.latent, "weight": self.weight, "changed": changed, "attributes": attributes}


class LatentImpacts(tuple[LatentImpact, ...]):
    """Latents, each with what changes without it, the one that changes most winners first."""

    __slots__ = ()

    def to_pandas(self) -> Any:
        """A pandas frame with a row for each latent.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        return data_frame(
            (
                {
                    "latent": one.latent,
                    "weight": one.weight,
                    **ends_of(changed=one.changed, **one.attributes),
                    "prompts": one.changed.n,
                }
                for one in self
            ),
            "latent",
        )


class _Moved(NamedTuple):
    """The (prompt, latent) pairs in which the winner changes, and by how much."""

    prompts: list[NDArray[np.int64]]
    latents: list[NDArray[np.int64]]
    changed: list[Floats]
    attributes: list[Floats]


def single_latents(sets: CandidateSets, scored: Scored) -> LatentImpacts:
    """Latents whose removal changes a winner, the one that changes most first.

    Args:
        sets: the candidates of every prompt.
        scored: the scores from which they were made.
    """
    from scipy.sparse import csr_array

    latents = scored.latents.take(sets.answers)
    rewards = unrounded_rewards(scored)[sets.answers]
    attributes = np.stack(list(sets.attributes.values()))
    moved = _Moved([], [], [], [])
    for prompt, span in enumerate(sets.spans()):
        # dense over the latents active in this prompt only, a few hundred of many thousands
        own = slice(latents.indptr[span.start], latents.indptr[span.stop])
        active, place = np.unique(latents.indices[own], return_inverse=True)
        contributions = np.zeros((span.stop - span.start, len(active)))
        row = np.repeat(np.arange(len(contributions)), np.diff(latents.indptr[span.start : span.stop + 1]))
        contributions[row, place] = latents.values[own] * scored.head[latents.indices[own]].astype(np.float64)
        _add_prompt(moved, prompt, active, rewards[span], contributions, attributes[:, span])
    where = (np.concatenate(moved.prompts), np.concatenate(moved.latents))
    shape = (len(sets), latents.size)
    columns = [csr_array((np.concatenate(moved.changed), where), shape=shape)]
    changes = np.concatenate(moved.attributes, axis=1)
    columns += [csr_array((values, where), shape=shape) for values in changes]
    return _impacts(columns, scored.head, tuple(sets.attributes))


def _add_prompt(
    moved: _Moved,
    prompt: int,
    active: NDArray[Any],
    rewards: Floats,
    contributions: Floats,
    attributes: Floats,
) -> None:
    """Adds the latents of one prompt whose removal changes the winner.

    `rewards` [m] are unrounded, `contributions` are [m, A].
    """
    before = _shares(rewards[:, None])
    # setting z to 0 takes exactly its contribution away, so that all latents of a
    # prompt are tried in one subtraction
    difference = _shares(rewards[:, None] - contributions) - before
    # the win leaves one candidate and comes to another, so half of all that moves: 1 where the winner
    # changes, less where it was shared
    changed = np.abs(difference).sum(axis=0) / 2
    kept = np.flatnonzero(changed > 0)
    moved.prompts.append(np.full(len(kept), prompt))
    moved.latents.append(active[kept].astype(np.int64))
    moved.changed.append(changed[kept])
    moved.attributes.append(attributes @ difference[:, kept])


def _shares(rewards: Floats) -> Floats:
    """[m, A] the share of the win of each candidate under each of A rewards.

    Rewards are compared in float32, in which `Scored.rewards` are rounded, so that the same candidates tie.
    """
    rounded = rewards.astype(np.float32)
    best = rounded == rounded.max(axis=0)
    shares: Floats = best / best.sum(axis=0)
    return shares


def _impacts(columns: Sequence[Any], head: NDArray[np.float32], names: Sequence[str]) -> LatentImpacts:
    """One impact for each latent with an entry in the first of the [P, L] columns."""
    total = np.asarray(columns[0].sum(axis=0)).ravel()
    # only latents that change a winner: for all others every interval would be made of zeros
    order = np.argsort(-total, kind="stable")[: int((total > 0).sum())]
    kept = [column[:, order] for column in columns]
    tables = [list(share_intervals(kept[0])), *(list(mean_intervals(column)) for column in kept[1:])]
    return LatentImpacts(
        LatentImpact(
            int(latent),
            float(head[latent]),
            tables[0][i],
            {name: table[i] for name, table in zip(names, tables[1:], strict=True)},
        )
        for i, latent in enumerate(order)
    )
