"""Answers of the embedded world to ask a reward deployment about."""

import json
from pathlib import Path

from sarm_control.embedded import data_file
from sarm_control.server.ray.settings import AnswerToScore


def answers(count: int) -> list[AnswerToScore]:
    """The first `count`, all different, some of them cut short."""
    rows = [json.loads(line) for line in data_file(Path("lab:human")).read_text().splitlines()]
    return [
        AnswerToScore(
            prompt=rows[j % len(rows)]["prompt"],
            response=rows[j % len(rows)]["response"] + " yes" * (j // len(rows)),
            ended=j % 7 != 0,
        )
        for j in range(count)
    ]
