"""The sampler over transformers' generate: oracle (the exact distribution, our own sampler), metamorphic."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from sarm_control.errors import ConfigError
from sarm_control.training.algorithm.trainer import Trainer
from sarm_control.training.config.run_config import LoraConfig, RunConfig
from sarm_control.training.policy.lora import add_adapters
from sarm_control.training.policy.policy import Policy
from sarm_control.training.rollout.generate_sampler import GenerateSampler
from sarm_control.training.rollout.rollout import Rollout, sample_answers
from sarm_control.training.rollout.sampler import CachedSampler, Sampler
from sarm_control.training.run.run_folder import start_run
from sarm_control.training.run.train import run_training
from tests.training.test_optimum import SETTINGS, TOKENS
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

LONGEST = 16
GENERATE = GenerateSampler(LONGEST)


def answers(policy: Policy, sampler: Sampler = GENERATE, **changes: Any) -> Rollout:
    options = {"answers_per_prompt": 20, "max_new_tokens": 8, "temperature": 1.0, "seed": 0, **changes}
    return sample_answers(policy, PROMPTS, purpose=(1, "rollout"), sampler=sampler, **options)


def adapted_policy(*, half: bool = False) -> Policy:
    """Adapters that are not zero, over a base in bfloat16 or float32."""
    model = tiny_model().bfloat16() if half else tiny_model()
    policy = Policy(add_adapters(model, LoraConfig(rank=4), 0), template(), autocast=half)
    generator = torch.Generator().manual_seed(0)
    for weight in policy.trainable().values():
        weight.data = torch.randn(weight.shape, generator=generator)
    return policy


def test_answers_come_as_often_as_the_policy_gives_them() -> None:
    policy = tiny_policy()
    drawn = sample_answers(
        policy,
        PROMPTS[:1],
        answers_per_prompt=4000,
        max_new_tokens=3,
        temperature=1.0,
        seed=3,
        purpose=("frequencies",),
        sampler=GenerateSampler(LONGEST, batch_answers=4000),
    )
    listed = all_answers(3)
    counts = np.array([drawn.answers.count(answer) for answer in listed.answers])
    expected = answer_logprobs(policy, listed).exp().numpy()
    assert counts.sum() == 4000
    assert stats.chisquare(counts, 4000 * expected / expected.sum()).pvalue > 0.001


@pytest.mark.parametrize("temperature", [1e-3, 0.7, 1.0, 3.0])
@pytest.mark.parametrize("make", [tiny_policy, adapted_policy])
def test_it_gives_the_answers_of_our_own_sampler(make: Any, temperature: float) -> None:
    policy = make()
    ours = answers(policy, CachedSampler(), temperature=temperature)
    theirs = answers(policy, temperature=temperature)
    assert theirs.answers == ours.answers
    assert len(set(theirs.answers)) > 1 or temperature < 0.1


@pytest.mark.parametrize("make", [tiny_policy, adapted_policy, lambda: adapted_policy(half=True)])
def test_it_says_the_logprobs_of_the_training_pass(make: Any) -> None:
    policy = make()
    drawn = answers(policy, temperature=1.5)
    batch = policy.batch([row.ids for row in drawn.prompts], drawn.answers)
    with torch.no_grad(), policy.precision():
        trained = policy.answer_stats(batch, 1.5).logprobs.tolist()
    assert drawn.sampler_logprobs is not None
    said = [value for row in drawn.sampler_logprobs for value in row]
    assert said == pytest.approx(trained, abs=0.05 if policy.autocast else 1e-5)


def test_the_adapter_is_active_and_training_moves_the_answers() -> None:
    policy = adapted_policy()
    reference = answers(policy, CachedSampler(reference=True))
    assert answers(policy).answers != reference.answers


def test_the_checkpoints_generation_config_shapes_nothing_and_is_left_alone() -> None:
    plain, shaped = tiny_policy(), tiny_policy()
    settings = shaped.causal.generation_config
    settings.update(do_sample=True, top_k=1, top_p=0.1, repetition_penalty=5.0, temperature=0.1)
    settings.update(suppress_tokens=[1, 2], min_new_tokens=3, num_beams=2)
    before = settings.to_dict()
    assert answers(shaped).answers == answers(plain).answers
    assert shaped.causal.generation_config.to_dict() == before


def test_neither_the_batch_nor_a_used_generator_changes_an_answer() -> None:
    policy = tiny_policy()
    whole = answers(policy)
    torch.manual_seed(7)
    state = torch.get_rng_state()
    in_sevens = answers(policy, GenerateSampler(LONGEST, batch_answers=7))
    assert in_sevens.answers == whole.answers
    assert torch.equal(torch.get_rng_state(), state)
    assert answers(policy, seed=1).answers != whole.answers


def test_a_longer_rollout_before_changes_no_bit_of_the_next() -> None:
    """transformers would keep the largest cache it ever made; a resumed run never made it."""
    fresh, used = tiny_policy(), tiny_policy()
    answers(used, GenerateSampler(64), max_new_tokens=32)
    assert answers(used).sampler_logprobs == answers(fresh).sampler_logprobs


def test_nothing_follows_the_end_of_turn() -> None:
    drawn = answers(tiny_policy(), max_new_tokens=12)
    assert any(drawn.ended)
    assert all(END not in answer[:-1] for answer in drawn.answers)
    assert all(
        len(answer) == 12 for answer, ended in zip(drawn.answers, drawn.ended, strict=True) if not ended
    )


@pytest.mark.long
def test_a_run_with_it_learns_what_a_run_with_ours_learns() -> None:
    runs = []
    for sampler in (CachedSampler(), GENERATE):
        policy = tiny_policy()
        trainer = Trainer(policy, TableReward(random_table(TOKENS)), PROMPTS, SETTINGS, sampler=sampler)
        trainer.calibrate()
        curve = [trainer.step().metrics for _ in range(4)]
        runs.append(torch.cat([weight.detach().flatten() for weight in policy.trainable().values()]))
    assert curve[-1]["reward/total"] > curve[0]["reward/total"]
    assert curve[0]["rollout/logprob_mismatch_max"] < 1e-5
    torch.testing.assert_close(runs[0], runs[1], atol=1e-5, rtol=0)


LAB: dict[str, Any] = {
    "policy": {"model": "lab"},
    "training": {
        "sampler": "generate",
        "steps": 2,
        "prompts_per_step": 2,
        "max_new_tokens": 12,
        "micro_batch": 8,
        "reference_answers": 8,
    },
    "evaluation": {"every": 0},
    "checkpoints": {"every": 1},
}


@pytest.mark.long
def test_a_resumed_run_is_the_uninterrupted_one_to_the_byte(tmp_path: Path) -> None:
    whole, cut = RunConfig.model_validate(LAB), tmp_path / "cut"
    run_training(whole, start_run(tmp_path / "whole", whole))
    short = RunConfig.model_validate({**LAB, "training": {**LAB["training"], "steps": 1}})
    run_training(short, start_run(cut, short))
    run_training(whole, start_run(cut, whole, resume=True))
    for name in ("metrics.jsonl", "adapter/adapter_model.safetensors"):
        assert (cut / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_model_without_a_static_cache_is_refused() -> None:
    policy = tiny_policy()
    policy.causal._can_compile_fullgraph = False
    with pytest.raises(ConfigError, match="LlamaForCausalLM cannot decode with a static cache"):
        answers(policy)


def test_float32_weights_that_compute_in_bfloat16_are_refused() -> None:
    policy = Policy(tiny_model(), template(), reference=tiny_model(), autocast=True)
    with pytest.raises(ConfigError, match="generate cannot decode float32 weights in bfloat16"):
        answers(policy)
