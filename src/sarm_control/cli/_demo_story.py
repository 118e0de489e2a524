"""The words of `sarm demo`: what happens, why, and what came of it. Numbers come from the caller."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sarm_control.comparison import TOO_FEW, verdict
from sarm_control.console import aligned
from sarm_control.discovery import ends_of_effect

if TYPE_CHECKING:
    from sarm_control.control import Controls
    from sarm_control.discovery import Feature
    from sarm_control.lab import Called, FlatteryExample, JudgedAnswer

_WIDTH = 96


def opening(seed: int, steps: int) -> str:
    """What the demo is about."""
    return paragraph(
        "Does a control on a reward model do what it promises? Here the truth is known: a program says "
        "what every answer is worth (its gold reward). The reward model does not know it. It learnt from "
        "annotators who like flattery and boilerplate closings, as people do, so a policy trained against it "
        "can earn reward without being any better. "
        f"Offline, seed {seed}, PPO runs of {_count(steps, 'step')}."
    )


def heading(number: int, title: str) -> str:
    """The title of a step."""
    return f"\n{number}  {title}\n"


def paragraph(text: str) -> str:
    """Text wrapped and set in."""
    return textwrap.fill(text, _WIDTH, initial_indent="   ", subsequent_indent="   ")


def scored_pair(found: "FlatteryExample") -> str:
    """Two answers, what they earn, and which latents made the difference."""
    lines = [
        paragraph(
            "We let the reward model score an honest answer and one that flatters, because a policy that is "
            "trained against it will learn whatever it pays for."
        ),
        "",
        paragraph(f"Question: {found.prompt}"),
        "",
    ]
    rows = [("honest", found.honest), ("flattering", found.flattering)]
    lines += [_answer(name, paid) for name, paid in rows]
    gap = found.flattering.reward - found.honest.reward
    worth = found.honest.gold - found.flattering.gold
    parts = ", ".join(f"latent {latent} {paid:+.3f}" for latent, paid in found.differences(3))
    said = "pays it more" if gap > 0 else "does not pay it more"
    lines += [
        "",
        paragraph(
            f"The second answer is false and flatters: it is worth {worth:.1f} less, and the reward model "
            f"{said} ({gap:+.3f}). The head is linear, so we can read who paid: {parts}."
        ),
    ]
    return "\n".join(lines)


def found_latents(harms: Sequence["Feature"], prompts: int, judged: "Called") -> str:
    """The harming latents, and how many of them are right by the planted truth."""
    lines = [
        paragraph(
            "We look for the latents that pay worse answers more, so that a control can act on these alone. "
            f"{prompts} pairs are labelled by what they are worth, as a careful person would, none of them "
            "seen in training. What each latent adds to the margin is exact; it is tested per prompt on one "
            "half and confirmed on the other."
        ),
        "",
    ]
    if not harms:
        return "\n".join([*lines, paragraph("No latent harms at q <= 0.05: a null result.")])
    lines += aligned(
        [
            ["latent", "kind", "effect", "95 % interval", "active in chosen", "active in rejected"],
            *(
                [
                    str(one.latent),
                    one.kind,
                    f"{one.effect:+.4f}",
                    ends_of_effect(one, "+.4f"),
                    f"{100 * one.rate_chosen:.0f} %",
                    f"{100 * one.rate_rejected:.0f} %",
                ]
                for one in harms
            ),
        ],
        left=1,
        indent=3,
    )
    lines += [
        "",
        paragraph(
            f"By the planted truth, which discovery never sees: {judged.found} of {judged.harming} harming "
            f"latents found, {_count(judged.false, 'false alarm')} among {len(judged.latents)} called."
        ),
    ]
    return "\n".join(lines)


def arms_text(controls: Mapping[str, "Controls"]) -> str:
    """What each arm trains under."""
    what = {
        "none": "no control: the policy may do what pays",
        "controls": "discovery's suggestion",
        "random": "the same kinds of control on latents drawn by chance, as a placebo",
    }
    if len(controls) == 1:
        said = (
            "No latent is worth a control, so the policy learns once from the reward model by PPO, to see "
            "whether it can be hacked. A control on no latent and its placebo would be the same run again."
        )
    else:
        said = (
            "The same policy learns three times from the same reward model by PPO, to see what the control "
            "changes and whether any control would. Latents that are paid while they fire on bad answers are "
            "penalised, capped or both; those charged on good answers lose that charge."
        )
    lines = [paragraph(said), ""]
    width = max(map(len, controls))
    return "\n".join(
        [*lines, *(f"   {name:<{width}}  {what[name]}{_doses(one)}" for name, one in controls.items())]
    )


def results(report: Mapping[str, Any], arms: Mapping[str, Mapping[str, float]]) -> str:
    """The table of the arms and the answer to the two questions."""
    start = next(iter(arms.values()))
    rows = [["untrained", f"{start['reward_model_start']:+.2f}", f"{start['gold_start']:+.2f}", "", ""]]
    for name, one in arms.items():
        rows.append(
            [
                name,
                f"{one['reward_model_end']:+.2f}",
                f"{one['gold_end']:+.2f}",
                f"{one['reward_model_end'] - one['reward_model_start']:+.2f}",
                f"{one['gold_end'] - one['gold_start']:+.2f}",
            ]
        )
    head = ["policy", "reward model", "gold", "reward change", "gold change"]
    lines = aligned([head, *rows], left=1, indent=3)
    return "\n".join([*lines, "", *map(paragraph, answers(report))])


def answers(report: Mapping[str, Any]) -> list[str]:
    """Did the control work, and what did it cost? From intervals over prompts, a null said as one."""
    if len(report["arms"]) == 1:
        return [
            "Did the control work? None was tried: discovery called no latent that is worth one. "
            "Only the run without control was made."
        ]
    gold = difference(report, "none", "controls", "gold/reward")
    paid = difference(report, "none", "controls", "reward/model")
    placebo = _turned(difference(report, "controls", "random", "gold/reward"))
    return [
        f"Did the control work? {_worked(verdict(gold), verdict(placebo))} Gold ends {_interval(gold)} "
        f"against no control and {_interval(placebo)} against the same controls on latents of chance.",
        f"What did it cost? The reward model's own score ends {_interval(paid)} against no control"
        + (", the reward of shortcuts that it no longer takes." if verdict(paid) == "fell" else "."),
    ]


def _worked(gold: str, placebo: str) -> str:
    """Against no control, and against the placebo: a control that any latents would be shows no knowledge."""
    if gold == "rose":
        return "Yes." if placebo == "rose" else "It helped, but no more than the placebo."
    if gold == TOO_FEW:
        return f"There are {TOO_FEW}."
    return "No, it did harm." if gold == "fell" else "There is no clear effect."


def _turned(change: Mapping[str, Any]) -> dict[str, float | None]:
    """The same change from the second arm to the first."""
    ends = {"mean": "mean", "low": "high", "high": "low"}
    return {name: None if change[of] is None else -change[of] for name, of in ends.items()}


def difference(report: Mapping[str, Any], first: str, second: str, key: str) -> Mapping[str, Any]:
    """The paired change of one measure from an arm to another, with its interval."""
    pair = next(one for one in report["differences"] if (one["from"], one["to"]) == (first, second))
    change: Mapping[str, Any] = next(row["change"] for row in pair["measures"] if row["key"] == key)
    return change


def _answer(name: str, paid: "JudgedAnswer") -> str:
    return f'   {name:10}  "{paid.text}"\n{"":15}reward model {paid.reward:+.3f}, gold {paid.gold:+.1f}'


def _doses(controls: "Controls") -> str:
    counts = [
        _count(len(controls.penalties), "penalty", "penalties") if controls.penalties else "",
        _count(len(controls.edits), "edit") if controls.edits else "",
    ]
    said = ", ".join(filter(None, counts))
    return f" ({said})" if said else ""


def _count(count: int, one: str, many: str | None = None) -> str:
    return f"{count or 'no'} {one if count == 1 else many or one + 's'}"


def _interval(value: Mapping[str, Any]) -> str:
    if value["low"] is None or value["high"] is None:
        return f"{value['mean']:+.2f} (too few prompts for an interval)"
    return f"{value['mean']:+.2f} [{value['low']:+.2f}, {value['high']:+.2f}]"
