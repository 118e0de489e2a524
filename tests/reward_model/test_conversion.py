"""Pickled weights to safetensors: metamorphic (same rewards to the bit) and bad input with its message."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from sarm_control.cli import main
from sarm_control.errors import ModelError, OutputError
from sarm_control.reward_model import RewardModel
from sarm_control.reward_model.files.conversion import convert


@pytest.fixture
def pickled(tiny_sarm_folder: Path, tmp_path: Path) -> Path:
    """The tiny SARM's folder with its weights as one pickle."""
    folder = tmp_path / "pickled"
    shutil.copytree(tiny_sarm_folder, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    torch.save(load_file(tiny_sarm_folder / "model.safetensors"), folder / "pytorch_model.bin")
    return folder


def shard(folder: Path) -> None:
    """Splits the pickle in two, as transformers does, with an index."""
    whole = folder / "pytorch_model.bin"
    tensors = torch.load(whole, weights_only=True)
    whole.unlink()
    names = sorted(tensors)
    weight_map: dict[str, str] = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"pytorch_model-{number:05d}-of-00002.bin"
        torch.save({name: tensors[name] for name in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    (folder / "pytorch_model.bin.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map})
    )


def rewards(folder: Path) -> NDArray[np.float32]:
    return (
        RewardModel.from_pretrained(folder, device="cpu")
        .score(["why ?", "what ?"], ["no", "yes please"])
        .rewards
    )


@pytest.mark.parametrize("sharded", [False, True])
def test_converted_checkpoint_scores_the_same_to_the_bit(
    tiny_sarm_folder: Path, pickled: Path, tmp_path: Path, sharded: bool
) -> None:
    if sharded:
        shard(pickled)
    done = convert(pickled, tmp_path / "out")
    np.testing.assert_array_equal(rewards(tmp_path / "out"), rewards(tiny_sarm_folder))
    original = load_file(tiny_sarm_folder / "model.safetensors")
    assert done.tensors == len(original)
    assert done.size == sum(tensor.nbytes for tensor in original.values())
    written = {name: tensor for file in done.files for name, tensor in load_file(done.folder / file).items()}
    assert all(torch.equal(written[name], original[name]) for name in original)
    assert len(done.files) == (2 if sharded else 1)
    assert (done.folder / "model.safetensors.index.json").exists() is sharded


def test_legacy_pickle_format_dtypes_and_tied_tensors_are_kept(pickled: Path, tmp_path: Path) -> None:
    weight = torch.randn(4, 3, dtype=torch.bfloat16)
    content = {"a": weight, "tied": weight, "sliced": weight[:, 1], "n": torch.arange(3)}
    torch.save(content, pickled / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    done = convert(pickled, tmp_path / "out")
    written = load_file(done.folder / "model.safetensors")
    assert {name: tensor.dtype for name, tensor in written.items()} == {
        n: t.dtype for n, t in content.items()
    }
    assert all(torch.equal(written[name], tensor) for name, tensor in content.items())


def test_configuration_and_tokenizer_are_copied_and_code_and_other_pickles_are_not(
    pickled: Path, tmp_path: Path
) -> None:
    (pickled / "modeling_sarm.py").write_text("raise SystemExit")
    torch.save({"lr": 1}, pickled / "training_args.bin")
    before = sorted(file.name for file in pickled.iterdir())
    convert(pickled, tmp_path / "out")
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert {"config.json", "tokenizer.json", "model.safetensors", "manifest.json"} <= names
    assert not {name for name in names if name.endswith((".py", ".bin"))}
    assert sorted(file.name for file in pickled.iterdir()) == before


class Touch:
    """Pickles to a call that makes a file, as a hostile checkpoint would."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize(
    "save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2))]
)
def test_file_that_would_run_code_is_refused_and_runs_nothing(
    pickled: Path, tmp_path: Path, save: Callable[[object, Path], object]
) -> None:
    trap = tmp_path / "trap"
    save({"a": Touch(trap)}, pickled / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin is damaged or holds more than tensors"):
        convert(pickled, tmp_path / "out")
    assert not trap.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pickled"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {"a": torch.zeros(1)}}, "model is not a tensor but dict"),
        ({}, "holds no tensors by name but dict"),
        ([torch.zeros(1)], "holds no tensors by name but list"),
    ],
)
def test_content_that_is_no_state_dict_is_refused(
    pickled: Path, tmp_path: Path, content: object, message: str
) -> None:
    torch.save(content, pickled / "pytorch_model.bin")
    with pytest.raises(ModelError, match=message):
        convert(pickled, tmp_path / "out")


@pytest.mark.parametrize(
    "damage", [lambda whole: whole[:1000], lambda _: b"", lambda _: b"version https://git-lfs\n"]
)
def test_damaged_file_is_refused(pickled: Path, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    file = pickled / "pytorch_model.bin"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ModelError, match=r"pytorch_model\.bin is damaged or holds more than tensors"):
        convert(pickled, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_and_overlapping_shards_are_refused(pickled: Path, tmp_path: Path) -> None:
    shard(pickled)
    second = pickled / "pytorch_model-00002-of-00002.bin"
    shutil.copyfile(pickled / "pytorch_model-00001-of-00002.bin", second)
    with pytest.raises(ModelError, match="is in another shard too"):
        convert(pickled, tmp_path / "out")
    second.unlink()
    with pytest.raises(ModelError, match=r"lacks the shard pytorch_model-00002-of-00002\.bin"):
        convert(pickled, tmp_path / "out")


def test_what_cannot_be_converted_is_named(tiny_sarm_folder: Path, pickled: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model folder .*nowhere does not exist"):
        convert(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(ModelError, match="holds safetensors already"):
        convert(tiny_sarm_folder, tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"holds no pytorch_model\*\.bin"):
        convert(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(OutputError, match="exists already"):
        convert(pickled, tmp_path / "empty")


def test_command_does_what_the_refusal_of_a_pickle_says(
    pickled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ModelError, match="a pickle, which is never loaded") as refusal:
        RewardModel.from_pretrained(pickled, device="cpu")
    assert "sarm convert" in str(refusal.value.hint)
    assert main(["convert", str(pickled), "-o", str(tmp_path / "out")]) == 0
    assert "tensors" in capsys.readouterr().err
    assert rewards(tmp_path / "out").shape == (2,)
