"""The prompts of a run as its policy reads them, every one checked before the first step.

A prompt that policy or reward model cannot read is found here, not in the step that happens to draw it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sarm_control.conversation import ChatTemplate
from sarm_control.data import Row
from sarm_control.errors import DataError, ModelError
from sarm_control.training.config.run_config import RunConfig
from sarm_control.training.data.evaluation_prompts import evaluation_rows
from sarm_control.training.rollout.rollout import PromptRow, encode_one


class EvaluationPrompts(NamedTuple):
    """The prompts of every evaluation; both lists are empty when it is off.

    Args:
        rows: those of the ledger and the monitors.
        should_respond: see `EvaluationRows`.
    """

    rows: list[PromptRow]
    should_respond: list[PromptRow]


class UsablePrompts(NamedTuple):
    """The prompts of a run.

    Args:
        training: those that are trained on, at least one.
        evaluation: those of evaluations.
        lines: what `data.overlong` did, in words; empty when every prompt fits.
    """

    training: list[PromptRow]
    evaluation: EvaluationPrompts
    lines: list[str]

    @property
    def all(self) -> list[PromptRow]:
        """Those of training, then those of evaluations."""
        return [*self.training, *self.evaluation.rows, *self.evaluation.should_respond]

    def check_scorable(self, template: ChatTemplate) -> None:
        """Renders each prompt with a stand-in for its answer.

        Args:
            template: of the reward model.

        Raises:
            DataError: `file:line` of a prompt that the template refuses.
        """
        check_scorable(template, self.all)


def usable_prompts(
    config: RunConfig, trained: Sequence[Row], template: ChatTemplate, context: int | None
) -> UsablePrompts:
    """Encodes the prompts of training and evaluations; `data.overlong` says what becomes of long ones.

    Evaluation prompts are drawn first and checked then, so that they are fewer where some are skipped. Equal
    arguments give equal prompts.

    Args:
        config: the run's settings.
        trained: the rows whose prompts are trained on, from `training_rows`.
        template: of the policy.
        context: of the policy; None without a limit.

    Raises:
        DataError: `file:line` of a prompt that the template refuses, or that is too long; or none is left.
    """
    lines: list[str] = []

    def fitting(rows: Sequence[Row], name: Path, *, say: bool = True) -> tuple[list[Row], list[PromptRow]]:
        kept, encoded = [], []
        room, overlong = config.training.max_new_tokens, config.data.overlong
        for row in rows:
            found = encode_one(template, context, row.prompt, row.where, room, overlong)
            if found is not None:
                kept.append(row)
                encoded.append(found)
        if rows and not kept:
            raise DataError(
                f"{name}: all {len(rows)} prompts are longer than the policy's context of {context}, "
                f"less {room} tokens for the answer",
                hint="lower training.max_new_tokens, or set data.overlong to truncate",
            )
        if say:
            lines.extend(_lines(name, encoded, len(rows)))
        return kept, encoded

    kept, training = fitting(trained, config.data.prompts)
    drawn = evaluation_rows(config.evaluation, config.evaluation_prompts, kept, config.training.seed)
    # without a file of their own they are training prompts, of which all was said
    _, rows = fitting(drawn.rows, drawn.file or config.data.prompts, say=drawn.file is not None)
    should_respond: list[PromptRow] = []
    if config.evaluation.should_respond is not None:
        _, should_respond = fitting(drawn.should_respond, config.evaluation.should_respond)
    return UsablePrompts(training, EvaluationPrompts(rows, should_respond), lines)


def check_scorable(template: ChatTemplate, prompts: Sequence[PromptRow | Row]) -> None:
    """Renders each prompt with a stand-in for its answer, in the chat template of the reward model.

    Raises:
        DataError: `file:line` of a prompt that the template refuses.
    """
    for prompt in prompts:
        try:
            template.check(prompt.prompt)
        except ModelError as error:
            raise DataError(f"{prompt.where}: for the reward model, {error}", hint=error.hint) from error


def _lines(name: Path, encoded: Sequence[PromptRow], count: int) -> list[str]:
    cut = [row.cut for row in encoded if row.cut]
    lines = []
    if len(encoded) < count:
        lines.append(
            f"data.overlong: {count - len(encoded)} of {count} prompts of {name} are left out: they are "
            "longer than the policy's context"
        )
    if cut:
        lines.append(
            f"data.overlong: {len(cut)} of {count} prompts of {name} are cut from the left to fit the "
            f"policy's context, by {max(cut)} tokens at most"
        )
    return lines
