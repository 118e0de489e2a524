"""Oracle: principal components by another decomposition, and decoders as the loaded models have them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sarm_control.errors import TrainingError
from sarm_control.pages import Drawing, Panels
from sarm_control.report.latent_map import map_section, principal_plane, read_directions, training_maps
from sarm_control.report.sources import Run
from sarm_control.reward_model import RewardModel, read_head
from sarm_control.training import RunConfig
from sarm_control.training.monitor.ledger_file import Entry, append_ledger


@pytest.mark.parametrize("shape", [(40, 7), (7, 40)])
def test_oracle_the_plane_is_that_of_the_singular_vectors(shape: tuple[int, int]) -> None:
    directions = np.random.default_rng(0).normal(size=shape) * np.arange(1, shape[0] + 1)[:, None]
    found = principal_plane(directions)
    units = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    left, sizes, _ = np.linalg.svd(units - units.mean(axis=0), full_matrices=False)
    expected = left[:, :2] * sizes[:2]
    signs = np.sign((expected * found.places).sum(axis=0))
    np.testing.assert_allclose(found.places, expected * signs, atol=1e-9)
    assert found.share == pytest.approx((sizes[:2] ** 2).sum() / (sizes**2).sum())
    # the farthest of each direction lies on the positive side, and lengths play no part
    assert np.all(found.places.max(axis=0) >= -found.places.min(axis=0))
    np.testing.assert_allclose(principal_plane(3 * directions).places, found.places, atol=1e-9)


def test_latents_that_write_nothing_or_alike_have_a_place() -> None:
    nothing = principal_plane(np.zeros((3, 5)))
    assert nothing.share == 0.0
    assert not nothing.places.any()
    assert np.isfinite(principal_plane(np.ones((1, 5))).places).all()


@pytest.mark.parametrize("name", ["lab", "lab:attached"])
def test_oracle_the_decoder_in_the_files_is_that_of_the_loaded_model(name: str) -> None:
    rm = RewardModel.from_pretrained(name)
    found = read_directions(name, read_head(name).fingerprint)
    assert found is not None
    dictionary = rm.dictionary
    assert dictionary is not None
    np.testing.assert_array_equal(found.decoder, dictionary.decoder.weight.detach().numpy())
    np.testing.assert_array_equal(found.weight, rm.head.weight)


def discovery(head: str) -> dict[str, Any]:
    def called(latent: int, low: float, high: float) -> dict[str, Any]:
        return {"latent": latent, "effect": (low + high) / 2, "low": low, "high": high}

    return {
        "head": head,
        "lists": {"harms": [called(15, -2, -1), called(3, -2, 1)], "promotes": [called(8, 1, 3)]},
    }


def test_the_map_has_every_latent_in_the_colour_of_its_effect() -> None:
    found = discovery(read_head("lab").fingerprint)
    section = map_section(found, ["not/here", "lab:classifier", "lab"], {15: "you"})
    assert section.finding == "All 24 latents: 2 that harm, 1 that promote, the others grey."
    drawing = section.blocks[0]
    assert isinstance(drawing, Drawing)
    rows = drawing.figure.rows
    assert len(rows) == 24
    marked = {row["label"]: (row["tone"], row["size"]) for row in rows if row["label"]}
    assert marked == {
        "15 \u2013 you": ("bad", 1.5),
        "latent 3": ("unclear", 0.5),
        "latent 8": ("good", 2.0),
    }


@pytest.mark.parametrize("models", [["nowhere"], ["not/here"], ["lab:classifier"], ["lab"], []])
def test_a_model_that_cannot_be_read_is_said(models: list[str], tmp_path: Path) -> None:
    section = map_section(discovery("0" * 16), [*models, str(tmp_path)], {})
    assert section.blocks == []
    assert section.finding.startswith(
        "Not drawn: no reward model with the head 000000000000 can be read here."
    )


def a_run(folder: Path, model: str = "lab") -> Run:
    """A run whose ledger has four evaluations; latent 8 earns more each time, latent 15 less."""
    folder.mkdir()
    for step in (0, 5, 10, 15):
        changes = {8: 0.1 * step, 15: -0.02 * step, 3: 0.0}
        entries = [
            Entry("latent", latent, 1.0, 0.5, 0.5, 0.0, change, change) for latent, change in changes.items()
        ]
        append_ledger(
            folder / "ledger.parquet", step, [*entries, Entry("edits", None, None, None, None, 0, 9, 9)]
        )
    config = RunConfig.model_validate(
        {"policy": {"model": "lab"}, "reward": {"model": model}, "data": {"prompts": "lab:prompts"}}
    )
    return Run(folder, folder.name, config, [], [], [], {})


def test_maps_of_training_show_what_the_ledger_says_on_one_plane(tmp_path: Path) -> None:
    found = discovery(read_head("lab").fingerprint)
    section = training_maps([a_run(tmp_path / "ours")], found, {15: "you"})
    assert section is not None
    assert section.finding.endswith("most by latent 8, +1.500 reward units.")
    panels = section.blocks[0]
    assert isinstance(panels, Panels)
    figures = [one.figure for one in panels.drawings]
    # the first evaluation, one in the middle, the last
    assert [figure.name for figure in figures] == [f"training-map-ours-{step}" for step in (0, 10, 15)]
    sizes = [[row["size"] for row in figure.rows] for figure in figures]
    assert sizes[0] == [0, 0, 0]
    assert sizes[1:] == [pytest.approx([0.0, 1.0, 0.2]), pytest.approx([0.0, 1.5, 0.3])]
    places = [[(row["x"], row["y"]) for row in figure.rows] for figure in figures]
    assert places[0] == places[1] == places[2]
    assert [row["tone"] for row in figures[2].rows] == ["unclear", "good", "bad"]
    assert [row["label"] for row in figures[2].rows] == ["", "latent 8", "15 \u2013 you"]
    # one scale of sizes: a spot of the same size is a change of the same size
    assert all('"domain": [0, 1.5]' in json.dumps(figure.spec()) for figure in figures)


def test_without_a_discovery_the_maps_call_nothing_good_or_bad(tmp_path: Path) -> None:
    section = training_maps([a_run(tmp_path / "ours")], None, {})
    assert section is not None
    panels = section.blocks[0]
    assert isinstance(panels, Panels)
    assert {row["tone"] for one in panels.drawings for row in one.figure.rows} == {"plain"}


def test_runs_without_a_ledger_or_a_readable_model_have_no_map(tmp_path: Path) -> None:
    run = a_run(tmp_path / "gone", model="not/here")
    section = training_maps([run], None, {})
    assert section is not None
    assert "Not drawn: its reward model cannot be read here." in section.finding
    (tmp_path / "gone" / "ledger.parquet").unlink()
    assert training_maps([run], None, {}) is None
    (tmp_path / "gone" / "ledger.parquet").write_text("no ledger")
    with pytest.raises(TrainingError, match="is not readable: it is cut short or no ledger"):
        training_maps([run], None, {})
