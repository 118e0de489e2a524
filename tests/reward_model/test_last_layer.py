"""Oracle: the last layer at one position gives what the whole layer gives there."""

import copy
import threading

import pytest
import torch
from transformers import AttentionInterface, AutoConfig, AutoModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from sarm_control.reward_model import RewardModel, Trunk
from sarm_control.reward_model.trunk.last_layer import TESTED_TYPES

SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "sliding_window": 4,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
}
IDS = torch.randint(3, 50, (3, 9), generator=torch.Generator().manual_seed(0))
LENGTHS = torch.tensor([9, 2, 6])
WHOLE = torch.ones_like(IDS)
RIGHT = (torch.arange(9) < LENGTHS[:, None]).long()
CASES = {
    "no padding": (WHOLE, torch.tensor([8, 8, 8])),
    "no padding, before the end": (WHOLE, torch.tensor([8, 3, 0])),
    "right": (RIGHT, LENGTHS - 1),
    "left": (RIGHT.flip(1), torch.tensor([8, 8, 8])),
}


def make_trunk(model_type: str, attention: str | None = None) -> Trunk:
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **SIZES)
    return Trunk(AutoModel.from_config(config, attn_implementation=attention))


def tokens_of_the_last_layer(trunk: Trunk) -> list[int]:
    """How many tokens each forward pass from now on has in the last layer."""
    tokens: list[int] = []
    mlp = trunk.layers[-1].mlp
    assert isinstance(mlp, torch.nn.Module)
    mlp.register_forward_hook(lambda _module, _args, out: tokens.append(out.numel() // 32))
    return tokens


@pytest.mark.parametrize("model_type", sorted(TESTED_TYPES))
def test_states_equal_those_of_the_whole_layer(model_type: str) -> None:
    trunk = make_trunk(model_type)
    tokens = tokens_of_the_last_layer(trunk)
    for mask, positions in CASES.values():
        expected = trunk(IDS, mask)[torch.arange(3), positions]
        found = trunk.states_at(IDS, mask, positions)
        torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)
    assert tokens == [27, 18] * len(CASES)  # each row's position six times: products of 16 rows or more
    # padding on the right needs no mask: no token looks there
    expected = trunk(IDS, RIGHT)[torch.arange(3), LENGTHS - 1]
    torch.testing.assert_close(trunk.states_at(IDS, None, LENGTHS - 1), expected, atol=2e-6, rtol=0)


def test_states_do_not_depend_on_what_is_computed_beside_them() -> None:
    """Products of few rows have their sums taken in another order than those of many."""
    trunk, ids, ends = make_trunk("llama"), IDS.repeat(7, 1)[:20], torch.full((20,), 8)
    tokens = tokens_of_the_last_layer(trunk)
    together = trunk.states_at(ids, None, ends)
    alone = torch.cat([trunk.states_at(ids[[row]], None, ends[:1]) for row in range(20)])
    assert tokens == [20] + [8] * 20  # all tokens but one of a row alone: it has nine
    torch.testing.assert_close(alone, together, atol=5e-7, rtol=0)


def test_attention_that_takes_no_mask_of_four_dimensions_computes_the_whole_layer() -> None:
    AttentionInterface.register("another", sdpa_attention_forward)
    trunk, (_, positions) = make_trunk("llama", "another"), CASES["right"]
    tokens = tokens_of_the_last_layer(trunk)
    expected = make_trunk("llama").states_at(IDS, None, positions)
    torch.testing.assert_close(trunk.states_at(IDS, None, positions), expected, atol=2e-6, rtol=0)
    assert tokens == [27]


@pytest.mark.parametrize("name", CASES)
def test_attention_with_an_additive_mask(name: str) -> None:
    trunk, (mask, positions) = make_trunk("mistral", "eager"), CASES[name]
    expected = trunk(IDS, mask)[torch.arange(3), positions]
    torch.testing.assert_close(trunk.states_at(IDS, mask, positions), expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("model_type", ["gpt2", "gpt_neox", "phi"])
def test_other_models_compute_the_whole_layer(model_type: str) -> None:
    trunk, (mask, positions) = make_trunk(model_type), CASES["right"]
    expected = trunk(IDS, mask)[torch.arange(3), positions]
    assert torch.equal(trunk.states_at(IDS, mask, positions), expected)
    torch.testing.assert_close(trunk.states_at(IDS, None, positions), expected, atol=2e-6, rtol=0)


def test_rows_of_one_token() -> None:
    trunk, ids, mask = make_trunk("llama"), IDS[:, :1], WHOLE[:, :1]
    found = trunk.states_at(ids, mask, torch.tensor([0, 0, 0]))
    torch.testing.assert_close(found, trunk(ids, mask)[:, 0], atol=2e-6, rtol=0)


def test_all_positions_can_be_had_at_the_same_time_and_afterwards() -> None:
    trunk, (mask, positions) = make_trunk("llama"), CASES["right"]
    expected, found = trunk(IDS, mask), []

    def another_thread(*_: object) -> None:
        other = threading.Thread(target=lambda: found.append(trunk(IDS, mask)))
        other.start()
        other.join()

    def once(*_: object) -> None:
        handles.pop().remove()
        another_thread()

    handles = [trunk.layers[0].register_forward_hook(once)]
    trunk.states_at(IDS, mask, positions)
    assert torch.equal(found[0], expected)
    assert torch.equal(trunk(IDS, mask), expected)
    copied = copy.deepcopy(trunk)
    assert torch.equal(copied.states_at(IDS, mask, positions), trunk.states_at(IDS, mask, positions))


def test_rewards_are_those_of_every_state(tiny_sarm: RewardModel) -> None:
    ids, mask = IDS % 20, RIGHT
    states = tiny_sarm.trunk(ids, mask)[torch.arange(3), LENGTHS - 1]
    at_ends = tiny_sarm.trunk.states_at(ids, mask, LENGTHS - 1)
    weight = tiny_sarm.head.weight
    expected = tiny_sarm.score_states(states).dot(weight)
    assert tiny_sarm.score_states(at_ends).dot(weight) == pytest.approx(expected, abs=1e-6)
