"""Whitened training: the coordinates (oracle), folding (metamorphic), and a direction that varies little."""

import dataclasses

import numpy as np
import pytest
import torch

from sarm_control.attaching import AttachConfig, FitData, measure_fit, train_dictionary
from sarm_control.attaching.whitening import whitening_of
from sarm_control.errors import ConfigError
from sarm_control.reward_model import AttachedAutoencoder, StateHead
from tests.attaching.conftest import WIDTH, make_config, make_head, make_states
from tests.present import present


@pytest.fixture(scope="module")
def normalised() -> torch.Tensor:
    states = make_states(4000)
    centred = states - states.mean(0)
    return centred / centred.square().mean().sqrt()


def covariance(states: torch.Tensor) -> torch.Tensor:
    return states.double().T @ states.double() / len(states)


@pytest.mark.parametrize("power", [0.3, 0.5, 1.0])
def test_oracle_variances_are_those_of_a_power_and_the_mean_square_stays(
    normalised: torch.Tensor, power: float
) -> None:
    made = whitening_of(normalised, power)
    before, directions = torch.linalg.eigh(covariance(normalised))
    after = (directions.T @ covariance(normalised @ made.onto) @ directions).diagonal()
    # each direction's variance over its own power, and all over one number
    wanted = before / (before + 0.01 * before.mean()).pow(power)
    torch.testing.assert_close(after / after.mean(), wanted / wanted.mean(), rtol=1e-4, atol=1e-5)
    assert float((normalised @ made.onto).square().mean()) == pytest.approx(1, abs=1e-4)
    torch.testing.assert_close(made.onto @ made.back, torch.eye(WIDTH), rtol=0, atol=1e-4)


def test_metamorphic_a_folded_dictionary_has_the_same_latents_of_the_same_states(
    normalised: torch.Tensor,
) -> None:
    made = whitening_of(normalised, 1.0)
    draw = torch.Generator().manual_seed(0)
    one, two = (AttachedAutoencoder(torch.zeros(WIDTH), 1.0, 64, 6) for _ in range(2))
    with torch.no_grad():
        for weight in (one.encoder.weight, one.decoder.weight, one.pre_bias, one.latent_bias):
            weight.normal_(generator=draw)
    two.load_state_dict(one.state_dict())
    made.fold(two)
    of_y, of_x = one.encode(normalised @ made.onto), two.encode(normalised)
    assert torch.equal(of_y.indices.sort().values, of_x.indices.sort().values)
    torch.testing.assert_close(two.reconstruct(of_x), one.reconstruct(of_y) @ made.back, rtol=1e-4, atol=1e-3)


def test_whitening_explains_more_of_a_reward_that_varies_little(fit_data: FitData) -> None:
    """Without the reward's term, so that the coordinates alone make the difference."""
    pytest.importorskip("sae_lens", reason='training a dictionary wants the extra "build"')
    states = fit_data.fitted_states
    # the direction that varies least comes first
    quiet = StateHead(torch.linalg.eigh(covariance(states - states.mean(0)))[1][:, 0].float().numpy(), 0.0)
    plain = dataclasses.replace(make_config(), reward_weight=0.0)
    found = [
        measure_fit(train_dictionary(states, quiet, config).autoencoder, quiet, fit_data).held_out
        for config in (plain, dataclasses.replace(plain, whitening=1.0))
    ]
    assert present(found[1].reward) > present(found[0].reward) + 0.1, found
    assert present(found[1].state) < present(found[0].state)


def test_the_reward_term_is_of_what_is_missed_of_the_state_itself(normalised: torch.Tensor) -> None:
    made = whitening_of(normalised, 1.0)
    missed = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(1))
    weight = torch.from_numpy(make_head().weight)
    np.testing.assert_allclose(missed @ (made.back @ weight), (missed @ made.back) @ weight, rtol=1e-4)


def test_a_whitening_beyond_1_is_named() -> None:
    with pytest.raises(ConfigError, match=r"the whitening is 1.5, it must be in \[0, 1\]"):
        AttachConfig(whitening=1.5)
