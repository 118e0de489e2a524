"""Checkpoints: property (round trip), metamorphic (any altered byte is noticed), bad input."""

import json
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sarm_control.errors import OutputError, TrainingError
from sarm_control.training.run.checkpoint import (
    list_checkpoints,
    load_checkpoint,
    newest_checkpoint,
    point,
    prune,
    save_checkpoint,
    set_aside,
    sweep,
)

STATE = {"seed": 3, "loss": 0.1 + 0.2, "names": ["a", "b"], "nested": {"best": 1e-300}}


def tensors() -> dict[str, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 5, generator=generator)
    return {
        "policy": {"weight": weight, "tied": weight, "slice": weight[1:], "half": weight.to(torch.bfloat16)},
        "optimizer": {"step": torch.tensor(7.0), "count": torch.tensor([1, 2])},
    }


def save(run: Path, *steps: int) -> None:
    for step in steps:
        save_checkpoint(run, step, tensors(), {**STATE, "at": step})


def test_what_is_saved_is_loaded_to_the_bit(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 100, tensors(), STATE)
    loaded = load_checkpoint(path)
    assert path.name == "step-000100"
    assert loaded.step == 100
    assert loaded.state == STATE
    for file, named in tensors().items():
        assert loaded.tensors[file].keys() == named.keys()
        for name, tensor in named.items():
            assert torch.equal(loaded.tensors[file][name], tensor)
            assert loaded.tensors[file][name].dtype == tensor.dtype


def test_numpy_arrays_are_saved_too(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float64).reshape(2, 3)
    path = save_checkpoint(tmp_path, 1, {"controls": {"weights": array}}, {})
    assert np.array_equal(load_checkpoint(path).tensors["controls"]["weights"].numpy(), array)


def test_two_writes_of_the_same_state_give_the_same_bytes(tmp_path: Path) -> None:
    manifests = [
        (save_checkpoint(tmp_path / name, 5, tensors(), STATE) / "manifest.json").read_bytes()
        for name in "ab"
    ]
    assert manifests[0] == manifests[1]


def test_nan_in_the_state_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_checkpoint(tmp_path, 1, {}, {"loss": float("nan")})
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_newest_is_the_highest_step_not_the_last_written(tmp_path: Path) -> None:
    save(tmp_path, 30, 4, 1_000_000)
    found = newest_checkpoint(tmp_path)
    assert found.step == 1_000_000
    assert found.damaged == ()


def test_a_run_without_checkpoints_has_none(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) == (None, ())
    assert newest_checkpoint(tmp_path).step == 0


def test_a_cut_file_is_passed_over_and_named(tmp_path: Path) -> None:
    save(tmp_path, 10, 20)
    file = tmp_path / "checkpoints/step-000020/policy.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    found = newest_checkpoint(tmp_path)
    assert found.step == 10
    assert [item.path.name for item in found.damaged] == ["step-000020"]
    assert "policy.safetensors has" in found.damaged[0].reason


@pytest.mark.parametrize("missing", ["policy.safetensors", "state.json", "manifest.json"])
def test_a_missing_file_is_noticed(tmp_path: Path, missing: str) -> None:
    save(tmp_path, 10, 20)
    (tmp_path / "checkpoints/step-000020" / missing).unlink()
    found = newest_checkpoint(tmp_path)
    assert found.step == 10
    assert found.damaged[0].reason == f"{missing} is missing"


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"step": 20, "files": 3}', '{"step": 20, "files": {"a": 1}}', "\xff"]
)
def test_a_manifest_that_is_not_one_is_noticed(tmp_path: Path, text: str) -> None:
    save(tmp_path, 20)
    (tmp_path / "checkpoints/step-000020/manifest.json").write_bytes(text.encode("latin-1"))
    assert newest_checkpoint(tmp_path).damaged[0].reason == "manifest.json is not readable"


@pytest.mark.parametrize("name", ["../policy.safetensors", "[" * 300, "a\0b", "/etc/hosts"])
def test_a_manifest_that_names_no_file_of_its_own_is_noticed(tmp_path: Path, name: str) -> None:
    path = save_checkpoint(tmp_path, 20, tensors(), STATE)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"][name] = manifest["files"]["state.json"]
    (path / "manifest.json").write_text(json.dumps(manifest))
    assert newest_checkpoint(tmp_path).damaged[0].reason == "manifest.json names files elsewhere"


def test_a_checkpoint_under_another_number_is_noticed(tmp_path: Path) -> None:
    save(tmp_path, 10)
    shutil.copytree(tmp_path / "checkpoints/step-000010", tmp_path / "checkpoints/step-000050")
    found = newest_checkpoint(tmp_path)
    assert found.step == 10
    assert "another checkpoint" in found.damaged[0].reason


@pytest.mark.long
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_altered_byte_is_noticed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    run = tmp_path_factory.mktemp("run")
    save(run, 1)
    names = ("policy.safetensors", "optimizer.safetensors", "state.json")
    file = run / "checkpoints/step-000001" / data.draw(st.sampled_from(names))
    content = bytearray(file.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= data.draw(st.integers(1, 255))
    file.write_bytes(content)
    found = newest_checkpoint(run)
    assert found.path is None
    assert "altered" in found.damaged[0].reason
    with pytest.raises(TrainingError, match=f"is damaged: {file.name} was altered"):
        load_checkpoint(file.parent)


def test_prune_keeps_the_newest(tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 3, 10)
    prune(tmp_path, 2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-000003", "step-000010"]
    with pytest.raises(ValueError, match="at least 1"):
        prune(tmp_path, 0)


def test_leftovers_of_a_killed_write_are_neither_loaded_nor_kept(tmp_path: Path) -> None:
    save(tmp_path, 1)
    leftover = tmp_path / "checkpoints/.step-000002.x1y2"
    shutil.copytree(tmp_path / "checkpoints/step-000001", leftover)
    assert newest_checkpoint(tmp_path).step == 1
    sweep(tmp_path)
    assert not leftover.exists()


def test_damaged_checkpoints_set_aside_do_not_count_as_kept(tmp_path: Path) -> None:
    save(tmp_path, 10, 20)
    (tmp_path / "checkpoints/step-000020/state.json").unlink()
    set_aside(newest_checkpoint(tmp_path).damaged)
    save(tmp_path, 15)
    prune(tmp_path, 1)
    assert newest_checkpoint(tmp_path).step == 15
    assert (tmp_path / "checkpoints/damaged-step-000020").is_dir()


def test_a_damaged_checkpoint_is_replaced_by_a_new_one_of_its_step(tmp_path: Path) -> None:
    save(tmp_path, 20)
    (tmp_path / "checkpoints/step-000020/state.json").write_text("{}")
    save(tmp_path, 20)
    assert newest_checkpoint(tmp_path).step == 20


def test_the_pointer_is_one_line_and_replaced_whole(tmp_path: Path) -> None:
    save(tmp_path, 10, 20)
    for name in ("step-000010", "step-000020"):
        point(tmp_path, tmp_path / "checkpoints" / name)
        assert (tmp_path / "checkpoints/latest").read_text() == f"{name}\n"
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-000010", "step-000020"]
    point(tmp_path, None)
    point(tmp_path, None)
    assert not (tmp_path / "checkpoints/latest").exists()


def test_a_pointer_is_never_trusted(tmp_path: Path) -> None:
    save(tmp_path, 10, 20)
    (tmp_path / "checkpoints/latest").write_text("step-000010\n")
    assert newest_checkpoint(tmp_path).step == 20


def test_a_file_that_may_not_grow_is_told_and_leaves_the_older_checkpoint(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk: both fail in the middle of a write."""
    save(tmp_path, 10)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (256, hard))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*step-000020: .*[Ff]ile too large") as caught:
            save(tmp_path, 20)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.hint == "make room for a file of that size (ulimit -f shows the limit)"
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000010"]
    assert newest_checkpoint(tmp_path).step == 10


def test_the_manifest_names_every_file(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 1, tensors(), STATE)
    manifest = json.loads((path / "manifest.json").read_text())
    assert set(manifest["files"]) == {file.name for file in path.iterdir()} - {"manifest.json"}
