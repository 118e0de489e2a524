"""What a cell's policies answered to the held-out prompts, measured; one row for each answer.

Shapes: `N` answers, `P` prompts.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarm_control.comparison import Sampling, compare_runs, open_run, unique_prompts
from sarm_control.console import ProgressFactory, no_progress
from sarm_control.data import Line, json_object, read_lines, read_rows
from sarm_control.lab import World
from sarm_control.reward_model import RewardModel
from sarm_control.study.study_config import StudyConfig, WorldSpec
from sarm_control.training import RunConfig, refuses

Floats = NDArray[np.float64]

START, END = "start", "end"
RATE, REWARD, KL = "rate", "reward", "kl"
GOLD, JUDGE, STRIPPED = "gold", "judge", "stripped_reward"
IN_SDS = (REWARD, GOLD, JUDGE, STRIPPED)
"""Measures whose unit says nothing by itself: tables give them in SDs of the starting policy's answers."""
LABELS = {
    RATE: "share by the rule",
    GOLD: "gold",
    JUDGE: "judge of stripped text",
    STRIPPED: "reward of stripped text",
    REWARD: "reward",
    KL: "KL",
    "refuses": "refusals",
    "words": "words",
    "distinct_2": "different word pairs",
    "ended": "ended by itself",
    "length": "tokens",
}
"""Measures by name, in the order of the tables."""
_BATCH = 64


def measured_answers(
    study: StudyConfig,
    world: str,
    run: Path,
    config: RunConfig,
    *,
    limit: int | None = None,
    progress: ProgressFactory = no_progress,
) -> list[dict[str, Any]]:
    """Answers of the starting and of the trained policy to the held-out prompts, with every measure.

    Both have the random numbers of the run's seed, so that all arms of a seed are paired.

    Args:
        study: the study.
        world: of the run.
        run: its folder, with a checkpoint.
        config: its settings.
        limit: read only so many prompts.
        progress: shows the answering.

    Returns:
        Rows with `policy` (`start` or `end`), `prompt` (its number, 0..P-1), `response` and the measures.
    """
    spec, training = study.worlds[world], config.training
    rows = unique_prompts(read_rows(study.prompts_of(world), want={"prompt"}, limit=limit))
    model = RewardModel.from_pretrained(config.reward.model, template_date=config.data.template_date)
    sampling = Sampling(
        study.answers_per_prompt, training.max_new_tokens, training.temperature, training.seed, _BATCH
    )
    gold = None if spec.lab is None else World.open(spec.lab).gold
    answers = compare_runs([open_run(run)], rows, model, sampling, gold=gold, progress=progress).answers
    texts = [row.prompt_text for row in rows]
    # the same numbers in every cell of a world: arms are compared prompt by prompt
    place = {text: number for number, text in enumerate(texts)}
    found = [{**_plain(row), "prompt": place[row["prompt"]]} for row in answers]
    prompts, responses = [row["prompt"] for row in answers], [row["response"] for row in answers]
    columns = further_columns(spec, model, prompts, responses)
    for name, values in columns.items():
        for row, value in zip(found, values, strict=True):
            row[name] = value
    return found


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in row.items() if key not in ("policy", "kl")}
    # the starting policy has no distance from itself to measure
    kl = {} if row["kl"] is None else {KL: row["kl"]}
    return {"policy": START if row["policy"] == "base" else END, **kept, **kl}


def further_columns(
    spec: WorldSpec, model: RewardModel, prompts: Sequence[str], responses: Sequence[str]
) -> dict[str, list[float]]:
    """Measures of texts alone, and rewards of the texts without the shortcut.

    Args:
        spec: the world, with its rule, its replacements and its judge.
        model: the reward model.
        prompts: [N] texts.
        responses: [N] texts.
    """
    columns: dict[str, list[float]] = {
        "refuses": [float(refuses(text)) for text in responses],
        "words": [float(len(text.split())) for text in responses],
        "distinct_2": [distinct_pairs(text) for text in responses],
    }
    if spec.rule is not None:
        rule = re.compile(spec.rule)
        columns[RATE] = [float(rule.search(text) is not None) for text in responses]
    stripped = [strip(text, spec.strip) for text in responses]
    if spec.strip:
        columns[STRIPPED] = [float(value) for value in model.score(list(prompts), stripped).rewards]
    # it sees texts without the shortcut: it may like the shortcut as much as the reward model does
    if spec.judge is not None:
        judge = RewardModel.from_pretrained(spec.judge)
        columns[JUDGE] = [float(value) for value in judge.score(list(prompts), stripped).rewards]
    return columns


def strip(text: str, replacements: Sequence[tuple[str, str]]) -> str:
    """An answer without the shortcut: each pattern replaced in turn."""
    for pattern, new in replacements:
        text = re.sub(pattern, new, text)
    return text.strip()


def distinct_pairs(text: str) -> float:
    """The share of different ones among the pairs of neighbouring words; 1 for fewer than three words."""
    words = text.split()
    pairs = list(pairwise(words))
    return len(set(pairs)) / len(pairs) if len(pairs) > 1 else 1.0


class CellAnswers:
    """The measures of a cell, one number for each prompt.

    Args:
        rows: of `measured_answers`.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.rows = rows
        self.prompts = 1 + max(int(row["prompt"]) for row in rows)

    @property
    def names(self) -> list[str]:
        """The measures, in the order of `LABELS`."""
        return [name for name in LABELS if any(name in row for row in self.rows)]

    def by_prompt(self, name: str, policy: str) -> Floats | None:
        """[P] means over the answers to each prompt; None where the policy has no such measure."""
        rows = [row for row in self.rows if row["policy"] == policy and name in row]
        if not rows:
            return None
        places = [int(row["prompt"]) for row in rows]
        sums = np.bincount(places, weights=[float(row[name]) for row in rows], minlength=self.prompts)
        return np.asarray(sums / np.bincount(places, minlength=self.prompts))

    def sd_at_start(self, name: str) -> float:
        """The SD over the starting policy's answers; 0 where there are fewer than two."""
        values = [float(row[name]) for row in self.rows if row["policy"] == START and name in row]
        return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0

    def means(self) -> dict[str, dict[str, float | None]]:
        """Every measure at the start and at the end."""
        found: dict[str, dict[str, float | None]] = {}
        for name in self.names:
            sides = {policy: self.by_prompt(name, policy) for policy in (START, END)}
            found[name] = {
                policy: None if values is None else float(values.mean()) for policy, values in sides.items()
            }
        return found


def read_answers(path: Path) -> CellAnswers:
    """The measured answers of a cell."""
    return CellAnswers([_row(line) for line in read_lines(path)])


def _row(line: Line) -> dict[str, Any]:
    return json_object(line.data)
