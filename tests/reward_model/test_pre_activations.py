"""Latents before TopK: oracle (a full sort), metamorphic (chunks)."""

import numpy as np
import torch

from sarm_control.reward_model import RewardModel
from sarm_control.reward_model.trunk.pre_activations import pre_topk

CHOSEN = (3, 40, 0)


def test_values_and_ranks_are_those_of_a_full_sort(tiny_sarm: RewardModel) -> None:
    states = torch.randn(10, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        full = tiny_sarm.autoencoder.pre_activations(states).numpy()
    found = pre_topk(tiny_sarm.autoencoder, states.numpy(), CHOSEN)
    np.testing.assert_array_equal(found.values, full[:, CHOSEN])
    places = (-full).argsort(axis=1).argsort(axis=1) + 1
    np.testing.assert_array_equal(found.ranks, places[:, CHOSEN])
    kept = tiny_sarm.score_states(states).columns(CHOSEN)
    np.testing.assert_array_equal(kept != 0, found.ranks <= tiny_sarm.config.k)


def test_chunks_and_no_latents_change_nothing(tiny_sarm: RewardModel) -> None:
    states = np.random.default_rng(0).normal(size=(7, 32)).astype(np.float32)
    whole, parts = (pre_topk(tiny_sarm.autoencoder, states, CHOSEN, chunk=size) for size in (7, 2))
    np.testing.assert_allclose(whole.values, parts.values, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(whole.ranks, parts.ranks)
    assert pre_topk(tiny_sarm.autoencoder, states, ()).values.shape == (7, 0)
