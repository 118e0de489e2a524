"""Head edits: oracle against the algebra, as a block and as a checkpoint; bad input."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sarm_control.cli import main
from sarm_control.control import Edit, edit_delta, save_edits
from sarm_control.control.edits.edited_checkpoint import apply_to_checkpoint
from sarm_control.errors import ConfigError, ModelError, OutputError
from sarm_control.reward_model import RewardModel, describe
from tests.conftest import make_sarm

PROMPTS = ["how do i cook bread ?", "what is a bomb ?", "why is it good ?"]
ANSWERS = ["sure here steps one two three", "sorry cannot", "because it is"]
EDITS = [Edit(5, scale=0.5), Edit(7, set=0.0), Edit(9, scale=-2.0), Edit(11, scale=0.3)]


@pytest.fixture
def edits_file(tmp_path: Path, tiny_sarm: RewardModel) -> Path:
    path = tmp_path / "edits.json"
    save_edits(path, EDITS, fingerprint=tiny_sarm.fingerprint, model="tiny")
    return path


def test_oracle_a_block_pays_what_the_algebra_says() -> None:
    rm = make_sarm(latents=24)
    before = rm.score(PROMPTS, ANSWERS)
    fingerprint = rm.fingerprint
    with rm.edited(EDITS) as edited:
        inside = edited.score(PROMPTS, ANSWERS)
        assert edited is rm
        assert rm.fingerprint != fingerprint
    delta = edit_delta(before, EDITS)
    assert np.abs(delta).max() > 0.1
    np.testing.assert_allclose(inside.rewards - before.rewards, delta, atol=1e-6)
    assert rm.fingerprint == fingerprint
    np.testing.assert_array_equal(rm.score(PROMPTS, ANSWERS).rewards, before.rewards)


def test_blocks_nest_and_an_error_restores_the_head() -> None:
    rm = make_sarm()
    weight = rm.head.weight.copy()
    with rm.edited([Edit(5, scale=2.0)]), rm.edited([Edit(5, scale=3.0)]):
        assert rm.head.weight[5] == pytest.approx(6 * weight[5])
    np.testing.assert_array_equal(rm.head.weight, weight)
    with pytest.raises(ModelError, match="2 prompts"), rm.edited([Edit(5, scale=2.0)]):
        rm.score(PROMPTS[:2], ANSWERS)
    np.testing.assert_array_equal(rm.head.weight, weight)


@pytest.mark.parametrize(
    "edit",
    [
        Edit(5, max=2.0),
        Edit(5, add=1.0),
        Edit(5, set=1.0),
        Edit(5, set=-1.0),
        Edit(5, scale=2.0, min=0.0),
        Edit(5, scale=2.0, add=1.0),
    ],
)
def test_what_is_no_scaling_is_refused_with_the_reason(edit: Edit) -> None:
    rm = make_sarm()
    with pytest.raises(ConfigError, match="is not a change of the head weight"), rm.edited([edit]):
        pytest.fail("the block must not run")


def test_latents_that_do_not_exist_or_come_twice_are_refused() -> None:
    rm = make_sarm()
    with pytest.raises(ModelError, match="latent 64 does not exist"), rm.edited([Edit(64, scale=0.0)]):
        pytest.fail("the block must not run")
    twice = [Edit(5, scale=0.0), Edit(5, scale=2.0)]
    with pytest.raises(ModelError, match="latent 5 has two edits"), rm.edited(twice):
        pytest.fail("the block must not run")


def test_oracle_an_edited_checkpoint_pays_what_the_algebra_says(
    tiny_sarm: RewardModel, tiny_sarm_folder: Path, edits_file: Path, tmp_path: Path
) -> None:
    done = apply_to_checkpoint(str(tiny_sarm_folder), edits_file, tmp_path / "edited")
    edited = RewardModel.from_pretrained(done.folder)
    before = tiny_sarm.score(PROMPTS, ANSWERS)
    after = edited.score(PROMPTS, ANSWERS)
    np.testing.assert_allclose(after.rewards - before.rewards, edit_delta(before, EDITS), atol=1e-6)
    assert (done.before, done.after) == (tiny_sarm.fingerprint, edited.fingerprint)
    assert done.latents == (5, 7, 9, 11)


def test_every_other_tensor_and_file_keeps_its_bits(
    tiny_sarm_folder: Path, edits_file: Path, tmp_path: Path
) -> None:
    apply_to_checkpoint(str(tiny_sarm_folder), edits_file, tmp_path / "edited")
    old, new = (load_file(folder / "model.safetensors") for folder in (tiny_sarm_folder, tmp_path / "edited"))
    assert list(old) == list(new)
    changed = [name for name in old if not np.array_equal(old[name].numpy(), new[name].numpy())]
    assert changed == ["score.weight"]
    assert np.flatnonzero(old["score.weight"][0] != new["score.weight"][0]).tolist() == [5, 7, 9, 11]
    for name in ("config.json", "tokenizer.json"):
        assert (tmp_path / "edited" / name).read_bytes() == (tiny_sarm_folder / name).read_bytes()
    record = json.loads((tmp_path / "edited" / "applied_edits.json").read_text())
    assert record["edits"] == json.loads(edits_file.read_text())["edits"]


@pytest.mark.parametrize("head_at", [0, 1, 2])
def test_a_checkpoint_of_several_files_keeps_the_others_to_the_bit(
    tiny_sarm_folder: Path, edits_file: Path, tmp_path: Path, head_at: int
) -> None:
    """Whichever file the head is in; one of the others lies in a folder below."""
    import shutil

    source, names = tmp_path / "parts", ["a.safetensors", "below/b.safetensors", "c.safetensors"]
    shutil.copytree(tiny_sarm_folder, source)
    tensors = load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    (source / "below").mkdir()
    place = {name: names[i % 3] for i, name in enumerate(sorted(tensors))} | {"score.weight": names[head_at]}
    for file in names:
        own = {name: tensors[name] for name, at in place.items() if at == file}
        save_file(own, source / file, metadata={"format": "pt"})
    index = source / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": place}), encoding="utf-8")
    done = apply_to_checkpoint(str(source), edits_file, tmp_path / "edited")
    for file in names:
        same = (source / file).read_bytes() == (done.folder / file).read_bytes()
        assert same == (file != names[head_at])
        with safe_open(done.folder / file, framework="pt") as stream:
            assert stream.metadata() == {"format": "pt"}
    assert (done.folder / index.name).read_bytes() == index.read_bytes()
    whole = apply_to_checkpoint(str(tiny_sarm_folder), edits_file, tmp_path / "whole")
    assert RewardModel.from_pretrained(done.folder).fingerprint == whole.after


@pytest.mark.parametrize(("scale", "dtype"), [(0.5, "BF16"), (0.3, "F32")])
def test_a_bfloat16_head_stays_one_only_where_nothing_is_lost(
    tiny_sarm_folder: Path, tmp_path: Path, scale: float, dtype: str
) -> None:
    import shutil

    import torch

    source = tmp_path / "half"
    shutil.copytree(tiny_sarm_folder, source)
    tensors = load_file(source / "model.safetensors")
    tensors["score.weight"] = tensors["score.weight"].to(torch.bfloat16)
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    edits = tmp_path / "edits.json"
    edits.write_text(json.dumps([{"latent": 5, "scale": scale}]))
    apply_to_checkpoint(str(source), edits, tmp_path / "edited")
    with safe_open(tmp_path / "edited" / "model.safetensors", framework="pt") as stream:
        assert stream.get_slice("score.weight").get_dtype() == dtype
    weight = RewardModel.from_pretrained(tmp_path / "edited").head.weight
    assert weight[5] == np.float32(float(tensors["score.weight"][0, 5]) * scale)


def test_what_a_checkpoint_cannot_hold_is_refused(
    tiny_sarm_folder: Path, edits_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "cap.json"
    path.write_text('[{"latent": 5, "max": 2}]')
    with pytest.raises(ConfigError, match=r"cap.json: edit of latent 5: max is not .* cannot hold it"):
        apply_to_checkpoint(str(tiny_sarm_folder), path, tmp_path / "out")
    path.write_text("[]")
    with pytest.raises(ConfigError, match="holds no edit"):
        apply_to_checkpoint(str(tiny_sarm_folder), path, tmp_path / "out")
    edits_file.write_text(edits_file.read_text().replace('"head": "', '"head": "x'))
    with pytest.raises(ModelError, match="was made for head x"):
        apply_to_checkpoint(str(tiny_sarm_folder), edits_file, tmp_path / "out")
    with pytest.raises(OutputError, match="exists already"):
        apply_to_checkpoint("lab", _scaling(tmp_path), tmp_path)
    assert not (tmp_path / "out").exists()


def _scaling(folder: Path) -> Path:
    path = folder / "scaling.json"
    path.write_text('[{"latent": 5, "scale": 2}]')
    return path


def test_the_command_writes_the_embedded_sarm_with_edits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", "lab", "-o", str(tmp_path / "out"), "--apply", str(_scaling(tmp_path))]) == 0
    assert "other weights for latents 5" in capsys.readouterr().err
    lab, edited = RewardModel.from_pretrained("lab"), RewardModel.from_pretrained(tmp_path / "out")
    with lab.edited([Edit(5, scale=2.0)]):
        assert lab.fingerprint == edited.fingerprint


def test_edits_of_an_attached_dictionary_are_written_into_its_folder(
    tiny_attached_folder: Path, tiny_attached: RewardModel, tmp_path: Path
) -> None:
    before = tiny_attached.score(PROMPTS, ANSWERS)
    latent, other = (int(number) for number in before.latents.row(0)[0][:2])
    edits = [Edit(latent, scale=0.25), Edit(other, set=0.0)]
    save_edits(tmp_path / "e.json", edits, fingerprint=tiny_attached.fingerprint, model="tiny")
    said = apply_to_checkpoint(str(tiny_attached_folder), tmp_path / "e.json", tmp_path / "edited")
    edited = RewardModel.from_pretrained(said.folder, device="cpu")
    after = edited.score(PROMPTS, ANSWERS)
    np.testing.assert_allclose(after.rewards - before.rewards, edit_delta(before, edits), atol=1e-5)
    np.testing.assert_array_equal(after.residual, before.residual)
    assert (after.kind, after.constant) == ("attached", before.constant)
    assert (said.before, said.after) == (tiny_attached.fingerprint, edited.fingerprint)
    assert describe(said.folder).head.fingerprint == edited.fingerprint
    assert json.loads((said.folder / "applied_edits.json").read_text())["head"] == tiny_attached.fingerprint
    # the folder is saved and edited again to the bit
    again = RewardModel.from_pretrained(edited.save_pretrained(tmp_path / "again"), device="cpu")
    assert again.score(PROMPTS, ANSWERS).rewards.tobytes() == after.rewards.tobytes()
    with tiny_attached.edited(edits) as inside:
        saved = inside.save_pretrained(tmp_path / "inside")
    assert RewardModel.from_pretrained(saved, device="cpu").fingerprint == edited.fingerprint


def test_a_plain_checkpoint_holds_no_edits_of_latents(
    tiny_attached_folder: Path, tiny_attached: RewardModel, tmp_path: Path
) -> None:
    save_edits(tmp_path / "e.json", [Edit(0, scale=0.5)], fingerprint=tiny_attached.fingerprint, model="t")
    base = tiny_attached_folder.with_name("tiny-rm")
    with pytest.raises(ModelError, match="they change how its state is read, which no weight of it holds"):
        apply_to_checkpoint(str(base), tmp_path / "e.json", tmp_path / "out")
    save_edits(tmp_path / "cap.json", [Edit(0, max=0.5)], fingerprint=tiny_attached.fingerprint, model="t")
    with pytest.raises(ConfigError, match="a checkpoint cannot hold it"):
        apply_to_checkpoint(str(tiny_attached_folder), tmp_path / "cap.json", tmp_path / "out")
    assert not (tmp_path / "out").exists()
