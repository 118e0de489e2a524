"""Oracle: every value and tensor that no model can have is refused by its name, its file and what it is."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from sarm_control.errors import ModelError
from sarm_control.reward_model import RewardModel
from sarm_control.reward_model.files.checkpoint_files import INDEX
from sarm_control.reward_model.files.finite import check_weights
from sarm_control.reward_model.trunk.trunk import trunk_config
from tests.conftest import cut_trunk
from tests.reward_model import release_shape

TRUNK, ENCODER, HEAD = "model.layers.0.mlp.up_proj.weight", "sae.encoder.weight", "score.weight"


@pytest.fixture
def whole(tmp_path: Path) -> Callable[..., Path]:
    """The release's shape in one file, some of its tensors or configuration replaced."""

    def make(tensors: dict[str, torch.Tensor] | None = None, **changed: Any) -> Path:
        folder = tmp_path / "sarm"
        shutil.rmtree(folder, ignore_errors=True)
        release_shape.write(folder)
        raw = json.loads((folder / "config.json").read_text())
        raw["sarm_param"] |= changed.pop("sarm_param", {})
        (folder / "config.json").write_text(json.dumps({**raw, **changed}))
        if tensors:
            for file in (INDEX, "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"):
                (folder / file).unlink()
            save_file({**release_shape.tensors(), **tensors}, folder / "model.safetensors")
        return folder

    return make


@pytest.mark.parametrize("name", [TRUNK, ENCODER, HEAD, "sae.pre_bias"])
@pytest.mark.parametrize(
    ("dtype", "called"),
    [
        (torch.int8, "I8"),
        (torch.float8_e4m3fn, "F8_E4M3"),
        (torch.bool, "BOOL"),
        (torch.complex64, "C64"),
        (torch.int64, "I64"),
    ],
    ids=str,
)
def test_weights_are_floating_point(
    whole: Callable[..., Path], name: str, dtype: torch.dtype, called: str
) -> None:
    try:
        folder = whole({name: release_shape.tensors()[name].float().to(dtype)})
    except KeyError:
        pytest.skip(f"this version of safetensors cannot write {called}")
    with pytest.raises(ModelError, match=rf"{name} in model\.safetensors is stored as {called}, ") as caught:
        RewardModel.from_pretrained(folder)
    assert "not quantised" in str(caught.value.hint)


@pytest.mark.parametrize("name", [TRUNK, ENCODER, "sae.pre_bias", "sae.latent_bias", "sae.decoder.weight"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_are_finite(whole: Callable[..., Path], name: str, value: float) -> None:
    stored = release_shape.tensors()[name].clone()
    stored.view(-1)[-1] = value
    place = ", ".join(str(size - 1) for size in stored.shape)
    with pytest.raises(ModelError, match=rf"{name}\[{place}\] in model\.safetensors is {value} \(as "):
        RewardModel.from_pretrained(whole({name: stored}))


def test_what_a_type_cannot_hold_is_named(whole: Callable[..., Path]) -> None:
    stored = release_shape.tensors()[TRUNK].clone()
    stored[1, 2] = 1e6
    folder = whole({TRUNK: stored})
    assert RewardModel.from_pretrained(folder).score("why ?", "no .").rewards.shape == (1,)
    with pytest.raises(ModelError, match=rf"{TRUNK}\[1, 2\] .* is inf \(as float16\)") as caught:
        RewardModel.from_pretrained(folder, dtype="float16")
    assert "--dtype bfloat16" in str(caught.value.hint)


def test_the_unused_final_norm_may_be_anything(whole: Callable[..., Path]) -> None:
    plain = RewardModel.from_pretrained(whole()).score("why ?", "no .").rewards
    odd = whole({"model.norm.weight": torch.full((32,), float("nan"))})
    assert RewardModel.from_pretrained(odd).score("why ?", "no .").rewards.tobytes() == plain.tobytes()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"sarm_param": {"sae_k": 5.9}},
            r"sarm_param\.sae_k in config\.json is 5\.9, it must be a whole",
        ),
        ({"sarm_param": {"sae_k": "8"}}, r"sarm_param\.sae_k in config\.json is '8'"),
        ({"sarm_param": {"sae_k": True}}, r"sarm_param\.sae_k in config\.json is True"),
        ({"sarm_param": {"sae_latent_size": 0}}, r"sarm_param\.sae_latent_size in config\.json is 0"),
        ({"sarm_param": {"sae_latent_size": [64]}}, r"sarm_param\.sae_latent_size in config\.json is \[64\]"),
        (
            {"sarm_param": {"sarm_use_activation": "false"}},
            r"sarm_param\.sarm_use_activation in config\.json is 'false', it must be true or false",
        ),
        ({"sarm_param": {"sarm_use_activation": 0}}, r"sarm_use_activation in config\.json is 0"),
        (
            {"sarm_param": {"sarm_use_topk": False}},
            r"says both sarm_use_activation = True and sarm_use_topk = False",
        ),
        (
            {"sarm_param": {"sae_hidden_state_source_layer": 1}},
            r"says both sae_source_layer = 2 and sae_hidden_state_source_layer = 1",
        ),
        ({"rope_theta": 0}, r"rope_theta in config\.json is 0, it must be a number above 0"),
        ({"rope_theta": "500000"}, r"rope_theta in config\.json is '500000'"),
        ({"rms_norm_eps": -1e-5}, r"rms_norm_eps in config\.json is -1e-05"),
        ({"rms_norm_eps": None, "hidden_size": 32.0}, r"hidden_size in config\.json is 32\.0"),
        ({"num_attention_heads": 0}, r"num_attention_heads in config\.json is 0"),
        ({"num_key_value_heads": 3}, r"num_key_value_heads in config\.json is 3, it must be a divisor"),
        ({"num_hidden_layers": True}, r"num_hidden_layers in config\.json is True"),
        ({"max_position_embeddings": "512"}, r"max_position_embeddings in config\.json is '512'"),
        ({"attention_bias": "no"}, r"attention_bias in config\.json is 'no', it must be true or false"),
        ({"attention_dropout": 2}, r"attention_dropout in config\.json is 2, it must be a number in 0\.\.1"),
        ({"torch_dtype": "int8"}, r"torch_dtype in config\.json is 'int8', it must be one of float32"),
        ({"rope_scaling": 3}, r"rope_scaling in config\.json is 3, it must be an object or null"),
        (
            {"rope_scaling": {"rope_type": "llama3", "factor": 0}},
            r"rope_scaling\.factor in config\.json is",
        ),
        (
            {"rope_scaling": {**release_shape.config(None)["rope_scaling"], "high_freq_factor": 1}},
            r"rope_scaling\.high_freq_factor in config\.json is 1, it must be above low_freq_factor, 1\.0",
        ),
        (
            {"attn_implementation": "somebody/kernels"},
            r"attn_implementation in config\.json is 'somebody/kernels', it must be one of eager, sdpa",
        ),
        (
            {"_attn_implementation": {"": "sdpa"}},
            r"_attn_implementation in config\.json is \{'': 'sdpa'\}, it must be one of eager, sdpa",
        ),
        (
            {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}},
            r"config\.json says that the weights are quantised \('bitsandbytes'\)",
        ),
        (
            {"sarm_param": {"sae_source_layer": 900}, "num_hidden_layers": 900},
            r"asks for 900 layers, its",
        ),
        ({"model_type": ["llama"]}, r"transformers knows no model type \['llama'\]"),
        ({"hidden_act": "exec"}, r"no model can be loaded from .*exec"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_values_of_the_configuration(
    whole: Callable[..., Path], changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        RewardModel.from_pretrained(whole(**changed))


@pytest.mark.parametrize("given", [[], "x", 3, False])
def test_sarm_param_of_another_type(whole: Callable[..., Path], given: object) -> None:
    folder = whole()
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**raw, "sarm_param": given}))
    with pytest.raises(ModelError, match=r"sarm_param in config\.json is .*, it must be an object"):
        RewardModel.from_pretrained(folder)


def test_a_base_model_is_checked_alike(whole: Callable[..., Path]) -> None:
    folder = whole(rope_theta=0)
    with pytest.raises(ModelError, match=r"rope_theta in config\.json is 0"):
        cut_trunk(str(folder), 2)
    stored = release_shape.tensors()[TRUNK]
    vocabulary = {"vocab_size": release_shape.VOCABULARY}
    with pytest.raises(ModelError, match=rf"{TRUNK} in model\.safetensors is stored as I8"):
        cut_trunk(str(whole({TRUNK: stored.float().to(torch.int8)}, **vocabulary)), 2)


def test_a_token_without_an_embedding_is_named(whole: Callable[..., Path]) -> None:
    folder = whole()
    named = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**named, "bos_token": "<|other|>"}))
    known = release_shape.VOCABULARY
    with pytest.raises(ModelError, match=rf"row 0 has token {known}, the model has embeddings for 0\.\."):
        RewardModel.from_pretrained(folder).score("why ?", "no .")


def test_frequencies_that_are_no_numbers_are_told() -> None:
    """What the checks of values let pass still shows in what is computed from them."""
    bad = [("rotary_emb.inv_freq", torch.tensor([1.0, float("nan")]))]
    with pytest.raises(ModelError, match=r"rotary_emb\.inv_freq\[1\], computed from config\.json, is nan"):
        check_weights(bad, {}, "x")


def test_what_a_configuration_says_about_loading_is_left_out(whole: Callable[..., Path]) -> None:
    """Code, other files and adapters that a configuration names are not followed."""
    plain = RewardModel.from_pretrained(whole()).score("why ?", "no .").rewards.tobytes()
    named = {
        "auto_map": {"AutoModel": "code.Model"},
        "transformers_weights": "../elsewhere.safetensors",
        "fusion_config": {"x": 1},
    }
    again = RewardModel.from_pretrained(whole(**named))
    assert again.score("why ?", "no .").rewards.tobytes() == plain
    raw = {**release_shape.config(None), **named}
    assert not any(getattr(trunk_config(raw, 2, "x"), key, None) for key in named)
