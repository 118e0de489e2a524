"""Critics: metamorphic (adapters, recomputation, the SARM is left alone), resume to the bit, bad input."""

import copy
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from sarm_control.control.controls import Controls
from sarm_control.conversation import ChatTemplate
from sarm_control.errors import ConfigError, ModelError
from sarm_control.reward_model.reward_model import RewardModel
from sarm_control.training.algorithm.reward import PolicyReward
from sarm_control.training.algorithm.trainer import Trainer
from sarm_control.training.algorithm.update import Updater
from sarm_control.training.config.run_config import LoraConfig, PolicyConfig, RunConfig, TrainingConfig
from sarm_control.training.policy.critic_model import attach_critic, check_tokens_agree
from sarm_control.training.policy.policy import Policy
from sarm_control.training.rollout.rollout import encode_prompts
from sarm_control.training.run.checkpoint import load_checkpoint, save_checkpoint

PROMPT_IDS = [(5, 9, 11, 7), (8,), (6, 10)]
ANSWERS = [(12, 13, 3), (14,), (15, 16, 17, 18, 3)]
TRAINING = TrainingConfig(
    prompts_per_step=2,
    answers_per_prompt=4,
    max_new_tokens=6,
    micro_batch=4,
    learning_rate=1e-2,
    value_learning_rate=1e-2,
    reference_answers=16,
)
CASES = [("adapter", True), ("model", True), ("model", False)]


def critic_policy(
    folder: Path,
    sarm: RewardModel,
    value: Literal["head", "adapter", "model"],
    *,
    lora: bool = True,
    recompute: bool = False,
    seed: int = 0,
) -> Policy:
    config = PolicyConfig(
        model=str(folder), lora=LoraConfig(rank=4) if lora else None, gradient_checkpointing=recompute
    )
    policy = Policy.load(config, seed=seed)
    attach_critic(policy, value, config, sarm, seed=seed, longest=32)
    return policy


def stir(policy: Policy) -> None:
    """Random weights in everything that is trained, so that nothing is zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in [*policy.trainable().values(), *policy.critic_weights().values()]:
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.1)


def gradients(policy: Policy) -> dict[str, torch.Tensor | None]:
    weights = {**policy.trainable(), **policy.critic_weights()}
    for weight in weights.values():
        weight.grad = None
    stats = policy.answer_stats(policy.batch(PROMPT_IDS, ANSWERS), 1.0)
    assert stats.values is not None
    # As in a step: the reference is asked between the pass and its gradient.
    with torch.no_grad():
        policy.answer_stats(policy.batch(PROMPT_IDS, ANSWERS), 1.0, reference=True)
    (stats.logprobs.sum() + (stats.values**2).sum()).backward()
    return {name: weight.grad for name, weight in weights.items()}


@pytest.mark.parametrize(("value", "lora"), CASES)
def test_a_critic_of_its_own_starts_at_zero_and_leaves_policy_reference_and_sarm_as_they_are(
    value: Literal["head", "adapter", "model"], lora: bool, tiny_policy_folder: Path, tiny_sarm: RewardModel
) -> None:
    plain = Policy.load(
        PolicyConfig(model=str(tiny_policy_folder), lora=LoraConfig(rank=4) if lora else None)
    )
    score = tiny_sarm.score("what is the door ?", "yes please")
    weights = [weight.clone() for weight in tiny_sarm.trunk.parameters()]
    policy = critic_policy(tiny_policy_folder, tiny_sarm, value, lora=lora)
    batch = policy.batch(PROMPT_IDS, ANSWERS)
    ours, base = policy.answer_stats(batch, 1.0), plain.answer_stats(batch, 1.0)
    assert torch.equal(ours.logprobs, base.logprobs)
    assert list(policy.trainable()) == list(plain.trainable())
    assert ours.values is not None
    assert ours.values.abs().max() == 0
    reference = policy.answer_stats(batch, 1.0, reference=True).logprobs

    with torch.no_grad():
        for weight in policy.critic_weights().values():
            weight.add_(0.1)
    after = policy.answer_stats(batch, 1.0)
    assert after.values is not None
    assert after.values.abs().min() > 0
    assert torch.equal(after.logprobs, base.logprobs), "the critic's weights are no part of the policy"
    assert torch.equal(policy.answer_stats(batch, 1.0, reference=True).logprobs, reference)
    assert tiny_sarm.score("what is the door ?", "yes please").rewards == score.rewards
    assert all(torch.equal(old, new) for old, new in zip(weights, tiny_sarm.trunk.parameters(), strict=True))
    assert not any(weight.requires_grad for weight in tiny_sarm.trunk.parameters())


@pytest.mark.parametrize(("value", "lora"), CASES)
def test_every_weight_of_policy_and_critic_gets_the_gradient_of_its_own_loss(
    value: Literal["head", "adapter", "model"], lora: bool, tiny_policy_folder: Path, tiny_sarm: RewardModel
) -> None:
    policy = critic_policy(tiny_policy_folder, tiny_sarm, value, lora=lora)
    stir(policy)
    both = gradients(policy)
    critics = set(policy.critic_weights())
    used = {name for name, gradient in both.items() if gradient is not None and gradient.any()}
    assert {name for name in both if "lora_" in name} <= used
    assert {"value_head.weight", "value_head.bias"} < critics & used
    # The value loss does not reach the policy, nor the policy's the critic.
    stats = policy.answer_stats(policy.batch(PROMPT_IDS, ANSWERS), 1.0)
    assert stats.values is not None
    for loss, others in ((stats.logprobs.sum(), critics), (stats.values.sum(), set(both) - critics)):
        weights = {**policy.trainable(), **policy.critic_weights()}
        found = torch.autograd.grad(loss, [weights[n] for n in others], retain_graph=True, allow_unused=True)
        assert all(gradient is None for gradient in found)


@pytest.mark.long
@pytest.mark.parametrize(("value", "lora"), CASES)
def test_recomputed_activations_give_the_same_gradients(
    value: Literal["head", "adapter", "model"], lora: bool, tiny_policy_folder: Path, tiny_sarm: RewardModel
) -> None:
    """A layer is computed again in the backward pass, under the adapter it was computed with."""
    found = []
    for recompute in (False, True):
        policy = critic_policy(tiny_policy_folder, tiny_sarm, value, lora=lora, recompute=recompute)
        stir(policy)
        found.append(gradients(policy))
    for name, plain in found[0].items():
        again = found[1][name]
        if plain is None or again is None:
            assert plain is again, name
        else:
            torch.testing.assert_close(again, plain)


def test_adapters_of_a_model_critic_stand_on_the_sarms_own_tensors(
    tiny_policy_folder: Path, tiny_sarm: RewardModel
) -> None:
    """No second copy of a trunk of billions of weights."""
    policy = critic_policy(tiny_policy_folder, tiny_sarm, "model")
    theirs = {weight.data_ptr() for weight in tiny_sarm.trunk.parameters()}
    critic: Any = policy.critic
    held = {weight.data_ptr() for weight in critic.model.parameters()}
    trained = {weight.data_ptr() for weight in policy.critic.body().values()}
    assert held - trained == theirs


@pytest.mark.parametrize("value", ["adapter", "model"])
def test_critics_on_bfloat16_learn_in_float32(
    value: Literal["head", "adapter", "model"], tiny_policy_folder: Path, tiny_sarm: RewardModel
) -> None:
    sarm = tiny_sarm.with_head(tiny_sarm.head.weight)
    sarm.trunk = copy.deepcopy(tiny_sarm.trunk).to(torch.bfloat16)
    config = PolicyConfig(model=str(tiny_policy_folder), lora=LoraConfig(rank=4), dtype="bfloat16")
    policy = Policy.load(config)
    attach_critic(policy, value, config, sarm, seed=0, longest=32)
    stir(policy)
    assert all(weight.dtype == torch.float32 for weight in policy.critic_weights().values())
    found = gradients(policy)
    for name in policy.critic_weights():
        gradient = found[name]
        assert gradient is not None, name
        assert gradient.isfinite().all()
        assert gradient.any(), name
    batch = policy.batch(PROMPT_IDS, ANSWERS)
    with policy.rounded_weights():
        old = policy.answer_stats(batch, 1.0).values
    new = policy.answer_stats(batch, 1.0).values
    assert old is not None
    assert new is not None
    assert torch.equal(old, new), "the values at rollout are those of the first update"


def critic_trainer(
    folder: Path, sarm: RewardModel, value: Literal["head", "adapter", "model"], lora: bool
) -> Trainer:
    policy = critic_policy(folder, sarm, value, lora=lora, seed=5)
    texts = [f"how do i open {text} ?" for text in ("bread", "lock", "door", "bomb")]
    prompts = encode_prompts(policy, texts, texts, 6)
    settings = TRAINING.model_copy(update={"value": value, "seed": 5, "kl_target": 0.5, "kl_coef": 0.1})
    return Trainer(policy, PolicyReward(sarm, Controls(), seed=5), prompts, settings)


@pytest.mark.long
@pytest.mark.parametrize(("value", "lora"), CASES)
def test_resumed_steps_are_the_uninterrupted_ones_to_the_bit(
    value: Literal["head", "adapter", "model"],
    lora: bool,
    tiny_policy_folder: Path,
    tiny_sarm: RewardModel,
    tmp_path: Path,
) -> None:
    whole = critic_trainer(tiny_policy_folder, tiny_sarm, value, lora)
    whole.calibrate()
    expected = [whole.step().metrics for _ in range(2)]
    state = whole.state()
    place = save_checkpoint(tmp_path, 2, state.tensors, state.values)
    expected.append(whole.step().metrics)

    second = critic_trainer(tiny_policy_folder, tiny_sarm, value, lora)
    found = load_checkpoint(place)
    second.load_state(found.tensors, found.state)
    assert second.step().metrics == expected[-1]
    for file, named in whole.state().tensors.items():
        assert all(torch.equal(w, second.state().tensors[file][name]) for name, w in named.items()), file
    assert state.tensors["critic"]
    assert {f"exp_avg/critic.{name}" for name in state.tensors["critic"]} <= set(state.tensors["optimizer"])
    assert len({row["objective/kl_coef"] for row in expected}) == 3, "the coefficient moved"
    assert all(row["policy/ratio_first"] <= 1e-6 for row in expected)


@pytest.mark.parametrize(("value", "lora"), CASES)
def test_a_trained_policy_is_taken_up_without_its_critic(
    value: Literal["head", "adapter", "model"], lora: bool, tiny_policy_folder: Path, tiny_sarm: RewardModel
) -> None:
    trained = critic_policy(tiny_policy_folder, tiny_sarm, value, lora=lora)
    stir(trained)
    adapters = LoraConfig(rank=4) if lora else None
    plain = Policy.load(PolicyConfig(model=str(tiny_policy_folder), lora=adapters))
    plain.load_state_tensors(trained.state_tensors(), critic=False)
    batch = plain.batch(PROMPT_IDS, ANSWERS)
    assert torch.equal(plain.answer_stats(batch, 1.0).logprobs, trained.answer_stats(batch, 1.0).logprobs)
    assert not plain.value_head.weight.any()


def test_saved_adapters_and_merged_weights_hold_no_critic(
    tiny_policy_folder: Path, tiny_sarm: RewardModel, tmp_path: Path
) -> None:
    policy = critic_policy(tiny_policy_folder, tiny_sarm, "adapter")
    stir(policy)
    ids = torch.tensor([[5, 9, 11, 7]])
    with torch.no_grad():
        ours = policy.model(input_ids=ids).logits
    policy.save(tmp_path / "policy")
    policy.save_adapter(tmp_path / "adapter")
    with torch.no_grad():
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "policy")(input_ids=ids).logits
    torch.testing.assert_close(merged, ours, atol=1e-4, rtol=1e-4)
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir() if path.is_dir()) == []


def other_template(words: list[str], turn: str) -> ChatTemplate:
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="a"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    template = "{% for m in messages %}" + turn + "{{ m['content'] }} <|end|> {% endfor %}"
    return ChatTemplate(
        PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|end|>", chat_template=template)
    )


def test_a_trunk_that_reads_other_tokens_is_refused_with_a_way_out() -> None:
    ours = other_template(["<|end|>", "a", "b"], "")
    with pytest.raises(
        ModelError, match=r"2 of 3 differ: 'a' is 1 for the policy and 2 for the SARM"
    ) as caught:
        check_tokens_agree(ours, other_template(["<|end|>", "b", "a"], ""))
    assert "training.value=head" in str(caught.value.hint)
    with pytest.raises(ModelError, match="'b' is 2 for the policy and unknown for the SARM"):
        check_tokens_agree(ours, other_template(["<|end|>", "a"], ""))
    with pytest.raises(ModelError, match="chat templates write different tokens"):
        check_tokens_agree(ours, other_template(["<|end|>", "a", "b"], "b "))
    check_tokens_agree(ours, other_template(["<|end|>", "a", "b", "one more"], ""))


def test_a_trunk_of_a_short_context_is_refused(tiny_policy_folder: Path, tiny_sarm: RewardModel) -> None:
    config = PolicyConfig(model=str(tiny_policy_folder))
    policy = Policy.load(config)
    with pytest.raises(ModelError, match="up to 300 tokens, but the SARM's context has 256"):
        attach_critic(policy, "model", config, tiny_sarm, seed=0, longest=300)


def test_a_policy_without_the_critic_of_the_settings_is_refused(tiny_policy_folder: Path) -> None:
    policy = Policy.load(PolicyConfig(model=str(tiny_policy_folder)))
    with pytest.raises(ConfigError, match="value is model, but"):
        Updater(policy, TRAINING.model_copy(update={"value": "model"}))


def test_settings_that_have_no_such_critic_are_refused() -> None:
    with pytest.raises(ValueError, match="lora is null: use head or model"):
        RunConfig.model_validate({"policy": {"lora": None}, "training": {"value": "adapter"}})
    with pytest.raises(ValueError, match="rloo has no critic"):
        TrainingConfig(algorithm="rloo", value="model")
    with pytest.raises(ValueError, match="kl_target multiplies"):
        TrainingConfig(kl_target=1.0, kl_coef=0.0)
