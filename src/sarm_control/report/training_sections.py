"""How training went: curves of every step, with seeds as a band; and the monitors."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, get_args

from sarm_control.charts import Figure, LinePoint, lines, slug
from sarm_control.comparison import CURVES
from sarm_control.pages import Block, Drawing, Light, Lights, Panels, Prose, Section
from sarm_control.report.names import named
from sarm_control.report.sources import Run
from sarm_control.statistics import counted, fixed
from sarm_control.training import Check

_PANEL = 440
_CURVES = (
    *CURVES,
    ("policy/loss", "Policy loss", "loss"),
    ("policy/clip_fraction", "Clipped tokens", "share of tokens"),
    ("policy/approx_kl", "KL of one update", "nats a token"),
    ("value/explained_variance", "Variance that the values explain", "share"),
    ("policy/entropy", "Entropy of the policy", "nats a token"),
    ("answers/length", "Answer length", "tokens"),
)
_PARTS = {
    "reward/edits": "edits",
    "reward/human_kl": "human-KL term",
    "reward/missing_end": "answers that did not end",
    "reward/pattern": "patterns in the text",
    "reward/shaping": "shaping",
}


class _Group(NamedTuple):
    """Runs that differ by their seeds alone."""

    name: str
    runs: Sequence[Run]


def training_section(runs: Sequence[Run], names: Mapping[int, str]) -> Section | None:
    """Curves over training steps; None where no run has done a step."""
    if not any(run.metrics for run in runs):
        return None
    groups = _groups(runs)
    whole = [figure for curve in _CURVES if (figure := _curve(groups, *curve))]
    blocks: list[Block] = [Panels([Drawing(figure, "", _PANEL, numbers=False) for figure in whole])]
    # a chart for each run and no band: runs of other controls have other parts
    parts = [figure for run in runs if (figure := _parts(run, names))]
    if parts:
        blocks.append(
            Prose(["What controls added to the mean reward or took from it, a chart for each run:"])
        )
        blocks.append(Panels([Drawing(figure, "", _PANEL, numbers=False) for figure in parts]))
    rates = [figure for run in runs if (figure := _rates(run, names))]
    if rates:
        blocks.append(
            Prose(["How often controlled latents fired, a chart for each run, with their targets:"])
        )
        blocks.append(Panels([Drawing(figure, "", _PANEL, numbers=False) for figure in rates]))
    banded = any(len(group.runs) > 1 for group in groups)
    note = "Faint: each step. Strong: a running mean, where there are at least 15 steps."
    note += " Bands: from the lowest to the highest seed." if banded else ""
    blocks.append(Prose([note], quiet=True))
    return Section("training", "How training went", _finding(runs), blocks)


def monitor_section(runs: Sequence[Run]) -> Section | None:
    """Every monitor as a light with its evidence; None without runs."""
    if not runs:
        return None
    lights = [_light(check, runs) for check in get_args(Check)]
    fired = [light.name for light in lights if light.tone == "bad"]
    finding = f"Fired: {', '.join(fired)}." if fired else "No monitor fired."
    idle = sum(light.tone == "unclear" for light in lights)
    # a monitor that could not look is no good news, and is not counted with those that were quiet
    finding += f" {counted(idle, 'monitor')} had nothing to watch." if idle else ""
    order = {"bad": 0, "good": 1, "unclear": 2, "plain": 3}
    return Section("monitors", "Monitors", finding, [Lights(sorted(lights, key=lambda one: order[one.tone]))])


def _groups(runs: Sequence[Run]) -> list[_Group]:
    groups: dict[str, list[Run]] = {}
    for run in runs:
        config = run.config.model_dump(mode="json")
        # equal in all else: such runs are one line with a band
        config["training"].pop("seed")
        groups.setdefault(repr(config), []).append(run)
    return [
        _Group(one[0].title if len(one) == 1 else f"{one[0].title} ({len(one)} seeds)", one)
        for one in groups.values()
    ]


def _curve(groups: Sequence[_Group], key: str, label: str, unit: str) -> Figure | None:
    points = [point for group in groups for point in _points(group, key)]
    if not points:
        return None
    return lines(
        points,
        name=f"training-{key.replace('/', '-')}",
        title=f"{label}.",
        x_title="training step",
        y_title=unit,
        smooth=True,
    )


def _points(group: _Group, key: str) -> Iterator[LinePoint]:
    """The mean over the seeds at each step, and from the lowest to the highest of them."""
    by_step: dict[int, list[float]] = {}
    for run in group.runs:
        for row in run.metrics:
            if row.get(key) is not None:
                by_step.setdefault(int(row["step"]), []).append(float(row[key]))
    for step, values in sorted(by_step.items()):
        several = len(group.runs) > 1
        # from lowest to highest and no interval: of two or three seeds a standard error is hardly known
        low, high = (min(values), max(values)) if several else (None, None)
        yield LinePoint(group.name, step, sum(values) / len(values), low, high)


def _parts(run: Run, names: Mapping[int, str]) -> Figure | None:
    points = []
    for key in dict.fromkeys(key for row in run.metrics for key in row):
        label = _PARTS.get(key)
        if key.startswith("reward/penalty/"):
            label = named(key.rsplit("/", 1)[1], names)
        values = [row.get(key) for row in run.metrics]
        # a part that is 0 at every step would be a line on the axis
        if label and any(values):
            points += [LinePoint(label, row["step"], row.get(key)) for row in run.metrics]
    if not points:
        return None
    title = f"Parts of the reward: {run.title}."
    return lines(
        points,
        name=f"parts-{slug(run.name)}",
        title=title,
        x_title="training step",
        y_title="reward units",
        smooth=True,
    )


def _rates(run: Run, names: Mapping[int, str]) -> Figure | None:
    targets = {
        f"target {100 * one.target_rate:g} %": one.target_rate
        for one in run.config.reward.penalties
        if one.target_rate is not None
    }
    points = []
    for key in dict.fromkeys(key for row in run.metrics for key in row):
        parts = key.split("/")
        if len(parts) == 3 and parts[0] == "penalty" and parts[2] == "rate":
            label = named(parts[1], names)
            points += [LinePoint(label, row["step"], row.get(key)) for row in run.metrics]
    if not points:
        return None
    title = f"Answers in which a penalty fires: {run.title}."
    return lines(
        points,
        name=f"rates-{slug(run.name)}",
        title=title,
        x_title="training step",
        y_title="share of answers",
        targets=targets,
        smooth=True,
        zero=True,
    )


def _finding(runs: Sequence[Run]) -> str:
    said = []
    for run in runs:
        if run.metrics:
            last = run.metrics[-1]
            steps = f"step {last['step']} of {run.config.training.steps}"
            said.append(f"{run.title}: {steps}, KL {fixed(last.get('objective/kl'), 2)} nats")
    return "; ".join(said) + "."


def _light(check: str, runs: Sequence[Run]) -> Light:
    warned = [(run, row) for run in runs for row in run.warnings if row.get("check") == check]
    # a monitor that fired once has fired, however quiet it was later
    if warned:
        said = [f"{run.title}, step {row['step']}: {row['text']}." for run, row in warned]
        return Light(check, "bad", "fired", " ".join(said))
    values = [value for run in runs for value in _values(run, check)]
    if values:
        extremes = f"between {min(values):.3g} and {max(values):.3g}"
        return Light(
            check, "good", "quiet", f"looked {counted(len(values), 'time')}; its value was {extremes}."
        )
    return Light(check, "unclear", "not run", "Nothing in these runs for it to watch, or no evaluations.")


def _values(run: Run, check: str) -> Iterator[float]:
    for row in (*run.metrics, *run.evaluations):
        for key, value in row.items():
            parts = key.split("/")
            # further numbers of a finding stand one level below its own
            if parts[:2] == ["monitor", check] and len(parts) <= 3 and isinstance(value, int | float):
                yield float(value)
