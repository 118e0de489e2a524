"""A policy of one number, trained by policy gradients against real controls.

It decides only how often latent 0 fires: the rate is the logistic function of its number. The reward
model pays `gain` for a firing; the rest of the reward is noise of SD 1. Advantages are whitened.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.control import Controls, Penalty, ReferenceStatistics
from sarm_control.reward_model.scored import Scored
from tests.control.batches import scored_from

ANSWERS = 96
STEPS = 40


class Learner(NamedTuple):
    """How the policy answers to its reward.

    Args:
        speed: logits per step for a gradient of 1; an update for an advantage of 1 SD at a rate of
            0.5 is a quarter of it.
        momentum: of the update, with Adam's correction of the first steps: 0.9 answers ten steps late.
    """

    speed: float
    momentum: float = 0.0


class World(NamedTuple):
    """Where the policy starts and what it is paid: `start` is its rate, `gain` in SDs of the noise."""

    start: float = 0.6
    gain: float = 1.0


PAID = World()


def answers(rate: float, gain: float, n: int, rng: np.random.Generator) -> Scored:
    """n answers: latent 0 fires with z = 1, latent 1 holds the noise."""
    z = np.stack([rng.random(n) < rate, rng.normal(size=n)], axis=1)
    return scored_from(z, np.array([gain, 1.0]))


def train(
    penalty: Penalty, learner: Learner, seed: int, world: World = PAID, steps: int = STEPS
) -> NDArray[np.float64]:
    """[steps] the policy's own firing rate before each step, without sampling noise."""
    rng = np.random.default_rng([seed, 7])
    reference = answers(world.start, world.gain, 128, rng)
    controls = Controls(penalties=[penalty]).resolve(ReferenceStatistics.from_scored(reference))
    state = controls.start()
    state.learn(reference)
    start = logit = np.log(world.start / (1 - world.start))
    rates, mean = np.zeros(steps), 0.0
    for step in range(steps):
        rate = rates[step] = 1 / (1 + np.exp(-logit))
        scored = answers(rate, world.gain, ANSWERS, rng)
        total = controls.shape(scored, state).total
        fired = scored.latents.columns([0])[:, 0]
        gradient = float(((total - total.mean()) / total.std() * (fired - rate)).mean())
        gradient -= 0.1 * rate * (1 - rate) * (logit - start)  # the KL to the reference policy
        mean = learner.momentum * mean + (1 - learner.momentum) * gradient
        logit += learner.speed * mean / (1 - learner.momentum ** (step + 1))
        state.learn(scored)
    return rates


def misses(rates: NDArray[np.float64], target: float) -> float:
    """How far the mean rate of the last third is from the target."""
    return abs(float(rates[-(len(rates) // 3) :].mean()) - target)
