"""Metamorphic tests of a decoder that was left in its file: to the bit what it is in memory, or an error."""

import copy
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sarm_control.conversation import Encoded
from sarm_control.errors import ModelError
from sarm_control.reward_model import AttachedAutoencoder, RewardModel
from sarm_control.reward_model.autoencoder import Autoencoder
from sarm_control.reward_model.files import stored_decoder
from tests.reward_model.classifiers import CONFIGS, make_classifier, random_rows, save

LATENTS = 48


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> RewardModel:
    folder = tmp_path_factory.mktemp("stored") / "rm"
    return RewardModel.from_pretrained(save(make_classifier(CONFIGS["qwen3"](), bias=True), folder))


@pytest.fixture(params=["sarm", "attached"])
def stored(
    request: pytest.FixtureRequest, base: RewardModel, tiny_sarm: RewardModel, tmp_path: Path
) -> tuple[RewardModel, Path]:
    """A model in memory, and the folder it was saved in."""
    model = tiny_sarm
    if request.param == "attached":
        torch.manual_seed(3)
        model = base.attach(AttachedAutoencoder(torch.randn(32), 0.7, LATENTS, 6))
    return model, model.save_pretrained(tmp_path / "stored")


def known_rows() -> list[Encoded]:
    """Conversations of tokens that both models have."""
    return [replace(row, input_ids=[token % 50 for token in row.input_ids]) for row in random_rows()]


def in_memory(autoencoder: Autoencoder) -> bool:
    return "decoder" in dict(autoencoder.named_children())


def weights_file(folder: Path) -> Path:
    return next(folder.glob("*.safetensors"))


def other_decoder(folder: Path, change: float = 1e-3) -> None:
    """The same file but for one number of the decoder."""
    tensors = load_file(weights_file(folder))
    key = next(name for name in tensors if name.endswith("decoder.weight"))
    tensors = {name: value.clone() for name, value in tensors.items()}
    tensors[key][1, 2] += change
    save_file(tensors, weights_file(folder), metadata={"format": "pt"})


def test_scoring_and_fingerprints_leave_it_in_the_file(stored: tuple[RewardModel, Path]) -> None:
    model, folder = stored
    loaded, rows = RewardModel.from_pretrained(folder), known_rows()
    before, after = model.score_encoded(rows), loaded.score_encoded(rows)
    assert after.rewards.tobytes() == before.rewards.tobytes()
    assert after.latents.values.tobytes() == before.latents.values.tobytes()
    assert loaded.fingerprint == model.fingerprint
    assert not in_memory(loaded.autoencoder)
    assert "decoder.weight" in loaded.autoencoder.state_dict()
    assert not in_memory(loaded.autoencoder)


def test_it_is_the_same_to_the_bit_when_asked_for(stored: tuple[RewardModel, Path], tmp_path: Path) -> None:
    model, folder = stored
    loaded = RewardModel.from_pretrained(folder)
    again = loaded.save_pretrained(tmp_path / "again")
    assert weights_file(again).read_bytes() == weights_file(folder).read_bytes()
    mine, theirs = loaded.autoencoder.state_dict(), model.autoencoder.state_dict()
    assert list(mine) == list(theirs)
    assert all(torch.equal(mine[key], theirs[key]) for key in theirs)
    copied = copy.deepcopy(loaded.autoencoder)
    with torch.inference_mode():
        weight = loaded.autoencoder.decoder.weight
    assert torch.equal(weight, model.autoencoder.decoder.weight)
    assert torch.equal(copied.decoder.weight, weight)
    assert not weight.requires_grad
    assert not weight.is_inference()
    assert loaded.autoencoder.decoder.weight is weight
    kept = model.autoencoder.encode(torch.randn(3, 32 if model.head.own else model.trunk.hidden_size))
    assert torch.equal(loaded.autoencoder.decode(kept), model.autoencoder.decode(kept))
    shutil.rmtree(folder)
    assert loaded.autoencoder.decoder.weight is weight


def test_a_copy_of_equal_numbers_will_do(stored: tuple[RewardModel, Path]) -> None:
    model, folder = stored
    loaded, file = RewardModel.from_pretrained(folder), weights_file(folder)
    file.with_suffix(".new").write_bytes(file.read_bytes())
    os.replace(file.with_suffix(".new"), file)
    assert torch.equal(loaded.autoencoder.decoder.weight, model.autoencoder.decoder.weight)


def test_a_file_that_was_deleted_or_changed_is_an_error(stored: tuple[RewardModel, Path]) -> None:
    model, folder = stored
    loaded, file = RewardModel.from_pretrained(folder), weights_file(folder)
    rows, stamp = known_rows(), file.stat()
    rewards = loaded.score_encoded(rows).rewards
    other_decoder(folder)
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    with pytest.raises(ModelError, match="which holds another decoder now") as refused:
        _ = loaded.autoencoder.decoder
    assert "from a folder that stays as it is" in str(refused.value.hint)
    with pytest.raises(ModelError, match="which holds another decoder now"):
        loaded.autoencoder.state_dict()
    with pytest.raises(ModelError, match="which holds another decoder now"):
        loaded.save_pretrained(folder.parent / "never")
    assert not (folder.parent / "never").exists()
    save_file({"decoder.weight": torch.zeros(2, 3), "sae.decoder.weight": torch.zeros(2, 3)}, file)
    with pytest.raises(ModelError, match=r"holds a decoder of the shape \[2, 3\] now"):
        _ = loaded.autoencoder.decoder
    file.write_bytes(b"torn")
    with pytest.raises(ModelError, match="which cannot be read any more"):
        _ = loaded.autoencoder.decoder
    file.unlink()
    with pytest.raises(ModelError, match="which is gone"):
        _ = loaded.autoencoder.decoder
    assert loaded.score_encoded(rows).rewards.tobytes() == rewards.tobytes()
    assert model.autoencoder.decoder.weight.shape[1] == model.config.latents


def test_numbers_that_are_none_are_refused_while_loading(stored: tuple[RewardModel, Path]) -> None:
    other_decoder(stored[1], float("nan"))
    with pytest.raises(ModelError, match=r"NaN or infinite|is nan"):
        RewardModel.from_pretrained(stored[1])


def test_a_decoder_of_another_shape_is_refused(base: RewardModel, tmp_path: Path) -> None:
    made = AttachedAutoencoder(torch.randn(32), 0.7, LATENTS, 6)
    file = weights_file(base.attach(made).save_pretrained(tmp_path / "stored"))
    # copies: the oldest safetensors writes over the file that what it read is still mapped from
    tensors = {name: value.clone() for name, value in load_file(file).items()}
    for shape, said in (((32, 7), r"decoder.weight is \[32, 7\], expected \[32, 48\]"), ((5,), "no matrix")):
        save_file({**tensors, "decoder.weight": torch.zeros(shape)}, file)
        with pytest.raises(ModelError, match=f"is no whole folder of an attached dictionary: {said}|{said}"):
            RewardModel.from_pretrained(file.parent)


def test_blocks_of_columns_change_no_bit(
    base: RewardModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights of latents and the decoder itself, read in one block or in several."""
    torch.manual_seed(4)
    made = AttachedAutoencoder(torch.randn(32), 0.7, 96, 6)
    own = base.head.own
    assert own is not None
    whole = made.latent_weights(own)
    folder = base.attach(made).save_pretrained(tmp_path / "stored")
    for module in (stored_decoder, __import__("sarm_control.reward_model.autoencoder", fromlist=["x"])):
        monkeypatch.setattr(module, "COLUMNS", 40)
    assert [c.weight.shape[1] for c in made.decoder_columns()] == [40, 40, 16]
    loaded = RewardModel.from_pretrained(folder)
    np.testing.assert_allclose(made.latent_weights(own).weight, whole.weight, rtol=1e-6)
    assert loaded.head.weight.tobytes() == made.latent_weights(own).weight.tobytes()
    assert torch.equal(loaded.autoencoder.decoder.weight, made.decoder.weight)


def test_training_it_brings_it_into_memory(tiny_sarm: RewardModel, tmp_path: Path) -> None:
    loaded = RewardModel.from_pretrained(tiny_sarm.save_pretrained(tmp_path / "sarm")).autoencoder
    before = loaded.state_dict()
    loaded.requires_grad_(True)
    assert in_memory(loaded)
    assert all(weight.requires_grad for weight in loaded.parameters())
    again = RewardModel.from_pretrained(tmp_path / "sarm").autoencoder
    again.load_state_dict({key: value + 1 for key, value in before.items()})
    assert torch.equal(again.decoder.weight, before["decoder.weight"] + 1)
