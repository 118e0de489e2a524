"""Whether the latents detect a goal at all: a control on latents only works where some latent does.

Three detectors of the goal (or of any attribute) are compared by the area under their ROC curve. They are
cross-validated by prompt, so that no detector is judged on the answers on which it was chosen:

- the best latent: the one with the highest AUROC on the other folds,
- the best five: added one by one, each where it explains most of the rest, with `[z, 1(z > 0)]` of each,
- a linear probe on the state, which is the input of the autoencoder.

Explained variance does not answer the question: it was 0.98 both for autoencoders whose best latent had an
AUROC of 0.6 and for autoencoders with 1.0.

Shapes: `N` answers, `L` latents, `M` candidate latents, `D` hidden size, `P` prompts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarm_control.discovery.evidence.probes import best_five, best_latent, linear_probe
from sarm_control.discovery.pairs.margins import prompt_margins, residual_margins
from sarm_control.discovery.pairs.prompt_pairs import PromptPairs
from sarm_control.seeds import derive_seed, numpy_generator
from sarm_control.statistics import (
    Interval,
    Placed,
    difference_over_folds,
    interval_over_folds,
    placed,
    ratio_interval,
    with_ends,
)

FOLDS = 5
GAP = 0.05
"""The state knows more than the latents when the whole interval of the probe's lead in AUROC is above this,
and not more when the whole interval is below it."""
_CHANCE = 0.6
_PROBE_ANSWERS = 4000


@dataclass(frozen=True)
class Detectability:
    """How well latents, and the state behind them, distinguish the two sides.

    Args:
        best_latent: AUROC of the best latent.
        best_five: AUROC of the best five together.
        probe: AUROC of the linear probe; None without states.
        gap: probe minus best five.
        latents: the best latent of each set of training folds.
        outside: the share of the excess reward of rejected answers, on the prompts where these get more, that
            is residual; None for a SARM, and where no prompt is such.
    """

    best_latent: Interval
    best_five: Interval
    probe: Interval | None
    gap: Interval | None
    latents: tuple[int, ...]
    outside: Interval | None = None

    @property
    def verdict(self) -> str:
        """One sentence, with the AUROC of each detector and its interval; a second on what lies outside."""
        return self._detected + self._beyond

    @property
    def _beyond(self) -> str:
        if self.outside is None:
            return ""
        return (
            f" {with_ends(self.outside, '.0f', percent=True)} of the excess reward of rejected answers lies "
            "outside the dictionary (residual), where no control on latents reaches it."
        )

    @property
    def _detected(self) -> str:
        shown = f"{_area(self.best_latent)} for the best latent, {_area(self.best_five)} for the best five"
        if self.probe is not None and self.gap is not None and self.gap.low > GAP:
            return (
                f"The state knows (AUROC {_area(self.probe)} for a linear probe) more than the latents show "
                f"({shown}): what they do not show, no control on latents holds."
            )
        probed = "" if self.probe is None else f", {_area(self.probe)} for a linear probe on the state"
        best = max(filter(None, (self.best_five, self.best_latent, self.probe)), key=lambda one: one.mean)
        if best.low <= 0.5 or best.high < _CHANCE:
            where = (
                "Neither the latents nor the state separate" if self.probe else "The latents do not separate"
            )
            return f"{where} the two sides: AUROC {shown}{probed}."
        if self.probe is None:
            return f"The latents show: AUROC {shown}; whether the state knows more is seen with its states."
        if self.gap is not None and not self.gap.high < GAP:
            return (
                f"Too few prompts to tell whether the state knows more than the latents show: AUROC {shown}"
                f"{probed}, which leads the best five by {_area(self.gap)}."
            )
        return f"The latents show what the state knows: AUROC {shown}{probed}."

    def as_json(self) -> dict[str, Any]:
        """The same as a JSON object."""
        intervals = {"best_latent": self.best_latent, "best_five": self.best_five}
        optional = {"probe": self.probe, "probe_minus_best_five": self.gap}
        return {
            **{f"auroc_{name}": value.as_json() for name, value in intervals.items()},
            **{name: None if value is None else value.as_json() for name, value in optional.items()},
            "best_latent_of_each_fold": list(self.latents),
            "harmful_reward_outside": None if self.outside is None else self.outside.as_json(),
            "verdict": self.verdict,
        }


def _area(value: Interval) -> str:
    return f"{value.mean:.2f} [{value.low:.2f}, {value.high:.2f}]"


class _Material:
    """The answers of both sides of all parts together: latents, states, labels and prompts."""

    def __init__(self, parts: Sequence[PromptPairs], min_prompts: int) -> None:
        from scipy.sparse import csc_array, vstack

        of = [pairs.latents for pairs in parts]
        keys = [key for pairs in parts for key in pairs.keys]
        self.present = np.concatenate(
            [np.repeat([True, False], [len(one.chosen_prompt), len(one.rejected_prompt)]) for one in of]
        )
        # prompts are numbered by their texts, so that random draws do not depend on the order of rows
        place = np.argsort(np.argsort(np.array(keys)))
        starts = np.cumsum([0, *map(len, parts)])
        self.prompts = place[
            np.concatenate(
                [
                    np.concatenate([one.chosen_prompt, one.rejected_prompt]) + start
                    for one, start in zip(of, starts, strict=False)
                ]
            )
        ]
        self.keys = sorted(keys)
        both = csc_array(vstack([side for one in of for side in (one.chosen, one.rejected)], format="csc"))
        # label-blind, as everywhere: latents that fire in enough answers to be used
        self.latents = np.flatnonzero(np.diff(both.indptr) >= min_prompts)
        self.z: Any = both[:, self.latents]
        # rows of states are in the order of `both`: the chosen and then the rejected answers of each part
        self.states = _states(parts)


def see(
    *parts: PromptPairs, min_prompts: int = 10, folds: int = FOLDS, seed: int = 0
) -> Detectability | None:
    """How well latents and states distinguish the chosen from the rejected answers of these prompts.

    Args:
        *parts: all prompts, none twice; folds separate choosing from judging, so no part is held back.
        min_prompts: latents active in fewer answers are not candidates.
        folds: the number of folds; the detectors judged on one are chosen on the others.
        seed: of the folds.

    Returns:
        None for fewer than 4 prompts per fold, or when no latent is a candidate.
    """
    material = _Material(parts, min_prompts)
    # with fewer prompts a fold's AUROC is of a handful of answers
    if len(material.keys) < 4 * folds or not len(material.latents):
        return None
    fold_of = _folds(material.keys, folds, seed)
    single, five, probe, latents = [], [], [], []
    for fold in range(folds):
        judged = fold_of[material.prompts] == fold
        # everything is chosen on the other folds, so the AUROC of this fold is not biased by the choice
        first = best_latent(material.z[~judged], material.present[~judged])
        latents.append(int(material.latents[first.column]))
        several = best_five(material.z[~judged], material.present[~judged], first.column)
        single.append(_judge(material, judged, first.scores(material.z[judged])))
        five.append(_judge(material, judged, several.scores(material.z[judged])))
        if material.states is not None:
            train = _some(np.flatnonzero(~judged), seed, fold)
            linear = linear_probe(
                material.states[train], material.present[train], material.prompts[train], seed=seed
            )
            probe.append(_judge(material, judged, linear.logits(material.states[judged])))
    return Detectability(
        interval_over_folds(single),
        interval_over_folds(five),
        interval_over_folds(probe) if probe else None,
        difference_over_folds(probe, five) if probe else None,
        tuple(latents),
        _outside(parts),
    )


def _outside(parts: Sequence[PromptPairs]) -> Interval | None:
    """The residual's share of the lost margin; nothing selects it, so no part is held back."""
    of = [pairs.latents for pairs in parts]
    if any(one.chosen_residual is None for one in of):
        return None
    margins = np.concatenate([prompt_margins(one) for one in of])
    residual = np.concatenate([residual_margins(one) for one in of])
    lost = margins < 0
    return ratio_interval(residual[lost], margins[lost]) if lost.any() else None


def _judge(material: _Material, judged: NDArray[np.bool_], scores: NDArray[np.float64]) -> Placed:
    _, prompts = np.unique(material.prompts[judged], return_inverse=True)
    return placed(scores, material.present[judged], prompts, int(prompts.max()) + 1)


def _folds(keys: Sequence[str], folds: int, seed: int) -> NDArray[np.int64]:
    """[P] the fold of each prompt, determined by its text and the seed, never by its position."""
    order = sorted(range(len(keys)), key=lambda p: derive_seed(seed, "fold", keys[p]))
    fold_of = np.empty(len(keys), dtype=np.int64)
    fold_of[order] = np.arange(len(keys)) % folds
    return fold_of


def _some(rows: NDArray[np.int64], seed: int, fold: int) -> NDArray[np.int64]:
    """At most 4,000 answers for the probe; more take minutes at a width of 4,096 and change little."""
    if len(rows) <= _PROBE_ANSWERS:
        return rows
    return np.sort(numpy_generator(seed, "probe rows", fold).choice(rows, _PROBE_ANSWERS, replace=False))


def _states(parts: Sequence[PromptPairs]) -> NDArray[np.float64] | None:
    """[N, D] states of all answers as the dictionary encodes them; None when a part has none."""
    found = []
    for pairs in parts:
        if pairs.scored.states is None:
            return None
        found.append(pairs.scored.states[np.concatenate([pairs.chosen.numbers, pairs.rejected.numbers])])
    states = np.concatenate(found)
    # An attached dictionary encodes (x - m) / s with constants m and s. The probe standardises every column,
    # which cancels any such constants, so x itself gives the same probe.
    attached = any(pairs.scored.kind != "sarm" for pairs in parts)
    return states.astype(np.float64) if attached else _normalised(states)


def _normalised(states: NDArray[np.float32]) -> NDArray[np.float64]:
    """[N, D] the states normalised as for a SARM's autoencoder: centred, in units of their own SD."""
    wide = states.astype(np.float64)
    centred = wide - wide.mean(axis=1, keepdims=True)
    return np.asarray(centred / (wide.std(axis=1, ddof=1, keepdims=True) + 1e-6))
