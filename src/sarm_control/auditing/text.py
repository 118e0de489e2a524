"""An audit and a mend in sentences and tables for a terminal, and a mend as controls of a run file."""

import json
import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from sarm_control.auditing.causal_prices import CausalPrice, WordingPrice
from sarm_control.auditing.finding import FALSE_DISCOVERIES, LEAST_PRICE, NAMED, AttributeFinding
from sarm_control.auditing.mending.mend import Mend, Outcome, Point
from sarm_control.auditing.mending.proposal import LEAST_PROMPTS
from sarm_control.auditing.on_pairs import Accuracy
from sarm_control.auditing.result import Audit
from sarm_control.console import aligned
from sarm_control.statistics import Interval, counted, percent

_WIDTH = 110
LEAST_RESIDUAL = 0.1
"""Share of a price in the residual from which on it is said."""
_UNITS = {
    "answer": "an answer that has it",
    "item": "a doubling of 1 + their number",
    "doubling": "a doubling",
}


def audit_text(found: Audit, mended: Mend | None = None) -> str:
    """The findings in plain sentences first, then the price list and what it is made of.

    Args:
        found: the audit.
        mended: a mend of it.
    """
    table = found.table
    lines = [
        f"{counted(len(table.answers), 'answer')} to {counted(len(table.prompts), 'prompt')}; "
        f"prices are in SDs of the reward (1 SD is {table.reward_sd:.4g})",
        "",
    ]
    said = [*_headlines(found), *(_mend_sentences(mended) if mended is not None else ())]
    lines += [textwrap.fill(one, _WIDTH, subsequent_indent="  ") for one in said]
    lines += ["", *_price_list(found)]
    if found.accuracy is not None:
        lines += ["", *_accuracy(found.accuracy)]
    if found.pressure is not None:
        lines += ["", *_pressure(found)]
    if mended is not None:
        lines += ["", *_ways(mended), *_certificate(mended)]
    missing = [*found.missing, *(mended.missing if mended is not None else ())]
    if missing:
        lines += ["", "not measured"]
        lines += [
            textwrap.fill(one, _WIDTH, initial_indent="  ", subsequent_indent="    ") for one in missing
        ]
    return "\n".join(lines) + "\n"


def controls_text(mended: Mend, *, model: str) -> str:
    """The edits as a piece of a run file, which `sarm train --controls` reads; what they do as comments.

    Args:
        mended: the mend.
        model: the model's id or folder name.
    """
    lines = [
        f"# Edits against the price of {_and(mended.targets)}, from sarm audit. Merge into a run file.",
        f"# model {model}, head {mended.fingerprint}",
        f"# {'recommended' if mended.recommended else 'NOT RECOMMENDED'}: {mended.why}",
        *(f"# {one}" for one in _left_sentences(mended.outcome)),
        "reward:",
        f"  fingerprint: {json.dumps(mended.fingerprint)}    # another head is refused",
    ]
    items = [{k: v for k, v in asdict(edit).items() if v is not None} for edit in mended.edits]
    # JSON of scalars is YAML too, with every digit of a float
    flow = ["    - {" + ", ".join(f"{k}: {json.dumps(v)}" for k, v in item.items()) + "}" for item in items]
    return "\n".join([*lines, *(["  edits:", *flow] if flow else ["  edits: []"]), "  penalties: []"]) + "\n"


def _headlines(found: Audit) -> Iterator[str]:
    asked = len(found.table.attributes)
    if not found.headlines:
        yield (
            f"Of {counted(asked, 'attribute')} asked about, nothing that is a matter of style is surely paid "
            f"for by {LEAST_PRICE:g} SD or more."
        )
    for one in found.headlines:
        yield _headline(found, one)
    for one in found.content:
        assert one.best_causal is not None  # nothing else is among these
        yield (
            f"It pays for {one.attribute.words}, which is no matter of style: {_with_ends(one.best_causal)} "
            f"({one.best_causal.edit}; n = {counted(one.best_causal.n, 'prompt')}). Whether you want that is "
            "yours to say."
        )
    for one in found.associations:
        yield _association(one)
    for one in found.findings:
        if one.contradicted:
            priced = (f"{_with_ends(price)} ({price.edit})" for price in one.causal if price.n)
            yield (
                f"For {one.attribute.words} it depends on the wording, so the attribute has no price: "
                f"{'; '.join(priced)}."
            )
    # of headlines their own sentences say it
    for one in found.findings:
        if one.best_causal is not None and one.wordings_differ and not one.unwanted:
            yield (
                f"For {one.attribute.words} it depends on the wording: {_with_ends(one.best_causal)} is the "
                f"mean of all. {_wordings(one.best_causal, differ=True)}"
            )
    for one in found.findings:
        if one.disagree and one.partial is not None:
            yield (
                f"For {one.attribute.words} the two prices disagree ({one.price:+.2f} and "
                f"{one.partial.sd:+.2f} SD): believe the first, in which the text is changed in that alone; "
                "the second also holds what comes along with it."
            )


def _headline(found: Audit, one: AttributeFinding) -> str:
    causal, wording = one.best_causal, one.one_wording
    assert causal is not None  # nothing else is a headline
    carried = _carried(one, ", ".join(_named(found, part.latent) for part in causal.carriers[:NAMED]))
    if wording is not None:
        return f"{_of_one_wording(one, causal, wording)} {carried}"
    sets = f"; {counted(causal.sets, 'set')} of all wordings" if causal.wordings else ""
    said = (
        f"It pays for {one.attribute.words}: {_with_ends(causal)} when the text is changed in that alone "
        f"({causal.edit}; n = {counted(causal.n, 'prompt')}, more reward in {percent(causal.rises)} of "
        f"them{sets})."
    )
    if causal.wordings:
        said += f" {_wordings(causal, differ=one.wordings_differ)}"
    return f"{said} {carried}"


def _of_one_wording(one: AttributeFinding, causal: CausalPrice, wording: WordingPrice) -> str:
    """That a wording is paid for, and how it stands with the attribute itself."""
    kind = (
        f"the mean of all {len(causal.wordings)} wordings is {_with_ends(causal)} "
        f"(n = {counted(causal.n, 'prompt')})"
    )
    if one.wordings_differ and causal.rest is not None:
        kind = f"not for the kind: {causal.rest.edit} together are worth {_with_ends(causal.rest)}; {kind}"
    paid, of = len(one.paid_wordings), one.attribute.words
    said = f"one wording of {of}" if paid == 1 else f"{paid} wordings of {of}, most for one"
    return (
        f"It pays for {said}: {_with_ends(wording)} for {wording.edit} (n = {counted(wording.n, 'prompt')}, "
        f"q = {wording.q:.2g} over all edits and wordings); {kind}."
    )


def _wordings(causal: CausalPrice, *, differ: bool) -> str:
    """From which price to which the wordings go, and whether that is more than chance."""
    ordered = sorted(causal.wordings, key=lambda one: one.sd)
    least, most = ordered[0], ordered[-1]
    chance = "apart by more than chance" if differ else "apart by no more than chance"
    return (
        f"Its {len(ordered)} wordings are worth {least.sd:+.2f} SD ({least.edit}) to {most.sd:+.2f} SD "
        f"({most.edit}), {chance} (q = {causal.differ_q:.2g})."
    )


def _association(one: AttributeFinding) -> str:
    part = one.partial
    assert part is not None  # there is no other price
    return (
        f"More reward comes with {one.attribute.words}: {part.sd:+.2f} SD [{part.low:+.2f}, "
        f"{part.high:+.2f}] for {_UNITS[one.attribute.unit]}, beside all other attributes "
        f"(n = {counted(part.n, 'prompt')}, q = {part.q:.2g}). No edit of the text says whether it is paid "
        "for, or comes along with better answers."
    )


def _carried(one: AttributeFinding, latents: str) -> str:
    """What carries the price: latents, or what no latent holds."""
    if not latents:
        return "No latent carries it: all of it lies in the residual."
    said = f"Latents {latents} carry it"
    if one.residual is not None and abs(one.residual) >= LEAST_RESIDUAL:
        said += f"; {percent(one.residual)} of it lies in the residual, where edits do not reach"
    own = one.own_latent
    if own is not None and own.exists:
        said += f". Latent {own.latents[0]} is its own (AUROC {own.auroc.mean:.2f})"
    return f"{said}."


def _named(found: Audit, latent: int) -> str:
    words = found.latent_words.get(latent)
    return str(latent) if words is None else f"{latent} - {words}"


def _with_ends(price: CausalPrice | WordingPrice) -> str:
    if not math.isfinite(price.low):
        return f"{price.sd:+.2f} SD (n = {price.n}: no interval)"
    return f"{price.sd:+.2f} SD [{price.low:+.2f}, {price.high:+.2f}]"


def _mend_sentences(mended: Mend) -> Iterator[str]:
    verdict = "recommended" if mended.recommended else "not recommended"
    edits = f" by {counted(len(mended.edits), 'edit')}" if mended.edits else ""
    yield f"A mend of {_and(mended.targets)}{edits} is {verdict}: {mended.why}."
    yield from _left_sentences(mended.outcome)


def _left_sentences(ours: Outcome) -> Iterator[str]:
    point = ours.chosen
    if point is None:
        return
    for one in point.left:
        yield (
            f"{one.attribute} ({one.edit}): {_with_ends(one.before)} before, {_with_ends(one.after)} after "
            f"(n = {counted(one.after.n, 'prompt')} that chose nothing)."
        )
    # the edits that take prices alone away were not chosen by slopes, and leave them as they come
    for slope in point.slopes if ours.name == "even" else ():
        yield (
            f"{slope.attribute}, over answers as they are: {slope.before:+.2f} SD before, {slope.after:+.2f} "
            "after, for one SD of it within prompts."
        )
    if point.guard is not None:
        found = point.guard
        yield (
            f"accuracy on pairs: {percent(found.before)} before, {percent(found.after)} after; of "
            f"{counted(found.flips.n, 'prompt')} {found.flips.gained} turn right and {found.flips.lost} "
            f"wrong (McNemar's exact p = {found.flips.p:.2g})."
        )


def _price_list(found: Audit) -> Iterator[str]:
    roles = sorted(set(found.table.role.tolist()))
    yield f"price list (*: q <= 5 %, {_asked_of(found)})"
    rows = [["attribute", *(f"in {role}" for role in roles), "causal price", "n", "partial price", "n", ""]]
    for one in found.findings:
        causal, partial = one.best_causal, one.partial
        rows.append(
            [
                one.attribute.name,
                *(percent(one.rates[role]) for role in roles),
                "-"
                if causal is None
                else _with_ends(causal) + ("*" if causal.q <= FALSE_DISCOVERIES else ""),
                "-" if causal is None else str(causal.n),
                "-"
                if partial is None or partial.why
                else f"{partial.sd:+.2f} [{partial.low:+.2f}, {partial.high:+.2f}]"
                + ("*" if partial.q <= FALSE_DISCOVERIES else ""),
                "-" if partial is None else str(partial.n),
                _called(one),
            ]
        )
    yield from aligned(rows, left=1)


def _called(one: AttributeFinding) -> str:
    if one.unwanted:
        return "unwanted" if one.one_wording is None else "one wording"
    return "comes along" if one.associated else ""


def _asked_of(found: Audit) -> str:
    """Over how many prices the false discovery rate is held."""
    partial = sum(one.partial is not None and one.partial.why is None for one in found.findings)
    causal = sum(1 + len(price.wordings) for one in found.findings for price in one.causal if price.n)
    return f"the share of false finds among {causal} causal or {partial} partial prices"


def _accuracy(one: Accuracy) -> Iterator[str]:
    yield f"pairs preferred rightly (chance is 50 %): {_share(one.pairs)}"
    rows = [[f"{one.column} {name}", _share(share)] for name, share in one.kinds.items()]
    rows += [[f"style {name}", _share(share)] for name, share in one.styles.items()]
    if one.longer.n:
        rows.append(["the longer of two answers is preferred", _share(one.longer)])
    if math.isfinite(one.length_correlation):
        rows.append(["correlation with log2 length, within prompts", f"{one.length_correlation:+.2f}"])
    if one.refused is not None:
        rows.append(["a refusal is preferred where the chosen answer answers", _share(one.refused)])
    yield from aligned(rows, left=1) if rows else ()


def _share(one: Interval) -> str:
    ends = f" [{percent(one.low)}, {percent(one.high)}]" if one.given else ""
    return f"{percent(one.mean)}{ends} (n = {one.n})"


def _pressure(found: Audit) -> Iterator[str]:
    assert found.pressure is not None
    one = found.pressure
    most = one.n[-1]
    yield (
        f"best of {most} by this reward ({one.kl[-1]:.2f} nats at most from the policy), "
        f"n = {counted(one.prompts, 'prompt')}: what the winner has more of"
    )
    rows = [["attribute", "best of 1", f"best of {most}", "change", "q"]]
    for rise in sorted(one.rises, key=lambda rise: rise.q):
        if rise.q <= FALSE_DISCOVERIES:
            change = f"{rise.change.mean:+.3g}"
            ends = f" [{rise.change.low:+.3g}, {rise.change.high:+.3g}]" if rise.change.given else ""
            rows.append(
                [rise.name, f"{rise.at_one:.3g}", f"{rise.at_most:.3g}", change + ends, f"{rise.q:.2g}"]
            )
    yield from aligned(rows, left=1) if len(rows) > 1 else ["  nothing, surely"]


_LEFT = ("largest price left", "slope left", "accuracy on pairs", "turned right", "wrong")


def _ways(mended: Mend) -> Iterator[str]:
    yield "ways to mend, each at the strength that the guard allowed, on prompts that chose nothing"
    rows = [["way", "strength", *_LEFT]]
    rows += [_way_row(one, one.chosen) for one in (mended.outcome, *mended.others)]
    yield from aligned(rows, left=1)
    if mended.better is not None:
        yield mended.better
    yield "strength of the edits against what they leave and cost"
    rows = [["strength", *_LEFT]]
    rows += [_way_row(mended.outcome, point)[1:] for point in mended.outcome.frontier]
    yield from aligned(rows, left=1)


def _way_row(way: Outcome, point: Point | None) -> list[str]:
    if point is None:
        return [way.name, "none", *["-"] * len(_LEFT)]
    own = point.guard
    slope = f"{max(abs(one.after) for one in point.slopes):.2f} SD" if point.slopes else "-"
    known = ["-"] * 3 if own is None else [percent(own.after), str(own.flips.gained), str(own.flips.lost)]
    return [way.name, f"{point.strength:g}", f"{point.worst:.2f} SD", slope, *known]


def _certificate(mended: Mend) -> Iterator[str]:
    if not mended.certificate:
        return
    yield "what else moves in the best of n by the mended reward (bounds hold together in 95 of 100)"
    rows = [["attribute", "n", "change", "bounds", "verdict"]]
    for one in mended.certificate:
        bounds = f"[{one.low:+.3f}, {one.high:+.3f}]"
        rows.append([one.name, str(one.n), f"{one.change:+.3f}", bounds, one.verdict])
    yield from aligned(rows, left=1)
    yield "  it says nothing of attributes that nobody named, nor of policies that leave these answers"


def mend_hint(found: Audit) -> str:
    """Why `--mend auto` finds nothing to do, as a sentence."""
    if not found.headlines:
        return "nothing that is unwanted has a price, so there is nothing to mend"
    names = _and([one.attribute.name for one in found.headlines])
    return f"no edit of the text was tried on {LEAST_PROMPTS} prompts or more for {names}"


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
