"""States made of few directions each, with preferences, split by prompt."""

import numpy as np
import pytest
import torch

from sarm_control.attaching import DictionaryConfig, FitData, Fitted, fit_dictionary
from sarm_control.build import AutoencoderConfig, PreferenceRow
from sarm_control.reward_model import StateHead

WIDTH, ANSWERS = 24, 1600


def make_states(count: int = ANSWERS, *, seed: int = 0, offset: float = 0.5) -> torch.Tensor:
    """[count, WIDTH] sparse sums of 48 directions, the reward's among the weak ones."""
    generator = torch.Generator().manual_seed(5)
    directions = torch.randn(48, WIDTH, generator=generator)
    own = torch.Generator().manual_seed(seed)
    active = torch.rand(count, 48, generator=own) < 0.08
    values = active * torch.rand(count, 48, generator=own)
    return values @ directions + offset + 0.02 * torch.randn(count, WIDTH, generator=own)


def make_head(seed: int = 2) -> StateHead:
    """A head of random weights and a bias."""
    weight = torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed))
    return StateHead(weight.numpy(), 0.25)


def make_rows(count: int = ANSWERS) -> tuple[PreferenceRow, ...]:
    """Four answers a prompt, two against two."""
    return tuple(PreferenceRow(j // 4, (j, j + 1), (j + 2, j + 3)) for j in range(0, count, 4))


def make_config(**more: int) -> DictionaryConfig:
    """A small dictionary, trained for a second."""
    sizes = {"latents": 64, "k": 6, "steps": 250, "batch": 128, **more}
    return DictionaryConfig(AutoencoderConfig(**sizes, learning_rate=3e-3, dead_after=40))


@pytest.fixture(scope="session")
def fit_data() -> FitData:
    """Every fifth prompt held out, and another set of the same kind."""
    held_out = np.arange(ANSWERS) // 4 % 5 == 0
    return FitData(make_states(), held_out, make_rows())


@pytest.fixture(scope="session")
def fitted(fit_data: FitData) -> Fitted:
    """A dictionary beside one of the plain squared error, and one of another seed."""
    return fit_dictionary(fit_data, make_head(), make_config(), compare=True, seeds=2)
