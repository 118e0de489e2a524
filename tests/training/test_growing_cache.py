"""The sampler's cache: oracle (transformers' own, to the bit), and how often it takes memory."""

import itertools

import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, MistralConfig
from transformers.cache_utils import DynamicLayer

from sarm_control.training.policy.policy import Policy
from sarm_control.training.rollout.growing_cache import LEAST_ROOM, GrowingLayer, growing_cache
from sarm_control.training.rollout.rollout import sample_answers
from tests.training.tiny import PROMPTS, template, tiny_model


def tokens(rows: int, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    keys, values = torch.randn(2, rows, 2, count, 4, generator=generator)
    return keys, values


def test_keys_and_values_are_those_of_transformers_through_growth_repetition_and_rows_that_leave() -> None:
    ours, theirs = GrowingLayer(400), DynamicLayer()
    rows = 3
    for step in range(300):
        new = tokens(rows, 7 if step == 0 else 1, step)
        for found, expected in zip(ours.update(*new), theirs.update(*new), strict=True):
            assert torch.equal(found, expected)
        assert ours.get_seq_length() == theirs.get_seq_length() == 7 + step
        if step == 0:
            for layer in (ours, theirs):
                layer.batch_repeat_interleave(4)
            rows = 12
        if step in (50, 51, 200):
            kept = torch.arange(0, rows, 2)
            for layer in (ours, theirs):
                layer.batch_select_indices(kept)
            rows = len(kept)


def test_memory_is_taken_a_few_times_and_never_for_more_tokens_than_there_will_be() -> None:
    layer = GrowingLayer(1000)
    layer.update(*tokens(2, 10, 0))
    places, room = [], 0
    for step in range(990):
        keys, _ = layer.update(*tokens(2, 1, step))
        places.append(keys.data_ptr())
        room = max(room, keys.stride(1) // keys.stride(2))
    assert layer.get_seq_length() == room == 1000
    # 11 + 64, then half as many more each time
    assert 1 + sum(a != b for a, b in itertools.pairwise(places)) <= 8
    assert room > 10 + LEAST_ROOM


def test_a_pass_over_the_cache_gives_the_logits_that_transformers_gives() -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    model.set_attn_implementation("sdpa")
    ids = torch.randint(64, (5, 90))
    # the first two rows are padded on the left
    mask = (torch.arange(90)[None, :] >= torch.tensor([9, 3, 0, 0, 0])[:, None]).long()
    found = []
    for cache in (growing_cache(config, 90), DynamicCache(config=config)):
        for start, end in ((0, 10), *((place, place + 1) for place in range(10, 90))):
            out = model(ids[:, start:end], attention_mask=mask[:, :end], past_key_values=cache)
        found.append(out.logits)
    assert torch.equal(*found)


def test_layers_that_keep_a_window_stay_as_they_are() -> None:
    config = MistralConfig(num_hidden_layers=2, sliding_window=8)
    assert not any(isinstance(layer, GrowingLayer) for layer in growing_cache(config, 32).layers)


class Recording(Policy):
    """Keeps the logits of every token that is drawn."""

    def logits(self, hidden: torch.Tensor, *, reference: bool = False) -> torch.Tensor:
        """As usual."""
        found = super().logits(hidden, reference=reference)
        self.__dict__.setdefault("drawn", []).append(found)
        return found


def test_in_float32_the_sampler_draws_from_the_training_pass_within_rounding() -> None:
    """Rounding is above 1e-6 (other kernels, merged adapters), so training computes its own once more."""
    policy = Recording(tiny_model(), template(), reference=tiny_model())
    policy.__dict__["drawn"] = []
    rollout = sample_answers(
        policy,
        PROMPTS[:1],
        answers_per_prompt=20,
        max_new_tokens=6,
        temperature=1.0,
        seed=0,
        purpose=(1, "rollout"),
    )
    with torch.no_grad():
        batch = policy.batch([row.ids for row in rollout.prompts], rollout.answers)
        trained = policy.answer_stats(batch, 1.0).logprobs
    numbers = iter(trained.tolist())
    expected = [[next(numbers) for _ in answer] for answer in rollout.answers]
    for step, logits in enumerate(policy.__dict__["drawn"][: max(rollout.lengths)]):
        still = [row for row, answer in enumerate(rollout.answers) if len(answer) > step]
        drawn = logits.log_softmax(dim=-1)[range(len(still)), [rollout.answers[row][step] for row in still]]
        torch.testing.assert_close(
            drawn, torch.tensor([expected[row][step] for row in still]), atol=1e-5, rtol=0
        )
