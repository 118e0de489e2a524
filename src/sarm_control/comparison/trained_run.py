"""A run folder opened for a comparison: its settings, newest checkpoint, controls and curves.

Shapes: `N` answers, `P` prompts, `M` reference answers to each prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from sarm_control.bounded_json import read_json_object
from sarm_control.comparison.measures import Columns, control_columns
from sarm_control.control import TOTAL as TOTAL
from sarm_control.control import (
    Controls,
    ControlState,
    Floats,
    PatternPenalty,
    ReferenceStatistics,
    RewardRule,
    in_sd,
    pattern_amounts,
    preference_as_reward,
)
from sarm_control.data import Line, Reason, Row, json_object, read_lines
from sarm_control.errors import ConfigError, ModelError, TrainingError
from sarm_control.reward_model import RESIDUAL, RewardModel, Scored
from sarm_control.training import (
    HUMAN,
    PROMPTS,
    REWARDS,
    Checkpoint,
    Policy,
    ReferenceRewards,
    Role,
    Rollout,
    RunConfig,
    encode_prompts,
    human_buffer,
    load_checkpoint,
    newest_checkpoint,
    read_run_config,
    role_of_run,
    settled_days,
)

CURVES = ("reward/model", "reward/total", "objective/kl")
_MOST_POINTS = 400


@dataclass(frozen=True)
class TrainedRun:
    """A run with at least one checkpoint.

    Args:
        path: the run folder.
        config: its settings.
        role: what it is in a comparison.
        checkpoint: its newest good checkpoint.
        statistics: of the reference policy's rewards, frozen before its first step.
    """

    path: Path
    config: RunConfig
    role: Role
    checkpoint: Checkpoint
    statistics: ReferenceStatistics

    @property
    def kl_price(self) -> float:
        """Reward units that the training objective subtracts per nat of KL."""
        # the objective of such a run is in SDs, and so is its KL coefficient
        unit = self.statistics.sd if self.config.reward.standardize else 1.0
        return self.config.training.kl_coef * unit

    def load_policy(self, *, device: str | None = None) -> Policy:
        """The trained policy, with its base as the reference.

        Raises:
            ModelError: the base cannot be loaded.
        """
        policy = Policy.load(
            self.config.policy,
            seed=self.config.training.seed,
            device=device,
            template_date=self.config.data.template_date,
        )
        # a comparison needs no values, and the critic may be of another kind
        policy.load_state_tensors(self.checkpoint.tensors, critic=False)
        return policy

    def open_controls(self, rm: RewardModel) -> "RunControls":
        """The controls with every amount as a number, and their state at the checkpoint.

        Raises:
            ModelError: `rm` has another head than the run was trained with.
        """
        if self.statistics.fingerprint != rm.fingerprint:
            raise ModelError(
                f"{self.path} was trained with head {self.statistics.fingerprint}, "
                f"this reward model has {rm.fingerprint}",
                hint="compare runs of one reward model",
            )
        config = self.config
        human = human_buffer(
            config.data.human,
            config.reward.human_kl,
            rm,
            self.path / HUMAN,
            answers=config.training.answers_per_step,
            options=config.data.row_options,
        )
        # by the statistics of the run itself: an amount such as 0.5sd would be
        # another number on other answers
        controls = config.reward.controls().resolve(self.statistics)
        state = controls.start(human, config.training.seed)
        learnt = self.checkpoint.tensors.get("controls", {})
        state.load_state_dict(
            # what PAR compares with is kept in the same part of a checkpoint, and is no state of
            # controls
            {name: tensor.numpy() for name, tensor in learnt.items() if name not in (PROMPTS, REWARDS)}
        )
        around = self.statistics if config.reward.shaping == "par" else None
        patterns = tuple(one.resolve(self.statistics) for one in config.reward.pattern_penalties)
        return RunControls(controls, state, self._missing_end(), around, patterns)

    def reference_rewards(
        self, policy: Policy, rows: Sequence[Row], rm: RewardModel, controls: "RunControls"
    ) -> Floats | None:
        """[P, M] rewards of the untrained policy's own answers, which PAR compares answers with.

        For a prompt that the run drew, they are the run's own. For another prompt they are sampled here; the
        run would have sampled the same, since their random numbers are derived from the prompt.

        Args:
            policy: of this run, from `load_policy`.
            rows: P prompts.
            rm: the reward model.
            controls: of this run, from `open_controls`.

        Returns:
            None for a run that is not shaped by PAR, or is shaped by the mean over all prompts.
        """
        reward, training = self.config.reward, self.config.training
        if reward.shaping != "par" or not reward.par_answers:
            return None
        known = ReferenceRewards(policy, training, reward.par_answers)
        known.load_state_tensors(self.checkpoint.tensors.get("controls", {}))
        prompts = encode_prompts(
            policy, [row.prompt for row in rows], [row.where for row in rows], training.max_new_tokens
        )
        # frozen, because scoring these answers is no step of training and teaches the controls
        # nothing
        rule = RewardRule(controls.controls, controls.missing_end, patterns=controls.patterns).frozen()

        def rewards(rollout: Rollout) -> Floats:
            texts = [row.prompt for row in rollout.prompts]
            scored = rm.score(texts, list(rollout.texts), ended=rollout.ended)
            return np.asarray(rule.breakdown(scored, texts=rollout.texts).columns[TOTAL], dtype=np.float64)

        return known.of(prompts, rewards)

    def curves(self) -> dict[str, list[float | None]]:
        """Reward and KL of the steps, thinned to at most 400 points."""
        path = self.path / "metrics.jsonl"
        lines = read_lines(path) if path.is_file() else ()
        rows = [_row(path, line) for line in lines]
        # every n-th row, n rounded up
        rows = rows[:: -(-len(rows) // _MOST_POINTS) or 1]
        present = [name for name in CURVES if any(row.get(name) is not None for row in rows)]
        return {name: [row.get(name) for row in rows] for name in ("step", *present)}

    def _missing_end(self) -> float:
        amount = self.config.reward.missing_end_penalty
        sds = in_sd(amount, "missing_end_penalty")
        return float(amount) if sds is None else sds * self.statistics.sd


@dataclass(frozen=True)
class RunControls:
    """The controls that changed the reward in a run.

    Args:
        controls: resolved: every amount is a number.
        state: their state at the checkpoint; it is never updated.
        missing_end: the penalty on an answer that did not end, reward units.
        shaped_around: the reference statistics of a run with PAR shaping; None for others.
        patterns: resolved penalties on texts.
    """

    controls: Controls
    state: ControlState
    missing_end: float
    shaped_around: ReferenceStatistics | None = None
    patterns: tuple[PatternPenalty, ...] = ()

    def parts(
        self, scored: Scored, references: Floats | None = None, texts: Sequence[str] | None = None
    ) -> Columns:
        """[N] columns of the reward of N answers under these controls.

        Args:
            scored: N answers.
            references: [N, M] rewards of the reference answers to each answer's prompt, for a run with PAR
                shaping; without them their mean over all prompts is used.
            texts: [N] the answers, for a run with penalties on patterns.
        """
        shaped = self.controls.shape(scored, self.state)
        amount: Floats | None = None
        if self.missing_end:
            amount = np.where(scored.ended, 0.0, -self.missing_end)
        found = pattern_amounts(self.patterns, texts, len(scored)) if self.patterns else None
        around = self.shaped_around
        if around is None:
            return control_columns(shaped, self.controls, amount, found)
        return control_columns(
            shaped,
            self.controls,
            amount,
            found,
            lambda total: preference_as_reward(total, around.mean, around.sd, references),
        )

    @property
    def controlled(self) -> tuple[int, ...]:
        """The latents that edits and penalties act on, ascending."""
        edited = {edit.latent for edit in self.controls.edits}
        penalised = {one.latent for one in self.controls.penalties if one.latent != RESIDUAL}
        return tuple(sorted(edited | penalised))

    @property
    def thresholds(self) -> dict[int, float]:
        """The tau of every penalised latent."""
        penalties = self.controls.penalties
        return {one.latent: float(one.tau) for one in penalties if one.latent != RESIDUAL}

    def in_words(self) -> tuple[str, ...]:
        """One line for each edit, each penalty, and the human-KL term."""
        words = [f"edit of latent {edit.latent}: {_given(edit)}" for edit in self.controls.edits]
        words += [
            f"penalty on {penalty.watched}: {penalty.form}, {alpha:.3g} above {float(penalty.tau):.3g}"
            + ("" if penalty.target_rate is None else f" at the end, for a rate of {penalty.target_rate:g}")
            for penalty, alpha in zip(self.controls.penalties, self.controls.alphas(self.state), strict=True)
        ]
        words += [f"penalty on the pattern {one.pattern}: {float(one.alpha):.3g}" for one in self.patterns]
        term = self.controls.human_kl
        if term is not None:
            words.append(f"human-KL term: beta {float(term.beta):.3g}, {term.mode}")
        return tuple(words)


def open_run(path: Path) -> TrainedRun:
    """Reads a run folder.

    Raises:
        ConfigError: it is no run folder.
        TrainingError: it has no checkpoint that verifies, was not calibrated, or its manifest names another
            role than there are.
    """
    if not (path / "config.yaml").is_file():
        raise ConfigError(
            f"{path} is not a run folder: it has no config.yaml",
            hint="give the folder that sarm train wrote, such as runs/NAME",
        )
    config = settled_days(path, read_run_config(path))
    role = role_of_run(read_json_object(path / "manifest.json"), path, config)
    found = newest_checkpoint(path)
    if found.path is None:
        raise TrainingError(f"{path} has no checkpoint that verifies", hint="go on with sarm train --resume")
    checkpoint = load_checkpoint(found.path)
    # twice the size of the weights, and of no use here
    checkpoint.tensors.pop("optimizer", None)
    statistics = ReferenceStatistics.from_dict(checkpoint.state["reward"]["statistics"])
    return TrainedRun(path, config, role, checkpoint, statistics)


def _row(path: Path, line: Line) -> dict[str, Any]:
    try:
        return json_object(line.data)
    except Reason as reason:
        raise TrainingError(
            f"{path}:{line.place.line}: {reason}",
            hint="go on with sarm train --resume, which repairs the rows",
        ) from None


def _given(spec: Any) -> str:
    values = {field.name: getattr(spec, field.name) for field in fields(spec)}
    return ", ".join(f"{n} {v:g}" for n, v in values.items() if v is not None and n != "latent")
