"""What an evaluation step asks: prompts that stay the same for the whole run."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from sarm_control.conversation.rows import Row, read_rows
from sarm_control.embedded import HELD_OUT_PROMPTS, LAB, TRAIN_PROMPTS
from sarm_control.ppo.config import RunConfig
from sarm_control.ppo.plan import training_rows
from sarm_control.seeds import numpy_generator


class EvaluationRows(NamedTuple):
    """The rows whose prompts are answered in every evaluation; both empty when it is off.

    Args:
        rows: the prompts of the ledger and the checks.
        should_respond: prompts a refusal of which is an over-refusal.
        source: where the rows come from, in words.
        held_out: whether they are no training prompts.
    """

    rows: list[Row]
    should_respond: list[Row]
    source: str
    held_out: bool


def evaluation_rows(config: RunConfig) -> EvaluationRows:
    """Reads and draws the prompts; the same settings give the same ones.

    Raises:
        DataError: a row that cannot be used.
    """
    chosen = config.evaluation
    if not chosen.every:
        return EvaluationRows([], [], "", False)
    path = prompts_file(config)
    rows = training_rows(config).kept if path is None else read_rows(path, want={"prompt"})
    respond = chosen.should_respond
    return EvaluationRows(
        rows=_drawn(rows, config, "evaluation prompts"),
        should_respond=[]
        if respond is None
        else _drawn(read_rows(respond, want={"prompt"}), config, "should respond"),
        source=f"of {path}" if path else "of the training prompts",
        held_out=path is not None,
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
    hint = "" if found.held_out else " (give held-out ones with --set evaluation.prompts=FILE)"
    more = f", {len(found.should_respond)} that should be answered" if found.should_respond else ""
    return [
        f"evaluation every {config.evaluation.every} steps and at the end: "
        f"{len(found.rows)} {found.source}{hint}{more}"
    ]


def _drawn(rows: list[Row], config: RunConfig, purpose: str) -> list[Row]:
    order = numpy_generator(config.training.seed, purpose).permutation(len(rows))
    return [rows[i] for i in np.sort(order[: config.evaluation.answers])]
