"""Metamorphic: what lies beside a model's own files changes nothing, and every reader follows one rule."""

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sarm_control.control.edits.edited_checkpoint import apply_to_checkpoint
from sarm_control.errors import ModelError
from sarm_control.reward_model import RewardModel
from sarm_control.reward_model.description import read_head, read_model_fingerprint
from sarm_control.reward_model.files.checkpoint_files import INDEX
from sarm_control.reward_model.files.conversion import convert, find_pickled_weights
from tests.conftest import cut_trunk
from tests.reward_model import release_shape

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return release_shape.write(tmp_path / "release")


def reward_of(folder: Path) -> bytes:
    return RewardModel.from_pretrained(folder).score("why ?", "no .").rewards.tobytes()


def older_save(folder: Path) -> None:
    """Three shards of another model, as an earlier save leaves them."""
    release_shape.write_shards(folder, release_shape.tensors(seed=1), 3)


def a_stray(folder: Path) -> None:
    """A file that sorts after all shards and holds everything."""
    save_file(release_shape.tensors(seed=1), folder / "weights.safetensors")


def beside(folder: Path) -> None:
    """What adapters and Mistral's format leave."""
    save_file(release_shape.tensors(seed=1), folder / "consolidated.safetensors")
    save_file({"lora": torch.ones(2)}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "./no"}')


def a_whole_file_too(folder: Path) -> None:
    """Where both are there, transformers takes `model.safetensors` and the index is never read."""
    save_file(release_shape.tensors(seed=1), folder / "model.safetensors", metadata={"format": "pt"})


def the_same_in_both_shards(folder: Path) -> None:
    """The index says in which of two shards a tensor is."""
    stored = load_file(folder / FIRST)
    other = release_shape.tensors(seed=1)
    again = {name: other[name] for name in ("score.weight", "model.layers.1.mlp.up_proj.weight")}
    save_file({**stored, **again}, folder / FIRST, metadata={"format": "pt"})


@pytest.mark.parametrize(
    "add", [older_save, a_stray, beside, a_whole_file_too, the_same_in_both_shards], ids=lambda f: f.__name__
)
def test_files_that_the_index_does_not_list_change_nothing(
    release: Path, add: Callable[[Path], None], capfd: pytest.CaptureFixture[str]
) -> None:
    plain = reward_of(release), read_model_fingerprint(release), read_head(release).fingerprint
    capfd.readouterr()
    add(release)
    assert (reward_of(release), read_model_fingerprint(release), read_head(release).fingerprint) == plain
    strays = [line for line in capfd.readouterr().err.splitlines() if "not part of the model" in line]
    assert len(strays) == (0 if add in (beside, the_same_in_both_shards) else 1)
    assert all("consolidated" not in line and "adapter" not in line for line in strays)


def test_a_damaged_stray_is_never_opened(release: Path) -> None:
    plain = reward_of(release)
    (release / "broken.safetensors").write_bytes(b"no safetensors at all")
    assert reward_of(release) == plain


def test_links_into_a_cache_work(release: Path, tmp_path: Path) -> None:
    """The hub's cache keeps files under other names elsewhere, and links to them."""
    plain = reward_of(release)
    snapshot, blobs = tmp_path / "snapshots" / "0123", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, file in enumerate(sorted(release.iterdir())):
        shutil.copyfile(file, blobs / f"blob{number}")
        (snapshot / file.name).symlink_to(Path("..") / ".." / "blobs" / f"blob{number}")
    assert reward_of(snapshot) == plain
    (blobs / "blob0").unlink()
    with pytest.raises(ModelError, match="is a link to a file that is not there"):
        RewardModel.from_pretrained(snapshot)


@pytest.mark.parametrize("name", ["../other/model.safetensors", "/x", "a\\b.safetensors", ".", "x" * 300])
def test_an_index_that_points_elsewhere_is_refused(release: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "other").mkdir()
    save_file(release_shape.tensors(), tmp_path / "other" / "model.safetensors")
    release_shape.write_index(release, dict.fromkeys(release_shape.tensors(), name))
    for read in (RewardModel.from_pretrained, read_model_fingerprint, read_head):
        with pytest.raises(ModelError, match="which is not a file inside the folder"):
            read(release)


@pytest.mark.parametrize("where", [{"a\nb": 3}, {"a\nb": "/x"}, {"a": "x\ny"}, {"a\nb": FIRST}])
def test_names_of_several_lines_are_told_in_one(release: Path, where: dict[str, Any]) -> None:
    release_shape.write_index(release, where)
    with pytest.raises(ModelError) as caught:
        RewardModel.from_pretrained(release)
    assert "\\n" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tensor_that_is_not_where_the_index_says_is_named(release: Path) -> None:
    where = json.loads((release / INDEX).read_text())["weight_map"]
    release_shape.write_index(release, {**where, "score.weight": FIRST})
    with pytest.raises(ModelError, match=rf"has no tensor score\.weight in {FIRST}, where") as caught:
        RewardModel.from_pretrained(release)
    assert "different saves" in str(caught.value.hint)


def test_without_an_index_one_file_is_the_model(release: Path) -> None:
    plain = reward_of(release)
    stored = release_shape.tensors()
    for file in (FIRST, SECOND, INDEX):
        (release / file).unlink()
    save_file(stored, release / "model.safetensors")
    a_stray(release)
    assert reward_of(release) == plain
    (release / "weights.safetensors").unlink()
    (release / "model.safetensors").rename(release / "sarm.safetensors")
    beside(release)
    assert reward_of(release) == plain


def test_several_files_without_an_index_are_refused(release: Path) -> None:
    (release / INDEX).unlink()
    with pytest.raises(ModelError, match="holds 2 safetensors files") as caught:
        RewardModel.from_pretrained(release)
    assert INDEX in str(caught.value.hint)


def test_a_base_model_follows_the_same_rule(release: Path) -> None:
    """A trunk is cut from a folder by its index too, whatever `model.safetensors` lies there."""
    raw = {**release_shape.config(None), "vocab_size": release_shape.VOCABULARY}
    (release / "config.json").write_text(json.dumps(raw))
    ids = torch.tensor([[0, 7, 8, 9]])
    before = cut_trunk(str(release), 2)(ids, None)
    a_whole_file_too(release)
    assert torch.equal(cut_trunk(str(release), 2)(ids, None), before)
    where = json.loads((release / INDEX).read_text())["weight_map"]
    del where["model.layers.1.mlp.up_proj.weight"]
    release_shape.write_index(release, where)
    with pytest.raises(ModelError, match=r"lacks the tensor layers\.1\.mlp\.up_proj\.weight"):
        cut_trunk(str(release), 2)
    (release / "config.json").write_text(json.dumps({**raw, "intermediate_size": 48}))
    with pytest.raises(ModelError, match=r"mlp\.\w+\.weight is \[\d+, \d+\], expected \["):
        cut_trunk(str(release), 2)


def test_edits_are_written_into_the_head_that_is_read(release: Path, tmp_path: Path) -> None:
    older_save(release)
    edits = tmp_path / "edits.json"
    edits.write_text('[{"latent": 3, "scale": 0}]')
    applied = apply_to_checkpoint(str(release), edits, tmp_path / "edited")
    assert applied.before == read_head(release).fingerprint
    assert read_head(tmp_path / "edited").fingerprint == applied.after
    assert sorted(file.name for file in (tmp_path / "edited").glob("*.safetensors")) == [FIRST, SECOND]


def test_pickles_are_converted_by_their_index(tmp_path: Path) -> None:
    source = tmp_path / "pickled"
    source.mkdir()
    for number in (1, 2):
        torch.save({f"w{number}": torch.ones(1)}, source / f"pytorch_model-0000{number}-of-00002.bin")
    torch.save({"w1": torch.zeros(1)}, source / "pytorch_model-00001-of-00003.bin")
    where = {f"w{number}": f"pytorch_model-0000{number}-of-00002.bin" for number in (1, 2)}
    (source / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": where}))
    save_file({"lora": torch.ones(1)}, source / "adapter_model.safetensors")
    assert convert(source, tmp_path / "out").tensors == 2
    assert float(load_file(tmp_path / "out" / FIRST)["w1"]) == 1.0
    (source / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"w1": "../x.bin"}}))
    with pytest.raises(ModelError, match="which is not a file inside the folder"):
        find_pickled_weights(source)


@pytest.mark.parametrize("file", ["config.json", INDEX, FIRST, "tokenizer.json"])
@pytest.mark.parametrize("kind", ["pipe", "socket", "folder"])
def test_what_is_no_file_is_refused_and_never_opened(release: Path, file: str, kind: str) -> None:
    (release / file).unlink()
    if kind == "pipe":
        os.mkfifo(release / file)
    elif kind == "folder":
        (release / file).mkdir()
    else:
        here = os.getcwd()
        os.chdir(release)  # the path of a socket has at most 100 bytes
        try:
            with socket.socket(socket.AF_UNIX) as bound:
                bound.bind(file)
        finally:
            os.chdir(here)
    for read in (RewardModel.from_pretrained, read_model_fingerprint):
        with pytest.raises(ModelError, match=rf"{file} is not a regular file"):
            read(release)
