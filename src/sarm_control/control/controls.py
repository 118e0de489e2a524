"""Controls: everything that changes the reward a policy sees.

Shapes: `N` answers, `P` penalties.
`R_j = sum_i w_i edit_i(z_ij) - sum_p alpha_p penalty_p(z_j) - beta l_j` (DESIGN.md, section 2).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, model_validator
from pydantic.dataclasses import dataclass

from sarm_control.control.density_ratio import Array
from sarm_control.control.discriminator import Discriminator, HumanDivergence
from sarm_control.control.edits.edits import Edit, check_one_edit_each, edit_delta
from sarm_control.control.edits.specs import SPEC, check_exists, in_sd, one_line_errors, unknown_key
from sarm_control.control.human_kl import HumanKL
from sarm_control.control.penalties import Penalty, Watched, in_order, metric_names, watched_columns
from sarm_control.control.reference import ReferenceStatistics
from sarm_control.control.shaped import ShapedReward
from sarm_control.control.state import ControlState
from sarm_control.errors import ConfigError, ModelError
from sarm_control.latents import HumanBuffer
from sarm_control.reward_model import RESIDUAL, Kind, Scored

_WITHOUT_RESIDUAL: Mapping[Kind | None, str] = {
    "sarm": "the rewards of a SARM are its latents' alone, so there is no residual",
    "classifier": "this reward model has no dictionary, so its whole reward is residual",
}


@one_line_errors("controls")
@dataclass(frozen=True, config=SPEC)
class Controls:
    """Edits, penalties and the human-KL term of a run. Immutable: `ControlState` holds what changes.

    Raises:
        ConfigError: two edits of one latent, or two penalties of the same form on one latent.
    """

    edits: Annotated[Sequence[Edit], AfterValidator(tuple)] = ()
    """Changes of latents before the head, at most one per latent."""
    penalties: Annotated[Sequence[Penalty], AfterValidator(tuple)] = ()
    """Amounts subtracted from the reward where a latent fires, read from the unedited z."""
    human_kl: HumanKL | None = None
    """The penalty on latents that drift away from human demonstrations."""
    fingerprint: str | None = None
    """The head on which the latents were found; another head is then refused."""
    reward_sd: Annotated[float, Field(gt=0)] | None = None
    """SD of the reference policy's reward, set by `resolve`: the unit of penalties with a target rate."""

    @model_validator(mode="after")
    def _check(self) -> "Controls":
        check_one_edit_each(self.edits)
        seen: set[tuple[Watched, str]] = set()
        for penalty in self.penalties:
            if (penalty.latent, penalty.form) in seen:
                raise ConfigError(
                    f"{penalty.watched} has two penalties of the form {penalty.form}",
                    hint="keep one of them, or give them different forms",
                )
            seen.add((penalty.latent, penalty.form))
        return self

    def latents(self) -> tuple[int, ...]:
        """Every latent that an edit, a penalty or the human-KL term names, ascending."""
        compared = () if self.human_kl is None else self.human_kl.latents
        return tuple(sorted({*self._penalised(), *compared}))

    def quantile_latents(self) -> tuple[Watched, ...]:
        """The latents, and the residual, whose reference quantiles `resolve` needs; latents ascending."""
        return in_order(p.latent for p in self.penalties if p.quantile is not None)

    def check(self, size: int, fingerprint: str | None = None, kind: Kind | None = None) -> None:
        """Refuses latents that a reward model does not have, and a head other than the latents' own.

        Args:
            size: L, the number of latents of the reward model.
            fingerprint: of its head.
            kind: of reward model; only an attached dictionary leaves a residual to penalise.

        Raises:
            ConfigError: a latent outside 0..L-1, or a penalty on a residual that the model does not have.
            ModelError: the head is another one.
        """
        if kind in _WITHOUT_RESIDUAL and any(one.latent == RESIDUAL for one in self.penalties):
            raise ConfigError(
                f"penalty on the residual: {_WITHOUT_RESIDUAL[kind]}",
                hint="drop the penalty, or use a reward model with an attached dictionary "
                "(docs/reward-models.md)",
            )
        for latent in self.latents():
            check_exists(latent, size)
        if self.fingerprint is not None and fingerprint is not None and self.fingerprint != fingerprint:
            raise ModelError(
                f"these controls were made for head {self.fingerprint}, this reward model has {fingerprint}",
                hint="latent numbers mean nothing on another head: run discover on this reward model",
            )

    def resolve(self, reference: ReferenceStatistics) -> "Controls":
        """The same controls, with numbers for every tau, alpha and beta, and the SD that target rates need.

        Raises:
            ConfigError: the reference statistics lack a latent's values.
        """
        penalties = tuple(_resolve_penalty(penalty, reference) for penalty in self.penalties)
        human_kl = self.human_kl
        if human_kl is not None:
            human_kl = replace(human_kl, beta=_in_reward_units(human_kl.beta, reference, "beta"))
        sd = reference.sd if self._targets() else None
        return replace(self, penalties=penalties, human_kl=human_kl, reward_sd=sd)

    def shortfalls(self, head: NDArray[np.floating[Any]]) -> tuple[str, ...]:
        """One line for each indicator penalty whose alpha is less than the reward its latent brings.

        The controls must be resolved. That reward is `Penalty.pays` after an edit of the same latent, plus
        what similar latents add where the latent fires.

        Args:
            head: [L] head weights.
        """
        edits = {edit.latent: edit for edit in self.edits}
        warnings = []
        for penalty in self.penalties:
            # only an indicator takes a fixed amount, which can be held against what the latent pays
            if penalty.own_reward is None or penalty.alpha is None or penalty.form != "indicator":
                continue
            if penalty.latent == RESIDUAL:
                continue
            reward, weight = penalty.own_reward, float(head[penalty.latent])
            if penalty.latent in edits and weight:
                # an edit acts on z, so the reward is turned into z and back
                reward = weight * float(edits[penalty.latent].apply(np.array([reward / weight]))[0])
            beside = penalty.similar_reward
            reward += beside
            # `pays` was rounded to four digits when it was written to the file
            if float(penalty.alpha) < reward * (1 - 1e-3):
                amount = f"the penalty on latent {penalty.latent} takes {float(penalty.alpha):.3g}"
                warnings.append(
                    f"{amount}, less than the {reward:.3g} that the latent "
                    f"{'and similar ones typically add' if beside else 'typically adds'}: "
                    "firing still raises the reward; give a larger alpha"
                )
        return tuple(warnings)

    def start(self, human: HumanBuffer | None = None, seed: int = 0) -> ControlState:
        """The state at the beginning of a run; controls with a target rate must be resolved first.

        Raises:
            ConfigError: a human-KL term without demonstrations, or with a buffer of other latents.
        """
        if self.human_kl is None:
            return ControlState(targets=self._targets())
        if human is None:
            raise ConfigError(
                "human_kl needs human demonstrations",
                hint="give them with --human demos.jsonl, or drop --beta",
            )
        return ControlState(Discriminator(self.human_kl, human, seed), self._targets())

    def alphas(self, state: ControlState | None = None) -> tuple[float, ...]:
        """The size of each penalty now, in reward units: alpha, or what its target rate has led to.

        Raises:
            ConfigError: controls that are not resolved, or a target rate without a started state.
        """
        self._check_resolved()
        return tuple(self._alpha(penalty, state) for penalty in self.penalties)

    def shape(self, scored: Scored, state: ControlState | None = None) -> ShapedReward:
        """The reward under these controls: a pure function of the scored answers and the state.

        Every answer's reward depends on that answer alone, except for the human-KL term in `batch` mode.

        Raises:
            ConfigError: a symbolic tau, alpha or beta, a latent outside 0..L-1, or a human-KL term or target
                rate without a started state.
            ModelError: a head other than the controls' or the buffer's own.
        """
        self.check(scored.latents.size, scored.fingerprint, scored.kind)
        # float64 from here on: the columns must sum to the total to 1e-6
        reward_model = scored.rewards.astype(np.float64)
        # the change is added, not the sum taken anew: an answer that no edit touches keeps its reward's bits
        edited = reward_model + edit_delta(scored, self.edits)
        alphas = self.alphas(state)
        # from the unedited z: otherwise a cap below tau would switch off the penalty on its latent
        penalties = self._amounts(scored, alphas)
        divergence = self._divergence(scored, state)
        human_kl = np.zeros(len(scored)) if divergence is None else self._human_kl(divergence)
        shaped = ShapedReward(
            total=edited - penalties.sum(axis=1) - human_kl,
            reward_model=reward_model,
            edited=edited,
            penalties=penalties,
            human_kl=human_kl,
            log_ratio=None if divergence is None else divergence.log_ratio,
            penalty_latents=tuple(penalty.latent for penalty in self.penalties),
        )
        info = {**self._info(scored, shaped), **self._learnt_info(alphas)}
        shaped.info.update(info, **({} if divergence is None else divergence.info))
        return shaped

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a config file or manifest; what is not given is left out."""
        values: dict[str, Any] = {
            "edits": [_given(edit) for edit in self.edits],
            "penalties": [_given(penalty) for penalty in self.penalties],
        }
        if self.human_kl is not None:
            values["human_kl"] = {**_given(self.human_kl), "latents": list(self.human_kl.latents)}
        single = {"fingerprint": self.fingerprint, "reward_sd": self.reward_sd}
        return {**values, **{name: value for name, value in single.items() if value is not None}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Controls":
        """What `to_dict` gave, or the same written by hand.

        Raises:
            ConfigError: the message names the place, such as `penalties[1]`.
        """
        known = ("edits", "penalties", "human_kl", "fingerprint", "reward_sd")
        for key in values:
            if key not in known:
                raise unknown_key("controls", key, known)
        human_kl = values.get("human_kl")
        return cls(
            edits=_build(Edit, values.get("edits") or (), "edits"),
            penalties=_build(Penalty, values.get("penalties") or (), "penalties"),
            human_kl=None if human_kl is None else HumanKL(**_mapping(human_kl, "human_kl")),
            fingerprint=values.get("fingerprint"),
            reward_sd=values.get("reward_sd"),
        )

    def _penalised(self) -> tuple[int, ...]:
        penalised = {p.latent for p in self.penalties if p.latent != RESIDUAL}
        return tuple(sorted({edit.latent for edit in self.edits} | penalised))

    def _targets(self) -> tuple[Penalty, ...]:
        return tuple(penalty for penalty in self.penalties if penalty.target_rate is not None)

    def _alpha(self, penalty: Penalty, state: ControlState | None) -> float:
        if penalty.alpha is not None:
            return float(penalty.alpha)
        sds = None if state is None else state.rates.sds(penalty)
        if sds is None or self.reward_sd is None:
            raise ConfigError(
                f"penalty on {penalty.watched}: target_rate needs the state of a run",
                hint="call controls.start() on the resolved controls and pass the state on",
            )
        return sds * self.reward_sd

    def _check_resolved(self) -> None:
        resolved = all(penalty.resolved for penalty in self.penalties)
        resolved &= self.human_kl is None or self.human_kl.resolved
        if not resolved or (self._targets() and self.reward_sd is None):
            raise ConfigError(
                "a threshold or penalty is still given as a quantile or in SDs",
                hint="call controls.resolve(reference_statistics) before controls.shape(scored)",
            )

    def _amounts(self, scored: Scored, alphas: Sequence[float]) -> Array:
        if not self.penalties:
            return np.zeros((len(scored), 0))
        z = watched_columns(scored, [penalty.latent for penalty in self.penalties])
        parts = zip(self.penalties, z.T, alphas, strict=True)
        amounts = [penalty.amount(column, alpha) for penalty, column, alpha in parts]
        return np.stack(amounts, axis=1)

    def _divergence(self, scored: Scored, state: ControlState | None) -> HumanDivergence | None:
        if self.human_kl is None:
            return None
        if state is None or state.discriminator is None:
            raise ConfigError(
                "human_kl needs the state of a run",
                hint="call controls.start(human_buffer) and pass the state on",
            )
        return state.discriminator.score(scored)

    def _human_kl(self, divergence: HumanDivergence) -> Array:
        if self.human_kl is None:
            return np.zeros_like(divergence.log_ratio)
        beta = float(self.human_kl.beta)
        if self.human_kl.mode == "batch":
            return np.full_like(divergence.log_ratio, beta * divergence.kl)
        return beta * divergence.log_ratio

    def _info(self, scored: Scored, shaped: ShapedReward) -> dict[str, float]:
        info = {name: float(column.mean()) for name, column in shaped.columns().items()}
        latents = self._penalised()
        if latents:
            rates = (scored.latents.columns(latents) > 0).mean(axis=0)
            names = [f"latent/{latent}/rate" for latent in latents]
            info.update(zip(names, rates.tolist(), strict=True))
        variance = float(shaped.total.var())
        parts = zip(metric_names(self.penalties), self.penalties, shaped.penalties.T, strict=True)
        for name, penalty, amount in parts:
            z = watched_columns(scored, [penalty.latent])[:, 0]
            info[f"{name}/rate"] = float(penalty.fires(z).mean())
            info[f"{name}/variance_share"] = float(amount.var()) / variance if variance else 0.0
        return info

    def _learnt_info(self, alphas: Sequence[float]) -> dict[str, float]:
        parts = zip(metric_names(self.penalties), self.penalties, alphas, strict=True)
        return {f"{name}/alpha": alpha for name, one, alpha in parts if one.target_rate is not None}


def _resolve_penalty(penalty: Penalty, reference: ReferenceStatistics) -> Penalty:
    level = penalty.quantile
    tau = penalty.tau if level is None else reference.quantile(penalty.latent, level)
    alpha = penalty.alpha
    if penalty.is_share:
        # SDs of reward per SD of reward: a hinge on a reward has no unit, so that twice the reward model,
        # with twice the residual, has twice the penalty
        in_sds = None if alpha is None else in_sd(alpha, "alpha")
        alpha = alpha if in_sds is None else in_sds
    elif alpha is not None:
        alpha = _in_reward_units(alpha, reference, "alpha")
    return replace(penalty, tau=tau, alpha=alpha)


def _in_reward_units(value: float | str, reference: ReferenceStatistics, what: str) -> float:
    in_sds = in_sd(value, what)
    return float(value) if in_sds is None else in_sds * reference.sd


def _given(spec: Any) -> dict[str, Any]:
    return {name: value for name, value in asdict(spec).items() if value is not None}


def _build(kind: Any, items: Any, key: str) -> list[Any]:
    if not isinstance(items, list | tuple):
        raise ConfigError(f"{key} must be a list")
    built = []
    for i, item in enumerate(items):
        entry = _mapping(item, f"{key}[{i}]")
        try:
            built.append(kind(**entry))
        except ConfigError as error:
            raise ConfigError(f"{key}[{i}]: {error}", hint=error.hint) from error
    return built


def _mapping(item: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(item, Mapping):
        raise ConfigError(f"{where} must be a mapping with keys, not {item!r}")
    return {str(name): value for name, value in item.items()}
