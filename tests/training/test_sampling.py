"""Samplers: oracle (exact gradients, the known optimum), metamorphic (one that agrees), bad answers."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from sarm_control.errors import TrainingError
from sarm_control.training.algorithm.experience import collect
from sarm_control.training.algorithm.importance_weights import sampler_mismatch
from sarm_control.training.algorithm.losses import length_mask, policy_loss
from sarm_control.training.algorithm.trainer import Trainer
from sarm_control.training.policy.policy import Policy
from sarm_control.training.rollout.rollout import sample_answers
from sarm_control.training.rollout.sampler import (
    CachedSampler,
    Sampler,
    SampleRequest,
    Samples,
    check_samples,
)
from tests.training.test_optimum import SETTINGS, TOKENS
from tests.training.tiny import (
    END,
    PROMPTS,
    TableReward,
    all_answers,
    random_table,
    template,
    tiny_model,
    tiny_policy,
)

TWO_TOKENS: dict[str, Any] = {"max_new_tokens": 2, "temperature": 1.0, "seed": 0, "purpose": (1, "rollout")}
OPTIONS: dict[str, Any] = {
    "answers_per_prompt": 40,
    "max_new_tokens": 6,
    "temperature": 1.0,
    "seed": 0,
    "purpose": (1, "rollout"),
}


@dataclass(frozen=True)
class OffPolicySampler:
    """Draws at another temperature than it was asked for, and says so in its log-probabilities."""

    factor: float

    def sample(self, policy: Policy, request: SampleRequest) -> Samples:
        """See `Sampler`."""
        changed = {**vars(request), "temperature": request.temperature * self.factor}
        drawn = CachedSampler(batch_answers=8000).sample(policy, SampleRequest(**changed))
        prompts = [ids for ids in request.prompts for _ in range(request.answers_per_prompt)]
        with torch.no_grad():
            batch = policy.batch(prompts, drawn.answers)
            logprobs = policy.answer_stats(batch, changed["temperature"]).logprobs.tolist()
        numbers = iter(logprobs)
        return Samples(drawn.answers, tuple(tuple(next(numbers) for _ in answer) for answer in drawn.answers))


def one_token_gradient(policy: Policy, weights: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
    """The exact gradient of the clipped surrogate, each one-token answer counted with its weight."""
    listed = all_answers(1)
    batch = policy.batch([row.ids for row in listed.prompts], listed.answers)
    new = policy.answer_stats(batch, 1.0).logprobs
    loss = policy_loss(new, new.detach(), advantages * weights, 0.2).loss
    found = torch.autograd.grad(loss, list(policy.trainable().values()), allow_unused=True)
    return torch.cat([part.flatten() for part in found if part is not None])


def test_weights_make_the_gradient_of_another_sampler_exact_for_one_token() -> None:
    policy = tiny_policy()
    listed = all_answers(1)
    batch = policy.batch([row.ids for row in listed.prompts], listed.answers)
    ours, hot = (policy.answer_stats(batch, temperature).logprobs.detach() for temperature in (1.0, 2.5))
    mask = length_mask(listed.lengths, 1)
    weights = sampler_mismatch(ours[:, None], hot[:, None].tolist(), mask, cap=100.0).weights[:, 0]
    advantages = torch.tensor([1.0, -2.0, 0.5, 3.0])
    exact = one_token_gradient(policy, ours.exp(), advantages)
    weighed = one_token_gradient(policy, hot.exp() * weights, advantages)
    plain = one_token_gradient(policy, hot.exp(), advantages)
    torch.testing.assert_close(weighed, exact, atol=1e-6, rtol=1e-5)
    assert (plain - exact).norm() > 0.1 * exact.norm()


def sampled_gradient(sampler: Sampler, cap: float | None, *, answers: int = 4000) -> torch.Tensor:
    """The gradient of the first update, from answers of up to two tokens."""
    policy, reward = tiny_policy(), TableReward(random_table(2))
    settings = SETTINGS.model_copy(update={"importance_cap": cap})
    rollout = sample_answers(
        policy, PROMPTS[:1], **{**TWO_TOKENS, "answers_per_prompt": answers}, sampler=sampler
    )
    scores = torch.from_numpy(reward.score(rollout).scores).float()
    rows = list(range(answers))
    experience = collect(policy, rollout, scores, [rows], settings, kl_coef=settings.kl_coef)
    new = policy.answer_stats(experience.token_batch(policy, rows), 1.0).logprobs
    old, advantages = (
        experience.tokens(rows, table, policy) for table in (experience.logprobs, experience.advantages)
    )
    loss = policy_loss(new, old, advantages, 0.2).loss / answers
    found = torch.autograd.grad(loss, list(policy.trainable().values()), allow_unused=True)
    return torch.cat([part.flatten() for part in found if part is not None])


@pytest.mark.long
def test_weights_turn_the_gradient_of_another_sampler_towards_that_of_our_own() -> None:
    exact = sampled_gradient(CachedSampler(batch_answers=8000), None)
    for factor in (0.5, 3.0):
        found = [sampled_gradient(OffPolicySampler(factor), cap) for cap in (None, 4.0)]
        plain, weighed = (1 - float(torch.cosine_similarity(gradient, exact, dim=0)) for gradient in found)
        assert plain > 0.02
        assert weighed < 0.5 * plain


def test_a_sampler_that_agrees_changes_nothing_and_its_mismatch_is_measured() -> None:
    runs, reports = [], []
    for sampler in (CachedSampler(), OffPolicySampler(1.0), OffPolicySampler(1.5)):
        policy = tiny_policy()
        trainer = Trainer(policy, TableReward(random_table(TOKENS)), PROMPTS, SETTINGS, sampler=sampler)
        trainer.calibrate()
        reports.append(trainer.step().metrics)
        runs.append(torch.cat([weight.detach().flatten() for weight in policy.trainable().values()]))
    torch.testing.assert_close(runs[0], runs[1], atol=1e-6, rtol=0)
    assert not any(name.startswith("rollout/") for name in reports[0])
    assert reports[1]["rollout/logprob_mismatch_max"] < 1e-5
    assert reports[1]["rollout/importance_weight"] == pytest.approx(1, abs=1e-5)
    far = reports[2]
    assert 0 < far["rollout/logprob_mismatch"] < far["rollout/logprob_mismatch_max"]
    assert far["rollout/sampler_kl"] > 1e-4


class Counting(Policy):
    """Notes how many rows every pass through the decoder has."""

    def states(self, *, reference: bool = False, **inputs: Any) -> Any:
        """As usual."""
        self.__dict__.setdefault("rows", []).append(len(inputs["input_ids"]))
        return super().states(reference=reference, **inputs)


def test_finished_answers_leave_the_batch_and_decoding_stops_with_the_last() -> None:
    policy = Counting(tiny_model(), template(), reference=tiny_model())
    policy.__dict__["rows"] = []
    rollout = sample_answers(policy, PROMPTS[:1], **OPTIONS)
    unfinished = [sum(length > step for length in rollout.lengths) for step in range(1, 6)]
    assert policy.__dict__["rows"] == [1, *(rows for rows in unfinished if rows)]
    assert unfinished[0] < 40
    short = {**OPTIONS, "max_new_tokens": 64, "answers_per_prompt": 2}
    policy.__dict__["rows"] = []
    longest = max(sample_answers(policy, PROMPTS[:1], **short).lengths)
    assert len(policy.__dict__["rows"]) == longest < 64


REQUEST = SampleRequest(((1, 2),), 2, 3, 1.0, (7, 8), END)
WRONG = [
    (Samples(((1, 0),)), "gave 1 answers, 2 were asked for"),
    (Samples(((1, 0), ())), "answer 1 has 0 tokens, not 1 to 3"),
    (Samples(((1, 0), (1, 1, 1, 0))), "answer 1 has 4 tokens, not 1 to 3"),
    (Samples(((1, 2), (1, 1, 1))), "answer 0 does not stop at its end-of-turn token 0"),
    (Samples(((1, 0), (0, 1, 1))), "answer 1 does not stop at its end-of-turn token 0"),
    (Samples(((1, 0), (0,)), ((-1.0, -1.0),)), "log-probabilities of 1 answers, not 2"),
    (Samples(((1, 0), (0,)), ((-1.0,), (-1.0,))), "answer 0 needs one log-probability"),
    (Samples(((1, 0), (0,)), ((-1.0, 0.5), (-1.0,))), "answer 0 needs one log-probability, at most 0"),
    (Samples(((1, 0), (0,)), ((-1.0, -2.0), (float("nan"),))), "answer 1 needs one log-probability"),
]


@pytest.mark.parametrize(("samples", "message"), WRONG, ids=[message for _, message in WRONG])
def test_what_is_no_answer_is_refused(samples: Samples, message: str) -> None:
    with pytest.raises(TrainingError, match=f"Mine.*{message}"):
        check_samples(samples, REQUEST, "Mine")


def test_good_answers_are_taken() -> None:
    check_samples(Samples(((1, 0), (1, 1, 1)), ((-1.0, 0.0), (-0.1, -0.2, -0.3))), REQUEST, "Mine")
