"""Oracle: the last layer at one position gives what the whole layer gives there."""

import copy
import threading

import pytest
import torch
from transformers import AutoConfig, AutoModel

from sarm_control.sarm import RewardModel, Trunk
from sarm_control.sarm.last_layer import TESTED_TYPES

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


@pytest.mark.parametrize("model_type", sorted(TESTED_TYPES))
def test_states_equal_those_of_the_whole_layer(model_type: str) -> None:
    trunk = make_trunk(model_type)
    tokens = []
    trunk.layers[-1].mlp.register_forward_hook(lambda _module, _args, out: tokens.append(out.numel() // 32))
    for mask, positions in CASES.values():
        expected = trunk(IDS, mask)[torch.arange(3), positions]
        found = trunk.states_at(IDS, mask, positions)
        torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)
    assert tokens == [27, 3] * len(CASES)
    # padding on the right needs no mask: no token looks there
    expected = trunk(IDS, RIGHT)[torch.arange(3), LENGTHS - 1]
    torch.testing.assert_close(trunk.states_at(IDS, None, LENGTHS - 1), expected, atol=2e-6, rtol=0)


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

    handle = trunk.layers[0].register_forward_hook(lambda *_: handle.remove() or another_thread())
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
