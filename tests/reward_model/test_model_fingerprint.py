"""The model fingerprint: what changes it, and what does not (metamorphic)."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sarm_control.reward_model import RewardModel
from sarm_control.reward_model.description import describe, read_model_fingerprint
from sarm_control.reward_model.files.checkpoint import TensorEntry
from sarm_control.reward_model.files.config import SarmConfig
from sarm_control.reward_model.files.model_fingerprint import model_fingerprint

TRUNK, HEAD, DECODER = "model.layers.1.mlp.up_proj.weight", "score.weight", "sae.decoder.weight"


def changed(folder: Path, to: Path, name: str) -> Path:
    """A copy of a model with one tensor moved."""
    shutil.copytree(folder, to)
    tensors = load_file(to / "model.safetensors")
    tensors[name] = tensors[name] + 0.5
    save_file(tensors, to / "model.safetensors", {"format": "pt"})
    return to


def test_files_description_and_loaded_model_agree(tiny_sarm: RewardModel, tiny_sarm_folder: Path) -> None:
    own = read_model_fingerprint(tiny_sarm_folder)
    loaded = RewardModel.from_pretrained(tiny_sarm_folder, dtype="bfloat16")
    assert own == describe(tiny_sarm_folder).model_fingerprint == loaded.model_fingerprint
    assert loaded.score("why ?", "yes").model_fingerprint == own
    assert loaded.with_head(-loaded.head.weight).model_fingerprint == own
    assert tiny_sarm.model_fingerprint is None


@pytest.mark.parametrize("name", [TRUNK, "sae.encoder.weight", "sae.latent_bias", "sae.pre_bias"])
def test_other_weights_under_an_equal_head_are_another_model(
    tiny_sarm_folder: Path, tmp_path: Path, name: str
) -> None:
    other = changed(tiny_sarm_folder, tmp_path / "other", name)
    assert describe(other).head.fingerprint == describe(tiny_sarm_folder).head.fingerprint
    assert read_model_fingerprint(other) != read_model_fingerprint(tiny_sarm_folder)


@pytest.mark.parametrize("name", [HEAD, DECODER])
def test_head_and_decoder_are_apart(tiny_sarm_folder: Path, tmp_path: Path, name: str) -> None:
    other = changed(tiny_sarm_folder, tmp_path / "other", name)
    assert read_model_fingerprint(other) == read_model_fingerprint(tiny_sarm_folder)


def test_labels_of_the_configuration_do_not_count_and_settings_do(
    tiny_sarm_folder: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(tiny_sarm_folder, tmp_path / "other"))
    config = json.loads((other / "config.json").read_text())
    for key, same in (("transformers_version", True), ("rms_norm_eps", False)):
        (other / "config.json").write_text(json.dumps({**config, key: 0.25}))
        assert (read_model_fingerprint(other) == read_model_fingerprint(tiny_sarm_folder)) == same


def test_of_a_large_tensor_the_ends_and_a_sample_count(tmp_path: Path) -> None:
    config = SarmConfig(1, 4, 2, use_topk=True, trunk={})

    def of(values: torch.Tensor) -> str:
        save_file({"sae.encoder.weight": values}, tmp_path / "m.safetensors")
        index = {"sae.encoder.weight": TensorEntry(tmp_path / "m.safetensors", (2**18,))}
        return model_fingerprint(index, config)

    values = torch.zeros(2**18)
    plain = of(values)
    for place in (0, 2**18 - 1):
        moved = values.clone()
        moved[place] = 1
        assert of(moved) != plain
    trained = values + 1e-6 * torch.from_numpy(np.random.default_rng(0).normal(size=2**18).astype(np.float32))
    assert of(trained) != plain
    assert of(values.to(torch.float64)) != plain
