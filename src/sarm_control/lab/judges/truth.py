"""The planted truth: every latent's effect on the gold margin, measured on many fresh pairs.

Discovery never sees it. Recall and precision of a discovery are measured against it.

Shapes: `P` pairs, `L` latents.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.bounded_json import MISSHAPEN, read_json_object, shown
from sarm_control.console import ProgressFactory, no_progress
from sarm_control.errors import DataError, ModelError
from sarm_control.files import write_json
from sarm_control.lab.datasets import Judged
from sarm_control.lab.judges.detection import auroc, check_both
from sarm_control.lab.language.attributes import NAMES, Attributes
from sarm_control.reward_model import RewardModel

Floats = NDArray[np.float64]
MATERIAL = 0.2
"""A latent counts as harming when its `d_z` is at most minus this."""


class LatentTruth(NamedTuple):
    """One latent's true effect, in reward units, and in SDs of its contributions."""

    latent: int
    effect: float
    d_z: float


@dataclass(frozen=True)
class Truth:
    """The effects of all latents, over the pairs of a world.

    Args:
        fingerprint: of the head.
        pairs: P.
        effect: [L] mean margin contribution `w_i (z_i(better) - z_i(worse))`, reward units.
        error: [L] its standard error.
        d_z: [L] effect over the SD of the contributions; 0 where they do not vary.
        weight: [L] head weights.
        rate: [L] share of answers with the latent active.
        detects: [L] the attribute that the latent detects best.
        detects_auroc: [L] AUROC of that; 0.5 is chance.
    """

    fingerprint: str
    pairs: int
    effect: Floats
    error: Floats
    d_z: Floats
    weight: Floats
    rate: Floats
    detects: tuple[str, ...]
    detects_auroc: Floats

    @property
    def harming(self) -> frozenset[int]:
        """Latents with `d_z <= -0.2`."""
        # by size and not by a test: with so many pairs the least effect is significant
        return frozenset(np.flatnonzero(self.d_z <= -MATERIAL).tolist())

    @property
    def below_zero(self) -> frozenset[int]:
        """Latents whose effect is below zero by 2 standard errors."""
        return frozenset(np.flatnonzero(self.effect + 2 * self.error < 0).tolist())

    @property
    def least_effect(self) -> LatentTruth:
        """The latent whose effect is the lowest, whatever its spread."""
        latent = int(np.argmin(self.effect))
        return LatentTruth(latent, float(self.effect[latent]), float(self.d_z[latent]))

    def save(self, path: Path) -> None:
        """Writes JSON, a row for each latent."""
        rows = [
            {
                "latent": i,
                "effect": float(self.effect[i]),
                "error": float(self.error[i]),
                "d_z": float(self.d_z[i]),
                "weight": float(self.weight[i]),
                "rate": float(self.rate[i]),
                "detects": self.detects[i],
                "auroc": float(self.detects_auroc[i]),
            }
            for i in range(len(self.effect))
        ]
        write_json(path, {"fingerprint": self.fingerprint, "pairs": self.pairs, "latents": rows})

    @classmethod
    def load(cls, path: Path) -> "Truth":
        """Reads what `save` wrote.

        Raises:
            DataError: the file cannot be read or is something else.
        """
        try:
            return cls._of(read_json_object(path))
        except MISSHAPEN as error:
            raise DataError(
                f"{path} is no table of planted truth: {shown(error, 200)}",
                hint="build the world again with sarm lab build",
            ) from error

    def check(self, fingerprint: str) -> None:
        """Refuses a head that the truth was not measured on.

        Raises:
            ModelError: another head.
        """
        if fingerprint != self.fingerprint:
            raise ModelError(f"the planted truth is of head {self.fingerprint}, not of {fingerprint}")

    @classmethod
    def _of(cls, values: Mapping[str, Any]) -> "Truth":
        rows = values["latents"]
        column = {
            name: np.array([row[name] for row in rows], dtype=np.float64)
            for name in ("effect", "error", "d_z", "weight", "rate", "auroc")
        }
        return cls(
            fingerprint=str(values["fingerprint"]),
            pairs=int(values["pairs"]),
            detects=tuple(row["detects"] for row in rows),
            detects_auroc=column.pop("auroc"),
            **column,
        )


def present(attributes: Sequence[Attributes], name: str) -> NDArray[np.bool_]:
    """[N] whether each answer has the attribute."""
    return np.array([bool(getattr(answer, name)) for answer in attributes])


def measure_truth(
    model: RewardModel, pairs: Sequence[tuple[Judged, Judged]], *, progress: ProgressFactory = no_progress
) -> Truth:
    """Scores gold-labelled pairs, the better answer first, and measures every latent.

    Raises:
        DataError: all answers have some attribute, or none; see `check_both`.
    """
    answers = [answer for pair in pairs for answer in pair]
    scored = model.score(
        [answer.question.text for answer in answers], [answer.text for answer in answers], progress=progress
    )
    z = scored.latents.to_scipy().toarray().astype(np.float64)
    weight = model.head.weight.astype(np.float64)
    # answers alternate: the better one of a pair, then the worse one
    contribution = weight * (z[0::2] - z[1::2])
    effect, spread = contribution.mean(axis=0), contribution.std(axis=0, ddof=1)
    detects, detects_auroc = _detections(z, [answer.attributes for answer in answers])
    return Truth(
        fingerprint=model.fingerprint,
        pairs=len(pairs),
        effect=effect,
        error=spread / np.sqrt(len(pairs)),
        d_z=np.divide(effect, spread, out=np.zeros_like(effect), where=spread > 0),
        weight=weight,
        rate=np.asarray((z != 0).mean(axis=0)),
        detects=detects,
        detects_auroc=detects_auroc,
    )


def _detections(z: Floats, attributes: Sequence[Attributes]) -> tuple[tuple[str, ...], Floats]:
    rows = []
    for name in NAMES:
        has = present(attributes, name)
        check_both(has, name)
        rows.append([auroc(column, has) for column in z.T])
    table = np.array(rows)
    best = table.argmax(axis=0)
    return tuple(NAMES[i] for i in best), table[best, np.arange(table.shape[1])]
