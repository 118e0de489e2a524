"""The human buffer: oracle features, an exact round trip, notes and messages."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from sarm_control.errors import ConfigError, DataError, ModelError
from sarm_control.latents import HumanBuffer, choose_latents, latent_features
from tests.control.batches import random_scored, scored_from


def test_oracle_features_are_standardised_on_the_buffer() -> None:
    buffer = HumanBuffer.from_scored(random_scored(0, n=200), range(10))
    features = buffer.features(buffer.values)
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(features.std(axis=0), 1, atol=1e-12)
    np.testing.assert_array_equal(latent_features(np.array([[2.0, -1.0]])), [[1, 0, 2, -1]])


def test_a_latent_that_never_fires_keeps_its_indicator_only() -> None:
    values = np.zeros((50, 2), np.float32)
    values[::2, 0] = 1.0
    buffer = HumanBuffer((4, 9), values, "head-a")
    features = buffer.features(np.array([[0.0, 7.0]]))[0]
    assert features[1] == pytest.approx(1 / np.sqrt(0.01 * 0.99))
    assert features[3] == 0.0


def test_round_trip_is_exact(tmp_path: Path) -> None:
    buffer = HumanBuffer.from_scored(random_scored(0, n=30), [7, 2, 5])
    buffer.save(tmp_path / "human.safetensors")
    loaded = HumanBuffer.load(tmp_path / "human.safetensors")
    assert (loaded.latents, loaded.fingerprint, loaded.digest) == ((7, 2, 5), "head-a", buffer.digest)
    np.testing.assert_array_equal(loaded.values, buffer.values)
    assert loaded.model_fingerprint is None
    HumanBuffer(buffer.latents, buffer.values, "head-a", "model-a").save(tmp_path / "known.safetensors")
    assert HumanBuffer.load(tmp_path / "known.safetensors").model_fingerprint == "model-a"


def test_notes_name_latents_that_are_always_or_never_on() -> None:
    values = np.tile(np.array([[1.0, 0.0, 0.0]], np.float32), (20, 1))
    values[::2, 2] = 1.0
    assert HumanBuffer((11, 12, 13), values, "head-a").notes == [
        "1 of 3 latents never fire in the human buffer: 12",
        "1 of 3 latents always fire in the human buffer: 11",
    ]
    assert HumanBuffer.from_scored(random_scored(0, n=200), range(10)).notes == []


def test_oracle_chosen_latents_move_the_reward_most() -> None:
    rng = np.random.default_rng(0)
    z = (rng.random((400, 5)) < [0.5, 0.5, 0.5, 1.0, 0.0]) * rng.exponential(size=(400, 5))
    scored = scored_from(z, np.array([0.1, 3.0, -2.0, 50.0, 50.0]))
    assert choose_latents(scored, limit=2) == (1, 2)
    assert choose_latents(scored) == (0, 1, 2)
    assert HumanBuffer.from_scored(scored).latents == (0, 1, 2)


def test_bad_buffers_are_refused() -> None:
    scored = random_scored(0, n=20)
    with pytest.raises(DataError, match="the human buffer has 3 rows, at least 8 are needed"):
        HumanBuffer.from_scored(scored.take(np.arange(3)), [1, 2])
    with pytest.raises(DataError, match="every latent of the human buffer is constant"):
        HumanBuffer((1, 2), np.ones((20, 2), np.float32), "head-a")
    values = np.ones((20, 2), np.float32)
    values[4, 1] = np.nan
    with pytest.raises(DataError, match="NaN or infinite in row 4"):
        HumanBuffer((1, 2), values, "head-a")
    with pytest.raises(ConfigError, match="the human buffer names latent 2 twice"):
        HumanBuffer.from_scored(scored, [2, 1, 2])
    with pytest.raises(ConfigError, match=r"latent 99 does not exist: there are 10 latents \(0..9\)"):
        HumanBuffer.from_scored(scored, [99])
    with pytest.raises(DataError, match=r"the human buffer has 3 latents and values \[20, 2\]"):
        HumanBuffer((1, 2, 3), np.ones((20, 2), np.float32), "head-a")
    with pytest.raises(DataError, match="no latent fires in 2% to 98% of the demonstrations"):
        HumanBuffer.from_scored(scored_from(np.ones((20, 3))))


def test_another_head_or_other_latents_are_refused() -> None:
    buffer = HumanBuffer.from_scored(random_scored(0, n=20), [1, 2])
    with pytest.raises(ModelError, match="made with head head-a, this reward model has head-b"):
        buffer.check("head-b")
    with pytest.raises(ConfigError, match="holds 2 latents, not the 3 asked for"):
        buffer.check_latents([1, 2, 3])
    for asked, detail in (
        ([1, 3], "it has no latent 3"),
        ([2, 1], "another order"),
        ([1], "has latent 2 too"),
    ):
        with pytest.raises(ConfigError, match=f"not the {len(asked)} asked for: .*{detail}"):
            buffer.check_latents(asked)
    known = HumanBuffer(buffer.latents, buffer.values, "head-a", "model-a")
    with pytest.raises(ModelError, match="made with model model-a, this reward model is model-b"):
        known.check("head-a", "model-b")
    for one, other in ((known, "model-a"), (known, None), (buffer, "model-b")):
        one.check("head-a", other)
    buffer.check("head-a")
    buffer.check_latents([])
    buffer.check_latents([1, 2])


def test_files_that_are_no_buffer_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.safetensors cannot be read as a human buffer"):
        HumanBuffer.load(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(DataError, match=r"text.safetensors cannot be read as a human buffer"):
        HumanBuffer.load(tmp_path / "text.safetensors")
    save_file({"values": np.zeros((2, 2))}, tmp_path / "other.safetensors")
    with pytest.raises(DataError, match=r"other.safetensors is not a human buffer"):
        HumanBuffer.load(tmp_path / "other.safetensors")
    of = {"format": "sarm-control human buffer 1", "fingerprint": "head-a"}
    tensors = {"values": np.random.default_rng(0).random((10, 2), np.float32), "latents": np.array([1, 2])}
    cases = [
        (tensors, {"format": of["format"]}, "bad.safetensors does not say which head it is of"),
        ({"values": tensors["values"]}, of, "bad.safetensors cannot be read as a human buffer"),
        ({**tensors, "latents": np.array([1, 2, 3])}, of, r"bad.safetensors: .* has 3 latents and values"),
        (tensors, {**of, "digest": "00"}, "bad.safetensors was altered: its digest is not the one"),
    ]
    for stored, metadata, message in cases:
        save_file(stored, tmp_path / "bad.safetensors", metadata)
        with pytest.raises(DataError, match=message):
            HumanBuffer.load(tmp_path / "bad.safetensors")


def test_a_flipped_bit_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "human.safetensors"
    HumanBuffer.from_scored(random_scored(0, n=30), [7, 2, 5]).save(path)
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"human.safetensors was altered") as caught:
        HumanBuffer.load(path)
    assert "--as-human" in (caught.value.hint or "")
