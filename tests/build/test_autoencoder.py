"""The autoencoder against SAELens (oracle), its training (golden, property) and its figures."""

from typing import Any

import numpy as np
import pytest
import torch

from sarm_control.build.autoencoder import AutoencoderConfig, SignedTopK, from_sae_lens, train_autoencoder
from sarm_control.build.head.quality import explained_variance, firing_rates
from sarm_control.errors import ConfigError, TrainingError
from sarm_control.reward_model.autoencoder import Autoencoder, TopK, normalise
from tests.present import present

sae_lens = pytest.importorskip("sae_lens", reason='training an autoencoder wants the extra "build"')


def random_sae(seed: int = 0, *, bias: float = 0.0, latents: int = 40, k: int = 5) -> Any:
    """A SAELens autoencoder with random weights and decoder rows of different norms."""
    torch.manual_seed(seed)
    config = sae_lens.TopKTrainingSAEConfig(d_in=16, d_sae=latents, k=k, dtype="float32", device="cpu")
    sae = sae_lens.TopKTrainingSAE(config)
    for parameter in sae.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    sae.b_enc.data += bias
    return sae


def directions(count: int = 600, seed: int = 0) -> torch.Tensor:
    """States made of few of 24 directions each, so that an autoencoder has something to find."""
    generator = torch.Generator().manual_seed(seed)
    dictionary = torch.randn(24, 16, generator=generator)
    active = torch.rand(count, 24, generator=generator) < 0.12
    return (active * torch.rand(count, 24, generator=generator)) @ dictionary + 0.01


def dense(kept: TopK, latents: int) -> torch.Tensor:
    return torch.zeros(len(kept.values), latents).scatter(-1, kept.indices, kept.values)


@torch.no_grad()
def test_oracle_folded_sae_lens_weights_give_its_latents_and_reconstruction() -> None:
    # The large encoder bias makes every kept pre-activation positive, where SAELens's ReLU is idle.
    sae = random_sae(bias=20.0)
    states = torch.randn(50, 16)
    x = normalise(states)
    latents, rebuilt = sae.encode(x), sae(x)
    assert (latents > 0).sum() == 50 * 5
    sae.fold_W_dec_norm()
    ours = from_sae_lens(sae)
    kept = ours.encode(states)
    torch.testing.assert_close(dense(kept, 40), latents, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(ours.decode(kept), rebuilt, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(ours.decoder.weight.norm(dim=0), torch.ones(40))


@torch.no_grad()
def test_oracle_with_the_signed_topk_negative_values_agree_too() -> None:
    sae = random_sae(bias=-20.0)
    sae.activation_fn = SignedTopK(5)
    states = torch.randn(50, 16)
    latents, rebuilt = sae.encode(normalise(states)), sae(normalise(states))
    assert (latents < 0).any()
    sae.fold_W_dec_norm()
    kept = from_sae_lens(sae).encode(states)
    torch.testing.assert_close(dense(kept, 40), latents, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(from_sae_lens(sae).decode(kept), rebuilt, atol=1e-4, rtol=1e-5)


def test_bad_input_unfolded_weights_are_refused() -> None:
    with pytest.raises(ConfigError, match="not of unit norm"):
        from_sae_lens(random_sae())


def test_golden_training_is_seeded_and_learns() -> None:
    states = directions()
    config = AutoencoderConfig(latents=32, k=4, steps=300, batch=64, learning_rate=3e-3, dead_after=30)
    first, again = (train_autoencoder(states[:500], torch.empty(0, 16), config) for _ in range(2))
    for name, value in first.autoencoder.state_dict().items():
        assert torch.equal(value, again.autoencoder.state_dict()[name]), name
    assert first.curve == again.curve
    assert first.curve[-1].mean_squared_error < 0.5 * first.curve[0].mean_squared_error
    assert present(explained_variance(first.autoencoder, states[500:])) > 0.6
    norms = first.autoencoder.decoder.weight.norm(dim=0)
    torch.testing.assert_close(norms, torch.ones(32), atol=1e-5, rtol=0)


def test_metamorphic_another_seed_gives_another_autoencoder() -> None:
    states = directions(100)
    one, two = (
        train_autoencoder(
            states, states, AutoencoderConfig(latents=16, k=2, steps=5, batch=16, seed=seed)
        ).autoencoder
        for seed in (0, 1)
    )
    assert not torch.equal(one.encoder.weight, two.encoder.weight)


@torch.no_grad()
def test_oracle_explained_variance_is_1_for_the_identity_and_0_for_the_mean() -> None:
    states = directions(80)
    x = normalise(states)
    identity = Autoencoder(16, 16, 16)
    identity.encoder.weight.copy_(torch.eye(16))
    identity.decoder.weight.copy_(torch.eye(16))
    assert explained_variance(identity, states) == pytest.approx(1.0, abs=1e-6)
    assert explained_variance(identity, states[:1].repeat(3, 1)) is None
    mean_only = Autoencoder(16, 16, 16)
    mean_only.decoder.weight.zero_()
    mean_only.pre_bias.copy_(x.mean(dim=0))
    assert explained_variance(mean_only, states) == pytest.approx(0.0, abs=1e-5)


@torch.no_grad()
def test_property_firing_rates_sum_to_k() -> None:
    autoencoder = Autoencoder(16, 40, 5)
    rates = firing_rates(autoencoder, directions(700))
    assert rates.sum() == pytest.approx(5.0)
    assert rates.shape == (40,)
    assert np.all((rates >= 0) & (rates <= 1))


def test_bad_input_is_named() -> None:
    with pytest.raises(ConfigError, match=r"k is 9, it must be in 1\.\.8"):
        AutoencoderConfig(latents=8, k=9)
    with pytest.raises(ConfigError, match=r"steps \(0\) and batch"):
        AutoencoderConfig(latents=8, k=2, steps=0)
    with pytest.raises(TrainingError, match="no end-of-turn state"):
        train_autoencoder(torch.empty(0, 4), torch.empty(0, 4), AutoencoderConfig(latents=8, k=2))
    exploding = AutoencoderConfig(latents=8, k=2, steps=50, batch=8, learning_rate=1e20)
    with pytest.raises(TrainingError, match=r"loss is (nan|inf)"):
        train_autoencoder(directions(20)[:, :16], torch.empty(0, 16), exploding)
