"""The details that decide whether PPO works, one test each, where no other file has it.

Elsewhere: ratio 1 at the first micro-step, micro-batches, missing end, offsets (test_trainer); recomputed
layers, bfloat16, dropout, generation config, draws (test_policy); GAE, whitening, losses (test_math).
"""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sarm_control.training.algorithm.experience import Experience, collect
from sarm_control.training.algorithm.minibatches import plan_minibatches
from sarm_control.training.algorithm.trainer import Trainer
from sarm_control.training.config.run_config import TrainingConfig
from sarm_control.training.policy.language_head import LOGIT_CHUNK
from sarm_control.training.policy.policy import Policy
from sarm_control.training.rollout.rollout import Rollout, sample_answers
from tests.present import present
from tests.training.tiny import (
    END,
    PROMPTS,
    TableReward,
    all_answers,
    answer_logprobs,
    random_table,
    template,
    tiny_model,
    tiny_policy,
)

SETTINGS = TrainingConfig(
    prompts_per_step=2,
    answers_per_prompt=8,
    max_new_tokens=3,
    minibatches=4,
    micro_batch=2,
    learning_rate=3e-3,
    kl_coef=0.3,
)


def rollout_of(answers: list[tuple[int, ...]]) -> Rollout:
    prompts = tuple(PROMPTS[i % 2] for i in range(len(answers)))
    ended = tuple(answer[-1] == END for answer in answers)
    return Rollout(prompts, tuple(answers), ("",) * len(answers), ended)


def experience_of(policy: Policy, answers: list[tuple[int, ...]], **changes: Any) -> Experience:
    rollout = rollout_of(answers)
    scores = torch.arange(len(answers)).float()
    settings = SETTINGS.model_copy(update=changes)
    micro = [[row] for row in range(len(answers))]
    return collect(policy, rollout, scores, micro, settings, kl_coef=settings.kl_coef)


def moved_policy(seed: int = 0) -> Policy:
    """A policy that has left its reference and has values."""
    policy = tiny_policy()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in [*policy.trainable().values(), *policy.critic_weights().values()]:
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.05)
    return policy


def test_advantages_are_whitened_over_all_minibatches_at_once() -> None:
    answers = [(1, 2, END), (1, END), (2, 3, 1), (3, END), (END,), (2, END)]
    found = experience_of(moved_policy(), answers)
    tokens = found.advantages[found.mask].double()
    assert tokens.mean().item() == pytest.approx(0.0, abs=1e-6)
    assert tokens.var(unbiased=False).item() == pytest.approx(1.0, abs=1e-5)
    plan = plan_minibatches([4] * 6, minibatches=3, micro_batch=2, seed=0, step=1)
    means = [float(found.advantages[rows][found.mask[rows]].mean()) for [rows] in plan]
    assert max(map(abs, means)) > 0.05, "no minibatch is whitened by itself"


def test_a_token_that_looks_like_padding_counts() -> None:
    """0 fills the padding, ends answers and is a word here: what counts is an answer's length."""
    policy = moved_policy()
    answers = [(0, 0, 0), (1, 2, 3), (0,), (2, 0)]
    found = experience_of(policy, answers)
    assert found.mask.sum(dim=1).tolist() == [3, 3, 1, 2]
    for row, answer in enumerate(answers):
        alone = policy.answer_stats(policy.batch([PROMPTS[row % 2].ids], [answer]), 1.0)
        kept = found.logprobs[row, : len(answer)]
        torch.testing.assert_close(kept, alone.logprobs.detach(), atol=1e-6, rtol=1e-6)
        assert (kept < 0).all()
    together = policy.answer_stats(policy.batch([row.ids for row in PROMPTS * 2], answers), 1.0).logprobs
    torch.testing.assert_close(together.detach(), found.logprobs[found.mask], atol=1e-6, rtol=1e-6)


def test_rewards_charge_k1_on_every_token_and_pay_on_the_last() -> None:
    """With lambda and gamma 1 and no values, the return of a token is the rest of the rewards."""
    policy = tiny_policy()
    with torch.no_grad():
        for weight in policy.trainable().values():
            weight.add_(0.03)
    found = experience_of(policy, [(1, 2, END), (3, END)], lam=1.0)
    kl = (found.logprobs - found.reference) * found.mask
    assert kl.abs().max() > 1e-3
    rest = kl.flip(1).cumsum(1).flip(1)
    expected = torch.tensor([[0.0], [1.0]]) - 0.3 * rest
    torch.testing.assert_close(found.returns, expected * found.mask, atol=1e-6, rtol=1e-5)
    assert found.advantages.dtype == torch.float32


@pytest.mark.parametrize("temperature", [0.6, 1.7])
def test_the_temperature_divides_the_logits_of_policy_and_reference(temperature: float) -> None:
    policy = moved_policy()
    prompt, answer = PROMPTS[0].ids, (1, 2, END)
    batch = policy.batch([prompt], [answer])
    for model, reference in ((policy.causal, False), (present(policy.reference), True)):
        ids = torch.tensor([[*prompt, *answer]])
        logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1]
        expected = torch.log_softmax(logits / temperature, dim=-1)[torch.arange(3), torch.tensor(answer)]
        found = policy.answer_stats(batch, temperature, reference=reference).logprobs
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_the_temperature_divides_the_logits_of_sampling() -> None:
    """Frequencies of 2,000 answers against exact probabilities at that temperature."""
    policy, listed, temperature = moved_policy(), all_answers(2), 0.5
    batch = policy.batch([row.ids for row in listed.prompts], listed.answers)
    tokens = policy.answer_stats(batch, temperature).logprobs.detach().double()
    exact = torch.zeros(len(listed), dtype=torch.float64).index_add_(0, batch.rows, tokens).exp()
    sampled = sample_answers(
        policy,
        PROMPTS[:1],
        answers_per_prompt=2000,
        max_new_tokens=2,
        temperature=temperature,
        seed=0,
        purpose=("test",),
    )
    shares = torch.tensor([sampled.answers.count(answer) for answer in listed.answers]) / 2000
    assert ((shares - exact).abs() < 4.5 * (exact * (1 - exact) / 2000).sqrt() + 1e-4).all()
    assert (answer_logprobs(policy, listed).exp() - exact).abs().max() > 0.05


class Largest(TorchDispatchMode):
    """The most elements of any tensor over the vocabulary that an operation made, backwards too."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch does not annotate it
        self.vocabulary, self.elements = vocabulary, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the operation and looks at what it made."""
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, torch.Tensor) and self.vocabulary in tensor.shape:
                self.elements = max(self.elements, tensor.numel())
        return made


def test_logits_are_never_held_for_a_whole_batch() -> None:
    vocabulary = 1021
    policy = Policy(
        tiny_model(vocabulary=vocabulary), template(), reference=tiny_model(vocabulary=vocabulary)
    )
    answers = [tuple(range(1, 31))] * 30
    batch = policy.batch([PROMPTS[0].ids] * 30, answers)
    assert len(batch.targets) == 900 > 3 * LOGIT_CHUNK
    with Largest(vocabulary) as seen:
        policy.answer_stats(batch, 0.7, entropy=True).logprobs.sum().backward()
        with torch.no_grad():
            policy.answer_stats(batch, 0.7, reference=True)
    assert seen.elements == LOGIT_CHUNK * vocabulary
    assert all(weight.grad is not None for weight in policy.trainable().values())


def test_adamw_has_eps_1e_5_and_gradients_are_clipped_to_the_norm() -> None:
    settings = SETTINGS.model_copy(update={"max_grad_norm": 1e-3})
    trainer = Trainer(tiny_policy(), TableReward(random_table(3)), PROMPTS, settings)
    metrics = trainer.step().metrics
    optimizer = trainer.updater.optimizer
    assert isinstance(optimizer, torch.optim.AdamW)
    assert {(group["eps"], group["weight_decay"]) for group in optimizer.param_groups} == {(1e-5, 0.0)}
    assert metrics["policy/grad_norm"] > 1e-2
    # What is left after the last update is what AdamW was given.
    for weights in (trainer.policy.trainable(), trainer.policy.critic_weights()):
        gradients = torch.cat([present(weight.grad).flatten() for weight in weights.values()])
        assert gradients.norm().item() == pytest.approx(1e-3, rel=1e-3)
    assert TrainingConfig().max_grad_norm == 1.0


def test_a_step_is_paid_with_the_kl_coefficient_known_before_it() -> None:
    rows = {}
    for target in (None, 1e-3):
        settings = SETTINGS.model_copy(update={"kl_target": target})
        trainer = Trainer(tiny_policy(), TableReward(random_table(3)), PROMPTS, settings)
        rows[target] = [trainer.step().metrics for _ in range(3)]
    fixed, adaptive = rows[None], rows[1e-3]
    assert [row["objective/kl_coef"] for row in fixed] == [0.3] * 3
    # Step 1 has no KL yet: the coefficient falls by 2 %, and step 2 is the first to be paid with it.
    coefs = [row["objective/kl_coef"] for row in adaptive]
    assert coefs[:2] == [0.3, pytest.approx(0.3 * 0.98)]
    assert coefs[2] != coefs[1]
    assert {**adaptive[0], "objective/kl_coef": 0.3} == fixed[0]
    assert adaptive[1]["objective/kl"] == fixed[1]["objective/kl"], "the weights after step 1 are the same"
    assert adaptive[1]["value/loss"] != fixed[1]["value/loss"]
