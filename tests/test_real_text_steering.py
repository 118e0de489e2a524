"""The doses of scripts/real_text_steering.py: planted latents, and the constraints it states."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.outside import load

SCRIPT = Path(__file__).parents[1] / "scripts" / "real_text_steering.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load(SCRIPT)


def planted(script: ModuleType, complement: list[float], respond: list[float]) -> Any:
    """Three promoting latents and a harming one; each column is the same for all prompts of a kind."""

    def rows(values: list[float], count: int) -> NDArray[np.float64]:
        return np.tile(np.array(values), (count, 1))

    return script.Selection(
        [11, 12, 13, 14],
        np.array([True, True, True, False]),
        rows([0.10, 0.10, 0.001, 0.02], 5),
        rows(complement, 4),
        rows([0.05, 0.05, 0.0, -0.01], 3),
        rows(respond, 2),
    )


def test_one_latent_is_the_most_selective_within_the_largest_scale(script: ModuleType) -> None:
    # The third never moves the complement, but would need a scale of 351.
    found = planted(script, [0.08, 0.02, 0.0, 0.02], [0, 0, 0, 0])
    (edit,) = script.most_selective(found)
    assert (edit.latent, edit.scale) == (12, pytest.approx(1 + script.DOSE / 0.10))


def test_balanced_doses_move_the_target_and_keep_what_they_must(script: ModuleType) -> None:
    # The most selective latent lowers should-respond margins; only the first can make up for it.
    found = planted(script, [0.08, 0.02, 0.0, 0.02], [0.03, -0.03, 0.0, 0.0])
    scales = {edit.latent: edit.scale for edit in script.balanced(found)}
    doses = np.array([scales.get(latent, 1.0) - 1 for latent in found.latents])
    assert (found.target @ doses).mean() == pytest.approx(script.DOSE, abs=1e-3)
    assert (found.respond @ doses).mean() >= -1e-4
    assert doses[0] == pytest.approx(doses[1], abs=1e-3)
    assert doses[3] <= 0


def test_no_doses_when_the_target_cannot_be_reached(script: ModuleType) -> None:
    found = planted(script, [0.08, 0.02, 0.0, 0.02], [-0.1, -0.1, -0.1, 0.0])
    with pytest.raises(SystemExit, match="no doses"):
        script.balanced(found)
