"""Levels of evidence: ways to measure a latent's effect, from algebra on its value to a change of the text.

| level | intervention |
|---|---|
| L1 | the latent is removed after TopK: `-w_i z_i`, exact |
| L2 | it is removed before TopK: the next pre-activation enters, `-w_i z_i + w_j a_j`, exact |
| L3 | `z_i W_dec[:, i]` is subtracted from the state, which is normalised and encoded again |
| L4 | the text is changed, see `discovery.evidence.counterfactuals` |

A called latent has L1 only when the interval of its exact effect on the confirmation prompts excludes 0. Test
and interval look at the same numbers in two ways; where they disagree there is no evidence yet.

Each level gives the contribution of the latent to an answer's reward: the reward with it minus the reward
without it. As everywhere, the effect is the mean over prompts of chosen minus rejected.

Shapes: `N` answers, `D` hidden size, `L` latents, `K` kept latents, `C` called latents.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sarm_control.console import ProgressFactory, no_progress
from sarm_control.discovery.features import Feature
from sarm_control.discovery.pairs.margins import PairLatents, margin_contributions
from sarm_control.discovery.pairs.prompt_pairs import PromptPairs
from sarm_control.errors import DataError
from sarm_control.reward_model import Autoencoder, TopK
from sarm_control.statistics import Interval, leaves_out_zero, mean_intervals

Level = Literal["L1", "L2", "L3", "L4"]
Floats = NDArray[np.float64]

_CHUNK = 128


class LevelEffect(NamedTuple):
    """A latent's effect at one level of evidence.

    Args:
        latent: its number.
        level: see the module's docstring.
        how: the intervention in a few words.
        effect: reward units, with its 95 % interval over prompts.
        agrees: the sign is that of the effect for which the latent was called, and the interval excludes 0.
    """

    latent: int
    level: Level
    how: str
    effect: Interval
    agrees: bool

    def as_json(self) -> dict[str, Any]:
        """The same as a JSON object."""
        return {**self._asdict(), "effect": self.effect.as_json()}


def levels_of(effects: Sequence[LevelEffect]) -> dict[int, tuple[Level, ...]]:
    """By latent, the levels of which all effects agree with the effect for which it was called."""
    # level 4 may have been measured in several ways: one that disagrees is enough to lose the level
    agreeing: dict[int, dict[Level, bool]] = {}
    for effect in effects:
        levels = agreeing.setdefault(effect.latent, {})
        levels[effect.level] = levels.get(effect.level, True) and effect.agrees
    return {latent: tuple(name for name, agrees in of.items() if agrees) for latent, of in agreeing.items()}


def level_effects(
    pairs: PromptPairs,
    features: Sequence[Feature],
    autoencoder: Autoencoder,
    *,
    upto: int = 3,
    progress: ProgressFactory = no_progress,
) -> tuple[LevelEffect, ...]:
    """Effects of called latents at L1 to L3, on prompts that did not select them.

    Args:
        pairs: the confirmation prompts, scored with their states.
        features: the called latents.
        autoencoder: of the model that scored them.
        upto: 1 to 3; L3 encodes every answer again for each called latent active in it.
        progress: see `sarm_control.console.progress`.

    Raises:
        DataError: the scores have no states and `upto` is 2 or 3.
    """
    latents = np.array([one.latent for one in features], dtype=np.int64)
    if not len(latents):
        return ()
    contributions = {side: _contributions(pairs, side, latents) for side in ("chosen", "rejected")}
    # with a linear head the removal of a latent lowers the reward by its contribution, so L1 needs no model
    found = list(effects_of(pairs.latents, contributions, features, "L1", "taken out after TopK"))
    if upto < 2:
        return tuple(found)
    states = {side: _states(pairs, side) for side in contributions}
    head = torch.from_numpy(pairs.latents.head).float()
    second = {
        side: contributions[side] - _entering(autoencoder, states[side], head, contributions[side])
        for side in contributions
    }
    how = "taken out before TopK, the next latent enters"
    found += effects_of(pairs.latents, second, features, "L2", how)
    if upto >= 3:
        with progress(
            "Taking latents out of states", sum(matrix.nnz for matrix in contributions.values())
        ) as advance:
            third = {
                side: without_in_state(
                    autoencoder, states[side], head, _values(pairs, side, latents), latents, advance
                )
                for side in contributions
            }
        how = "its direction taken out of the state"
        found += effects_of(pairs.latents, third, features, "L3", how)
    return tuple(found)


def effects_of(
    pairs: PairLatents,
    contributions: Mapping[str, Any],
    features: Sequence[Feature],
    level: Level,
    how: str,
) -> list[LevelEffect]:
    """Effects from the contribution of each called latent to each answer.

    Args:
        pairs: the prompts of the answers.
        contributions: by side ("chosen", "rejected") [N, C] scipy sparse, reward units.
        features: the C called latents.
        level: of evidence.
        how: the intervention in words.
    """
    # contributions instead of z with weights of 1: margins and their means are then computed as everywhere
    as_pairs = PairLatents(
        contributions["chosen"],
        contributions["rejected"],
        pairs.chosen_prompt,
        pairs.rejected_prompt,
        np.ones(len(features)),
    )
    effects = mean_intervals(margin_contributions(as_pairs))
    return [
        LevelEffect(one.latent, level, how, effect, leaves_out_zero(one.effect, effect.low, effect.high))
        for one, effect in zip(features, effects, strict=True)
    ]


def next_contributions(autoencoder: Autoencoder, states: Tensor, head: Tensor) -> Floats:
    """[N] `w_j a_j` of the latent that enters when one of the K active ones is removed; 0 without TopK.

    Args:
        autoencoder: of the model.
        states: [N, D] trunk states.
        head: [L] head weights.
    """
    # without TopK every latent is active already, so none can enter
    if not autoencoder.use_topk or autoencoder.k >= len(head):
        return np.zeros(len(states))
    entering = []
    for part in states.split(_CHUNK):
        # whichever of the k is removed, the k + 1st largest enters
        kept = autoencoder.pre_activations(part.to(autoencoder.pre_bias.device)).topk(
            autoencoder.k + 1, dim=-1
        )
        weight = head[kept.indices[:, -1].cpu()].double()
        entering.append((kept.values[:, -1].cpu().double() * weight).numpy())
    return np.concatenate(entering)


@torch.inference_mode()
def without_in_state(
    autoencoder: Autoencoder,
    states: Tensor,
    head: Tensor,
    values: Any,
    latents: NDArray[np.int64],
    advance: Any,
) -> Any:
    """[N, C] how much the reward falls when `z_i W_dec[:, i]` is subtracted from the state of an answer.

    The state is normalised before the subtraction and again after it, because the decoder was trained on
    normalised states.

    Args:
        autoencoder: of the model.
        states: [N, D] trunk states.
        head: [L] head weights.
        values: [N, C] scipy sparse values of the called latents.
        latents: [C] their numbers.
        advance: called with the number of answers done.
    """
    from scipy.sparse import csr_array

    device = autoencoder.pre_bias.device
    entries = values.tocoo()
    weight = head.to(device).double()
    contributions = np.empty(entries.nnz)
    # computed here in float64 and not taken from the scores, which were rounded to float32
    reward = np.concatenate(
        [_rewards(autoencoder.encode(part.to(device)), weight) for part in states.split(_CHUNK)]
    )
    # one row per (answer, active called latent): the same state may be encoded for several latents
    for start in range(0, entries.nnz, _CHUNK):
        some = slice(start, start + _CHUNK)
        rows = entries.row[some]
        direction = autoencoder.decoder.weight[:, latents[entries.col[some]]].T
        z = torch.from_numpy(entries.data[some]).to(device).float()
        left = autoencoder.normalised(states[rows].to(device).float()) - z[:, None] * direction
        without = _rewards(autoencoder.encode(autoencoder.as_states(left)), weight)
        contributions[some] = reward[rows] - without
        advance(len(rows))
    return csr_array((contributions, (entries.row, entries.col)), shape=values.shape)


def _rewards(kept: TopK, weight: Tensor) -> Floats:
    return np.asarray((kept.values.double() * weight[kept.indices]).sum(dim=-1).cpu().numpy())


def _values(pairs: PromptPairs, side: str, latents: NDArray[np.int64]) -> Any:
    return getattr(pairs.latents, side)[:, latents].tocsr()


def _contributions(pairs: PromptPairs, side: str, latents: NDArray[np.int64]) -> Any:
    """[N, C] `w_i z_i`, one stored entry for each answer in which the latent is active."""
    values = _values(pairs, side, latents).copy()
    values.data *= pairs.latents.head[latents][values.indices]
    return values


def _entering(autoencoder: Autoencoder, states: Tensor, head: Tensor, contributions: Any) -> Any:
    """[N, C] the contribution of the entering latent where the called latent is active."""
    with torch.inference_mode():
        entering = next_contributions(autoencoder, states, head)
    matrix = contributions.copy()
    # one latent enters in an answer, the same for each called latent that is active there
    matrix.data = np.repeat(entering, np.diff(contributions.indptr))
    return matrix


def _states(pairs: PromptPairs, side: str) -> Tensor:
    states = pairs.scored.states
    if states is None:
        raise DataError(
            "levels 2 and 3 need the trunk's states, which these scores do not have",
            hint="score with keep_states, or make the folder of latents with --states",
        )
    return torch.from_numpy(states[getattr(pairs, side).numbers])
