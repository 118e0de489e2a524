"""What an evaluation step asks: prompts that stay the same for the whole run."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from sarm_control.data import Row, read_rows
from sarm_control.embedded import HELD_OUT_PROMPTS, LAB, TRAIN_PROMPTS
from sarm_control.seeds import numpy_generator
from sarm_control.training.config.run_config import RunConfig
from sarm_control.training.data.prompts import training_rows


class EvaluationRows(NamedTuple):
    """The rows whose prompts are answered in every evaluation; both empty when it is off.

    Args:
        rows: the prompts of the ledger and the checks.
        should_respond: prompts a refusal of which is an over-refusal.
        source: where the rows come from, in words.
        trained_on: how many of the rows have prompts that are trained on.
    """

    rows: list[Row]
    should_respond: list[Row]
    source: str
    trained_on: int


def evaluation_rows(config: RunConfig, *, say_form: bool = False) -> EvaluationRows:
    """Reads and draws the prompts; the same settings give the same ones.

    Args:
        config: the run's settings.
        say_form: say on stderr what forms files of others have.

    Raises:
        DataError: a row that cannot be used.
    """
    chosen = config.evaluation
    if not chosen.every:
        return EvaluationRows([], [], "", 0)
    path, respond, trained = prompts_file(config), chosen.should_respond, training_rows(config).kept

    def read(file: Path) -> list[Row]:
        return read_rows(file, want={"prompt"}, say_form=say_form)

    rows = _drawn(trained if path is None else read(path), config, "evaluation prompts")
    known = {row.prompt_key for row in trained}
    return EvaluationRows(
        rows=rows,
        should_respond=[] if respond is None else _drawn(read(respond), config, "should respond"),
        source=f"of {path}" if path else "of the training prompts",
        trained_on=sum(row.prompt_key in known for row in rows),
    )


def prompts_file(config: RunConfig) -> Path | None:
    """The file of evaluation prompts: the one that was named, the lab's own for the lab, else None."""
    if config.evaluation.prompts is not None:
        return config.evaluation.prompts
    lab = config.policy.model == LAB and config.data.prompts == TRAIN_PROMPTS
    return HELD_OUT_PROMPTS if lab else None


def evaluation_lines(config: RunConfig, found: EvaluationRows) -> list[str]:
    """The evaluation in words, for the plan of a run; nothing when it is off."""
    if not found.rows:
        return []
    hint = ""
    if prompts_file(config) is None:
        hint = " (give held-out ones with --set evaluation.prompts=FILE)"
    elif found.trained_on:
        hint = f", {found.trained_on} of which are trained on (--exclude leaves them out of training)"
    more = f", {len(found.should_respond)} that should be answered" if found.should_respond else ""
    return [
        f"evaluation every {config.evaluation.every} steps and at the end: "
        f"{len(found.rows)} {found.source}{hint}{more}"
    ]


def _drawn(rows: list[Row], config: RunConfig, purpose: str) -> list[Row]:
    order = numpy_generator(config.training.seed, purpose).permutation(len(rows))
    return [rows[i] for i in np.sort(order[: config.evaluation.answers])]
