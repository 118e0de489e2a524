"""Oracle: for a vocabulary of four tokens the optimum is known, and PPO reaches it.

The KL-regularised objective `J(pi) = E_pi[R] - beta KL(pi || pi_ref)` is largest, with the value
`beta log sum_y pi_ref(y) exp(R(y) / beta)`, at `pi* ~ pi_ref exp(R / beta)`.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pytest
import torch

from sarm_control.control.controls import Controls
from sarm_control.control.edits.edits import Edit
from sarm_control.control.human_kl import HumanKL
from sarm_control.control.penalties import Penalty
from sarm_control.control.training_reward import RewardBreakdown
from sarm_control.latents.human import HumanBuffer
from sarm_control.training.algorithm.reward import PolicyReward, RewardFunction
from sarm_control.training.algorithm.trainer import Trainer
from sarm_control.training.config.run_config import LoraConfig, TrainingConfig
from sarm_control.training.policy.critic import AdapterCritic
from sarm_control.training.policy.critic_model import ModelCritic
from sarm_control.training.policy.lora import add_adapters
from sarm_control.training.policy.policy import Policy
from tests.training.tiny import (
    PROMPTS,
    TableReward,
    TableSarm,
    all_answers,
    answer_logprobs,
    random_table,
    template,
    tiny_model,
    tiny_policy,
)

TOKENS = 2
BETA = 1.0
# Four updates of 256 answers a step; the value clip is loose because scores are in SDs.
SETTINGS = TrainingConfig(
    prompts_per_step=1,
    answers_per_prompt=256,
    max_new_tokens=TOKENS,
    epochs=4,
    minibatches=1,
    micro_batch=256,
    learning_rate=3e-3,
    value_learning_rate=1e-2,
    kl_coef=BETA,
    lam=0.95,
    value_clip=1.0,
    reference_answers=512,
)
# Steps and step sizes. An arbitrary reward of 21 answers takes longer than one that is linear in six latents.
SHORT = ((14, 4e-3), (7, 1e-3), (3, 2e-4))
LONG = ((25, 3e-3), (12, 1e-3), (5, 2e-4))


class Objective(NamedTuple):
    """J of the untrained policy, of a policy, and its largest value."""

    start: float
    reached: float
    best: float

    @property
    def closed(self) -> float:
        return (self.reached - self.start) / (self.best - self.start)


def objective(policy: Policy, reward: RewardFunction) -> Objective:
    answers = all_answers(TOKENS)
    scores = torch.from_numpy(reward.score(answers).scores)
    reference = answer_logprobs(policy, answers, reference=True)
    ours = answer_logprobs(policy, answers)
    assert reference.exp().sum().item() == pytest.approx(1.0, abs=1e-5)
    start = (reference.exp() * scores).sum()
    reached = (ours.exp() * (scores - BETA * (ours - reference))).sum()
    best = BETA * torch.logsumexp(reference + scores / BETA, dim=0)
    return Objective(float(start), float(reached), float(best))


def trained(
    reward: RewardFunction,
    algorithm: str = "ppo",
    *,
    policy: Policy | None = None,
    schedule: Sequence[tuple[int, float]] = SHORT,
) -> Policy:
    """Steps with the rates lowered twice, so that the noise of sampling averages out."""
    policy = policy or tiny_policy()
    for stage, (steps, rate) in enumerate(schedule):
        changes = {
            "learning_rate": rate,
            "value_learning_rate": SETTINGS.value_learning_rate * rate / schedule[0][1],
            "seed": stage,
            "algorithm": algorithm,
        }
        trainer = Trainer(policy, reward, PROMPTS[:1], SETTINGS.model_copy(update=changes))
        if stage == 0:
            trainer.calibrate()
        for _ in range(steps):
            trainer.step()
    return policy


class Frozen(PolicyReward):
    """The human-KL term as calibrated: a fixed function of the answer, so that an optimum exists."""

    def learn(self, rewards: RewardBreakdown) -> None:
        """Nothing after calibration."""


def sarm_reward(controls: Controls) -> PolicyReward:
    model = TableSarm(TOKENS)
    listed = all_answers(TOKENS)
    scored = model.score(listed.prompts, listed.texts, ended=listed.ended)
    demonstrations = scored.take(np.argsort(scored.lengths, kind="stable")[:8])
    human = HumanBuffer.from_scored(demonstrations, range(6))
    return Frozen(model, controls, human=human)  # type: ignore[arg-type]  # a table stands in for the model


CONTROLS = {
    "none": Controls(),
    "edit": Controls(edits=[Edit(2, max=0.5), Edit(4, scale=-1.0)]),
    "penalty": Controls(
        penalties=[Penalty(1, tau="q0.6", alpha="1sd"), Penalty(3, tau=0.2, alpha=0.3, form="hinge")]
    ),
    "human": Controls(human_kl=HumanKL(beta="0.5sd")),
    "all": Controls(
        edits=[Edit(2, max=0.5)], penalties=[Penalty(1, tau=0.5, alpha="1sd")], human_kl=HumanKL(beta="0.3sd")
    ),
}


ON = [name for name in CONTROLS if name != "none"]


@pytest.mark.long
@pytest.mark.parametrize("algorithm", ["ppo", "rloo", "grpo"])
def test_the_gap_to_the_optimum_of_an_arbitrary_reward_is_closed(algorithm: str) -> None:
    reward = TableReward(random_table(TOKENS))
    policy = trained(reward, algorithm, schedule=LONG)
    assert objective(policy, reward).closed >= 0.97
    assert policy.value_head.weight.any() == (algorithm == "ppo"), "a critic is fitted where there is one"


@pytest.mark.long
@pytest.mark.parametrize("algorithm", ["ppo", "rloo", "grpo"])
@pytest.mark.parametrize("name", ON)
def test_the_gap_is_closed_with_each_control_and_all_together(name: str, algorithm: str) -> None:
    reward = sarm_reward(CONTROLS[name])
    assert objective(trained(reward, algorithm), reward).closed >= 0.97


def with_a_critic_of_its_own() -> Policy:
    """The critic starts from other weights than the policy's, as a SARM's trunk does."""
    policy = tiny_policy()
    policy.critic = ModelCritic(tiny_model(7).model, policy.device, policy.hidden_size, trained=True)
    return policy


def with_two_adapters() -> Policy:
    """One for the policy and one for its critic, on one base."""
    lora = LoraConfig(rank=8)
    policy = Policy(add_adapters(tiny_model(), lora, 0), template())
    policy.critic = AdapterCritic(policy.model, policy.token_states, lora, 0)
    return policy


def closed_with(policy: Policy, reward: RewardFunction, schedule: Sequence[tuple[int, float]]) -> float:
    """Adapters take twice the step size."""
    times = 1 if policy.reference is not None else 2
    trained(reward, policy=policy, schedule=[(steps, rate * times) for steps, rate in schedule])
    assert all(weight.any() for weight in policy.critic_weights().values())
    return objective(policy, reward).closed


@pytest.mark.long
@pytest.mark.parametrize("make", [with_a_critic_of_its_own, with_two_adapters])
def test_ppo_closes_the_gap_with_every_critic(make: Callable[[], Policy]) -> None:
    assert closed_with(make(), sarm_reward(CONTROLS["all"]), SHORT) >= 0.97


@pytest.mark.minutes
@pytest.mark.parametrize("make", [with_a_critic_of_its_own, with_two_adapters])
def test_ppo_closes_the_gap_with_every_critic_and_each_control(make: Callable[[], Policy]) -> None:
    for name in ON:
        assert closed_with(make(), sarm_reward(CONTROLS[name]), LONG) >= 0.97, name
    assert closed_with(make(), TableReward(random_table(TOKENS)), LONG) >= 0.97


@pytest.mark.parametrize("name", ON)
def test_each_control_moves_the_optimum(name: str) -> None:
    """The runs above are not the same run five times."""
    tables = {}
    for kind in ("none", name):
        reward = sarm_reward(CONTROLS[kind])
        Trainer(tiny_policy(), reward, PROMPTS[:1], SETTINGS).calibrate()
        tables[kind] = reward.score(all_answers(TOKENS)).scores
    difference = tables[name] - tables["none"]
    assert difference.std() > 0.1
