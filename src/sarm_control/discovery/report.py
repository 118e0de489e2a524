"""A discovery as text: short tables, sentences that explain them, and a YAML file of suggested controls."""

import json
import textwrap
from collections.abc import Iterator, Sequence

from sarm_control.console import aligned
from sarm_control.control import Edit
from sarm_control.discovery.discovery import Discovery
from sarm_control.discovery.effects.baselines import TESTED, Competitor
from sarm_control.discovery.effects.effects import enough_draws, tails_of
from sarm_control.discovery.effects.margin_summary import Summary
from sarm_control.discovery.evidence.counterfactuals import ClosingTest
from sarm_control.discovery.evidence.examine import ExaminedDiscovery
from sarm_control.discovery.features import Feature, control_json, ends_of_effect
from sarm_control.discovery.suggested_controls.suggestion import shown_latents
from sarm_control.discovery.suggested_controls.text import control_comment, control_rows, control_sentences
from sarm_control.statistics import Interval, with_ends

_NAMED = 6
"""A sentence names at most this many latents and counts the rest."""


def findings(examined: ExaminedDiscovery) -> Iterator[str]:
    """Sentences on what the tables mean, the most important first; none about what was not measured."""
    found = examined.found
    yield from _unshown(found)
    yield from _removal(found)
    yield from _lost(found)
    yield from _residual(found)
    yield from _share(found)
    yield from _length(found)
    yield from _turned(found)
    yield from _levels(examined)
    for test in examined.closing:
        yield _closing(test)
    if examined.detectability is not None:
        yield examined.detectability.verdict


def _unshown(found: Discovery) -> Iterator[str]:
    called = [one for items in found.lists.values() for one in items]
    unshown = [one for one in called if "L1" not in one.levels]
    if unshown:
        yield (
            f"The tests called {_names(unshown)}, but no interval of the effect excludes 0: no evidence of "
            "level 1 yet, and no control. More confirmation prompts are needed."
        )


def _removal(found: Discovery) -> Iterator[str]:
    ways = {one.way: one for one in found.competitors["harms"]}
    if TESTED not in ways:
        return
    tested = ways.pop(TESTED)
    yield (
        f"Removing the {len(tested.latents)} selected harming latents moves the margin by "
        f"{_gain(tested.gain)}{_percentile(tested)}."
    )
    others = ", ".join(f"{one.way} {_gain(one.gain, short=True)}" for one in ways.values())
    yield f"As many chosen in other ways: {others}."


def _gain(value: Interval, *, short: bool = False) -> str:
    return f"{value.mean:+.3g}" if short else with_ends(value, "+.3g")


def _percentile(one: Competitor) -> str:
    if one.among is None:
        return ""
    share, sets = one.among.percentile, one.among.sets
    which = f"any of {sets}" if share == 100 else f"{share:.1f} % of {sets}"
    return f", more than {which} matched random sets do"


def _lost(found: Discovery) -> Iterator[str]:
    lost = found.lost
    if lost is not None and found.lists["harms"]:
        share = lost.carried
        random = "" if lost.among is None else f" (matched random sets {100 * lost.among.mean:.0f} %)"
        yield (
            f"The harming latents carry {with_ends(share, '.0f', percent=True)}{random} of the excess reward "
            f"of rejected answers on the {lost.prompts} prompts where these get more."
        )


def _residual(found: Discovery) -> Iterator[str]:
    """The part of the margin that no latent holds, for a reward model with a dictionary attached."""
    residual = found.residual
    if residual is None:
        return
    of_margin = ""
    if residual.share_of_margin is not None and found.confirmation.margin.low > 0:
        of_margin = f", {100 * residual.share_of_margin:+.1f} % of the margin"
    spread = "" if residual.sd_share is None else f"; its SD is {residual.sd_share:.2f} of the reward's"
    verdict = residual.direction or "no clear direction"
    yield (
        f"The residual, which no latent holds, adds {_gain(residual.effect)} to the margin{of_margin}: "
        f"{verdict} (p = {residual.p:.2g} on the selection prompts){spread}."
    )
    if residual.direction == "harms":
        yield (
            "No control on latents reaches it; a penalty on the residual does "
            "(--penalize residual:tau=q0.95,alpha=0.5sd,form=hinge)."
        )


def _share(found: Discovery) -> Iterator[str]:
    """How many latents make the margin, where its interval is above 0."""
    if found.cumulative is not None and found.confirmation.margin.low > 0:
        half, most = found.cumulative.needed.values()
        if half is None:
            latents, share = found.cumulative.curve[-1]
            yield f"All {latents} latents make {100 * share:.0f} % of the margin; the rest is residual."
        elif most is None:
            yield f"{_largest(half)} half of the margin; no number of latents makes 90 % of it."
        else:
            yield f"{_largest(half)} half of the margin, {_largest(most).lower()} 90 % of it."


def _largest(count: int) -> str:
    return "The largest latent makes" if count == 1 else f"The {count} largest latents make"


def _length(found: Discovery) -> Iterator[str]:
    called = [one for items in found.lists.values() for one in items]
    lost = [one for one in called if _vanishes(one)]
    if lost:
        yield f"At equal length {_of(lost, called)} no clear effect of the same sign: {_names(lost)}."
    without_interval = [
        one for one in called if one.effect_equal_length is not None and one.equal_length_low is None
    ]
    if without_interval:
        few = _of(without_interval, called)
        yield f"At equal length {few} too few prompts for an interval: {_names(without_interval)}."


def _vanishes(one: Feature) -> bool:
    low, high = one.equal_length_low, one.equal_length_high
    if low is None or high is None:
        return False
    return low <= 0 if one.effect > 0 else high >= 0


def _of(some: list[Feature], called: list[Feature]) -> str:
    return f"{len(some)} of {len(called)} called latents {'has' if len(some) == 1 else 'have'}"


def _names(features: list[Feature]) -> str:
    names = [str(one.latent) for one in features]
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _turned(found: Discovery) -> Iterator[str]:
    where = {"confirmation": "", "selection": " on the selection prompts, which chose the latents"}
    for part, whose in where.items():
        turned = [one for one in found.group_effects if one.turned and one.part == part]
        if turned:
            named = [f"{one.latent} ({one.group})" for one in turned[:_NAMED]]
            rest = f" and {len(turned) - _NAMED} more" if len(turned) > _NAMED else ""
            yield f"Opposite sign for one {found.settings.by}{whose}: latents {', '.join(named)}{rest}."


def _levels(examined: ExaminedDiscovery) -> Iterator[str]:
    called = [one for items in examined.found.lists.values() for one in items]
    # who lacks level 1 has a sentence already, see `_unshown`
    measured = sorted({one.level for one in examined.levels} - {"L1"})
    for level in measured:
        how = next(one.how for one in examined.levels if one.level == level)
        lost = [one for one in called if level not in one.levels]
        but = f"; not {_names(lost)}" if lost else ""
        yield f"{level} ({how}) agrees for {len(called) - len(lost)} of {len(called)} called latents{but}."


def _closing(test: ClosingTest) -> str:
    change = f'"{test.sentence}" added to' if test.change == "added" else "The last sentence removed from"
    moved = [str(one.latent) for one in test.latents if one.large]
    named = f"; by half of their effect or more it moves {', '.join(moved[:_NAMED])}" if moved else ""
    rest = f" and {len(moved) - _NAMED} more" if len(moved) > _NAMED else ""
    return f"{change} {test.answers} answers moves their reward by {_gain(test.reward)}{named}{rest}."


_COLUMNS = ("latent", "kind", "effect", "95 % interval", "SDs", "d_z", "q", "chosen", "rejected", "AUROC")
_WIDTH = 110
_OF_MARGIN = "of margin"
_LEVELS = "evidence"


def summary_text(examined: ExaminedDiscovery, *, top: int = 10) -> str:
    """The discovery as text: sizes, two tables, and what they mean; a null result is named as one.

    Args:
        examined: the discovery.
        top: the number of latents shown of each list.
    """
    found = examined.found
    lines = [*_parts_lines(found), "", textwrap.fill(_counts_line(found), _WIDTH, subsequent_indent="  ")]
    called = [one for items in found.lists.values() for one in items]
    deep = any(one.level != "L1" for one in examined.levels) or any("L1" not in one.levels for one in called)
    for name in ("harms", "promotes"):
        lines += ["", *_list_lines(found, name, found.lists[name], top, deep=deep)]
    said = [textwrap.fill(one, _WIDTH, subsequent_indent="  ") for one in findings(examined)]
    return "\n".join([*lines, *_controls_lines(found), *([""] if said else []), *said]) + "\n"


def _controls_lines(found: Discovery) -> Iterator[str]:
    """The effects of the suggested controls; nothing where none are suggested."""
    suggested = found.suggested
    if not suggested.joint.suggestions:
        return
    yield ""
    yield (
        "suggested controls: sizes chosen together on the selection prompts "
        f"(1 sd is {suggested.joint.unit:.4g}), effects on the others"
    )
    yield from aligned(control_rows(suggested))
    for one in control_sentences(suggested):
        yield textwrap.fill(one, _WIDTH, subsequent_indent="  ")


def _parts_lines(found: Discovery) -> Iterator[str]:
    for name, part in (("selection", found.selection), ("confirmation", found.confirmation)):
        yield f"{name:12}  {_summary_line(part)}"
        for value, group in found.groups[name].items():
            yield f"  {found.settings.by} = {value}: {_summary_line(group)}"
    if found.shared:
        yield f"{found.shared} prompts in both files were dropped from the confirmation"


def _summary_line(part: Summary) -> str:
    sds = f" ({part.margin.mean / part.reward_sd:+.2f} SD)" if part.reward_sd else ""
    return (
        f"{part.prompts} prompts, {part.answers} answers: mean margin {with_ends(part.margin, '+.4g')}{sds}, "
        f"pair accuracy {with_ends(part.accuracy, '.3f')}"
    )


def _counts_line(found: Discovery) -> str:
    counts, rate = found.counts, found.settings.alpha
    tails = tails_of(found.parts.selection.latents, found.parts.confirmation.latents)
    prompts = max(found.selection.prompts, found.confirmation.prompts)
    # Where redraws were too slow to make enough of them, one latent alone cannot reach alpha whatever it
    # does. Unsaid, that would read as "no such latent".
    alone = tails * counts["tested"] / (enough_draws(counts["tested"], rate, prompts, tails=tails) + 1)
    coarse = f"; a single latent of moderate effect reaches q = {alone:.2g} at best" if alone > rate else ""
    return (
        f"{counts['tested']} latents tested (active in >= {found.settings.min_prompts} selection prompts), "
        f"{counts['selected']} selected (q <= {rate:g}), "
        f"{counts['confirmed']} confirmed (same sign, q <= {rate:g} on the confirmation prompts){coarse}"
    )


def _list_lines(found: Discovery, name: str, items: Sequence[Feature], top: int, *, deep: bool) -> list[str]:
    if not items:
        return [
            f"no latent {name} at q <= {found.settings.alpha:g}: that is a null result "
            f"(n = {found.selection.prompts} selection and {found.confirmation.prompts} confirmation prompts)"
        ]
    shown = f", the {top} largest" if len(items) > top else ""
    title = f"{name}: {len(items)} latents{shown} (effects in reward units, on the confirmation prompts)"
    # a share of a margin that may be 0 is meaningless
    columns = [
        *_COLUMNS[:5],
        *([_OF_MARGIN] if found.confirmation.margin.low > 0 else []),
        *_COLUMNS[5:],
        *([_LEVELS] if deep else []),
    ]
    cells = [_cells(feature) for feature in items[:top]]
    return [title, *aligned([columns, *([row[name] for name in columns] for row in cells)])]


def _cells(one: Feature) -> dict[str, str]:
    return {
        "latent": str(one.latent),
        "kind": one.kind,
        "effect": f"{one.effect:+.3g}",
        "95 % interval": ends_of_effect(one, "+.3g"),
        "SDs": "" if one.effect_sd is None else f"{one.effect_sd:+.3f}",
        _OF_MARGIN: "" if one.share_of_margin is None else f"{100 * one.share_of_margin:+.1f} %",
        "d_z": "" if one.d_z is None else f"{one.d_z:+.2f}",
        "q": f"{one.q:.2g}",
        "chosen": f"{100 * one.rate_chosen:.1f} %",
        "rejected": f"{100 * one.rate_rejected:.1f} %",
        "AUROC": f"{one.auroc:.2f}",
        _LEVELS: " ".join(one.levels) or "none",
    }


def controls_yaml(found: Discovery, *, model: str, material: float = 0.0, material_sd: float = 0.0) -> str:
    """The suggested controls of the harming latents as a part of a run file, with the evidence as comments.

    Args:
        found: the discovery.
        model: the model's id or folder name.
        material: latents whose effect is a smaller share of the mean margin get no control.
        material_sd: latents whose effect is smaller, in SDs of the reward, get no control.
    """
    found = found.with_suggestions(of_margin=material, of_sd=material_sd)
    named = found.lists["harms"]
    evident = shown_latents(named)
    harms = [one for one in named if found.suggested.joint.suggestion(one.latent) is not None]
    header = [
        "# Controls for the latents that harm, from sarm discover. Merge into a run file.",
        f"# model {model}, head {found.head}",
        f"# effects: reward units, n = {found.confirmation.prompts} confirmation prompts",
        f"# sizes: 1 sd is {found.selection.reward_sd:.4g} on the selection pairs; in a run it is the SD of "
        "the reference policy's reward",
    ]
    if not named:
        header.append("# No latent harms: a null result, nothing to control.")
    if len(evident) < len(named):
        others = ", ".join(str(one.latent) for one in named if one not in evident)
        header.append(f"# no interval that excludes 0, so no control: latents {others}")
    if len(harms) < len(evident):
        small = len(evident) - len(harms)
        header.append(
            f"# {small} more harm by less than {_least(material, material_sd)}: no control for them"
        )
    header += [f"# {one}" for one in control_sentences(found.suggested)]
    header += [
        f"# {one.latent}: no control of its own, the controls on {' and '.join(map(str, one.carried_by))} "
        "cover it too"
        for one in harms
        if one.carried_by
    ]
    lines = [*header, "reward:", f"  fingerprint: {json.dumps(found.head)}    # another head is refused"]
    for key in ("edits", "penalties"):
        items = list(_yaml_items(found, harms, edits=key == "edits"))
        lines += [f"  {key}:", *items] if items else [f"  {key}: []"]
    return "\n".join(lines) + "\n"


def _least(material: float, material_sd: float) -> str:
    sds = f" or {material_sd:g} SD of the reward" if material_sd else ""
    return f"{100 * material:g} % of the mean margin{sds}"


def _yaml_items(found: Discovery, harms: Sequence[Feature], *, edits: bool) -> Iterator[str]:
    for feature in harms:
        for control in feature.controls:
            if isinstance(control, Edit) == edits:
                (fields,) = control_json(control).values()
                yield f"    # {_evidence(feature)}"
                yield f"    # {control_comment(found.suggested, feature.latent)}"
                yield f"    - {_flow(fields)}"


def _flow(fields: dict[str, object]) -> str:
    # what JSON writes is YAML as well, so any text is quoted right
    return "{" + ", ".join(f"{name}: {json.dumps(value)}" for name, value in fields.items()) + "}"


def _evidence(one: Feature) -> str:
    return (
        f"{one.latent}, {one.kind}: w {one.weight:+.3g}, effect {one.effect:+.3g} "
        f"{ends_of_effect(one, '+.3g')}, q {one.q:.2g}, "
        f"active in {100 * one.rate_chosen:.1f} % of chosen and {100 * one.rate_rejected:.1f} % of rejected, "
        f"evidence {' '.join(one.levels)}"
    )
