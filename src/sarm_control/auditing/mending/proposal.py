"""A mend: edits that take the price of attributes away, judged on prompts that chose nothing.

There are two sets of edits. One takes away what edits of the text are paid, which the attribute itself
causes. The other also makes the reward even in the attribute over answers as they are. It is taken only where
it is better on pairs. Prompts are halved: one half fits, the other judges (`halves`).
"""

from collections.abc import Sequence

import numpy as np

from sarm_control.auditing.mending.halves import Halves
from sarm_control.auditing.mending.mend import Mend, Outcome
from sarm_control.auditing.mending.mended_rewards import by_edits, by_even_edits, with_edits
from sarm_control.auditing.result import Audit
from sarm_control.errors import ConfigError
from sarm_control.latents import ScoredRows

GUARD = 1.0
"""Points of accuracy on pairs that a mend may cost."""
LEAST_PROMPTS = 20
"""Prompts on which an edit of the text must have been tried for its attribute to be mended."""


def mendable(audit: Audit) -> tuple[str, ...]:
    """Attributes whose price a mend can work on: text edits of them were tried on enough prompts."""
    names = [one.edit.attribute for one in audit.contrasts if len(np.unique(one.prompt)) >= LEAST_PROMPTS]
    return tuple(dict.fromkeys(names))


def unwanted(audit: Audit) -> tuple[str, ...]:
    """The headlines that can be mended: what `--mend auto` takes."""
    can = mendable(audit)
    return tuple(one.attribute.name for one in audit.headlines if one.attribute.name in can)


def mend(
    audit: Audit,
    data: ScoredRows,
    targets: Sequence[str],
    *,
    guard_points: float = GUARD,
    guard_data: ScoredRows | None = None,
    seed: int = 0,
) -> Mend:
    """Proposes edits for the targeted attributes, jointly, and judges them.

    Nothing is scored: edits act after TopK, so every answer's edited reward is exact algebra.

    Args:
        audit: of the reward model.
        data: what was audited.
        targets: names of attributes.
        guard_points: points of accuracy on pairs that it may cost.
        guard_data: the pairs of the guard, halved too; those of `data` where None.
        seed: of the halves.

    Raises:
        ConfigError: a target that is no attribute of the audit, or that no text edit was tried for.
    """
    _check(audit, targets)
    halves = Halves(audit, data, tuple(dict.fromkeys(targets)), mendable(audit), guard_data, seed)
    made = {"edits": halves.latents(), "even": halves.latents(even=True)}
    ways = [by_edits(made["edits"]), by_even_edits(made["even"]), *halves.baselines()]
    outcomes = {way.name: halves.outcome(way, guard_points) for way in ways}
    own = halves.better_edits({name: outcomes[name] for name in made}, {way.name: way for way in ways})
    ours, others = outcomes[own], [one for name, one in outcomes.items() if name != own]
    edits = made[own].edits(ours.strength) if ours.strength else ()
    recommended, why = _verdict(ours, guard_points)
    moves, missing = halves.certificate(with_edits(edits)) if edits else ((), ())
    return Mend(
        halves.targets,
        edits,
        ours,
        tuple(others),
        recommended,
        why,
        moves,
        (*halves.missing, *missing),
        data.scored.fingerprint,
        guard_points,
    )


def _check(audit: Audit, targets: Sequence[str]) -> None:
    if not targets:
        raise ConfigError("nothing to mend", hint="name attributes of this audit")
    names = [one.name for one in audit.table.attributes]
    can = mendable(audit)
    for name in targets:
        if name not in names:
            raise ConfigError(f"{name!r} is no attribute of this audit", hint=f"it has {', '.join(names)}")
        if name not in can:
            raise ConfigError(
                f"{name} cannot be mended: no edit of the text changes it in {LEAST_PROMPTS} prompts or more",
                hint=f"those that can be are {', '.join(can) or 'none'}",
            )


def _verdict(ours: Outcome, allowed: float) -> tuple[bool, str]:
    point = ours.chosen
    if point is None:
        return False, f"every strength costs more than {allowed:g} points of accuracy on pairs"
    if point.guard is None:
        return False, "there are no pairs, so nobody knows what it costs"
    # a cost that is rounded to what is allowed would seem to be allowed
    digits = 2 if allowed < point.guard.cost < allowed + 0.05 else 1
    said = f"it costs {point.guard.cost:.{digits}f} points of accuracy on pairs that chose nothing"
    if point.guard.cost > allowed:
        return False, f"{said}, and {allowed:g} are allowed"
    if not any(abs(one.after.sd) < abs(one.before.sd) for one in point.left):
        return False, "no price is smaller after it"
    gains = f"accuracy on pairs that chose nothing rises by {-point.guard.cost:.1f} points"
    return True, said if point.guard.cost >= 0 else gains
