"""Reference statistics: the units of symbolic thresholds (`q0.9`) and amounts (`0.5sd`)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sarm_control.bounded_json import MISSHAPEN, read_json_object, shown
from sarm_control.control.penalties import Watched, in_order, watched_columns, watched_name
from sarm_control.errors import ConfigError, DataError, ModelError
from sarm_control.files import write_json
from sarm_control.reward_model import RESIDUAL, Scored


@dataclass(frozen=True)
class ReferenceStatistics:
    """The reward and chosen latents of the reference policy's answers, before any training.

    Args:
        n: number of answers, at least 2.
        mean: mean reward, without any control.
        sd: standard deviation of the reward (n - 1), > 0; the unit of `0.5sd`.
        fingerprint: of the head that scored the answers.
        latents: for each chosen latent its z in all n answers, ascending; 0 where it was not active. Of
            `residual` the residuals, in reward units.
    """

    n: int
    mean: float
    sd: float
    fingerprint: str
    latents: Mapping[Watched, tuple[float, ...]]

    @classmethod
    def from_scored(cls, scored: Scored, latents: Iterable[Watched] = ()) -> "ReferenceStatistics":
        """The statistics of scored answers; `latents` are those whose quantiles will be needed.

        Raises:
            DataError: fewer than two answers, rewards that do not vary, or a NaN reward.
        """
        rewards = scored.rewards.astype(np.float64)
        if len(rewards) < 2:
            raise DataError(f"reference statistics need at least 2 answers, there are {len(rewards)}")
        sd = float(rewards.std(ddof=1))
        if not (np.isfinite(sd) and sd > 0):
            raise DataError("the reference policy's rewards are all equal or not finite: they have no SD")
        chosen = in_order(latents)
        columns = np.sort(watched_columns(scored, chosen), axis=0).T
        # all values and not the wanted quantiles alone: monitors measure the spread of those that are active
        values = {latent: tuple(column.tolist()) for latent, column in zip(chosen, columns, strict=True)}
        return cls(len(rewards), float(rewards.mean()), sd, scored.fingerprint, values)

    def quantile(self, latent: Watched, level: float) -> float:
        """The quantile of z over *all* answers, inactive ones (z = 0) included, interpolated linearly.

        So a latent active in fewer than `1 - level` of the answers has the quantile 0, and the indicator
        penalty `1[z > 0]` counts every firing.

        Raises:
            ConfigError: the values of the latent were not kept.
        """
        if latent not in self.latents:
            raise ConfigError(
                f"the reference statistics hold no values of {watched_name(latent)}",
                hint="compute them with ReferenceStatistics.from_scored(scored, controls.quantile_latents())",
            )
        return float(np.quantile(self.latents[latent], level))

    def check(self, fingerprint: str) -> None:
        """Refuses another head.

        Raises:
            ModelError: naming both heads.
        """
        if self.fingerprint != fingerprint:
            raise ModelError(
                f"reference statistics of head {self.fingerprint}, but this reward model has {fingerprint}",
                hint="score the reference answers with this reward model",
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `from_dict` reads them back exactly."""
        latents = {str(latent): list(values) for latent, values in self.latents.items()}
        moments = {"n": self.n, "mean": self.mean, "sd": self.sd}
        return {**moments, "fingerprint": self.fingerprint, "latents": latents}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ReferenceStatistics":
        """Reads what `to_dict` returned.

        Raises:
            DataError: a key is missing or holds something else.
        """
        try:
            latents = {_watched(name): tuple(map(float, z)) for name, z in values["latents"].items()}
            moments = float(values["mean"]), float(values["sd"])
            return cls(int(values["n"]), *moments, str(values["fingerprint"]), latents)
        except MISSHAPEN as error:
            raise DataError(f"not reference statistics: {shown(error, 200)}") from error

    def save(self, path: Path) -> None:
        """Writes JSON."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: Path) -> "ReferenceStatistics":
        """Reads what `save` wrote.

        Raises:
            DataError: the file cannot be read or is something else.
        """
        content = read_json_object(path)
        try:
            return cls.from_dict(content)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error


def _watched(name: str) -> Watched:
    return RESIDUAL if name == RESIDUAL else int(name)
