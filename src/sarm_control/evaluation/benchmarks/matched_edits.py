"""Compares edits with the same edits on random latents of the same firing rates and head weights.

Shapes: `N` answers, `O` answers of the benchmark, `U` units, `L` latents, `S` random sets.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarm_control.control import Edit, edit_delta, edited_rewards, moved_rewards
from sarm_control.errors import DataError
from sarm_control.evaluation.answer_places import AnswerTable, Floats, answer_table
from sarm_control.evaluation.benchmarks.benchmark import Benchmark
from sarm_control.latents import ScoredRows
from sarm_control.reward_model import Scored
from sarm_control.statistics import SETS, AmongSets, MatchedSets, matched_random_sets


def among_matched_edits(
    data: ScoredRows,
    benchmark: Benchmark,
    target: NDArray[np.bool_],
    edits: Sequence[Edit],
    *,
    sets: int = SETS,
    seed: int = 0,
) -> dict[str, AmongSets]:
    """The place of the edits among the same edits on matched random latents.

    A random set keeps the operations and their numbers and replaces each latent by one of the same decile of
    firing rate and of |w|, over all answers of `data`. Latents that never fire cannot be matched, so their
    edits are left out of both sides.

    Args:
        data: the benchmark's rows first, then any others.
        benchmark: made from the first of these rows.
        target: [U] the units to compare.
        edits: at most one per latent.
        sets: S.
        seed: of the draw.

    Returns:
        "margin": the place of the change of the mean margin over the target's prompts; "accuracy": the place
        of the change of the target's main figure.

    Raises:
        DataError: no edited latent is active, or too few others are.
    """
    scored, own = data.scored, len(benchmark.unit_of_answer)
    active = scored.latents.indices[scored.latents.values != 0]
    rate = np.bincount(active, minlength=scored.latents.size) / len(scored)
    firing = [edit for edit in edits if rate[edit.latent] > 0]
    if not firing:
        raise DataError("no edited latent is active in these answers")
    chosen = [edit.latent for edit in firing]
    random = matched_random_sets(chosen, rate, np.abs(scored.head), sets=sets, seed=seed)
    moved = _random_changes(scored, firing, random)
    change = edit_delta(scored, firing)[:own]
    inside = target[benchmark.unit_of_answer]
    weights = margin_weights(answer_table(data.rows, len(scored)), own, inside)

    def accuracy(rewards: Floats) -> float:
        return float(benchmark.credit(rewards[:own])[target, 0].mean())

    start = accuracy(scored.rewards.astype(np.float64))
    accuracies = np.array([accuracy(rewards) for rewards in moved_rewards(scored, moved)]) - start
    return {
        "margin": _among(float(weights @ change), moved[:, :own] @ weights, random.widened),
        "accuracy": _among(accuracy(edited_rewards(scored, firing)) - start, accuracies, random.widened),
    }


def _random_changes(scored: Scored, edits: Sequence[Edit], random: MatchedSets) -> Floats:
    """[S, N] the change of every reward when the edits act on the random latents."""
    columns = scored.latents.to_scipy().tocsc()
    total = np.zeros((len(random.latents), len(scored)))
    for column, edit in enumerate(edits):
        # each distinct latent is computed once, however many sets drew it
        drawn, place = np.unique(random.latents[:, column], return_inverse=True)
        on_drawn = [replace(edit, latent=int(latent)) for latent in drawn]
        moved = np.stack([_change(columns, scored.head, own) for own in on_drawn])
        total += moved[place]
    return total


def _change(columns: Any, head: NDArray[np.float32], edit: Edit) -> Floats:
    """[N] the change of the rewards by one edit, from the latents in column form."""
    z = columns[:, [edit.latent]].toarray().ravel().astype(np.float64)
    return np.asarray((edit.apply(z) - z) * float(head[edit.latent]))


def margin_weights(table: AnswerTable, own: int, inside: NDArray[np.bool_]) -> Floats:
    """[O] weights that turn the rewards of the first `own` answers into a mean margin.

    The margin of a prompt is that of discovery: mean chosen minus mean rejected, averaged over the
    prompts that have both among the answers `inside` [O].
    """
    prompt, role = table.prompt[:own], table.role[:own]
    counts = {
        name: np.bincount(prompt[inside & (role == name)], minlength=table.prompts)
        for name in ("chosen", "rejected")
    }
    both = (counts["chosen"] > 0) & (counts["rejected"] > 0)
    weights = np.zeros(own)
    for name, sign in (("chosen", 1.0), ("rejected", -1.0)):
        members = inside & (role == name) & both[prompt]
        # linear in the rewards, so that one product gives the margin of all random sets at once
        weights[members] = sign / counts[name][prompt[members]] / both.sum()
    return weights


def _among(value: float, random: Floats, widened: int) -> AmongSets:
    # equal sums in another order may differ in the last bits
    below = 100 * float((random < value - 1e-12).mean())
    return AmongSets(below, float(random.mean()), float(random.std()), len(random), widened)
