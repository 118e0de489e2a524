"""A discovery as text: a short table for people, and a YAML file of controls with their evidence."""

import json
import textwrap
from collections.abc import Iterator, Sequence

from sarm_control.control.edits import Edit
from sarm_control.discovery.discover import Discovery
from sarm_control.discovery.dose_text import dose_comment, dose_rows, dose_sentences
from sarm_control.discovery.effects import enough_draws, tails_of
from sarm_control.discovery.examination import Examination
from sarm_control.discovery.features import Feature, control_json
from sarm_control.discovery.findings import findings
from sarm_control.discovery.interval_text import ends_of_effect, with_ends
from sarm_control.discovery.suggestion import shown_latents
from sarm_control.discovery.summary import Summary

_COLUMNS = ("latent", "kind", "effect", "95 % interval", "SDs", "d_z", "q", "chosen", "rejected", "AUROC")
_WIDTH = 110
_OF_MARGIN = "of margin"
_LEVELS = "evidence"


def summary_text(examined: Examination, *, top: int = 10) -> str:
    """What was found: the sizes, two tables, and what they mean; a null result is said as one.

    Args:
        examined: the discovery.
        top: latents shown of each list.
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
    """What the suggested controls do; nothing where none are suggested."""
    suggested = found.suggested
    if not suggested.dose.suggestions:
        return
    yield ""
    yield (
        "suggested controls: doses chosen together on the selection prompts "
        f"(1 sd is {suggested.dose.unit:.4g}), effects on the others"
    )
    yield from _aligned(dose_rows(suggested))
    for one in dose_sentences(suggested):
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
    # a share of a margin that may be 0 says nothing
    columns = [
        *_COLUMNS[:5],
        *([_OF_MARGIN] if found.confirmation.margin.low > 0 else []),
        *_COLUMNS[5:],
        *([_LEVELS] if deep else []),
    ]
    cells = [_cells(feature) for feature in items[:top]]
    return [title, *_aligned([columns, *([row[name] for name in columns] for row in cells)])]


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


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))


def controls_yaml(found: Discovery, *, model: str, material: float = 0.0, material_sd: float = 0.0) -> str:
    """The suggested controls of the harming latents as a piece of a run file, with the evidence as comments.

    Args:
        found: the discovery.
        model: the model's id or folder name.
        material: latents whose effect is a smaller share of the mean margin get no control.
        material_sd: nor do those whose effect is smaller in SDs of the reward.
    """
    found = found.dosed(of_margin=material, of_sd=material_sd)
    named = found.lists["harms"]
    evident = shown_latents(named)
    harms = [one for one in named if found.suggested.dose.suggestion(one.latent) is not None]
    header = [
        "# Controls for the latents that harm, from sarm discover. Merge into a run file.",
        f"# model {model}, head {found.head}",
        f"# effects: reward units, n = {found.confirmation.prompts} confirmation prompts",
        f"# doses: 1 sd is {found.selection.reward_sd:.4g} on the selection pairs; in a run it is the SD of "
        "the reference policy's reward",
    ]
    if not named:
        header.append("# No latent harms: a null result, nothing to control.")
    if len(evident) < len(named):
        others = ", ".join(str(one.latent) for one in named if one not in evident)
        header.append(f"# no interval that leaves out 0, so no control: latents {others}")
    if len(harms) < len(evident):
        small = len(evident) - len(harms)
        header.append(
            f"# {small} more harm by less than {_least(material, material_sd)}: no control for them"
        )
    header += [f"# {one}" for one in dose_sentences(found.suggested)]
    header += [
        f"# {one.latent}: no control of its own, the controls on {' and '.join(map(str, one.carried_by))} "
        "stand for it too"
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
                yield f"    # {dose_comment(found.suggested, feature.latent)}"
                yield f"    - {_flow(fields)}"


def _flow(fields: dict[str, object]) -> str:
    return "{" + ", ".join(f"{name}: {json.dumps(value)}" for name, value in fields.items()) + "}"


def _evidence(one: Feature) -> str:
    return (
        f"{one.latent}, {one.kind}: w {one.weight:+.3g}, effect {one.effect:+.3g} "
        f"{ends_of_effect(one, '+.3g')}, q {one.q:.2g}, "
        f"active in {100 * one.rate_chosen:.1f} % of chosen and {100 * one.rate_rejected:.1f} % of rejected, "
        f"evidence {' '.join(one.levels)}"
    )
