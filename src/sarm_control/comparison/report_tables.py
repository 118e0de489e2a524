"""The tables of a comparison as rows of cells; every number keeps the exact value of `report.json`."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sarm_control.comparison.headline import arm_title
from sarm_control.pages import Cell, Number, Table, TableRow, interval_cell, number
from sarm_control.statistics import MINUS, decimals, short

Interval = Mapping[str, Any]


class Unit(NamedTuple):
    """How a measure is shown: values times `scale`, `name` behind the label."""

    scale: float
    name: str


UNITS = {
    "reward": Unit(1, ""),
    "gold": Unit(1, ""),
    "SD": Unit(1, "SD"),
    "share": Unit(100, "%"),
    "tokens": Unit(1, "tokens"),
    "nats": Unit(1, "nats an answer"),
}


def exact(value: float) -> Number:
    """A number with three significant digits."""
    return Number(value, short(value))


def scaled(interval: Interval, scale: float) -> dict[str, float | None]:
    """The interval in the unit it is shown in."""
    return {
        name: None if interval[name] is None else interval[name] * scale for name in ("mean", "low", "high")
    }


def measures_table(arm: Mapping[str, Any], caption: str) -> Table:
    """Every measure of one arm: base, trained, paired change, change in SDs of the base reward."""
    head = ("Measure", "Base policy", arm_title(arm), "Change", "Change in SD")
    reward = next(item for item in arm["measures"] if item["key"] == "reward/model")
    most = decimals(reward["change"]) + 2
    return Table(caption, head, [_measure_row(item, most) for item in arm["measures"]])


def differences_table(
    differences: Sequence[Mapping[str, Any]], titles: Mapping[str, str], caption: str
) -> Table:
    """Paired differences between arms, one column per pair; `titles` is how readers see each arm."""
    head = ("Measure", *(difference_title(pair, titles) for pair in differences))
    rows = []
    for items in zip(*(pair["measures"] for pair in differences), strict=True):
        unit = UNITS[items[0]["unit"]]
        cells = [
            interval_cell(
                item["change"], decimals(scaled(item["change"], unit.scale)), scale=unit.scale, sign=True
            )
            for item in items
        ]
        rows.append(TableRow(items[0]["label"], cells, _unit(items[0], change=True)))
        if items[0]["change_sd"] is not None:
            cells = [Cell(number(item["change_sd"], 2, sign=True)) for item in items]
            rows.append(TableRow("Reward, unedited, in SDs of the base policy's reward", cells))
    return Table(caption, head, rows)


def difference_title(pair: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    """What a difference is of, such as `ours - no control`."""
    return f"{titles[pair['to']]} {MINUS} {titles[pair['from']]}"


def ledger_table(ledger: Mapping[str, Any], caption: str, *, top: int) -> Table:
    """The top latents, the others as one row, and how they add up to the change of the reward."""
    head = (
        "Entry",
        "Weight",
        "Mean z, base",
        "Mean z, trained",
        "Active, base",
        "Active, trained",
        "Change of reward",
    )
    entries = ledger["entries"]
    rest = ledger["rest"]["delta"] + sum(item["delta"] for item in entries[top:])
    count = ledger["rest"]["count"] + len(entries[top:])
    digits = _ledger_digits(entries[:top], ledger)
    rows = [_entry_row(item, digits) for item in entries[:top]]
    if count:
        rows.append(_sum_row(f"{count} other latents together", rest, digits, kind=""))
    outside = ledger.get("outside")
    if outside is None:
        rows.append(_sum_row("Unedited reward: all latents", ledger["latent_sum"], digits))
    else:
        rows.append(_sum_row(outside["label"], outside, digits, kind=""))
        rows.append(_sum_row("Unedited reward: latents and residual", ledger["model_change"], digits))
    rows += [
        _sum_row(item["label"], item, digits, kind="") for item in ledger["controls"] if item["kind"] != "kl"
    ]
    # only where a control added a row: else this total would repeat the one above
    if len(rows) > len(entries[:top]) + bool(count) + bool(outside) + 1:
        rows.append(_sum_row("Reward as trained on", ledger["total_change"], digits))
    # below the total, because the KL is in the objective and not in the reward
    rows += [
        _sum_row(item["label"], item, digits, kind="") for item in ledger["controls"] if item["kind"] == "kl"
    ]
    return Table(caption, head, rows)


def _measure_row(item: Mapping[str, Any], most: int) -> TableRow:
    unit = UNITS[item["unit"]]
    change, trained = item["change"], item["trained"]
    # a change of 0 justifies no decimals, so the level decides
    digits = decimals(scaled(change if change and change["mean"] else trained, unit.scale))
    if item["unit"] == "reward":
        # A part far smaller than the reward's own interval needs no more digits than the reward.
        digits = min(digits, most)
    cells = [
        interval_cell(item["base"], digits, scale=unit.scale),
        interval_cell(trained, digits, scale=unit.scale),
        interval_cell(change, digits, scale=unit.scale, sign=True),
        Cell(number(item["change_sd"], 2, sign=True)),
    ]
    kind = "total" if item["key"] == "reward/total" else ""
    return TableRow(item["label"], cells, _unit(item), kind)


def _entry_row(item: Mapping[str, Any], digits: int) -> TableRow:
    cells = [
        Cell(exact(item["weight"])),
        Cell(exact(item["base_mean"])),
        Cell(exact(item["trained_mean"])),
        Cell(number(item["base_rate"], 1, scale=100), unit=" %"),
        Cell(number(item["trained_rate"], 1, scale=100), unit=" %"),
        interval_cell({**item, "mean": item["delta"]}, digits, sign=True),
    ]
    name = f"{item['label']}, controlled" if item["controlled"] else item["label"]
    return TableRow(name, cells, kind="marked" if item["controlled"] else "")


def _sum_row(label: str, value: Any, digits: int, *, kind: str = "total") -> TableRow:
    entry = {"low": None, "high": None, "delta": value} if isinstance(value, float | int) else value
    cell = interval_cell({**entry, "mean": entry["delta"]}, digits, sign=True)
    return TableRow(label, [cell], kind=kind, span=6)


def _ledger_digits(entries: Sequence[Mapping[str, Any]], ledger: Mapping[str, Any]) -> int:
    sums = [ledger["latent_sum"], *([ledger["model_change"]] if "outside" in ledger else [])]
    size = max(abs(one) for one in (*(item["delta"] for item in entries), *sums))
    return decimals({"mean": size, "low": None, "high": None}) + 1


def _unit(item: Mapping[str, Any], *, change: bool = False) -> str:
    return "points" if change and item["unit"] == "share" else UNITS[item["unit"]].name
