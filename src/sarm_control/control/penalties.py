"""Penalties: amounts subtracted from the reward where a latent fires, read from the unedited z.

A reward model with a head of its own has a residual beside its latents, what its dictionary does not hold.
A policy can learn to be rewarded there, so the residual can have a penalty like a latent.

Shapes: `N` answers, `C` latents or the residual.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from pydantic import BeforeValidator, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from sarm_control.control.edits.specs import (
    SPEC,
    check_latent,
    finite_number,
    in_sd,
    latent_number,
    not_negative,
    number_if_number,
    one_line_errors,
    unknown_key,
)
from sarm_control.errors import ConfigError
from sarm_control.reward_model import RESIDUAL, Scored

Form = Literal["indicator", "hinge", "sigmoid"]
Watched: TypeAlias = int | Literal["residual"]
"""What a penalty reads: a latent's number, or the residual of a reward model with a head of its own."""
_KEYS = ("tau", "alpha", "target_rate", "form", "temperature")
_EXAMPLE = "48659:tau=3,alpha=0.1"
# pydantic's own rule of whole numbers: "5" is one, 5.5 is not
_NUMBER = TypeAdapter(int)


def _watched(value: Any) -> Watched:
    if value == RESIDUAL:
        return RESIDUAL
    try:
        return _NUMBER.validate_python(value)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise ValueError(f"{reason[:1].lower()}{reason[1:]}") from None


@one_line_errors("penalty")
@dataclass(frozen=True, config=SPEC)
class Penalty:
    """Subtracts `alpha * penalty(z)` of one latent from the reward, with the unedited z of the reward model.

    Either `alpha` is given, or `target_rate`; then alpha is learnt during the run.

    Raises:
        ConfigError: a negative latent or alpha, a quantile outside 0..1, a temperature that is not
            positive, text that is neither a number nor one of the symbolic forms, both or neither of
            alpha and target_rate, or a target_rate outside 0..1 or with another form than `indicator`.
    """

    latent: Annotated[Watched, BeforeValidator(_watched)]
    """The latent to watch, 0..L-1; or `residual`, what the dictionary does not hold, in reward units."""
    tau: Annotated[float | str, BeforeValidator(number_if_number)]
    """The threshold on z: a number, or a quantile of the reference policy's z such as `q0.9`."""
    alpha: Annotated[float | str | None, BeforeValidator(number_if_number)] = None
    """The size, >= 0: in reward units, or in SDs of the reference policy's reward such as `0.5sd`. Of a hinge
    on the residual it is the share of what exceeds tau: both are rewards, so `1sd` and 1 take all of it."""
    form: Form = "indicator"
    """`indicator` 1[z > tau] (strict), `hinge` max(0, z - tau), or `sigmoid` 1 / (1 + exp((tau - z) / T))."""
    temperature: float = 1.0
    """T of the sigmoid, > 0, in units of z; the other forms do not use it."""
    target_rate: float | None = None
    """Instead of alpha, which is then learnt: the share of answers that may fire (z > tau), in (0, 1)."""
    pays: float | tuple[float, float] | None = None
    """The reward that the latent adds where it fires, reward units, if known: a run warns of a smaller alpha.
    A second number is what similar latents that fire with it add, after the edits chosen with it."""

    @model_validator(mode="after")
    def _check(self) -> "Penalty":
        if self.latent != RESIDUAL:
            check_latent(self.latent, "penalty")
        what = f"penalty on {self.watched}"
        # read for its own checks: a tau that is no quantile is refused when it is written, not in a run
        _ = self.quantile
        if self.alpha is None or self.target_rate is not None:
            self._check_target(what)
        elif in_sd(self.alpha, f"{what}: alpha") is None:
            not_negative(float(self.alpha), f"{what}: alpha")
        if self.temperature <= 0:
            raise ConfigError(f"{what}: temperature is {self.temperature:g}, it must be > 0")
        return self

    def _check_target(self, what: str) -> None:
        if self.target_rate is None:
            raise ConfigError(
                f"{what}: alpha is missing", hint="give alpha, or target_rate to have it learnt"
            )
        if self.alpha is not None:
            raise ConfigError(
                f"{what}: alpha and target_rate cannot both be given",
                hint="target_rate learns the size that alpha fixes: drop one of them",
            )
        if not 0 < self.target_rate < 1:
            raise ConfigError(f"{what}: target_rate is {self.target_rate:g}, it must lie between 0 and 1")
        if self.form != "indicator":
            raise ConfigError(
                f"{what}: target_rate needs the form indicator, not {self.form}",
                hint="it holds the share of answers with z > tau; drop form, or give alpha",
            )

    @property
    def watched(self) -> str:
        """What it reads, in words: `latent 5` or `the residual`."""
        return watched_name(self.latent)

    @property
    def is_share(self) -> bool:
        """Whether alpha is a share of a reward and no reward, see `alpha`."""
        return self.latent == RESIDUAL and self.form == "hinge"

    @property
    def quantile(self) -> float | None:
        """The level of a symbolic `tau`, 0..1; None when tau is a number."""
        if not isinstance(self.tau, str):
            return None
        what = f"penalty on {self.watched}: tau"
        if not self.tau.startswith("q"):
            raise ConfigError(f"{what} is {self.tau!r}, it must be a number or a quantile such as q0.9")
        level = finite_number(self.tau[1:], what)
        if not 0 <= level <= 1:
            raise ConfigError(f"{what} is {self.tau!r}, a quantile lies in 0..1")
        return level

    @property
    def own_reward(self) -> float | None:
        """The reward that the latent itself adds where it fires, reward units; None if not known."""
        return self.pays[0] if isinstance(self.pays, tuple) else self.pays

    @property
    def similar_reward(self) -> float:
        """The reward that similar latents add where this one fires, reward units; 0 if not known."""
        return self.pays[1] if isinstance(self.pays, tuple) else 0.0

    @property
    def resolved(self) -> bool:
        """Whether tau and, when it is given, alpha are numbers."""
        return not isinstance(self.tau, str) and not isinstance(self.alpha, str)

    def amount(
        self, z: Float[NDArray[np.floating[Any]], "*shape"], learnt: float | None = None
    ) -> Float[NDArray[np.float64], "*shape"]:
        """`alpha * penalty(z)` in reward units, elementwise, >= 0; it is subtracted from the reward.

        Args:
            z: unedited.
            learnt: the current alpha in reward units, for a penalty with a target rate.

        Raises:
            ConfigError: tau or alpha is still symbolic, or alpha is neither given nor learnt.
        """
        alpha = self.alpha if self.target_rate is None else learnt
        if isinstance(alpha, str) or alpha is None:
            raise self._not_numbers()
        return alpha * _penalty(self._above(z), self.form, self.temperature)

    def fires(self, z: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
        """`z > tau`, elementwise.

        Raises:
            ConfigError: tau is still symbolic.
        """
        return np.asarray(self._above(z) > 0)

    def _above(self, z: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        if isinstance(self.tau, str):
            raise self._not_numbers()
        return np.asarray(z, dtype=np.float64) - self.tau

    def _not_numbers(self) -> ConfigError:
        return ConfigError(
            f"penalty on {self.watched}: tau={self.tau}, alpha={self.alpha} are not numbers yet",
            hint="call controls.resolve(reference_statistics) first",
        )


def watched_name(watched: Watched) -> str:
    """In words: `latent 5`, or `the residual`."""
    return "the residual" if watched == RESIDUAL else f"latent {watched}"


def watched_columns(scored: Scored, watched: Sequence[Watched]) -> NDArray[np.float64]:
    """[N, C] what penalties on these read: the unedited z of latents, 0 where inactive, and the residual.

    Args:
        scored: N answers.
        watched: C latents, or the residual; one may stand there twice.
    """
    latents = [one for one in watched if one != RESIDUAL]
    columns = iter(scored.latents.columns(latents).T)
    found = [scored.residual if one == RESIDUAL else next(columns) for one in watched]
    return np.stack(found, axis=1).astype(np.float64) if found else np.zeros((len(scored), 0))


def in_order(watched: Iterable[Watched]) -> tuple[Watched, ...]:
    """Each once: latents ascending, the residual last."""
    # the kind comes first in the key, since Python does not compare numbers with text
    return tuple(sorted(set(watched), key=lambda one: (isinstance(one, str), one)))


def named_forms(penalties: Sequence[Penalty]) -> tuple[Form | None, ...]:
    """The form of each penalty whose latent has a second penalty; None where the latent identifies it."""
    counts = Counter(penalty.latent for penalty in penalties)
    return tuple(penalty.form if counts[penalty.latent] > 1 else None for penalty in penalties)


def metric_names(penalties: Sequence[Penalty]) -> tuple[str, ...]:
    """`penalty/<latent>` of each penalty, or `penalty/<latent>/<form>` where the latent has two."""
    forms = named_forms(penalties)
    return tuple(
        f"penalty/{penalty.latent}" + (f"/{form}" if form else "")
        for penalty, form in zip(penalties, forms, strict=True)
    )


def _penalty(
    above: Float[NDArray[np.float64], "*shape"], form: Form, temperature: float
) -> Float[NDArray[np.float64], "*shape"]:
    if form == "indicator":
        return (above > 0).astype(np.float64)
    if form == "hinge":
        return np.maximum(above, 0.0)
    # tanh does not overflow where exp would
    return np.asarray(0.5 * (1.0 + np.tanh(above / (2.0 * temperature))))


def parse_penalty(text: str) -> Penalty:
    """Reads a penalty from the command line.

    `48659:tau=3,alpha=0.1[,form=hinge][,temperature=0.5]`, or `48659:tau=3,target_rate=0.1`; `residual`
    may stand in the latent's place.

    Raises:
        ConfigError: the text is not a penalty; the message on an unknown key names the closest known one.
    """
    number, _, rest = text.strip().partition(":")
    latent: Watched = RESIDUAL
    if number.strip() != RESIDUAL:
        latent = latent_number(number, text, _EXAMPLE)
    what = f"penalty on {watched_name(latent)}"
    given: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in rest.split(","))):
        key, _, value = (piece.strip() for piece in part.partition("="))
        if key not in _KEYS:
            raise unknown_key(what, key, _KEYS)
        if not value or key in given:
            fault = "is given twice" if key in given else "has no value"
            raise ConfigError(f"{what}: {key} {fault}", hint=f"write it like {_EXAMPLE}")
        given[key] = value
    if "tau" not in given:
        raise ConfigError(f"{what}: tau is missing", hint=f"write it like {_EXAMPLE}")
    return Penalty(latent, **given)
