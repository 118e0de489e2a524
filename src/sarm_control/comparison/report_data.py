"""A comparison as plain JSON data, which `report.json` holds and `report.html` is made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from sarm_control.comparison.headline import headline
from sarm_control.comparison.ledger_table import Row, control_rows, latent_rows, ledger_json, residual_row
from sarm_control.comparison.measures import (
    Columns,
    MeasureChange,
    PolicyAnswers,
    answer_columns,
    arm_differences,
    compare_columns,
    goodhart_gap,
    reward_sd,
    wins,
)
from sarm_control.control import Floats, latent_ledger, prompt_means
from sarm_control.notebooks import data_frame, html_table, number, span
from sarm_control.seeds import numpy_generator
from sarm_control.training import Role

FORMAT = "sarm-compare-1"
TITLE = "What training changed"
_SAMPLES, _TEXT, _PAYMENTS = 6, 3000, 4


@dataclass(frozen=True)
class Arm:
    """An arm: a trained policy and the controls that it was trained under.

    Args:
        name: of the run, unique in the comparison.
        role: what the run is in the comparison.
        answers: its answers to the prompts.
        parts: [N] columns of its answers' reward under its own controls.
        base_parts: the same columns of the base policy's answers.
        controlled: latents its controls act on.
        controls: one line for each control.
        steps: training steps done.
        kl_coef: weight of the KL in the training objective.
        kl_price: reward units that the objective subtracts per nat.
        curves: metric name -> values over training, with the steps under "step".
    """

    name: str
    role: Role
    answers: PolicyAnswers
    parts: Columns
    base_parts: Columns
    controlled: tuple[int, ...]
    controls: tuple[str, ...]
    steps: int
    kl_coef: float
    kl_price: float
    curves: Mapping[str, Sequence[float | None]]


class Comparison(NamedTuple):
    """The result of a comparison.

    Args:
        report: sections of `report.json`: headline, arms, differences, samples.
        ledgers: every ledger row of every arm, for `ledger.parquet`.
    """

    report: dict[str, Any]
    ledgers: dict[str, list[Row]]

    def to_pandas(self) -> Any:
        """A pandas frame with a row for each run and measure: its mean before, after, and the change.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        return data_frame(
            {
                "run": arm["name"],
                "measure": row["key"],
                "label": row["label"],
                **{
                    f"{name}_{key}": (row[name] or {}).get(key)
                    for name in ("base", "trained")
                    for key in ("mean",)
                },
                **{f"change_{key}": (row["change"] or {}).get(key) for key in ("mean", "low", "high")},
            }
            for arm in self.report["arms"]
            for row in arm["measures"]
        )

    def _repr_html_(self) -> str:
        """The headline and what changed in each run, in a notebook."""
        parts = [html_table(sentence, (), ()) for sentence in self.report["headline"]]
        for arm in self.report["arms"]:
            rows = (
                (
                    row["label"],
                    *(number((row[name] or {}).get("mean")) for name in ("base", "trained")),
                    number((row["change"] or {}).get("mean")),
                    span((row["change"] or {}).get("low"), (row["change"] or {}).get("high")),
                )
                for row in arm["measures"]
            )
            parts.append(html_table(arm["name"], ("", "base", "trained", "change", "95 % interval"), rows))
        return "".join(parts)


def compare_policies(
    base: PolicyAnswers,
    arms: Sequence[Arm],
    prompts: Sequence[str],
    *,
    thresholds: Mapping[int, float],
    seed: int,
) -> Comparison:
    """Measures every arm against the base and against each other.

    Args:
        base: the base policy's answers.
        arms: at least one trained policy; all scored by the same reward model.
        prompts: [P] texts, for the samples.
        thresholds: latent -> tau of its penalty; the share of answers above tau is measured.
        seed: of the samples.
    """
    # of every arm, in every arm: how often a latent fires without its control
    # is what the control is judged by
    watched = sorted({latent for arm in arms for latent in arm.controlled})
    before = answer_columns(base, watched, thresholds)
    after = [answer_columns(arm.answers, watched, thresholds) for arm in arms]
    sd = reward_sd(base)
    ledgers: dict[str, list[Row]] = {}
    sections = []
    for arm, own in zip(arms, after, strict=True):
        section, ledgers[arm.name] = _arm_section(base, arm, before, own, sd=sd)
        sections.append(section)
    differences = [
        # each pair once; who asks for it the other way round turns its sign (`difference_between`)
        _difference(arms[i], arms[j], after[i], after[j], sd=sd)
        for i, j in combinations(range(len(arms)), 2)
    ]
    report: dict[str, Any] = {"format": FORMAT, "title": TITLE, "arms": sections, "differences": differences}
    report["samples"] = _samples(base, arms, prompts, seed)
    return Comparison({**report, "headline": headline(report)}, ledgers)


def _arm_section(
    base: PolicyAnswers, arm: Arm, before: Columns, own: Columns, *, sd: float
) -> tuple[dict[str, Any], list[Row]]:
    # the base's answers under this arm's controls: what these would have charged without training
    compared = compare_columns(
        {**before, **arm.base_parts}, {**own, **arm.parts}, base.prompts, arm.answers.prompts
    )
    scored = arm.answers.scored
    ledger = latent_ledger(
        base.scored.latents, scored.latents, scored.head, base.prompts, arm.answers.prompts
    )
    latents = latent_rows(ledger, controlled=arm.controlled)
    controls = control_rows(compared, kl_price=arm.kl_price)
    # the latents of a dictionary are not the whole reward: without this row the ledger would not add up
    outside = None if scored.kind == "sarm" else residual_row(_residual_change(base, arm.answers))
    gap = goodhart_gap(base, arm.answers)
    further = [wins(base, arm.answers), *([] if gap is None else [gap])]
    section = {
        "name": arm.name,
        "role": arm.role,
        "controlled": list(arm.controlled),
        "controls": list(arm.controls),
        "steps": arm.steps,
        "kl_coef": arm.kl_coef,
        "reward_sd": sd,
        "measures": [item.as_json(sd) for item in [*compared, *further]],
        "ledger": ledger_json(latents, controls, compared, outside=outside),
        "curves": {name: list(values) for name, values in arm.curves.items()},
    }
    return section, [*latents, *([] if outside is None else [outside]), *controls]


def _residual_change(base: PolicyAnswers, trained: PolicyAnswers) -> Floats:
    """[P] of what no latent holds."""
    before, after = (prompt_means(one.scored.residual, one.prompts) for one in (base, trained))
    return after - before


def _difference(first: Arm, second: Arm, one: Columns, two: Columns, *, sd: float) -> dict[str, Any]:
    found = arm_differences(one, two, first.answers.prompts, second.answers.prompts)
    measures = [MeasureChange(measure, None, interval, interval).as_json(sd) for measure, interval in found]
    return {"from": first.name, "to": second.name, "measures": measures}


def _samples(
    base: PolicyAnswers, arms: Sequence[Arm], prompts: Sequence[str], seed: int
) -> list[dict[str, Any]]:
    """Random prompts, then those where each arm's reward rose and fell most."""
    # drawn by chance first, so that a reader sees typical answers and not only the extremes
    drawn = numpy_generator(seed, "samples").permutation(len(prompts))[:_SAMPLES]
    chosen = {int(index): "" for index in drawn}
    before = prompt_means(base.scored.rewards, base.prompts)
    for arm in arms:
        change = prompt_means(arm.answers.scored.rewards, arm.answers.prompts) - before
        for index, what in ((np.argmax(change), "rise"), (np.argmin(change), "fall")):
            # a prompt that was drawn by chance stays one
            chosen.setdefault(int(index), f"Largest {what} of {arm.name}")
    policies = [("base", base), *((arm.name, arm.answers) for arm in arms)]
    return [
        {
            "why": why,
            "prompt": _clipped(prompts[index]),
            "answers": [_sample(name, answers, index) for name, answers in policies],
        }
        for index, why in chosen.items()
    ]


def _sample(name: str, answers: PolicyAnswers, prompt: int) -> dict[str, Any]:
    row = int(np.flatnonzero(answers.prompts == prompt)[0])
    return {
        "arm": name,
        "text": _clipped(answers.responses[row]),
        "reward": float(answers.scored.rewards[row]),
        **({} if answers.gold is None else {"gold": float(answers.gold[row])}),
        "latents": _payments(answers, row),
        "length": int(answers.lengths[row]),
        "ended": bool(answers.scored.ended[row]),
    }


def _payments(answers: PolicyAnswers, row: int) -> list[dict[str, Any]]:
    """The latents that added to the reward of an answer or took from it most."""
    paid = sorted(answers.scored.contributions(row), key=lambda one: -abs(one.contribution))
    return [{"latent": one.latent, "contribution": one.contribution} for one in paid[:_PAYMENTS]]


def _clipped(text: str) -> str:
    return text if len(text) <= _TEXT else f"{text[:_TEXT]} [{len(text) - _TEXT} more characters]"
