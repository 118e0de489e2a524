"""A discovery in sentences: what the tables below the counts mean, the most important first."""

from collections.abc import Iterator

from sarm_control.discovery.competing import TESTED, Competitor
from sarm_control.discovery.counterfactuals import ClosingTest
from sarm_control.discovery.discover import Discovery
from sarm_control.discovery.examination import Examination
from sarm_control.discovery.features import Feature
from sarm_control.discovery.interval_text import with_ends
from sarm_control.discovery.statistics import Interval

_NAMED = 6
"""Latents that a sentence names before it only counts them."""


def findings(examined: Examination) -> Iterator[str]:
    """One sentence a line; only what there is something to say about."""
    found = examined.found
    yield from _unshown(found)
    yield from _removal(found)
    yield from _lost(found)
    yield from _share(found)
    yield from _length(found)
    yield from _turned(found)
    yield from _levels(examined)
    for test in examined.closing:
        yield _closing(test)
    if examined.visibility is not None:
        yield examined.visibility.verdict


def _unshown(found: Discovery) -> Iterator[str]:
    called = [one for items in found.lists.values() for one in items]
    unshown = [one for one in called if "L1" not in one.levels]
    if unshown:
        yield (
            f"The tests called {_names(unshown)}, but no interval of the effect leaves out 0: no evidence of "
            "level 1 yet, and no control. More confirmation prompts would tell."
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
            f"The harming latents carry {with_ends(share, '.0f', percent=True)}{random} of what rejected "
            f"answers are paid too much on the {lost.prompts} prompts where they are paid more."
        )


def _share(found: Discovery) -> Iterator[str]:
    """Only where there is a margin to have shares of."""
    if found.cumulative is not None and found.confirmation.margin.low > 0:
        half, most = found.cumulative.needed.values()
        yield f"{_largest(half)} half of the margin, {_largest(most).lower()} 90 % of it."


def _largest(count: int) -> str:
    return "The largest latent makes" if count == 1 else f"The {count} largest latents make"


def _length(found: Discovery) -> Iterator[str]:
    called = [one for items in found.lists.values() for one in items]
    lost = [one for one in called if _vanishes(one)]
    if lost:
        yield f"At equal length {_of(lost, called)} no clear effect of the same sign: {_names(lost)}."
    untold = [one for one in called if one.effect_equal_length is not None and one.equal_length_low is None]
    if untold:
        yield f"At equal length {_of(untold, called)} too few prompts for an interval: {_names(untold)}."


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
    where = {"confirmation": "", "selection": " of the selection, on the prompts that chose the latents"}
    for part, whose in where.items():
        turned = [one for one in found.group_effects if one.turned and one.part == part]
        if turned:
            named = [f"{one.latent} ({one.group})" for one in turned[:_NAMED]]
            rest = f" and {len(turned) - _NAMED} more" if len(turned) > _NAMED else ""
            yield f"Turned round in one {found.settings.by}{whose}: latents {', '.join(named)}{rest}."


def _levels(examined: Examination) -> Iterator[str]:
    called = [one for items in examined.found.lists.values() for one in items]
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
