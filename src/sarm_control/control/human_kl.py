"""The human-KL term: a penalty on latents that drift away from human demonstrations."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, model_validator
from pydantic.dataclasses import dataclass

from sarm_control.control.edits.specs import (
    SPEC,
    check_latent,
    in_sd,
    not_negative,
    number_if_number,
    one_line_errors,
)
from sarm_control.errors import ConfigError

_MOST_LATENTS = 1024


@one_line_errors("human_kl")
@dataclass(frozen=True, config=SPEC)
class HumanKL:
    """A penalty of `beta * l_j`, with `l_j` the log density ratio of answer j's latents; see also `mode`.

    `l_j = log p_policy(z_j) - log p_human(z_j)` comes from a logistic discriminator on `[1(z > 0), z]`
    that has only seen policy answers of earlier steps. For an answer more typical of the humans than of the
    policy it is negative and raises the reward. A slope of at most 1, fitted on held-out rows, shrinks the
    noise of the fit in each row; the logged KL estimate does not use the slope.

    Raises:
        ConfigError: a value outside its range, a negative latent, or a latent named twice.
    """

    beta: Annotated[float | str, BeforeValidator(number_if_number)]
    """The penalty per nat, >= 0: in reward units, or in SDs of the reference policy's reward (`0.1sd`)."""
    latents: tuple[int, ...] = ()
    """The latents compared, at most 1024; empty means those of the human buffer."""
    mode: Literal["per_sample", "batch"] = "per_sample"
    """`batch` subtracts `beta` times the KL estimate that is logged as `human_kl/kl` from every answer.

    One number for the whole batch says nothing about which answer was far. RLOO and GRPO, which compare
    answers of one batch, cancel it; so do PPO's whitened advantages where `gamma * lam` is 1. Below 1 a
    remainder is left that depends on the position of a token alone: the penalty comes with the last token
    and has the weight `(gamma * lam)^n` at `n` tokens before it, so that ends, and short answers, are
    penalised most.
    """
    estimator: Literal["logistic", "mahalanobis"] = "logistic"
    """`mahalanobis` uses InfoRM's closed form, which is right for Gaussian latents only."""
    l2: float = 1e-3
    """Ridge of the logistic discriminator in addition to its Jeffreys term, > 0; see `fit_log_ratio`."""
    clip: float = 10.0
    """Log ratios are limited to +-clip nats: one classifier cannot resolve more than about 8."""
    replay: int = 32
    """The number of recent policy batches on which the discriminator is fitted."""
    half_life: float = 8.0
    """The weight of a batch halves after this many newer ones; about 1,000 answers are best."""

    @model_validator(mode="after")
    def _check(self) -> "HumanKL":
        if in_sd(self.beta, "human_kl: beta") is None:
            not_negative(float(self.beta), "human_kl: beta")
        for latent in self.latents:
            check_latent(latent, "human_kl")
        if len(set(self.latents)) < len(self.latents):
            raise ConfigError("human_kl: a latent is named twice")
        if len(self.latents) > _MOST_LATENTS:
            raise ConfigError(f"human_kl: {len(self.latents)} latents, at most {_MOST_LATENTS} are compared")
        for name in ("l2", "clip", "replay", "half_life"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"human_kl: {name} is {getattr(self, name):g}, it must be > 0")
        return self

    @property
    def resolved(self) -> bool:
        """Whether beta is a number."""
        return not isinstance(self.beta, str)
