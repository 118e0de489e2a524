"""Oracle: principal components by another decomposition, and decoders as the loaded models have them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sarm_control.pages import Drawing
from sarm_control.report.latent_map import map_section, principal_plane, read_directions
from sarm_control.reward_model import RewardModel, read_head


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
