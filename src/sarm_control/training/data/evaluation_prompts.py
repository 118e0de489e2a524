"""The prompts of an evaluation, which stay the same for the whole run."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sarm_control.data import Row, read_rows
from sarm_control.seeds import numpy_generator
from sarm_control.training.config.run_config import EvaluationConfig


class EvaluationRows(NamedTuple):
    """The rows whose prompts are answered in every evaluation; both lists are empty when it is off.

    Args:
        rows: the prompts of the ledger and the monitors.
        should_respond: prompts that should be answered: a refusal of one is an over-refusal.
        file: where `rows` come from; None for the training prompts.
        trained_on: how many of `rows` have prompts that are trained on.
    """

    rows: list[Row]
    should_respond: list[Row]
    file: Path | None
    trained_on: int


def evaluation_rows(
    evaluation: EvaluationConfig,
    file: Path | None,
    trained: Sequence[Row],
    seed: int,
    *,
    say_form: bool = False,
) -> EvaluationRows:
    """Reads and draws the prompts; equal arguments give equal prompts.

    Args:
        evaluation: how often there is an evaluation, and of how many prompts.
        file: `RunConfig.evaluation_prompts`; None takes some of the training prompts.
        trained: the rows that are trained on.
        seed: of the run.
        say_form: report on stderr the form of files that have another than ours.

    Raises:
        DataError: a row that cannot be used.
    """
    if not evaluation.every:
        return EvaluationRows([], [], None, 0)

    def drawn(rows: Sequence[Row], purpose: str) -> list[Row]:
        order = numpy_generator(seed, purpose).permutation(len(rows))
        # which ones is random, their order is that of the file: a reader finds them again
        return [rows[i] for i in np.sort(order[: evaluation.answers])]

    def read(path: Path) -> list[Row]:
        return read_rows(path, want={"prompt"}, say_form=say_form)

    should_respond = evaluation.should_respond
    rows = drawn(trained if file is None else read(file), "evaluation prompts")
    known = {row.prompt_key for row in trained}
    return EvaluationRows(
        rows=rows,
        should_respond=[] if should_respond is None else drawn(read(should_respond), "should respond"),
        file=file,
        trained_on=sum(row.prompt_key in known for row in rows),
    )


def evaluation_lines(evaluation: EvaluationConfig, found: EvaluationRows) -> list[str]:
    """The evaluation in words, for the plan of a run; nothing when it is off."""
    if not found.rows:
        return []
    source, hint = f"of {found.file}", ""
    if found.file is None:
        source = "of the training prompts"
        hint = " (give held-out ones with --set evaluation.prompts=FILE)"
    elif found.trained_on:
        hint = f", {found.trained_on} of which are trained on (--exclude leaves them out of training)"
    more = f", {len(found.should_respond)} that should be answered" if found.should_respond else ""
    return [
        f"evaluation every {evaluation.every} steps and at the end: {len(found.rows)} {source}{hint}{more}"
    ]
