"""Sizes that a build chooses: oracle (what was measured), property (limits), the words of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sarm_control.build import choose_sizes
from sarm_control.build.sizes import ANSWERS_PER_LATENT, LEAST_LATENTS
from sarm_control.errors import ConfigError


def test_oracle_the_measured_builds_are_chosen() -> None:
    """SmolLM2-135M on real text (docs/results/real-text.md); the lab's k; the published SARM's shape."""
    real = choose_sizes(30, 576, 5581)
    assert (real.layer, real.latents, real.k, real.warning) == (15, 512, 64, None)
    lab = choose_sizes(3, 96, 1200, latents=24)
    assert (lab.layer, lab.k) == (2, 6)
    published = choose_sizes(32, 4096, 10**6)
    assert (published.layer, published.latents, published.k) == (16, 65536, 192)


@given(
    layers=st.integers(1, 200),
    width=st.integers(1, 20_000),
    answers=st.integers(0, 10**7),
    layer=st.none() | st.integers(1, 50),
    latents=st.none() | st.integers(1, 10**5),
)
def test_property_sizes_can_work_and_given_ones_stay(
    layers: int, width: int, answers: int, layer: int | None, latents: int | None
) -> None:
    found = choose_sizes(layers, width, answers, layer=layer, latents=latents)
    assert found.layer == (layer or found.layer)
    assert found.latents == (latents or found.latents)
    assert layer is not None or 1 <= found.layer <= layers
    assert 1 <= found.k <= found.latents
    assert len(found.chosen) == 1 + (layer is None) + (latents is None)
    assert (found.warning is None) == (answers >= ANSWERS_PER_LATENT * found.latents)


@given(answers=st.integers(0, 10**7), more=st.integers(0, 10**6))
def test_property_more_answers_never_mean_fewer_latents(answers: int, more: int) -> None:
    assert choose_sizes(12, 768, answers).latents <= choose_sizes(12, 768, answers + more).latents


def test_few_answers_are_warned_of() -> None:
    found = choose_sizes(3, 96, 60)
    assert found.latents == LEAST_LATENTS
    assert found.warning is not None
    assert found.warning.startswith("60 answers are few for 24 latents: 10 for each would be 240")
    assert choose_sizes(3, 96, 60, latents=6, k=2).warning is None


def test_given_sizes_are_not_said_to_be_chosen() -> None:
    assert choose_sizes(3, 96, 10**4, layer=1, latents=50, k=5).chosen == ()
    assert choose_sizes(3, 96, 100, k=30).latents == 30
    assert choose_sizes(3, 96, 1200).chosen == (
        "layer 2 (half of 3)",
        "64 latents (1200 answers, at least 10 for each)",
        "k = 8 (of 64 latents and a width of 96)",
    )


def test_bad_input_more_kept_than_there_are() -> None:
    with pytest.raises(ConfigError, match=r"k is 9, it must be in 1\.\.8"):
        choose_sizes(3, 96, 1000, latents=8, k=9)
