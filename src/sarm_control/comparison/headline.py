"""The headline: one sentence per arm, made from the numbers alone.

A change counts only when its interval excludes 0; otherwise it reads "no clear change", or "too few prompts
to tell" where there is no interval.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sarm_control.comparison.measures import GOLD, HUMAN, KL, LENGTH, REWARD
from sarm_control.errors import DataError
from sarm_control.statistics import bracket, decimals, fixed
from sarm_control.training import NO_CONTROL, PLACEBO, ROLE, Role, inferred_role, known_role

NO_CHANGE = "no clear change"
TOO_FEW = "too few prompts to tell"
_MANY = 4


def verdict(interval: Mapping[str, Any]) -> str:
    """`rose`, `fell`, `no clear change` (the interval holds 0) or `too few prompts to tell` (no interval)."""
    low, high = interval["low"], interval["high"]
    if low is None or high is None:
        return TOO_FEW
    if low <= 0 <= high:
        return NO_CHANGE
    return "rose" if low > 0 else "fell"


def role_of(arm: Mapping[str, Any]) -> Role:
    """The role of an arm; in a comparison of an earlier version, which holds none, by its name and controls.

    Raises:
        DataError: it is none of the roles that there are.
    """
    if ROLE in arm:
        return known_role(arm[ROLE], f"arm {arm['name']} of the comparison", DataError)
    return inferred_role(str(arm["name"]), controls=bool(arm["controls"]))


def arm_title(arm: Mapping[str, Any]) -> str:
    """How readers see an arm: with its role, unless it is controlled or its name says the role."""
    name, role = str(arm["name"]), role_of(arm)
    if role == NO_CONTROL:
        return role if name in ("none", "no-control") else f"{name} ({role})"
    return f"{name} ({role})" if role == PLACEBO and name != PLACEBO else name


def headline(report: Mapping[str, Any]) -> list[str]:
    """One sentence per arm: did the control work, and what did it cost?

    An arm with controls is compared with the first arm without controls if there is one, else with the base
    policy.
    """
    free = next((arm for arm in report["arms"] if role_of(arm) == NO_CONTROL), None)
    sentences = []
    for arm in report["arms"]:
        own = {row["key"]: row["change"] or row["trained"] for row in arm["measures"]}
        if role_of(arm) != NO_CONTROL and free is not None:
            between = difference_between(report["differences"], free["name"], arm["name"])
            sentences.append(_sentence(arm, arm_title(free), {**_own_only(own), **between}))
        else:
            sentences.append(_sentence(arm, None, own))
    return sentences


def change_in_words(
    interval: Mapping[str, Any], *, unit: str = "", scale: float = 1.0, after: str = ""
) -> str:
    """`rose by 0.12 SD [0.05, 0.19]`, or `shows no clear change (+0.02 SD [-0.05, +0.09])`.

    Without an interval it `changes by +0.02 SD (too few prompts to tell)`, or `does not change` at all.
    """
    shown, change = _scaled(interval, scale), verdict(interval)
    digits = decimals(shown)
    if change == TOO_FEW:
        if shown["mean"] == 0:
            return "does not change"
        return f"changes by {_joined(fixed(shown['mean'], digits, sign=True), unit)}{after} ({TOO_FEW})"
    if change == NO_CHANGE:
        value = _joined(fixed(shown["mean"], digits, sign=True), unit, bracket(shown, digits, sign=True))
        return f"shows {NO_CHANGE} ({value}{after})"
    if change == "fell":
        # "fell by" takes the amount without its sign
        shown = _scaled(interval, -scale)
    return _joined(f"{change} by", fixed(shown["mean"], digits), unit, bracket(shown, digits)) + after


def _scaled(interval: Mapping[str, Any], scale: float) -> dict[str, float | None]:
    mean, low, high = (
        None if interval[name] is None else interval[name] * scale for name in ("mean", "low", "high")
    )
    return {"mean": mean, "low": low, "high": high} if scale > 0 else {"mean": mean, "low": high, "high": low}


def _sentence(arm: Mapping[str, Any], against: str | None, changes: Mapping[str, Mapping[str, Any]]) -> str:
    sd = arm["reward_sd"]
    in_sd = f", {fixed(changes[REWARD]['mean'] / sd, 2, sign=True)} SD" if sd > 0 else ""
    parts = [f"gold {change_in_words(changes[GOLD])}"] if GOLD in changes else []
    parts += _firing(arm, changes)
    if HUMAN in changes:
        parts.append(f"the divergence from the human latents {change_in_words(changes[HUMAN], unit='nats')}")
    parts.append(f"the unedited reward {change_in_words(changes[REWARD], after=in_sd)}")
    if against is None:
        digits = decimals(changes[KL])
        value = _joined(fixed(changes[KL]["mean"], digits), "nats", bracket(changes[KL], digits))
        parts.append(f"KL to the base is {value}")
    else:
        parts.append(f"KL to the base {change_in_words(changes[KL], unit='nats')}")
    parts.append(f"answer length {change_in_words(changes[LENGTH], unit='tokens')}")
    return f"{arm_title(arm)} against {against or 'the base policy'}: {'; '.join(parts)}."


def _firing(arm: Mapping[str, Any], changes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    labels = {row["key"]: row["label"] for row in arm["measures"]}
    keys = [_firing_key(latent, changes) for latent in arm["controlled"]]
    rates = {f"{labels[key][:1].lower()}{labels[key][1:]}": changes[key] for key in keys}
    if len(rates) > _MANY:
        verdicts = [verdict(change) for change in rates.values()]
        words = [word for word in ("fell", "rose", NO_CHANGE, TOO_FEW) if word in verdicts]
        counts = [f"{verdicts.count(word)} {word}" for word in words]
        return [f"of the firing rates of {len(rates)} controlled latents {', '.join(counts)}"]
    return [
        f"the share of answers with {label} {change_in_words(change, unit='points', scale=100)}"
        for label, change in rates.items()
    ]


def _own_only(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The measure that other arms lack: that of this arm's own discriminator."""
    return {HUMAN: changes[HUMAN]} if HUMAN in changes else {}


def _joined(*words: str) -> str:
    return " ".join(word for word in words if word)


def _firing_key(latent: int, changes: Mapping[str, Any]) -> str:
    above = f"penalty/{latent}/rate"
    return above if above in changes else f"latent/{latent}/rate"


def difference_between(
    differences: Sequence[Mapping[str, Any]], first: str, second: str
) -> dict[str, Mapping[str, Any]]:
    """Changes from the first arm to the second; the report holds each pair once, in either direction."""
    pair = next(item for item in differences if {item["from"], item["to"]} == {first, second})
    reverse = pair["from"] != first
    return {row["key"]: _negated(row["change"]) if reverse else row["change"] for row in pair["measures"]}


def _negated(interval: Mapping[str, Any]) -> dict[str, Any]:
    # `and` leaves None as it is, and 0 without a minus
    mean, low, high = (interval[name] and -interval[name] for name in ("mean", "low", "high"))
    return {**interval, "mean": mean, "low": high, "high": low}
