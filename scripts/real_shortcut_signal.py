"""What the reward of each arm still tells apart: why a control held a shortcut, or cost something.

The starting policy's answers are scored under every file of controls of the study. An arm whose reward goes
with the shortcut teaches it; one whose reward no longer goes with the stripped text's teaches nothing.
Nothing is trained here.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from real_shortcut_data import read
from real_shortcut_evasion import controlled_rewards

if TYPE_CHECKING:
    from sarm_control.study.study_config import WorldSpec

Floats = NDArray[np.float64]
SEEN = {
    "rate": "shortcut",
    "stripped_reward": "reward of stripped text",
    "judge": "judge",
    "refuses": "refusals",
}
"""Measures of an answer that a reward may go with, and what they are called in the table."""
NO_CONTROL, JUDGE = "no control", "the judge itself"


def signals(model: Path, study: Path, world: str, prompts: Sequence[str]) -> dict[str, dict[str, float]]:
    """Correlations of each arm's reward with measures of the starting policy's answers, all seeds together.

    Args:
        model: the reward model.
        study: its folder, with cells that are done.
        world: its name.
        prompts: [P] the held-out prompts, as the answers number them.

    Returns:
        Name of a controls file, `NO_CONTROL` or `JUDGE`, -> name of a measure -> Pearson's correlation; `sd`
        is the SD of the arm's reward. A file whose penalties need the state of a run (a target rate) is left
        out.
    """
    from sarm_control.reward_model import RewardModel

    rows = starting_answers(study, world)
    scored = RewardModel.from_pretrained(model).score(
        [prompts[row["prompt"]] for row in rows], [row["response"] for row in rows]
    )
    return correlations(_rewards(scored, study / "controls" / world, rows), rows)


def signals_of_candidates(
    world: "WorldSpec", model: Path, candidates: Path, controls: Path
) -> dict[str, dict[str, float]]:
    """The same of the many answers of the starting policy that were sampled before anything was trained.

    Args:
        world: its rule, its replacements and its judge.
        model: the reward model.
        candidates: rows of `sample_candidates`.
        controls: a folder of files of controls.
    """
    from sarm_control.reward_model import RewardModel
    from sarm_control.study.measures import further_columns

    asked = [(row["prompt"], text) for row in read(candidates) for text in row["candidates"]]
    prompts, responses = ([pair[side] for pair in asked] for side in (0, 1))
    rm = RewardModel.from_pretrained(model)
    assert world.judge is not None  # every world of this study has one
    judge = RewardModel.from_pretrained(world.judge)
    columns = further_columns(world, rm, judge, prompts, responses)
    rows = [{name: values[j] for name, values in columns.items()} for j in range(len(asked))]
    scored = rm.score(prompts, responses)
    return correlations(_rewards(scored, controls, rows), rows)


def chosen_of(controls: Path) -> dict[str, Any]:
    """How the controls of a folder were chosen, by the name of their file."""
    return {
        path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(controls.glob("*.json"))
    }


def _rewards(scored: Any, controls: Path, rows: Sequence[Mapping[str, Any]]) -> dict[str, Floats]:
    """The rewards of scored answers without control, under every file of controls, and the judge's."""
    from sarm_control.errors import ConfigError

    rewards = {NO_CONTROL: scored.rewards.astype(np.float64)}
    for path in sorted(controls.glob("*.yaml")):
        try:
            rewards[path.stem] = controlled_rewards(path, scored)
        except ConfigError as error:
            print(f"{path.name}: {error}: left out of the table of signals")
    # how far the judge itself is another measure of these
    rewards[JUDGE] = np.asarray([row["judge"] for row in rows], dtype=np.float64)
    return rewards


def starting_answers(study: Path, world: str) -> list[dict[str, Any]]:
    """The starting policy's measured answers, once for each seed: all arms of a seed have the same."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((study / "cells" / world).glob("*/seed-*.answers.jsonl")):
        found.setdefault(path.name, [row for row in read(path) if row["policy"] == "start"])
    if not found:
        raise SystemExit(f"no cell of {world} is done: nothing to look at")
    return [row for rows in found.values() for row in rows]


def correlations(
    rewards: Mapping[str, Floats], rows: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, float]]:
    """Each reward's correlation with each measure; nan where one of them never varies."""
    found = {}
    for name, values in rewards.items():
        one = {"sd": float(values.std())}
        for measure in SEEN:
            seen = np.asarray([row[measure] for row in rows], dtype=np.float64)
            flat = values.std() == 0 or seen.std() == 0
            one[measure] = float("nan") if flat else float(np.corrcoef(values, seen)[0, 1])
        found[name] = one
    return found


def signal_text(world: str, found: Mapping[str, Mapping[str, float]]) -> str:
    """Markdown: one line for each reward."""
    lines = [
        f"**{world}: what each reward goes with** (correlations over the starting policy's answers)",
        "",
        "| reward under | SD | " + " | ".join(SEEN.values()) + " |",
        "| --- " * (len(SEEN) + 2) + "|",
    ]
    for name, one in found.items():
        cells = " | ".join("-" if np.isnan(one[measure]) else f"{one[measure]:+.2f}" for measure in SEEN)
        lines.append(f"| {name} | {one['sd']:.2f} | {cells} |")
    return "\n".join(lines)


def refusal_text(folder: Path) -> str:
    """How often one side of a pair alone refuses: what the pairs themselves say of refusing.

    Args:
        folder: of the shortcut, with `training.jsonl` and the content pairs of its audit, one answer a side.
    """
    from sarm_control.training import refuses

    said = []
    for name in ("training", "content"):
        pairs = read(folder / f"{name}.jsonl")
        sides = [(refuses(pair["chosen"][0]), refuses(pair["rejected"][0])) for pair in pairs]
        chosen, rejected = (sum(side == alone for side in sides) for alone in ((True, False), (False, True)))
        said.append(
            f"{name}: the chosen answer in {chosen} of {len(pairs)} pairs, the rejected in {rejected}"
        )
    return "Refuses alone, " + "; ".join(said) + "."
