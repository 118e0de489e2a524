"""Oracle: for a vocabulary of four tokens the optimum is known, and PPO reaches it.

The KL-regularised objective `J(pi) = E_pi[R] - beta KL(pi || pi_ref)` is largest, with the value
`beta log sum_y pi_ref(y) exp(R(y) / beta)`, at `pi* ~ pi_ref exp(R / beta)`.
"""

from typing import NamedTuple

import numpy as np
import pytest
import torch

from sarm_control.control.controls import Controls
from sarm_control.control.edits import Edit
from sarm_control.control.human_kl import HumanKL
from sarm_control.control.penalties import Penalty
from sarm_control.latents.human import HumanBuffer
from sarm_control.ppo.config import LoraConfig, TrainingConfig
from sarm_control.ppo.critic import AdapterCritic
from sarm_control.ppo.critic_model import ModelCritic
from sarm_control.ppo.lora import add_adapters
from sarm_control.ppo.pay import Rewards
from sarm_control.ppo.policy import Policy
from sarm_control.ppo.reward import RewardFunction, SarmReward
from sarm_control.ppo.trainer import Trainer

from .tiny import (
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
    reward: RewardFunction, algorithm: str = "ppo", *, policy: Policy | None = None, faster: float = 1.0
) -> Policy:
    """42 steps with the step size lowered twice, so that the noise of sampling averages out."""
    policy = policy or tiny_policy()
    for stage, (steps, rate) in enumerate(((25, 3e-3), (12, 1e-3), (5, 2e-4))):
        changes = {"learning_rate": rate * faster, "seed": stage, "algorithm": algorithm}
        settings = SETTINGS.model_copy(update=changes)
        trainer = Trainer(policy, reward, PROMPTS[:1], settings)
        if stage == 0:
            trainer.calibrate()
        for _ in range(steps):
            trainer.step()
    return policy


class Frozen(SarmReward):
    """The human-KL term as calibrated: a fixed function of the answer, so that an optimum exists."""

    def learn(self, rewards: Rewards) -> None:
        """Nothing after calibration."""


def sarm_reward(controls: Controls) -> SarmReward:
    model = TableSarm(TOKENS)
    listed = all_answers(TOKENS)
    scored = model.score(listed.prompts, listed.texts, ended=listed.ended)
    demonstrations = scored.take(np.argsort(scored.lengths, kind="stable")[:8])
    human = HumanBuffer.from_scored(demonstrations, range(6))
    return Frozen(model, controls, human=human)  # type: ignore[arg-type]


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


def test_ppo_closes_the_gap_to_the_optimum_of_an_arbitrary_reward() -> None:
    reward = TableReward(random_table(TOKENS))
    assert objective(trained(reward), reward).closed >= 0.97


@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
def test_critic_free_algorithms_close_the_gap(algorithm: str) -> None:
    for reward in (TableReward(random_table(TOKENS)), sarm_reward(CONTROLS["all"])):
        policy = trained(reward, algorithm)
        assert objective(policy, reward).closed >= 0.97
        assert not any(weight.any() for weight in policy.value_head.parameters()), "no critic is fitted"


@pytest.mark.parametrize("name", [name for name in CONTROLS if name != "none"])
def test_ppo_closes_the_gap_with_each_control(name: str) -> None:
    reward = sarm_reward(CONTROLS[name])
    policy = trained(reward)
    found = objective(policy, reward)
    assert found.closed >= 0.97


def test_ppo_closes_the_gap_with_a_critic_of_its_own() -> None:
    policy, reward = tiny_policy(), sarm_reward(CONTROLS["all"])
    policy.critic = ModelCritic(tiny_model(7).model, policy.device, policy.hidden_size, trained=True)
    assert objective(trained(reward, policy=policy), reward).closed >= 0.97
    assert policy.value_head.weight.any()


def test_ppo_closes_the_gap_with_two_adapters_on_one_base() -> None:
    lora = LoraConfig(rank=8)
    policy, reward = Policy(add_adapters(tiny_model(), lora, 0), template()), sarm_reward(CONTROLS["all"])
    policy.critic = AdapterCritic(policy, lora, 0)
    assert objective(trained(reward, policy=policy, faster=2.0), reward).closed >= 0.97
    assert all(weight.any() for weight in policy.critic.body().values())


@pytest.mark.parametrize("name", [name for name in CONTROLS if name != "none"])
def test_each_control_moves_the_optimum(name: str) -> None:
    """The runs above are not the same run five times."""
    tables = {}
    for kind in ("none", name):
        reward = sarm_reward(CONTROLS[kind])
        Trainer(tiny_policy(), reward, PROMPTS[:1], SETTINGS).calibrate()
        tables[kind] = reward.score(all_answers(TOKENS)).scores
    difference = tables[name] - tables["none"]
    assert difference.std() > 0.1
