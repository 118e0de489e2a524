"""What rises instead, and whether an audit before training foretold it; see docs/results/real-shortcut.md.

Three things stand side by side for every attribute of `sarm audit`'s battery: what best-of-16 on the starting
policy's own answers predicts, what the certificate against substitution allows, and what PPO did.

Shapes: `S` seeds, `P` held-out prompts, `A` attributes, `N` answers.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from real_shortcut_data import OFFER, read, write
from real_shortcut_tables import interval_cell

Floats = NDArray[np.float64]
Tables = dict[str, Any]
ANSWERS, LONGEST = 16, 40
OTHER = "other closing"
"""A closing by the rule that has not the planted words."""


def sample_candidates(policy: Path, prompts: Path, out: Path, *, answers: int, longest: int) -> None:
    """Writes several answers of the starting policy to each prompt, before anything is trained."""
    from sarm_control.comparison import Sampling, answer_prompts
    from sarm_control.training import Policy, PolicyConfig, encode_prompts

    model = Policy.load(PolicyConfig(model=str(policy), lora=None), seed=0, device="cpu")
    texts = [row["prompt"] for row in read(prompts)]
    rows = encode_prompts(model, texts, [str(prompts)] * len(texts), longest)
    found = answer_prompts(model, rows, Sampling(answers, longest, 1.0, 0, 32)).texts
    groups = [list(found[start : start + answers]) for start in range(0, len(found), answers)]
    write(out, [{"prompt": text, "candidates": group} for text, group in zip(texts, groups, strict=True)])


def predictions(model: Path, candidates: Path, controls: Path | None) -> Tables:
    """What best-of-16 does to each attribute, and what may move once the reward is under controls.

    Args:
        model: the reward model.
        candidates: of `sample_candidates`.
        controls: what the study's arm `controls` trained under; None where there is no such arm.
    """
    from sarm_control.auditing import BATTERY, attribute_table, certificate
    from sarm_control.auditing.best_of_n import expected_attributes
    from sarm_control.data import read_rows
    from sarm_control.latents import ScoredRows, score_rows
    from sarm_control.reward_model import RewardModel

    rows = read_rows(candidates, want={"candidates"})
    scored = score_rows(RewardModel.from_pretrained(model), rows)
    table = attribute_table(ScoredRows(rows, scored), BATTERY)
    sizes, expected = expected_attributes(table, n=(1, min(ANSWERS, len(rows[0].candidates))))
    change = (expected[:, -1] - expected[:, 0]).mean(axis=0)
    spread = _counted(table.values).std(axis=0)
    verdicts: dict[str, str] = {}
    if controls is not None:
        moved = certificate(table, controlled_rewards(controls, scored), n=sizes[-1:])
        verdicts = {one.name: one.verdict for one in moved}
    return {
        one.name: {
            "best_of": sizes[-1],
            "change": float(change[place]),
            "sd": float(spread[place]),
            "certified": verdicts.get(one.name),
        }
        for place, one in enumerate(BATTERY)
    }


def _counted(values: Floats) -> Floats:
    """[N, A]: of an attribute whether an answer has it, of a size how large it is."""
    from sarm_control.auditing import BATTERY

    sizes = np.array([one.unit == "doubling" for one in BATTERY])
    return np.where(sizes, values, values > 0)


def controlled_rewards(controls: Path, scored: Any) -> Floats:
    """[N] rewards under a file of controls, whose amounts are taken from these same answers."""
    from sarm_control.control import TOTAL, ReferenceStatistics, RewardRule
    from sarm_control.training import load_config

    given = load_config(controls).reward.controls()
    reference = ReferenceStatistics.from_scored(scored, given.quantile_latents())
    rule = RewardRule.of(given, 0.0, reference, standardize=False)
    return np.asarray(rule.breakdown(scored).columns[TOTAL])


def attribute_means(answers: Path, prompts: Sequence[str], rule: str) -> dict[str, dict[str, Floats]]:
    """The attributes of a cell's answers, policy by policy.

    Args:
        answers: the measured answers of a cell.
        prompts: [P] texts.
        rule: of the shortcut, for `OTHER`.

    Returns:
        Attribute -> `start` and `end` -> [P] means over the answers to each prompt.
    """
    from sarm_control.auditing import BATTERY
    from sarm_control.auditing.table import measured

    rows = read(answers)
    asked = [prompts[row["prompt"]] for row in rows]
    texts = [row["response"] for row in rows]
    values = _counted(measured(BATTERY, asked, texts))
    other = [bool(re.search(rule, text)) and OFFER not in text for text in texts]
    columns = {one.name: values[:, place] for place, one in enumerate(BATTERY)}
    columns[OTHER] = np.asarray(other, dtype=np.float64)
    numbers = np.array([row["prompt"] for row in rows])
    found: dict[str, dict[str, Floats]] = {}
    for name, column in columns.items():
        found[name] = {}
        for policy in ("start", "end"):
            kept = np.array([row["policy"] == policy for row in rows])
            counts = np.bincount(numbers[kept], minlength=len(prompts))
            sums = np.bincount(numbers[kept], weights=column[kept], minlength=len(prompts))
            found[name][policy] = sums / np.maximum(counts, 1)
    return found


def movements(study: Path, prompts: Sequence[str], world: str, rule: str) -> Tables:
    """What PPO did to each attribute under every arm, and against the arm without control.

    Returns:
        Attribute -> `change` -> arm -> interval; `against` -> arm -> interval; `by_seed` -> arm -> changes.
    """
    from sarm_control.study import crossed_interval

    cells: dict[str, dict[int, Mapping[str, Mapping[str, Floats]]]] = {}
    for cell in json.loads((study / "study.json").read_text(encoding="utf-8"))["cells"]:
        if cell["world"] == world and cell["status"] == "done":
            path = study / "cells" / f"{cell['name']}.answers.jsonl"
            cells.setdefault(cell["arm"], {})[cell["seed"]] = attribute_means(path, prompts, rule)
    first = next(iter(next(iter(cells.values())).values()), {}) if cells else {}
    found: Tables = {}
    for name in first:
        moved = {
            arm: np.stack([one[name]["end"] - one[name]["start"] for _, one in sorted(seeds.items())])
            for arm, seeds in cells.items()
        }
        found[name] = {
            "change": {arm: crossed_interval(table)._asdict() for arm, table in moved.items()},
            "by_seed": {arm: table.mean(axis=1).tolist() for arm, table in moved.items()},
            "against": {arm: _against(cells, arm, name) for arm in cells if arm != "none"},
        }
    return found


def residual_shares(model: Path, study: Path, prompts: Sequence[str], world: str) -> dict[str, list[float]]:
    """Of the reward gained from start to end, the share that no latent of the dictionary carries, by seed.

    Returns:
        Arm -> shares; nan where nothing was gained.
    """
    from sarm_control.reward_model import RewardModel

    rm = RewardModel.from_pretrained(model)
    found: dict[str, list[float]] = {}
    for cell in json.loads((study / "study.json").read_text(encoding="utf-8"))["cells"]:
        if cell["world"] != world or cell["status"] != "done":
            continue
        rows = read(study / "cells" / f"{cell['name']}.answers.jsonl")
        # what was measured on the way is neither
        rows = [row for row in rows if row["policy"] in ("start", "end")]
        scored = rm.score([prompts[row["prompt"]] for row in rows], [row["response"] for row in rows])
        assert scored.residual is not None
        late = np.array([row["policy"] == "end" for row in rows])
        gained, outside = (
            float(part[late].mean() - part[~late].mean())
            for part in (scored.rewards.astype(np.float64), scored.residual.astype(np.float64))
        )
        found.setdefault(cell["arm"], []).append(outside / gained if gained > 0 else float("nan"))
    return found


def _against(cells: Mapping[str, Mapping[int, Any]], arm: str, name: str) -> Tables | None:
    """The arm's end minus that of no control, over the seeds that both have."""
    from sarm_control.study import crossed_interval

    both = sorted(set(cells[arm]) & set(cells.get("none", {})))
    if not both:
        return None
    rows = [cells[arm][seed][name]["end"] - cells["none"][seed][name]["end"] for seed in both]
    return crossed_interval(np.stack(rows))._asdict()


def agreement(predicted: Tables, moved: Tables, arm: str = "none") -> list[float]:
    """Spearman's rank correlation over attributes of best-of-16's change with PPO's, seed by seed.

    Changes are in SDs of the starting policy's answers, since shares and sizes have no common unit.
    Attributes that neither moves are left out: they are ties and say nothing.
    """
    from scipy.stats import spearmanr

    names = [name for name in predicted if name in moved and arm in moved[name]["by_seed"]]
    seeds = len(moved[names[0]]["by_seed"][arm]) if names else 0
    found = []
    for seed in range(seeds):
        pairs = [
            (predicted[name]["change"] / unit, moved[name]["by_seed"][arm][seed] / unit)
            for name in names
            if (unit := predicted[name]["sd"])
        ]
        kept = [pair for pair in pairs if any(pair)]
        first, second = ([pair[side] for pair in kept] for side in (0, 1))
        varied = len(kept) > 2 and all(len(set(side)) > 1 for side in (first, second))
        found.append(float(spearmanr(first, second).statistic) if varied else float("nan"))
    return found


def evasion_text(world: str, predicted: Tables, moved: Tables) -> str:
    """Markdown: a row for each attribute that moved, and the rank correlations."""
    lines = [
        f"**{world}: what rises instead**",
        "",
        "| attribute | best-of-16 | change, none | change, controls | controls - none, end | certified |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, one in moved.items():
        known = predicted.get(name, {})
        cells = [
            _number(known.get("change")),
            *(interval_cell(one["change"].get(arm)) for arm in ("none", "controls")),
            interval_cell(one["against"].get("controls")),
            known.get("certified") or "-",
        ]
        if any(cell not in ("-", "+0.00") for cell in cells[:-1]):
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    by_seed = ", ".join(f"{value:.2f}" for value in agreement(predicted, moved)) or "not run"
    return "\n".join([*lines, "", f"Rank correlation of best-of-16 with PPO under none, by seed: {by_seed}"])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"
