"""Golden round trips and every way a checkpoint can be wrong."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sarm_control.errors import ModelError, OutputError
from sarm_control.reward_model import RewardModel, SarmConfig
from sarm_control.reward_model.files.config import fields_from_name, read_config
from sarm_control.reward_model.sparse import SparseLatents


def test_round_trip_is_equal_to_the_bit(tmp_path: Path, tiny_sarm: RewardModel) -> None:
    first = tiny_sarm.save_pretrained(tmp_path / "first")
    second = RewardModel.from_pretrained(first).save_pretrained(tmp_path / "second")
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()
    prompts, answers = ["why ?", "how do i cook bread ?"], ["no .", "sure ."]
    again = RewardModel.from_pretrained(second).score(prompts, answers)
    assert again.rewards.tobytes() == tiny_sarm.score(prompts, answers).rewards.tobytes()
    assert again.fingerprint == tiny_sarm.fingerprint


def test_rewards_do_not_depend_on_where_a_file_keeps_its_weights(
    tmp_path: Path, tiny_sarm: RewardModel
) -> None:
    folder = tiny_sarm.save_pretrained(tmp_path / "sarm")
    # copies: older versions of safetensors write into the file that these would be views of
    stored = {name: value.clone() for name, value in load_file(folder / "model.safetensors").items()}
    rewards = set()
    # The header's length decides where the tensors begin, in steps of 8 bytes.
    for length in range(0, 64, 8):
        save_file(stored, folder / "model.safetensors", metadata={"note": "x" * length})
        again = RewardModel.from_pretrained(folder)
        weights = (*again.trunk.model.parameters(), *again.autoencoder.parameters())
        assert all(weight.data_ptr() % 64 == 0 for weight in weights)
        # Written over, not replaced: a view of the file would see the zeros.
        size = (folder / "model.safetensors").stat().st_size
        with (folder / "model.safetensors").open("r+b") as opened:
            opened.write(bytes(size))
        rewards.add(again.score(["why ?", "how ?"], ["no .", "sure ."]).rewards.tobytes())
    assert rewards == {tiny_sarm.score(["why ?", "how ?"], ["no .", "sure ."]).rewards.tobytes()}


def test_saving_onto_an_existing_folder_is_refused(tiny_sarm: RewardModel, tiny_sarm_folder: Path) -> None:
    with pytest.raises(OutputError, match="exists already"):
        tiny_sarm.save_pretrained(tiny_sarm_folder)


@pytest.fixture
def broken(tmp_path: Path, tiny_sarm_folder: Path) -> Callable[..., Path]:
    """A copy of the tiny SARM with its config or tensors changed."""

    def make(
        config: Callable[[dict[str, Any]], None] = lambda _: None,
        tensors: Callable[[dict[str, Any]], None] = lambda _: None,
    ) -> Path:
        folder = tmp_path / "broken"
        shutil.copytree(tiny_sarm_folder, folder)
        raw = json.loads((folder / "config.json").read_text())
        config(raw)
        (folder / "config.json").write_text(json.dumps(raw))
        stored = load_file(folder / "model.safetensors")
        tensors(stored)
        save_file(stored, folder / "model.safetensors")
        return folder

    return make


def test_older_spelling_and_folder_name_are_read(tmp_path: Path, broken: Callable[..., Path]) -> None:
    def rename(raw: dict[str, Any]) -> None:
        param = raw["sarm_param"]
        param["sae_hidden_state_source_layer"] = param.pop("sae_source_layer")
        param["sarm_use_topk"] = param.pop("sarm_use_activation")

    folder = broken(config=rename)
    assert read_config(folder, str(folder)).source_layer == 2

    named = tmp_path / "Llama_sequence_Latent64_Layer2_K8_1B-SARM-TopK-1"
    shutil.copytree(folder, named / "checkpoint-150")
    raw = json.loads((named / "checkpoint-150" / "config.json").read_text())
    del raw["sarm_param"]
    (named / "checkpoint-150" / "config.json").write_text(json.dumps(raw))
    assert RewardModel.from_pretrained(named / "checkpoint-150").config.k == 8


@pytest.mark.parametrize(
    ("name", "use_topk"),
    [
        ("Llama-3.1_token_Latent65536_Layer16_K192_1B-SARM-woTopK-1", False),
        ("Llama-3.1_sequence_Latent65536_Layer16_K192_1B-SARM-TopK-LastToken-1", True),
        ("X_Latent65536_Layer16_K192", True),
    ],
)
def test_names_carry_the_shape(name: str, use_topk: bool) -> None:
    expected = {"latents": 65536, "source_layer": 16, "k": 192, "use_topk": use_topk}
    assert fields_from_name(f"runs/{name}/checkpoint-9") == expected


def test_a_name_without_the_shape_gives_nothing() -> None:
    assert fields_from_name("Llama-SARM-4B") == {}


def test_unknown_folder() -> None:
    with pytest.raises(ModelError, match=r"model folder \./nowhere does not exist"):
        RewardModel.from_pretrained("./nowhere")


def test_config_without_sarm_fields(broken: Callable[..., Path]) -> None:
    folder = broken(config=lambda raw: raw.pop("sarm_param"))
    with pytest.raises(
        ModelError, match=r"is not a SARM: config\.json has no sarm_param with k, latents"
    ) as caught:
        RewardModel.from_pretrained(folder)
    assert "sarm build" in str(caught.value.hint)


def test_source_layer_beyond_the_trunk(broken: Callable[..., Path]) -> None:
    folder = broken(config=lambda raw: raw["sarm_param"].update(sae_source_layer=9))
    with pytest.raises(ModelError, match="has 2 layers, layer 9 cannot be its source layer"):
        RewardModel.from_pretrained(folder)


def test_k_larger_than_the_latents(broken: Callable[..., Path]) -> None:
    folder = broken(config=lambda raw: raw["sarm_param"].update(sae_k=65))
    with pytest.raises(ModelError, match=r"k is 65, it must be in 1\.\.64"):
        RewardModel.from_pretrained(folder)


def test_unknown_model_type(broken: Callable[..., Path]) -> None:
    folder = broken(config=lambda raw: raw.update(model_type="lama"))
    with pytest.raises(ModelError, match="transformers knows no model type 'lama'"):
        RewardModel.from_pretrained(folder)


def test_missing_extra_and_misshaped_tensors_are_named(broken: Callable[..., Path]) -> None:
    def damage(stored: dict[str, torch.Tensor]) -> None:
        del stored["sae.latent_bias"]
        stored["sae.gate"] = torch.zeros(2)
        stored["score.weight"] = torch.zeros(1, 63)

    with pytest.raises(
        ModelError, match=r"missing sae\.latent_bias; extra sae\.gate; score\.weight is"
    ) as caught:
        RewardModel.from_pretrained(broken(tensors=damage))
    assert "expected [1, 64]" in str(caught.value)


def test_nan_in_the_head_is_named(broken: Callable[..., Path]) -> None:
    def damage(stored: dict[str, torch.Tensor]) -> None:
        stored["score.weight"][0, 5] = float("nan")

    with pytest.raises(ModelError, match="head weight of latent 5 is nan"):
        RewardModel.from_pretrained(broken(tensors=damage))


def test_the_unused_final_norm_is_ignored(broken: Callable[..., Path], tiny_sarm: RewardModel) -> None:
    folder = broken(tensors=lambda stored: stored.update({"model.norm.weight": torch.full((32,), 9.0)}))
    again = RewardModel.from_pretrained(folder).score("why ?", "no .")
    assert again.rewards.tobytes() == tiny_sarm.score("why ?", "no .").rewards.tobytes()


def test_pickles_are_refused_with_the_conversion_named(tmp_path: Path, tiny_sarm_folder: Path) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(tiny_sarm_folder, folder)
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(
        ModelError, match=r"holds pytorch_model\.bin, a pickle, which is never loaded"
    ) as caught:
        RewardModel.from_pretrained(folder)
    assert "sarm convert" in str(caught.value.hint)


def test_a_torn_file_is_named(tmp_path: Path, tiny_sarm_folder: Path) -> None:
    folder = tmp_path / "torn"
    shutil.copytree(tiny_sarm_folder, folder)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"model\.safetensors is not a whole safetensors file"):
        RewardModel.from_pretrained(folder)


def test_sharded_checkpoints_load_and_a_lost_shard_is_named(tmp_path: Path, tiny_sarm_folder: Path) -> None:
    folder = tmp_path / "sharded"
    shutil.copytree(tiny_sarm_folder, folder)
    stored = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(stored)
    weight_map = {}
    for number, part in enumerate((names[:7], names[7:]), start=1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: stored[name] for name in part}, folder / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(part, file))
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    sharded = RewardModel.from_pretrained(folder).score("why ?", "no .")
    whole = RewardModel.from_pretrained(tiny_sarm_folder).score("why ?", "no .")
    assert sharded.rewards.tobytes() == whole.rewards.tobytes()

    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match="lacks the shard model-00002-of-00002"):
        RewardModel.from_pretrained(folder)


def test_unknown_dtype(tiny_sarm_folder: Path) -> None:
    with pytest.raises(ModelError, match="unknown dtype float17"):
        RewardModel.from_pretrained(tiny_sarm_folder, dtype="float17")


def test_sparse_latents_know_their_columns() -> None:
    import numpy as np

    rows = [(np.array([5, 1]), np.array([2.0, -1.0])), (np.array([], dtype=int), np.array([]))]
    latents = SparseLatents.from_rows(rows, size=6)
    assert latents.columns([5, 0, 1]).tolist() == [[2.0, 0.0, -1.0], [0.0, 0.0, 0.0]]
    assert latents.dot(np.arange(6, dtype=np.float32)).tolist() == [9.0, 0.0]
    both = SparseLatents.concatenate([latents, latents.take([1, 0])])
    assert both.columns([5]).ravel().tolist() == [2.0, 0.0, 0.0, 2.0]


def test_config_writes_the_spelling_of_the_release() -> None:
    config = SarmConfig(source_layer=16, latents=65536, k=192, use_topk=True, trunk={})
    assert config.sarm_param() == {
        "sae_source_layer": 16,
        "sae_latent_size": 65536,
        "sae_k": 192,
        "sae_use_sequence_level": True,
        "sarm_use_activation": True,
    }
