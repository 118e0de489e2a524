"""The prompts of a run as its policy reads them, every one checked before the first step.

A prompt that policy or reward model cannot read is found here, not in the step that happens to draw it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sarm_control.conversation import ChatTemplate
from sarm_control.data import Row
from sarm_control.errors import DataError, ModelError
from sarm_control.training.config.run_config import Overlong, RunConfig
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
    def longest(self) -> int:
        """Tokens of the longest prompt of all."""
        rows = (self.training, self.evaluation.rows, self.evaluation.should_respond)
        return max(len(prompt.ids) for prompts in rows for prompt in prompts)


def usable_prompts(
    config: RunConfig,
    trained: Sequence[Row],
    template: ChatTemplate,
    context: int | None,
    of_reward: ChatTemplate | None,
) -> UsablePrompts:
    """Encodes and checks the prompts of training and evaluations; `data.overlong` rules over long ones.

    A prompt is too long when it leaves less than `training.max_new_tokens` in the policy's context, or when
    it fills the reward model's context alone. Evaluation prompts are drawn first and checked then, so that
    they are fewer where some are skipped. Equal arguments give equal prompts.

    Args:
        config: the run's settings.
        trained: the rows whose prompts are trained on, from `training_rows`.
        template: of the policy.
        context: of the policy; None without a limit.
        of_reward: the reward model's template, which renders each prompt with a stand-in for its answer; None
            when it is not known.

    Raises:
        DataError: `file:line` of a prompt that a template refuses, or that is too long; or none is left.
    """
    lines: list[str] = []
    room, overlong = config.training.max_new_tokens, config.data.overlong

    def fitting(rows: Sequence[Row], name: Path, *, say: bool = True) -> tuple[list[Row], list[PromptRow]]:
        fits: list[tuple[Row, PromptRow]] = []
        filled = 0
        for row in rows:
            found = encode_one(template, context, row.prompt, row.where, room, overlong)
            if found is None:
                continue
            fills = of_reward is not None and fills_reward_context(of_reward, row, overlong)
            if not (fills and overlong == "skip"):
                fits.append((row, found))
                filled += fills
        if rows and not fits:
            raise DataError(
                f"{name}: all {len(rows)} prompts are longer than the context of the policy or of the reward "
                "model",
                hint="lower training.max_new_tokens, or set data.overlong to truncate",
            )
        encoded = [found for _, found in fits]
        if say:
            lines.extend(_lines(name, len(rows), encoded, filled))
        return [row for row, _ in fits], encoded

    kept, training = fitting(trained, config.data.prompts)
    drawn = evaluation_rows(config.evaluation, config.evaluation_prompts, kept, config.training.seed)
    # without a file of their own they are training prompts, of which all was said
    _, rows = fitting(drawn.rows, drawn.file or config.data.prompts, say=drawn.file is not None)
    should_respond: list[PromptRow] = []
    if config.evaluation.should_respond is not None:
        _, should_respond = fitting(drawn.should_respond, config.evaluation.should_respond)
    return UsablePrompts(training, EvaluationPrompts(rows, should_respond), lines)


def fills_reward_context(template: ChatTemplate, row: Row, overlong: Overlong = "error") -> bool:
    """Whether a prompt alone is as long as the reward model's context, so that scoring would cut it.

    Args:
        template: of the reward model; it also renders the prompt with a stand-in for its answer.
        row: whose prompt is meant.
        overlong: `error` makes such a prompt an error.

    Raises:
        DataError: `file:line` of a prompt that the template refuses, or that is too long.
    """
    limit = template.max_length
    try:
        template.check(row.prompt)
        # counting takes a pass of the tokenizer, which is only worth it where there is a limit
        tokens = 0 if limit is None else len(template.encode_prompt(row.prompt))
    except ModelError as error:
        raise DataError(f"{row.where}: for the reward model, {error}", hint=error.hint) from error
    fills = limit is not None and tokens >= limit
    if fills and overlong == "error":
        raise DataError(
            f"{row.where}: the prompt has {tokens} tokens, the reward model's context {limit}: its answers "
            "cannot be scored with all of it",
            hint="shorten the prompt, or set data.overlong to skip or truncate",
        )
    return fills


def _lines(name: Path, count: int, encoded: Sequence[PromptRow], filled: int) -> list[str]:
    cut = [row.cut for row in encoded if row.cut]
    done = []
    if len(encoded) < count:
        done.append(
            (
                count - len(encoded),
                "are left out: they are longer than the context of the policy or of the reward model",
            )
        )
    if cut:
        done.append(
            (len(cut), f"are cut from the left to fit the policy's context, by {max(cut)} tokens at most")
        )
    if filled:
        done.append(
            (filled, "are cut from the left where they are scored, to fit the reward model's context")
        )
    return [f"data.overlong: {some} of {count} prompts of {name} {what}" for some, what in done]
