"""The words of `sarm demo`: what happens, why, and what came of it. Numbers come from the caller."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sarm_control.console import aligned

if TYPE_CHECKING:
    from sarm_control.control import Controls
    from sarm_control.discovery import Discovery, Feature, ResidualEffect
    from sarm_control.lab import Called, FlatteryExample, JudgedAnswer, Truth

_WIDTH = 96
_NEAR = 3
"""Near misses that are listed one by one."""


def opening(seed: int, steps: int, *, attached: bool = False) -> str:
    """What the demo is about."""
    of_kind = (
        "The reward model is a sequence classifier, of the kind that most people train, with a dictionary "
        "attached: its reward is latents, a constant, and a residual that no latent holds. "
        if attached
        else ""
    )
    return paragraph(
        "Does a control on a reward model do what it promises? Here the truth is known: a program says "
        "what every answer is worth (its gold reward). The reward model does not know it. It learnt from "
        "annotators who like flattery and boilerplate closings, as people do, so a policy trained against it "
        f"can earn reward without being any better. {of_kind}"
        f"Offline, seed {seed}, PPO runs of {_count(steps, 'step')}."
    )


def heading(number: int, title: str) -> str:
    """The title of a step."""
    return f"\n{number}  {title}\n"


def paragraph(text: str) -> str:
    """Text wrapped and set in."""
    return textwrap.fill(text, _WIDTH, initial_indent="   ", subsequent_indent="   ")


def scored_pair(found: "FlatteryExample") -> str:
    """Two answers, their rewards, and which latents made the difference."""
    lines = [
        paragraph(
            "We let the reward model score an honest answer and one that flatters, because a policy that is "
            "trained against it will learn whatever it rewards."
        ),
        "",
        paragraph(f"Question: {found.prompt}"),
        "",
    ]
    rows = [("honest", found.honest), ("flattering", found.flattering)]
    lines += [_answer(name, judged) for name, judged in rows]
    gap = found.flattering.reward - found.honest.reward
    worth = found.honest.gold - found.flattering.gold
    parts = ", ".join(f"{_named(part)} {added:+.3f}" for part, added in found.differences(3))
    said = "rewards it more" if gap > 0 else "does not reward it more"
    outside = found.residual_difference
    residual = "" if outside is None else f" The residual, which no latent holds, adds {outside:+.3f}."
    lines += [
        "",
        paragraph(
            f"The second answer is false and flatters: it is worth {worth:.1f} less, and the reward model "
            f"{said} ({gap:+.3f}). The head is linear, so we can read what made the difference: {parts}."
            f"{residual}"
        ),
    ]
    return "\n".join(lines)


def found_latents(found: "Discovery", judged: "Called", truth: "Truth", first: int | None = None) -> str:
    """The harming latents, those that narrowly missed, and how many are right by the planted truth.

    Args:
        found: the discovery.
        judged: its harming latents, by the planted truth.
        truth: the planted truth.
        first: the latent that step 1 named first.
    """
    prompts, harms = found.selection.prompts + found.confirmation.prompts, found.lists["harms"]
    lines = [
        paragraph(
            "We look for the latents that reward worse answers more, so that a control can act on these "
            f"alone. {prompts} pairs are labelled by what they are worth, as a careful person would, none of "
            "them seen in training. What each latent adds to the margin is exact; it is tested per prompt on "
            "one half and confirmed on the other."
        ),
        "",
    ]
    if not harms:
        lines.append(paragraph("No latent harms at q <= 0.05: a null result."))
    lines += _called_table(harms)
    said = [_missed(found, first), _by_truth(judged, truth), _of_residual(found.residual)]
    for text in filter(None, said):
        lines += ["", paragraph(text)]
    return "\n".join(lines)


def _called_table(harms: Sequence["Feature"]) -> Iterable[str]:
    from sarm_control.discovery import ends_of_effect

    if not harms:
        return []
    return aligned(
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


def _missed(found: "Discovery", first: int | None) -> str:
    """Latents that were selected as harming on one half and not confirmed on the other."""
    rows = [
        row
        for row in found.table.rows()
        # below zero on both halves: one that changed its sign is no near miss
        if row["kind"] == "not replicated" and row["selection_effect"] < 0 and row["effect"] < 0
    ]
    if not rows:
        return ""
    rows.sort(key=lambda row: row["effect"])
    shown = "; ".join(
        f"latent {row['latent']} {row['effect']:+.3f} {_ends(row)}, q {row['q_confirm']:.2g}"
        for row in rows[:_NEAR]
    )
    more = f" and {len(rows) - _NEAR} more" if len(rows) > _NEAR else ""
    text = f"Near misses, selected on the first half and not confirmed on the second: {shown}{more}."
    named = next((row for row in rows if row["latent"] == first), None)
    if named is not None:
        spread = "" if named["d_z"] is None else f" (d_z {named['d_z']:+.2f})"
        text += (
            f" Latent {first} rewarded the flattery of step 1 most. Its effect differs so much from prompt "
            f"to prompt{spread} that the {found.confirmation.prompts} prompts of the second half do not "
            "settle it: not replicated means no control, not that it is harmless."
        )
    return text


def _by_truth(judged: "Called", truth: "Truth") -> str:
    """How many called latents are right, what counts as harming, and which latent harms most."""
    # said beside the count: harm by d_z and harm by the effect alone need not name the same
    # latent, and a reader may mean either
    least = truth.least_effect
    worst = (
        f" By the effect alone latent {least.latent} harms most ({least.effect:+.3f}, d_z {least.d_z:+.2f})"
        + (", which was called." if least.latent in judged.latents else ", which was not called.")
    )
    return (
        "By the planted truth, which discovery never sees, a latent counts as harming when its effect is at "
        f"least 0.2 SDs of its contributions below zero (d_z <= -0.2): {judged.found} of {judged.harming} "
        f"such latents found; {_lower_the_margin(judged, truth)}.{worst if least.effect < 0 else ''}"
    )


def _lower_the_margin(judged: "Called", truth: "Truth") -> str:
    """Of the called latents, beside all: where nearly none is null, calling none wrongly means little."""
    all_of_them = f"{len(truth.below_zero)} of all {len(truth.effect)} latents"
    if not judged.latents:
        return f"none called, while {all_of_them} lower the gold margin"
    called = len(judged.latents)
    return f"{called - judged.false} of {called} called lower the gold margin, as {all_of_them} do"


def _of_residual(residual: "ResidualEffect | None") -> str:
    if residual is None:
        return ""
    share = "" if residual.sd_share is None else f"; its SD is {residual.sd_share:.2f} of the reward's"
    effect = residual.effect
    return (
        f"The residual, which no control on latents reaches, adds {effect.mean:+.3f} [{effect.low:+.3f}, "
        f"{effect.high:+.3f}] to the margin: {residual.direction or 'no clear direction'}{share}."
    )


def _ends(row: Mapping[str, Any]) -> str:
    if row["low"] is None:
        return "(too few prompts for an interval)"
    return f"[{row['low']:+.3f}, {row['high']:+.3f}]"


def _named(part: int | str) -> str:
    return f"the {part}" if isinstance(part, str) else f"latent {part}"


def arms_text(controls: Mapping[str, "Controls"]) -> str:
    """What each arm trains under."""
    what = {
        "none": "no control: the policy may do whatever is rewarded",
        "controls": "discovery's suggestion",
        "random": "the same kinds of control on latents drawn by chance, as a placebo",
    }
    # without a control there is nothing to draw a placebo for: the baseline runs alone
    if len(controls) == 1:
        said = (
            "No latent is worth a control, so the policy learns once from the reward model by PPO, to see "
            "whether it can be hacked. A control on no latent and its placebo would be the same run again."
        )
    else:
        said = (
            "The same policy learns three times from the same reward model by PPO, to see what the control "
            "changes and whether any control would. Latents that raise the reward of bad answers get a "
            "penalty, a cap or both; those that lower the reward of good answers lose that effect."
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
    from sarm_control.comparison import verdict

    if len(report["arms"]) == 1:
        return [
            "Did the control work? None was tried: discovery called no latent that is worth one. "
            "Only the run without control was made."
        ]
    gold = difference(report, "none", "controls", "gold/reward")
    reward = difference(report, "none", "controls", "reward/model")
    # the report has each pair of arms once, the earlier arm first; here it is asked what the control
    # gained over its placebo
    placebo = _turned(difference(report, "controls", "random", "gold/reward"))
    return [
        f"Did the control work? {_worked(verdict(gold), verdict(placebo))} Gold ends {_interval(gold)} "
        f"against no control and {_interval(placebo)} against the same controls on latents of chance.",
        f"What did it cost? The reward model's own score ends {_interval(reward)} against no control"
        + (", the reward of shortcuts that it no longer takes." if verdict(reward) == "fell" else "."),
    ]


def through_residual(report: Mapping[str, Any]) -> str:
    """The share of the gain without control that came through the residual, of an attached model."""
    ledger = report["arms"][0]["ledger"]
    outside = ledger["outside"]
    change, gain = outside["delta"], ledger["model_change"]
    share = f", {100 * change / gain:.0f} % of the {gain:+.2f} that its reward changed" if gain else ""
    return paragraph(
        f"Without control {_interval({'mean': change, **outside})} of reward came through the residual"
        f"{share}. Controls on latents do not reach that part; a penalty on the residual does."
    )


def closing(report: Mapping[str, Any]) -> str:
    """The verdict: the report's own sentences."""
    from sarm_control.statistics import for_terminal

    return "\n".join([heading(5, "The verdict"), *map(paragraph, map(for_terminal, report["headline"]))])


def _worked(gold: str, placebo: str) -> str:
    """Against no control, and against the placebo: a control that any latents would be shows no knowledge."""
    from sarm_control.comparison import TOO_FEW

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


def _answer(name: str, judged: "JudgedAnswer") -> str:
    return f'   {name:10}  "{judged.text}"\n{"":15}reward model {judged.reward:+.3f}, gold {judged.gold:+.1f}'


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
