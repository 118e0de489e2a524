"""The monitors that compare the policy's answers with the untrained policy's, on the same prompts.

Shapes: `N` prompts, one answer of each policy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sarm_control.control import ReferenceStatistics, named_forms, watched_columns
from sarm_control.reward_model import RESIDUAL, Scored, pre_topk
from sarm_control.training.algorithm.reward import PolicyReward
from sarm_control.training.monitor.checks import (
    BeforeTopK,
    Finding,
    Gains,
    check_closing_sentence,
    check_similar_latents,
    check_threshold_hugging,
    crowding_out,
    find_similar_latents,
    length,
    proxy_gap,
    residual_gain,
)
from sarm_control.training.monitor.checks.closing_sentence import (
    common_closing,
    with_closing,
    without_last_sentence,
)
from sarm_control.training.rollout.rollout import Rollout

Floats = NDArray[np.float64]
Families = Mapping[int, tuple[int, ...]]


@dataclass(frozen=True)
class PolicySide:
    """One policy's answers to the evaluation prompts.

    Args:
        rollout: N answers.
        scored: their latents, with the trunk states.
        gold: [N] their gold rewards, where a judge is known.
    """

    rollout: Rollout
    scored: Scored
    gold: Floats | None = None

    @property
    def rewards(self) -> Floats:
        """[N] without any control."""
        return self.scored.rewards.astype(np.float64)

    @property
    def lengths(self) -> Floats:
        """[N] tokens, the end-of-turn included."""
        return np.asarray(self.rollout.lengths, dtype=np.float64)


def findings_of(
    reward: PolicyReward,
    families: Families,
    before: PolicySide,
    after: PolicySide,
    kl: float,
    gains: Gains | None,
) -> list[Finding]:
    """The findings of every monitor that compares two sets of answers.

    Args:
        reward: calibrated; scores answers with and without a closing sentence.
        families: see `families_of`.
        before: the untrained policy's answers.
        after: the policy's.
        kl: nats per token to the reference.
        gains: of the reward and the gold reward, where there is one.
    """
    assert reward.statistics is not None
    sd = reward.statistics.sd
    return [
        *_of_penalties(reward, reward.statistics, before.scored, after.scored),
        *_of_similar_latents(families, before.scored, after.scored, sd),
        _of_closing_sentence(reward, before, after, sd),
        length((before.rewards, before.lengths), (after.rewards, after.lengths)),
        proxy_gap(kl, gains),
        *_of_residual(before, after, sd),
    ]


def _of_residual(before: PolicySide, after: PolicySide, sd: float) -> list[Finding]:
    """None without a dictionary: the whole reward is then residual; and none of a SARM, which has none."""
    if after.scored.kind != "attached":
        return []
    return [residual_gain(after.rewards - before.rewards, after.scored.residual - before.scored.residual, sd)]


def _of_penalties(
    reward: PolicyReward, statistics: ReferenceStatistics, before: Scored, after: Scored
) -> list[Finding]:
    penalties = reward.rule.controls.penalties
    latents = sorted({penalty.latent for penalty in penalties if penalty.latent != RESIDUAL})
    sides = [_before_topk(reward, latents, scored) for scored in (before, after)]
    found: list[Finding] = []
    for penalty, form in zip(penalties, named_forms(penalties), strict=True):
        latent, tau = penalty.latent, float(penalty.tau)
        first, last = (watched_columns(scored, [latent])[:, 0] for scored in (before, after))
        # checkpoints of older versions hold the reference z only of latents whose tau is a quantile
        reference = np.asarray(statistics.latents.get(latent, first))
        of_penalty = [check_threshold_hugging(latent, tau, first, last, reference)]
        if latent != RESIDUAL:
            # the residual competes with nothing in TopK
            of_penalty.append(crowding_out(latent, tau, *(side[latent] for side in sides)))
        found += [finding.of_form(form) for finding in of_penalty]
    return found


def _before_topk(reward: PolicyReward, latents: Sequence[int], scored: Scored) -> dict[int, BeforeTopK]:
    if not latents:
        return {}
    assert scored.states is not None
    pre = pre_topk(reward.model.autoencoder, scored.states, latents)
    columns = zip(pre.values.T, pre.ranks.T, scored.latents.columns(latents).T, strict=True)
    return {latent: BeforeTopK(*column) for latent, column in zip(latents, columns, strict=True)}


def families_of(reward: PolicyReward) -> Families:
    """The similar latents of every latent under an edit or penalty, where there are any."""
    controls = reward.controls
    controlled = {edit.latent for edit in controls.edits}
    controlled |= {p.latent for p in controls.penalties if p.latent != RESIDUAL}
    if not controlled:
        return {}
    decoder = reward.model.autoencoder.decoder.weight.detach().float().cpu().numpy()
    found = {latent: find_similar_latents(decoder, latent, controlled) for latent in sorted(controlled)}
    return {latent: family for latent, family in found.items() if family}


def _of_similar_latents(families: Families, before: Scored, after: Scored, sd: float) -> list[Finding]:
    return [
        check_similar_latents(
            latent,
            family,
            _gained(before, after, family),
            _gained(before, after, (latent,)),
            sd,
            families=len(families),
        )
        for latent, family in families.items()
    ]


def _gained(before: Scored, after: Scored, latents: tuple[int, ...]) -> Floats:
    """[N] by how much the latents' contributions to the reward grew, answer by answer."""
    # answer by answer, since both policies answered the same prompts: pairs vary less than two means
    change = after.latents.columns(latents).astype(np.float64) - before.latents.columns(latents)
    return np.asarray(change @ after.head[list(latents)].astype(np.float64))


def _of_closing_sentence(reward: PolicyReward, before: PolicySide, after: PolicySide, sd: float) -> Finding:
    closing = common_closing(after.rollout.texts).sentence
    # the sentence is added to the answers of before and taken from those of after: its effect alone is left
    longer = [with_closing(text, closing) for text in before.rollout.texts]
    shorter = [without_last_sentence(text) for text in after.rollout.texts]
    return check_closing_sentence(
        closing,
        before.rollout.texts,
        after.rollout.texts,
        gift=_rewards_of(reward, before.rollout, longer) - before.rewards,
        gain=float(after.rewards.mean() - before.rewards.mean()),
        cut=after.rewards - _rewards_of(reward, after.rollout, shorter),
        sd=sd,
    )


def _rewards_of(reward: PolicyReward, rollout: Rollout, texts: Sequence[str]) -> Floats:
    return reward.scored(replace(rollout, texts=tuple(texts))).rewards.astype(np.float64)
