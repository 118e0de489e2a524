"""Tables: every fixed in a `data` element that holds the exact value of `report.json`."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sarm_control.comparison.html.markup import Child, Html, element, join
from sarm_control.statistics import decimals, fixed, short

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


def table(caption: Child, head: Sequence[str], rows: Sequence[Html]) -> Html:
    """A captioned table whose header cells name their columns."""
    header = element("tr", [element("th", text, scope="col") for text in head])
    whole = element("table", element("caption", caption), element("thead", header), element("tbody", rows))
    return element("div", whole, class_="scroll", tabindex="0")


def row(head: Child, cells: Sequence[Html], *, kind: str | None = None) -> Html:
    """One body row; its first cell names it."""
    return element("tr", element("th", head, scope="row"), cells, class_=kind)


def data(value: float | None, digits: int, *, scale: float = 1, sign: bool = False) -> Html:
    """A fixed as text, with its exact value beside it for machines."""
    if value is None:
        return Html("\u2013")
    return element("data", fixed(value * scale, digits, sign=sign), value=repr(value))


def exact(value: float) -> Html:
    """A fixed with three significant digits."""
    return element("data", short(value), value=repr(value))


def interval_cell(interval: Interval | None, digits: int, *, scale: float = 1, sign: bool = False) -> Html:
    """A cell with the mean and, softer, the ends of its interval."""
    if interval is None:
        return element("td", "\u2013")
    return element(
        "td", data(interval["mean"], digits, scale=scale, sign=sign), _ends(interval, digits, scale, sign)
    )


def scaled(interval: Interval, scale: float) -> dict[str, float | None]:
    """The interval in the unit it is shown in."""
    return {
        name: None if interval[name] is None else interval[name] * scale for name in ("mean", "low", "high")
    }


def measures_table(arm: Mapping[str, Any], caption: str) -> Html:
    """Every measure of one arm: base, trained, paired change, change in SDs of the base reward."""
    head = ("Measure", "Base policy", arm["name"], "Change", "Change in SD")
    reward = next(item for item in arm["measures"] if item["key"] == "reward/model")
    most = decimals(reward["change"]) + 2
    return table(caption, head, [_measure_row(item, most) for item in arm["measures"]])


def differences_table(differences: Sequence[Mapping[str, Any]], caption: str) -> Html:
    """Paired differences between arms, one column per pair."""
    head = ("Measure", *(f"{pair['to']} {MINUS_WORD} {pair['from']}" for pair in differences))
    rows = []
    for items in zip(*(pair["measures"] for pair in differences), strict=True):
        unit = UNITS[items[0]["unit"]]
        cells = [
            interval_cell(
                item["change"], decimals(scaled(item["change"], unit.scale)), scale=unit.scale, sign=True
            )
            for item in items
        ]
        rows.append(row(_named(items[0], change=True), cells))
        if items[0]["change_sd"] is not None:
            cells = [element("td", data(item["change_sd"], 2, sign=True)) for item in items]
            rows.append(row("Reward, unedited, in SDs of the base policy's reward", cells))
    return table(caption, head, rows)


def ledger_table(ledger: Mapping[str, Any], caption: str, *, top: int) -> Html:
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
        rows.append(_sum_row(f"{count} other latents together", rest, digits, kind=None))
    outside = ledger.get("outside")
    if outside is None:
        rows.append(_sum_row("Unedited reward: all latents", ledger["latent_sum"], digits))
    else:
        rows.append(_sum_row(outside["label"], outside, digits, kind=None))
        rows.append(_sum_row("Unedited reward: latents and residual", ledger["model_change"], digits))
    rows += [
        _sum_row(item["label"], item, digits, kind=None)
        for item in ledger["controls"]
        if item["kind"] != "kl"
    ]
    if len(rows) > len(entries[:top]) + bool(count) + bool(outside) + 1:
        rows.append(_sum_row("Reward as trained on", ledger["total_change"], digits))
    rows += [
        _sum_row(item["label"], item, digits, kind=None)
        for item in ledger["controls"]
        if item["kind"] == "kl"
    ]
    return table(caption, head, rows)


MINUS_WORD = "\u2212"


def _measure_row(item: Mapping[str, Any], most: int) -> Html:
    unit = UNITS[item["unit"]]
    change, trained = item["change"], item["trained"]
    digits = decimals(scaled(change if change and change["mean"] else trained, unit.scale))
    if item["unit"] == "reward":
        # A part far smaller than the reward's own interval needs no more digits than the reward.
        digits = min(digits, most)
    cells = [
        interval_cell(item["base"], digits, scale=unit.scale),
        interval_cell(trained, digits, scale=unit.scale),
        interval_cell(change, digits, scale=unit.scale, sign=True),
        element("td", data(item["change_sd"], 2, sign=True)),
    ]
    return row(_named(item), cells, kind="total" if item["key"] == "reward/total" else None)


def _entry_row(item: Mapping[str, Any], digits: int) -> Html:
    cells = [
        element("td", exact(item["weight"])),
        element("td", exact(item["base_mean"])),
        element("td", exact(item["trained_mean"])),
        element("td", data(item["base_rate"], 1, scale=100), " %"),
        element("td", data(item["trained_rate"], 1, scale=100), " %"),
        interval_cell({**item, "mean": item["delta"]}, digits, sign=True),
    ]
    name = f"{item['label']}, controlled" if item["controlled"] else item["label"]
    return row(name, cells, kind="marked" if item["controlled"] else None)


def _sum_row(label: str, value: Any, digits: int, *, kind: str | None = "total") -> Html:
    entry = {"low": None, "high": None, "delta": value} if isinstance(value, float | int) else value
    cell = interval_cell({**entry, "mean": entry["delta"]}, digits, sign=True)
    return element("tr", element("th", label, scope="row", colspan=6), cell, class_=kind)


def _ledger_digits(entries: Sequence[Mapping[str, Any]], ledger: Mapping[str, Any]) -> int:
    sums = [ledger["latent_sum"], *([ledger["model_change"]] if "outside" in ledger else [])]
    size = max(abs(one) for one in (*(item["delta"] for item in entries), *sums))
    return decimals({"mean": size, "low": None, "high": None}) + 1


def _named(item: Mapping[str, Any], *, change: bool = False) -> Html:
    unit = "points" if change and item["unit"] == "share" else UNITS[item["unit"]].name
    return join(item["label"], element("span", unit, class_="ends") if unit else Html(""))


def _ends(interval: Interval, digits: int, scale: float, sign: bool) -> Html:
    if interval["low"] is None or interval["high"] is None:
        return Html("")
    low, high = (data(interval[end], digits, scale=scale, sign=sign) for end in ("low", "high"))
    return element("span", "[", low, ", ", high, "]", class_="ends")
