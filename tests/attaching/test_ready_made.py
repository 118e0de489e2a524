"""Published dictionaries: each layout against SAELens or its equations (oracle), exact sums, messages."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sarm_control.attaching import read_dictionary
from sarm_control.build import read_pairs
from sarm_control.cli import main
from sarm_control.control import Edit, edit_delta
from sarm_control.errors import ConfigError, ModelError
from sarm_control.evaluation import rescored_delta
from sarm_control.latents import ScoredRows, score_rows
from sarm_control.reward_model import ReadyMadeAutoencoder, RewardModel, attached, describe, read_head
from tests.attaching.pairs import write_pairs
from tests.reward_model.classifiers import CONFIGS, make_classifier, random_rows, save

WIDTH, LATENTS = 32, 40


@pytest.fixture(scope="module", params=["qwen3", "gemma2"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RewardModel:
    """A classifier with a bias, with either way of writing an RMS norm's factors."""
    folder = tmp_path_factory.mktemp("ready") / "rm"
    return RewardModel.from_pretrained(save(make_classifier(CONFIGS[request.param](), bias=True), folder))


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights by SAELens's names, [D, L] and [L, D]."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return {
        "W_enc": random(WIDTH, LATENTS) / 6,
        "W_dec": random(LATENTS, WIDTH),
        "b_enc": random(LATENTS) / 4,
        "b_dec": random(WIDTH) / 4,
        "threshold": random(LATENTS).abs() / 2,
    }


def gemma_scope(folder: Path) -> Path:
    folder.mkdir()
    arrays: dict[str, Any] = {key: value.numpy() for key, value in weights().items()}
    np.savez(folder / "params.npz", **arrays)
    return folder


def sae_lens_folder(folder: Path, architecture: str, **more: Any) -> Path:
    folder.mkdir()
    tensors = {key: value.contiguous() for key, value in weights().items()}
    if architecture != "jumprelu":
        del tensors["threshold"]
    save_file(tensors, folder / "sae_weights.safetensors")
    config = {
        "architecture": architecture,
        "d_in": WIDTH,
        "d_sae": LATENTS,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"hook_name": "blocks.1.hook_resid_post"},
        **more,
    }
    (folder / "cfg.json").write_text(json.dumps(config))
    return folder


def jump_relu(h: np.ndarray, *, subtracts: bool = False, scale: float = 1.0) -> np.ndarray:
    """[N, L] by the equations, in float64."""
    own = {key: value.double().numpy() for key, value in weights().items()}
    inputs = h / scale - (own["b_dec"] if subtracts else 0)
    before = inputs @ own["W_enc"] + own["b_enc"]
    return np.where(before > own["threshold"], before, 0.0)


def test_oracle_the_sum_is_exact_with_the_rows_own_rms_folded_in(base: RewardModel, tmp_path: Path) -> None:
    made = read_dictionary(gemma_scope(tmp_path / "gemma"), base)
    assert isinstance(made, ReadyMadeAutoencoder)
    model, rows = base.attach(made), random_rows()
    bare, found = base.score_encoded(rows, keep_states=True), model.score_encoded(rows, keep_states=True)
    assert found.rewards.tobytes() == bare.rewards.tobytes()
    assert bare.states is not None
    assert found.states is not None
    assert found.states[:, :WIDTH].tobytes() == bare.states.tobytes()
    assert bare.states.shape == (len(rows), WIDTH)

    h = found.states[:, WIDTH:].astype(np.float64)
    rho = np.sqrt(np.square(h).mean(axis=1, keepdims=True) + made.norm_epsilon)
    z = jump_relu(h)
    dense = found.latents.to_scipy().toarray()
    np.testing.assert_allclose(dense[:, :LATENTS], z / rho, atol=1e-4)
    np.testing.assert_allclose(dense[:, LATENTS:], 1 / rho, rtol=1e-5)
    assert (np.diff(found.latents.indptr) == (z > 0).sum(axis=1) + 1).all()

    own, state = base.head.own, bare.states.astype(np.float64)
    assert own is not None
    factors = (state * rho / h).mean(axis=0)
    effective = factors * own.weight
    raw = weights()
    expected = effective @ raw["W_dec"].double().numpy().T
    np.testing.assert_allclose(found.head[:LATENTS], expected, rtol=1e-3, atol=1e-4)
    missed = h - z @ raw["W_dec"].double().numpy() - raw["b_dec"].double().numpy()
    np.testing.assert_allclose(found.residual, (missed @ effective) / rho[:, 0], atol=2e-3)
    assert found.constant == pytest.approx(own.bias)
    for j, reward in enumerate(found.rewards):
        total = sum(part.contribution for part in found.contributions(j))
        assert total == pytest.approx(float(reward), abs=1e-5)


def test_oracle_reconstruction_of_both_halves_is_what_the_norm_would_give(
    base: RewardModel, tmp_path: Path
) -> None:
    made = read_dictionary(gemma_scope(tmp_path / "gemma"), base)
    scored = base.attach(made).score_encoded(random_rows(), keep_states=True)
    rebuilt = made.reconstruct(made.encode(torch.from_numpy(scored.states))).double().numpy()
    assert base.head.own is not None
    assert scored.states is not None
    missed = scored.states[:, :WIDTH] - rebuilt
    np.testing.assert_allclose(missed @ base.head.own.weight.astype(np.float64), scored.residual, atol=1e-4)


@pytest.mark.parametrize("architecture", ["standard", "jumprelu", "topk"])
def test_oracle_sae_lens_folders_give_its_latents(
    base: RewardModel, tmp_path: Path, architecture: str
) -> None:
    sae_lens = pytest.importorskip("sae_lens")
    more = {"k": 5, "rescale_acts_by_decoder_norm": True} if architecture == "topk" else {}
    folder = sae_lens_folder(tmp_path / "sae", architecture, **more)
    theirs = sae_lens.SAE.load_from_disk(folder, device="cpu")
    model = base.attach(read_dictionary(folder, base))
    scored = model.score_encoded(random_rows(), keep_states=True)
    assert scored.states is not None
    h = torch.from_numpy(scored.states[:, WIDTH:].copy())
    with torch.no_grad():
        expected = theirs.encode(h)
    rho = (h.square().mean(dim=1, keepdim=True) + read_epsilon(model)).sqrt()
    ours = torch.from_numpy(scored.latents.to_scipy().toarray()[:, :LATENTS]) * rho
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-3)


def read_epsilon(model: RewardModel) -> float:
    assert isinstance(model.autoencoder, ReadyMadeAutoencoder)
    assert model.autoencoder.norm_epsilon is not None
    return model.autoencoder.norm_epsilon


def test_oracle_llama_scope_scales_by_the_mean_length(base: RewardModel, tmp_path: Path) -> None:
    folder, raw = tmp_path / "llama", weights()
    (folder / "checkpoints").mkdir(parents=True)
    stored = {
        "encoder.weight": raw["W_enc"].T.contiguous(),
        "encoder.bias": raw["b_enc"],
        "decoder.weight": raw["W_dec"].T.contiguous(),
        "decoder.bias": raw["b_dec"],
    }
    save_file(stored, folder / "checkpoints" / "final.safetensors")
    said = {
        "jump_relu_threshold": 0.3,
        "dataset_average_activation_norm": {"in": 12.0, "out": 12.0},
        "hook_point_in": "blocks.1.hook_resid_post",
    }
    (folder / "hyperparams.json").write_text(json.dumps(said))
    made = read_dictionary(folder, base)
    scored = base.attach(made).score_encoded(random_rows(), keep_states=True)
    assert scored.states is not None
    h = scored.states[:, WIDTH:].astype(np.float64)
    before = h * np.sqrt(WIDTH) / 12.0 @ raw["W_enc"].double().numpy() + raw["b_enc"].double().numpy()
    rho = np.sqrt(np.square(h).mean(axis=1, keepdims=True) + made.norm_epsilon)
    expected = np.where(before > 0.3, before, 0.0) / rho
    np.testing.assert_allclose(scored.latents.to_scipy().toarray()[:, :LATENTS], expected, atol=1e-4)
    said["hook_point_in"] = "blocks.0.hook_resid_post"
    (folder / "hyperparams.json").write_text(json.dumps(said))
    with pytest.raises(ModelError, match="is of layer 0, and the reward model's head reads the state behind"):
        read_dictionary(folder, base)


def test_qwen_scope_names_k_in_the_path_or_is_told(base: RewardModel, tmp_path: Path) -> None:
    raw = {key: value for key, value in weights().items() if key != "threshold"}
    turned = {**raw, "W_enc": raw["W_enc"].T.contiguous(), "W_dec": raw["W_dec"].T.contiguous()}
    (tmp_path / "SAE-W32K-L0_4").mkdir()
    file = tmp_path / "SAE-W32K-L0_4" / "layer1.sae.safetensors"
    save_file(turned, file)
    made = read_dictionary(file, base)
    assert (made.k, made.use_topk) == (4, True)
    scored = base.attach(made).score_encoded(random_rows())
    assert np.diff(scored.latents.indptr).tolist() == [5] * len(scored)
    other = tmp_path / "layer1.sae.safetensors"
    other.write_bytes(file.read_bytes())
    with pytest.raises(ConfigError, match="does not say how many latents are kept"):
        read_dictionary(other, base)
    assert read_dictionary(other, base, k=3).k == 3


def test_a_dictionary_behind_the_norm_needs_no_second_half(base: RewardModel, tmp_path: Path) -> None:
    folder = sae_lens_folder(tmp_path / "sae", "jumprelu", metadata={"hook_name": "ln_final.hook_normalized"})
    model = base.attach(read_dictionary(folder, base))
    scored = model.score_encoded(random_rows(), keep_states=True)
    assert scored.states is not None
    assert scored.states.shape[1] == WIDTH
    expected = jump_relu(scored.states.astype(np.float64), subtracts=True)
    np.testing.assert_allclose(scored.latents.to_scipy().toarray(), expected, atol=1e-4)


def test_oracle_edits_inside_the_model_pay_what_the_algebra_predicts(
    base: RewardModel, tmp_path: Path
) -> None:
    """Its active latents are those above thresholds, in the row's own scale, and not all of them."""
    model = base.attach(read_dictionary(gemma_scope(tmp_path / "gemma"), base))
    rows = read_pairs([write_pairs(tmp_path / "pairs.jsonl", 70)])
    data = ScoredRows(rows, score_rows(model, rows))
    edits = [Edit(3, scale=0.5), Edit(7, set=0.0), Edit(11, add=0.25)]
    again = rescored_delta(model, data, edits)
    assert np.abs(again).max() > 0.01
    np.testing.assert_allclose(again, edit_delta(data.scored, edits), atol=1e-4)


def test_an_encoder_published_in_half_precision_is_held_in_it(
    base: RewardModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = sae_lens_folder(tmp_path / "sae", "jumprelu")
    file = folder / "sae_weights.safetensors"
    tensors = load_file(file)
    save_file({**tensors, "W_enc": tensors["W_enc"].bfloat16()}, file)
    rounded = {**tensors, "W_enc": tensors["W_enc"].bfloat16().float()}
    small = read_dictionary(folder, base)
    assert small.encoder.weight.dtype == torch.float32
    monkeypatch.setattr(attached, "NARROWED_FROM", LATENTS * WIDTH)
    held = read_dictionary(folder, base)
    assert held.encoder.weight.dtype in attached.NARROW
    assert torch.equal(held.encoder.weight[:LATENTS].float(), rounded["W_enc"].T)
    rows = random_rows()
    one, two = (base.attach(made).score_encoded(rows) for made in (small, held))
    assert two.rewards.tobytes() == one.rewards.tobytes()
    np.testing.assert_allclose(two.latents.values, one.latents.values, atol=1e-5)
    save_file(tensors, file)
    assert read_dictionary(folder, base).encoder.weight.dtype == torch.float32


def test_round_trip_to_the_bit(base: RewardModel, tmp_path: Path) -> None:
    model, rows = base.attach(read_dictionary(gemma_scope(tmp_path / "gemma"), base)), random_rows()
    folder = model.save_pretrained(tmp_path / "attached")
    again = RewardModel.from_pretrained(folder)
    one, two = model.score_encoded(rows), again.score_encoded(rows)
    assert one.residual.tobytes() == two.residual.tobytes()
    assert one.latents.values.tobytes() == two.latents.values.tobytes()
    assert (again.fingerprint, again.model_fingerprint) == (model.fingerprint, model.model_fingerprint)
    assert (read_head(folder).fingerprint, describe(folder).latents) == (model.fingerprint, LATENTS + 1)


def test_what_cannot_be_read_is_named(base: RewardModel, tmp_path: Path) -> None:
    pickled = tmp_path / "layer1.sae.pt"
    pickled.write_bytes(b"anything")
    with pytest.raises(ModelError, match=r"layer1\.sae\.pt is a pickle, which could run code") as refused:
        read_dictionary(pickled, base)
    assert refused.value.hint is not None
    assert "save_file(" in refused.value.hint
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="empty is no dictionary: neither SAELens's"):
        read_dictionary(tmp_path / "empty", base)
    for change, message in (
        ({"architecture": "gated"}, "is of the architecture 'gated'"),
        ({"normalize_activations": "layer_norm"}, r"normalises its inputs \(layer_norm\)"),
        (
            {"metadata": {"hook_name": "blocks.0.hook_resid_post"}},
            "is of layer 0, and the reward model's head",
        ),
    ):
        name = "-".join(change)
        architecture = str(change.pop("architecture", "standard"))
        folder = sae_lens_folder(tmp_path / name, architecture, **change)
        with pytest.raises(ModelError, match=message):
            read_dictionary(folder, base)
    narrow = tmp_path / "narrow.npz"
    cut = {"W_enc": weights()["W_enc"][:16], "W_dec": weights()["W_dec"][:, :16], "b_dec": torch.zeros(16)}
    arrays: dict[str, Any] = {key: value.numpy() for key, value in {**weights(), **cut}.items()}
    np.savez(narrow, **arrays)
    with pytest.raises(ModelError, match="dictionary of states of 16 numbers, the reward model's have 32"):
        read_dictionary(narrow, base)
    objects = tmp_path / "objects.npz"
    np.savez(objects, W_enc=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ModelError, match="is no dictionary that can be read"):
        read_dictionary(objects, base)


def test_a_final_norm_of_another_kind_is_refused(tmp_path: Path) -> None:
    neox = RewardModel.from_pretrained(save(make_classifier(CONFIGS["gpt_neox"]()), tmp_path / "rm"))
    with pytest.raises(ModelError, match="the final norm is a LayerNorm, no RMS norm"):
        read_dictionary(gemma_scope(tmp_path / "gemma"), neox)


@pytest.mark.long
def test_the_command_refuses_what_explains_little_unless_forced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(make_classifier(CONFIGS["qwen3"]()), tmp_path / "rm")
    pairs = write_pairs(tmp_path / "pairs.jsonl", 60)
    words = ["attach", "--model", str(tmp_path / "rm"), "--pairs", str(pairs), "-o", str(tmp_path / "out")]
    words += ["--autoencoder", str(gemma_scope(tmp_path / "gemma")), "--cache", str(tmp_path / "states")]
    assert main(words) == 2
    assert "of the reward's variance on held-out prompts, less than 0.5" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*words, "--force"]) == 0
    model = RewardModel.from_pretrained(tmp_path / "out")
    assert model.config.latents == LATENTS + 1
    assert main([*words[:-4], "--autoencoder", str(tmp_path / "gone"), "--overwrite"]) == 2
    assert "gone does not exist" in capsys.readouterr().err
