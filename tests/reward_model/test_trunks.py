"""Oracle: a trunk's states are transformers' own hidden states before the final norm."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from sarm_control.errors import ModelError
from sarm_control.reward_model import Trunk, takes_sdpa
from tests.conftest import cut_trunk

SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
}


class Cut(NamedTuple):
    """A trunk of two layers, ids, its states of them, and the whole model's."""

    trunk: Trunk
    ids: Tensor
    states: Tensor
    expected: Tensor


def cut_at_two(whole: Any, folder: Path) -> Cut:
    whole.save_pretrained(folder)
    trunk = cut_trunk(str(folder), 2)
    ids = torch.randint(3, 50, (2, 9))
    with torch.inference_mode():
        expected = whole(ids, output_hidden_states=True).hidden_states[2]
        return Cut(trunk, ids, trunk(ids, torch.ones_like(ids)), expected)


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "qwen3", "gemma2", "gemma3_text", "mistral"])
def test_states_equal_the_hidden_states_of_the_whole_model(model_type: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **SIZES)
    whole = AutoModelForCausalLM.from_config(config).eval()
    cut = cut_at_two(whole, tmp_path)
    assert len(cut.trunk.layers) == 2
    torch.testing.assert_close(cut.states, cut.expected, atol=1e-5, rtol=0)


def test_capped_scores_are_capped_whatever_the_version_would_choose(tmp_path: Path) -> None:
    """The oldest transformers takes sdpa for Gemma 2, which leaves the cap out without a word."""
    torch.manual_seed(0)
    sizes = {**SIZES, "initializer_range": 0.2, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 2.0}
    whole = AutoModelForCausalLM.from_config(
        AutoConfig.for_model("gemma2", **sizes), attn_implementation="eager"
    ).eval()
    cut = cut_at_two(whole, tmp_path)
    with torch.inference_mode():
        for layer in whole.model.layers:
            layer.self_attn.attn_logit_softcapping = None
        free = whole(cut.ids, output_hidden_states=True).hidden_states[2]
    torch.testing.assert_close(cut.states, cut.expected, atol=1e-4, rtol=1e-4)
    assert (cut.states - free).abs().max() > 0.01
    assert not takes_sdpa(cut.trunk.model)


def test_gpt2_names_its_layers_otherwise(tmp_path: object) -> None:
    torch.manual_seed(0)
    config = AutoConfig.for_model("gpt2", vocab_size=50, n_embd=32, n_layer=3, n_head=4, n_positions=64)
    whole = AutoModelForCausalLM.from_config(config).eval()
    whole.save_pretrained(tmp_path)
    trunk = cut_trunk(str(tmp_path), 1)
    ids = torch.randint(3, 50, (2, 9))
    with torch.inference_mode():
        expected = whole(ids, output_hidden_states=True).hidden_states[1]
        states = trunk(ids, torch.ones_like(ids))
    torch.testing.assert_close(states, expected, atol=1e-5, rtol=0)


def test_a_layer_beyond_the_model_is_refused(tiny_policy_folder: object) -> None:
    with pytest.raises(ModelError, match="has 3 layers, layer 4 cannot be its source layer"):
        cut_trunk(str(tiny_policy_folder), 4)


def test_a_model_that_does_not_exist() -> None:
    with pytest.raises(ModelError, match=r"no model can be loaded from \./nowhere"):
        cut_trunk("./nowhere", 1, local_files_only=True)
