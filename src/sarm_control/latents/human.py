"""The human buffer: the values of chosen latents on human demonstrations.

Shapes: `N` answers, `D` chosen latents, `2D` features (`1[z > 0]` of every latent, then z of every latent).
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.bounded_json import MISSHAPEN
from sarm_control.errors import ConfigError, DataError, ModelError, SarmError
from sarm_control.files import atomic_file
from sarm_control.reward_model import FloatArray, Scored

SMALLEST_BUFFER = 8
_FORMAT = "sarm-control human buffer 1"
_RAREST_RATE = 0.01
_AGAIN = "make the buffer again: sarm latents --as-human"


class Standardisation(NamedTuple):
    """`(features - mean) * factor`; both [2D] float64. A factor of 0 leaves a feature out."""

    mean: NDArray[np.float64]
    factor: NDArray[np.float64]


class Coverage(NamedTuple):
    """How many latents the demonstrations reach. They say nothing about latents that never fire in them.

    Args:
        chosen_firing: chosen latents above 0 in at least one demonstration.
        chosen: D, chosen latents.
        firing: latents of the autoencoder above 0 in at least one demonstration.
        latents: L, latents of the autoencoder.
    """

    chosen_firing: int
    chosen: int
    firing: int
    latents: int

    @classmethod
    def of(cls, scored: Scored, chosen: Sequence[int]) -> "Coverage":
        """The coverage of scored demonstrations."""
        fire = np.zeros(scored.latents.size, dtype=np.bool_)
        fire[scored.latents.indices[scored.latents.values > 0]] = True
        return cls(int(fire[list(chosen)].sum()), len(chosen), int(fire.sum()), len(fire))


def check_same_model(
    head: str, model: str | None, fingerprint: str, model_fingerprint: str | None = None
) -> None:
    """Refuses demonstrations that another reward model has scored.

    Args:
        head: fingerprint of the head that scored them.
        model: of its trunk and autoencoder; None where it is not known.
        fingerprint: of the head at hand.
        model_fingerprint: of the model at hand; what is None, here or there, is not compared.

    Raises:
        ModelError: naming both.
    """
    # the same latent numbers mean other things under another head or autoencoder: the KL would look like any
    # other number, and be wrong
    if fingerprint != head:
        raise ModelError(
            f"the human buffer was made with head {head}, this reward model has {fingerprint}",
            hint="score the demonstrations with this reward model",
        )
    if None not in (model, model_fingerprint) and model != model_fingerprint:
        raise ModelError(
            f"the human buffer was made with model {model}, this reward model is {model_fingerprint}: "
            "the heads are equal, trunk or autoencoder are not",
            hint="score the demonstrations with this reward model",
        )


@dataclass(frozen=True, eq=False)
class HumanBuffer:
    """Values of chosen latents on human demonstrations; the human-KL term compares the policy with them.

    Args:
        latents: D latent ids, the columns of `values`.
        values: [N, D] float32 z, 0 where a latent is not active.
        fingerprint: fingerprint of the head that scored the demonstrations.
        model_fingerprint: fingerprint of trunk and autoencoder; None where it is not known.

    Raises:
        ConfigError: no latents, or one of them twice.
        DataError: fewer than 8 rows, another number of columns than latents, a NaN or infinity, or no latent
            that varies.
    """

    latents: tuple[int, ...]
    values: FloatArray
    fingerprint: str
    model_fingerprint: str | None = None

    def __post_init__(self) -> None:
        check_distinct(self.latents, "the human buffer")
        if self.values.ndim != 2 or self.values.shape[1] != len(self.latents):
            raise DataError(
                f"the human buffer has {len(self.latents)} latents and values {list(self.values.shape)}"
            )
        if len(self.values) < SMALLEST_BUFFER:
            raise DataError(
                f"the human buffer has {len(self.values)} rows, at least {SMALLEST_BUFFER} are needed",
                hint="give a file with more demonstrations",
            )
        check_finite(self.values, "the human buffer")
        if not np.ptp(self.values, axis=0).any():
            raise DataError(
                "every latent of the human buffer is constant over all demonstrations",
                hint="choose latents that fire on some demonstrations and not on others",
            )

    @classmethod
    def from_scored(cls, scored: Scored, latents: Sequence[int] = ()) -> "HumanBuffer":
        """The buffer of scored demonstrations; without `latents`, those of `choose_latents` are used.

        Raises:
            ConfigError: a latent that the model does not have.
        """
        chosen = tuple(int(latent) for latent in latents) or choose_latents(scored)
        check_known(chosen, scored.latents.size)
        return cls(chosen, scored.latents.columns(chosen), scored.fingerprint, scored.model_fingerprint)

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def rates(self) -> NDArray[np.float64]:
        """[D] share of demonstrations in which each latent is above 0."""
        return np.asarray((self.values > 0).mean(axis=0))

    @cached_property
    def standardisation(self) -> Standardisation:
        """Mean and inverse spread of the features over the demonstrations.

        The spread is the SD, but never less than that of a latent firing in 1 % of the rows, so that
        rare latents do not make huge features. A latent that fires in no demonstration keeps its indicator,
        since firing is a departure from the humans, and loses its z, which has no scale.
        """
        features = latent_features(self.values)
        half = len(self.latents)
        floor = np.full(2 * half, np.sqrt(_RAREST_RATE * (1 - _RAREST_RATE)))
        fires = np.maximum((self.values != 0).sum(axis=0), 1)
        # of z: the indicator's floor in units of the latent's usual size, its root mean square where it fires
        floor[half:] *= np.sqrt((features[:, half:] ** 2).sum(axis=0) / fires)
        spread = np.maximum(features.std(axis=0), floor)
        factor = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)
        return Standardisation(features.mean(axis=0), factor)

    def features(self, z: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """[N, 2D] float64 standardised features of z [N, D]."""
        mean, factor = self.standardisation
        return (latent_features(z) - mean) * factor

    @property
    def notes(self) -> list[str]:
        """Remarks for the user: latents that fire in every demonstration, or in none."""
        found = []
        for name, rate in (("never", 0.0), ("always", 1.0)):
            ids = [latent for latent, share in zip(self.latents, self.rates, strict=True) if share == rate]
            if ids:
                some = ", ".join(map(str, ids[:8])) + (", ..." if len(ids) > 8 else "")
                of = f"{len(ids)} of {len(self.latents)} latents"
                found.append(f"{of} {name} fire in the human buffer: {some}")
        return found

    def check(self, fingerprint: str, model_fingerprint: str | None = None) -> None:
        """Refuses use with another head, or another trunk or autoencoder under an equal head.

        Args:
            fingerprint: fingerprint of the head.
            model_fingerprint: fingerprint of the model; it is compared only if the buffer has one too.

        Raises:
            ModelError: they differ; the message names both.
        """
        check_same_model(self.fingerprint, self.model_fingerprint, fingerprint, model_fingerprint)

    def check_size(self, answers: int) -> None:
        """Refuses batches larger than the buffer, since rows would have to be drawn twice.

        Raises:
            DataError: names both sizes.
        """
        if len(self) < answers:
            raise DataError(
                f"the human buffer has {len(self)} demonstrations, a step has {answers} answers",
                hint="give more demonstrations, or lower training.prompts_per_step",
            )

    def check_latents(self, latents: Sequence[int]) -> None:
        """Refuses use with other latents; an empty list means those of the buffer.

        Raises:
            ConfigError: the latents, or their order, differ.
        """
        if latents and tuple(latents) != self.latents:
            raise ConfigError(
                f"the human buffer holds {len(self.latents)} latents, not the {len(latents)} asked for: "
                f"{self._other(latents)}",
                hint="make the buffer again with these latents",
            )

    def _other(self, latents: Sequence[int]) -> str:
        lacking, more = sorted(set(latents) - set(self.latents)), sorted(set(self.latents) - set(latents))
        if lacking:
            return f"it has no latent {lacking[0]}"
        return f"it has latent {more[0]} too" if more else "they are in another order"

    @cached_property
    def digest(self) -> bytes:
        """32 bytes that identify the buffer's contents."""
        # latents and head as well: equal values of other latents are another buffer
        header = json.dumps([self.fingerprint, list(self.latents)]).encode()
        return hashlib.sha256(header + np.ascontiguousarray(self.values).tobytes()).digest()

    def save(self, path: Path) -> None:
        """Writes one safetensors file; its metadata names the head and the format."""
        from safetensors.numpy import save_file

        tensors: dict[str, NDArray[Any]] = {
            "values": np.ascontiguousarray(self.values),
            "latents": np.array(self.latents, np.int64),
        }
        metadata = {"format": _FORMAT, "fingerprint": self.fingerprint, "digest": self.digest.hex()}
        if self.model_fingerprint is not None:
            metadata["model_fingerprint"] = self.model_fingerprint
        with atomic_file(path) as temporary:
            save_file(tensors, temporary, metadata=metadata)

    @classmethod
    def load(cls, path: Path) -> "HumanBuffer":
        """Reads a file of `save`.

        Raises:
            DataError: the file cannot be read, is not a human buffer, or was altered.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy") as stored:
                metadata = stored.metadata() or {}
                if metadata.get("format") != _FORMAT:
                    raise DataError(f"{path} is not a human buffer")
                if "fingerprint" not in metadata:
                    raise DataError(f"{path} does not say which head it is of", hint=_AGAIN)
                latents = tuple(int(latent) for latent in stored.get_tensor("latents"))
                values = stored.get_tensor("values")
        except SarmError:
            raise
        except (OSError, SafetensorError, *MISSHAPEN) as error:
            raise DataError(f"{path} cannot be read as a human buffer: {error}") from error
        try:
            found = cls(latents, values, metadata["fingerprint"], metadata.get("model_fingerprint"))
        except SarmError as error:
            raise DataError(f"{path}: {error}", hint=_AGAIN) from error
        # buffers that were saved before there was a digest have none, and are taken as they are
        if metadata.get("digest", found.digest.hex()) != found.digest.hex():
            raise DataError(f"{path} was altered: its digest is not the one it was saved with", hint=_AGAIN)
        return found


def latent_features(z: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """[N, 2D] float64 `[1(z > 0), z]`; z alone misses half of the divergence of sparse latents."""
    return np.concatenate([z > 0, z], axis=1).astype(np.float64)


def choose_latents(
    scored: Scored, *, limit: int = 64, low: float = 0.02, high: float = 0.98
) -> tuple[int, ...]:
    """The latents that vary the reward most, by `w_i^2 var(z_i)`: ascending ids, at most `limit`.

    Only latents that fire in a share of the answers between `low` and `high` are considered. The content and
    the quality of the answers play no part.

    Raises:
        DataError: no latent qualifies.
    """
    n, size = len(scored), scored.latents.size
    indices, values = scored.latents.indices, scored.latents.values.astype(np.float64)
    # what is not stored is 0 and adds nothing to these sums
    rate = np.bincount(indices[values > 0], minlength=size) / n
    mean = np.bincount(indices, weights=values, minlength=size) / n
    variance = np.bincount(indices, weights=values**2, minlength=size) / n - mean**2
    # float64 above: a variance is a difference of two sums, in float32 mostly noise where z hardly varies
    moved = np.where((rate >= low) & (rate <= high), scored.head.astype(np.float64) ** 2 * variance, 0.0)
    best = np.argsort(-moved, kind="stable")[:limit]
    # a weight or a variance of 0 moves no reward, and a difference of sums may come out below 0
    chosen = tuple(sorted(int(latent) for latent in best if moved[latent] > 0))
    if not chosen:
        raise DataError(
            f"no latent fires in {low:.0%} to {high:.0%} of the demonstrations",
            hint="name the latents of the human-KL term",
        )
    return chosen


def check_distinct(latents: Sequence[int], what: str) -> None:
    """Refuses an empty list of latents, or one that names a latent twice.

    Raises:
        ConfigError: the message begins with `what` and names the latent.
    """
    if not latents:
        raise ConfigError(f"{what} has no latents")
    repeated = sorted({latent for latent in latents if list(latents).count(latent) > 1})
    if repeated:
        raise ConfigError(f"{what} names latent {repeated[0]} twice")


def check_known(latents: Sequence[int], size: int) -> None:
    """Refuses latents outside 0..size-1.

    Raises:
        ConfigError: names the first one.
    """
    for latent in latents:
        if not 0 <= latent < size:
            raise ConfigError(f"latent {latent} does not exist: there are {size} latents (0..{size - 1})")


def check_finite(values: NDArray[np.floating[Any]], what: str) -> None:
    """Refuses NaN and infinite latents.

    Raises:
        DataError: the message begins with `what` and names the first row.
    """
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise DataError(f"{what} has a latent that is NaN or infinite in row {bad[0]}")
