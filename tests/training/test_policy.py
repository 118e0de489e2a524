"""Metamorphic and oracle tests of the policy and of sampling; messages of bad input."""

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from sarm_control.errors import ConfigError, DataError, ModelError
from sarm_control.training.config.run_config import LoraConfig, PolicyConfig
from sarm_control.training.policy.policy import Policy
from sarm_control.training.rollout.rollout import PromptRow, encode_prompts, sample_answers
from sarm_control.training.rollout.sampler import CachedSampler, draw
from tests.training.tiny import END, PROMPTS, all_answers, answer_logprobs, tiny_model, tiny_policy

PROMPT_IDS = [(5, 9, 11, 7), (8,), (6, 10)]
ANSWERS = [(12, 13, 3), (14,), (15, 16, 17, 18, 3)]


@pytest.fixture
def lora_policy(tiny_policy_folder: Path) -> Policy:
    """The tiny policy with adapters that do something."""
    policy = Policy.load(PolicyConfig(model=str(tiny_policy_folder), lora=LoraConfig(rank=4)))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in policy.trainable().values():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
    return policy


@torch.no_grad()
def logprobs(
    policy: Policy, rows: list[int], *, temperature: float = 1.0, reference: bool = False
) -> list[torch.Tensor]:
    batch = policy.batch([PROMPT_IDS[row] for row in rows], [ANSWERS[row] for row in rows])
    found = policy.answer_stats(batch, temperature, reference=reference).logprobs
    return list(found.split([len(ANSWERS[row]) for row in rows]))


def test_log_probabilities_are_those_of_the_plain_model(lora_policy: Policy) -> None:
    """Oracle: transformers' own logits of each row by itself, divided by the temperature."""
    found = logprobs(lora_policy, [0, 1, 2], temperature=0.7)
    for row, (prompt, answer) in enumerate(zip(PROMPT_IDS, ANSWERS, strict=True)):
        ids = torch.tensor([[*prompt, *answer]])
        with torch.no_grad():
            logits = lora_policy.model(input_ids=ids).logits[0, len(prompt) - 1 : -1]
        expected = torch.log_softmax(logits.float() / 0.7, dim=-1).gather(1, torch.tensor(answer)[:, None])[
            :, 0
        ]
        torch.testing.assert_close(found[row], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("reference", [False, True])
def test_neither_padding_nor_the_other_rows_change_log_probabilities(
    lora_policy: Policy, reference: bool
) -> None:
    together = logprobs(lora_policy, [2, 0, 1], reference=reference)
    for place, row in enumerate([2, 0, 1]):
        alone = logprobs(lora_policy, [row], reference=reference)[0]
        torch.testing.assert_close(together[place], alone, atol=1e-5, rtol=1e-5)


def test_the_lora_reference_is_the_base_model_and_the_adapters_are_all_that_is_trained(
    lora_policy: Policy, tiny_policy_folder: Path
) -> None:
    base = Policy.load(PolicyConfig(model=str(tiny_policy_folder), lora=LoraConfig(rank=4)))
    reference = torch.cat(logprobs(lora_policy, [0, 1, 2], reference=True))
    untrained = torch.cat(logprobs(base, [0, 1, 2]))
    assert torch.equal(reference, untrained)
    assert (torch.cat(logprobs(lora_policy, [0, 1, 2])) - reference).abs().max() > 0.01
    assert all("lora_" in name for name in lora_policy.trainable())
    assert lora_policy.reference is None


def test_a_full_reference_does_not_follow_the_policy() -> None:
    policy = tiny_policy()
    batch = policy.batch([row.ids for row in PROMPTS], [(1, END), (2, 3)])
    before = policy.answer_stats(batch, 1.0, reference=True).logprobs.detach()
    with torch.no_grad():
        for weight in policy.trainable().values():
            weight.add_(0.1)
    assert torch.equal(policy.answer_stats(batch, 1.0, reference=True).logprobs, before)
    assert not torch.equal(policy.answer_stats(batch, 1.0).logprobs, before)


def test_values_are_zero_at_first_and_dropout_is_off(lora_policy: Policy) -> None:
    batch = lora_policy.batch(PROMPT_IDS, ANSWERS)
    values = lora_policy.answer_stats(batch, 1.0).values
    assert values is not None
    assert values.abs().max() == 0
    assert not any(part.training for part in lora_policy.model.modules())


@pytest.mark.parametrize("lora", [LoraConfig(rank=4), None])
def test_recomputed_activations_give_the_same_gradients(
    tiny_policy_folder: Path, lora: LoraConfig | None
) -> None:
    gradients = []
    for recompute in (False, True):
        config = PolicyConfig(model=str(tiny_policy_folder), lora=lora, gradient_checkpointing=recompute)
        policy = Policy.load(config, seed=1)
        policy.answer_stats(policy.batch(PROMPT_IDS, ANSWERS), 1.0).logprobs.sum().backward()
        gradients.append([weight.grad for weight in policy.trainable().values() if weight.grad is not None])
        assert not any(part.training for part in policy.model.modules())
    assert len(gradients[0]) > 4
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_bfloat16_keeps_adapters_in_float32_and_its_two_passes_agree_to_the_bit(
    tiny_policy_folder: Path,
) -> None:
    policy = Policy.load(
        PolicyConfig(model=str(tiny_policy_folder), dtype="bfloat16", lora=LoraConfig(rank=4))
    )
    with torch.no_grad():
        for weight in policy.trainable().values():
            weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(3)))
    batch = policy.batch(PROMPT_IDS, ANSWERS)
    kept = {name: weight.detach().clone() for name, weight in policy.trainable().items()}
    with policy.precision():
        with policy.rounded_weights():
            old = policy.answer_stats(batch, 1.0).logprobs
        new = policy.answer_stats(batch, 1.0).logprobs
    assert torch.equal(old, new.detach())
    assert new.requires_grad
    assert all(weight.dtype == torch.float32 for weight in policy.trainable().values())
    assert all(torch.equal(weight, kept[name]) for name, weight in policy.trainable().items())
    assert policy.causal.dtype == torch.bfloat16


@pytest.mark.parametrize("units", [True, False])
@pytest.mark.parametrize("stored", ["float32", "bfloat16", "float16"])
def test_auto_computes_in_half_precision_where_the_checkpoint_and_the_processor_do(
    tiny_policy_folder: Path, tmp_path: Path, stored: str, units: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sarm_control.training.policy.policy.has_bfloat16", lambda _: units)
    half = units and stored != "float32"
    folder = tmp_path / stored
    shutil.copytree(tiny_policy_folder, folder)
    LlamaForCausalLM.from_pretrained(folder, dtype=stored).save_pretrained(folder)
    adapted = Policy.load(PolicyConfig(model=str(folder), lora=LoraConfig(rank=4)))
    assert adapted.causal.dtype == (torch.bfloat16 if half else torch.float32)
    full = Policy.load(PolicyConfig(model=str(folder), lora=None))
    assert full.causal.dtype == torch.float32
    assert (full.autocast, adapted.autocast) == (half, half)


def test_an_answer_depends_on_its_seed_and_not_on_the_batch(lora_policy: Policy) -> None:
    prompts = [PromptRow(str(i), ids, f"p:{i}") for i, ids in enumerate(PROMPT_IDS)]

    def answers(**changes: Any) -> tuple[tuple[int, ...], ...]:
        options: dict[str, Any] = {
            "answers_per_prompt": 2,
            "max_new_tokens": 12,
            "temperature": 1.0,
            "seed": 3,
            "purpose": (1, "rollout"),
        }
        return sample_answers(lora_policy, prompts, **{**options, **changes}).answers

    torch.manual_seed(0)
    first = answers()
    torch.manual_seed(1)
    assert answers() == first
    assert answers(sampler=CachedSampler(batch_answers=2)) == first
    assert answers(purpose=(2, "rollout")) != first
    assert answers(seed=4) != first
    assert all(len(answer) == 12 or answer[-1] == 3 for answer in first)


def test_sampling_ignores_the_generation_config_and_leaves_the_global_generator_alone(
    lora_policy: Policy,
) -> None:
    prompts = [PromptRow("p", (5, 9), "p:1")]
    options: dict[str, Any] = {"answers_per_prompt": 8, "max_new_tokens": 6, "temperature": 1.0, "seed": 0}
    options["purpose"] = ("x",)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    plain = sample_answers(lora_policy, prompts, **options)
    lora_policy.causal.generation_config.update(
        top_k=1, temperature=0.01, do_sample=True, repetition_penalty=9.0
    )
    assert sample_answers(lora_policy, prompts, **options).answers == plain.answers
    assert torch.equal(torch.get_rng_state(), state)


def test_draws_follow_the_softmax_at_the_temperature() -> None:
    logits = torch.tensor([[0.0, 1.0, -1.0, 2.0]])
    n = 4000
    uniforms = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    tokens = draw(logits.expand(n, -1), 2.0, uniforms)
    shares = torch.bincount(tokens, minlength=4) / n
    torch.testing.assert_close(shares, torch.softmax(logits[0] / 2.0, dim=0), atol=1e-3, rtol=0)


@pytest.mark.parametrize("half", [True, False])
def test_the_sampler_says_how_it_drew_where_bfloat16_rounds_otherwise(
    tiny_policy_folder: Path, half: bool
) -> None:
    dtype: Literal["bfloat16", "float32"] = "bfloat16" if half else "float32"
    policy = Policy.load(PolicyConfig(model=str(tiny_policy_folder), lora=LoraConfig(rank=4), dtype=dtype))
    rollout = sample_answers(
        policy,
        [PromptRow(str(i), ids, f"p:{i}") for i, ids in enumerate(PROMPT_IDS)],
        answers_per_prompt=3,
        max_new_tokens=8,
        temperature=0.7,
        seed=0,
        purpose=("test",),
    )
    if not half:
        assert rollout.sampler_logprobs is None
        return
    assert rollout.sampler_logprobs is not None
    said = torch.tensor([value for row in rollout.sampler_logprobs for value in row])
    batch = policy.batch([row.ids for row in rollout.prompts], rollout.answers)
    trained = policy.answer_stats(batch, 0.7).logprobs.detach()
    assert (said - trained).abs().mean() < 0.02
    assert (said - trained).abs().max() > 0


@pytest.mark.parametrize("vocabulary", [3, 256, 257, 1000])
def test_a_draw_in_two_steps_inverts_the_distribution_function(vocabulary: int) -> None:
    logits = 3 * torch.randn(500, vocabulary, generator=torch.Generator().manual_seed(0))
    logits[:, : vocabulary // 2] = -torch.inf
    uniforms = torch.rand(500, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    uniforms[0] = 0.0
    cumulative = torch.softmax(logits, dim=-1).double().cumsum(dim=-1)
    points = uniforms[:, None] * cumulative[:, -1:]
    expected = torch.searchsorted(cumulative, points, right=True)[:, 0]
    assert torch.equal(draw(logits, 1.0, uniforms), expected)


def test_decoding_merges_adapters_for_the_policy_and_leaves_them_out_for_its_reference(
    lora_policy: Policy,
) -> None:
    policy = lora_policy
    ids = policy.batch(PROMPT_IDS, ANSWERS).input_ids

    def states(*, reference: bool) -> torch.Tensor:
        output = policy.states(reference=reference, input_ids=ids, use_cache=False)
        found: torch.Tensor = output.last_hidden_state.detach()
        return found

    trained, frozen = states(reference=False), states(reference=True)
    assert not torch.allclose(trained, frozen, atol=1e-2)
    with policy.decoding():
        assert torch.allclose(states(reference=False), trained, atol=1e-5)
    with policy.decoding(reference=True):
        assert torch.allclose(states(reference=True), frozen, atol=1e-5)
    assert torch.equal(states(reference=False), trained)
    assert torch.equal(states(reference=True), frozen)


def test_decoding_leaves_weights_and_attention_as_they_were(lora_policy: Policy) -> None:
    policy = lora_policy
    policy.model.set_attn_implementation("eager")
    before = {name: weight.clone() for name, weight in policy.model.named_parameters()}
    with policy.decoding():
        assert policy.causal.config._attn_implementation == "sdpa"
    assert policy.causal.config._attn_implementation == "eager"
    assert all(torch.equal(weight, before[name]) for name, weight in policy.model.named_parameters())


def test_an_architecture_without_fused_attention_decodes_with_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy = tiny_policy()
    policy.model.set_attn_implementation("eager")
    monkeypatch.setattr(type(policy.causal), "_supports_sdpa", False)
    with policy.decoding():
        assert policy.causal.config._attn_implementation == "eager"


def test_sampled_answers_have_the_probabilities_of_the_training_pass() -> None:
    """Frequencies of 4,000 answers against exact probabilities."""
    policy = tiny_policy()
    listed = all_answers(2)
    exact = answer_logprobs(policy, listed).exp()
    sampled = sample_answers(
        policy,
        PROMPTS[:1],
        answers_per_prompt=4000,
        max_new_tokens=2,
        temperature=1.0,
        seed=0,
        purpose=("test",),
    )
    counts = torch.tensor([sampled.answers.count(answer) for answer in listed.answers]) / 4000
    assert exact.sum().item() == pytest.approx(1, abs=1e-5)
    assert ((counts - exact).abs() < 4.5 * (exact * (1 - exact) / 4000).sqrt() + 1e-4).all()


@pytest.mark.filterwarnings(
    "ignore:.*is_gradient_checkpointing.*:FutureWarning"
)  # peft's own use of an old name
def test_the_saved_policy_loads_in_plain_transformers_and_in_peft(
    lora_policy: Policy, tiny_policy_folder: Path, tmp_path: Path
) -> None:
    lora_policy.save(tmp_path / "policy")
    assert lora_policy.save_adapter(tmp_path / "adapter")
    ids = torch.tensor([[5, 9, 11, 7]])
    with torch.no_grad():
        ours = lora_policy.model(input_ids=ids).logits
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "policy")(input_ids=ids).logits
        base = LlamaForCausalLM.from_pretrained(tiny_policy_folder)
        adapted = PeftModel.from_pretrained(base, tmp_path / "adapter")(input_ids=ids).logits
    torch.testing.assert_close(merged, ours, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(adapted, ours, atol=1e-5, rtol=1e-5)
    assert AutoTokenizer.from_pretrained(tmp_path / "policy").chat_template


def test_a_full_policy_is_saved_whole_and_has_no_adapter(tiny_policy_folder: Path, tmp_path: Path) -> None:
    policy = Policy.load(PolicyConfig(model=str(tiny_policy_folder), lora=None))
    policy.save(tmp_path / "policy")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "policy")
    for name, weight in policy.causal.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight)
    assert not policy.save_adapter(tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


def test_an_unknown_policy_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere"):
        Policy.load(PolicyConfig(model=str(tmp_path / "nowhere")), local_files_only=True)


@pytest.mark.parametrize(
    ("method", "named", "hint"),
    [
        ({"quant_method": "aqlm"}, "(?i:aqlm)", "install what it names"),
        ({"quant_method": "gptq", "bits": 4}, "(?i:gptq)", "install what it names"),
        ({"quant_method": "spqr"}, "(?i:spqr)", "not quantised"),
    ],
)
def test_a_quantised_policy_that_wants_what_is_not_there_says_so(
    tiny_policy_folder: Path, tmp_path: Path, method: dict[str, object], named: str, hint: str
) -> None:
    """Their packages, or the GPU that some want first, are not among ours."""
    folder = tmp_path / "quantised"
    shutil.copytree(tiny_policy_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": method}))
    with pytest.raises(ModelError, match=f"no policy can be loaded from .*quantised: .*{named}") as caught:
        Policy.load(PolicyConfig(model=str(folder)), local_files_only=True)
    assert hint in str(caught.value.hint)


def test_targets_the_model_does_not_have_are_answered_with_those_it_has(tiny_policy_folder: Path) -> None:
    config = PolicyConfig(model=str(tiny_policy_folder), lora=LoraConfig(targets=("query_key_value",)))
    with pytest.raises(ConfigError, match="query_key_value") as caught:
        Policy.load(config)
    assert "q_proj" in str(caught.value.hint)


def test_a_prompt_longer_than_the_context_is_named_with_its_line() -> None:
    with pytest.raises(
        DataError, match=r"prompts.jsonl:7: the prompt has \d+ tokens; with 8 .* context of 64"
    ):
        encode_prompts(tiny_policy(), ["a " * 70], ["prompts.jsonl:7"], 8)


def test_a_checkpoint_of_another_policy_is_refused(lora_policy: Policy) -> None:
    tensors = lora_policy.state_tensors()
    tensors["policy"] = {name: weight[:1] for name, weight in tensors["policy"].items()}
    with pytest.raises(ModelError, match="policy tensors do not fit"):
        lora_policy.load_state_tensors(tensors)


def test_a_policy_whose_weights_are_no_numbers_is_refused() -> None:
    broken = tiny_model()
    with torch.no_grad():
        broken.lm_head.weight[0, 0] = float("nan")
    with pytest.raises(ModelError, match="logits of LlamaForCausalLM are NaN or infinite") as caught:
        Policy(broken, tiny_policy().template, reference=broken)
    assert "another checkpoint" in str(caught.value.hint)


def test_logits_changed_after_the_head_in_an_unknown_way_are_refused() -> None:
    class Doubled(LlamaForCausalLM):
        def forward(self, **inputs: object) -> object:
            output = super().forward(**inputs)
            output.logits = output.logits * 2
            return output

    plain = tiny_model()
    odd = Doubled(plain.config)
    with pytest.raises(ModelError, match="Doubled changes its logits"):
        Policy(odd, tiny_policy().template, reference=plain)
