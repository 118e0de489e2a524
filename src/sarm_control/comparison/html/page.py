"""`report.html`: one offline file made from `report.json` alone."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sarm_control.bounded_json import read_json_object
from sarm_control.comparison.html.figures import change_panels, ledger_chart, training_curves
from sarm_control.comparison.html.tables import (
    Number,
    Table,
    differences_table,
    ledger_table,
    measures_table,
    number,
)
from sarm_control.comparison.html.templating import render_template
from sarm_control.comparison.report_data import FORMAT
from sarm_control.errors import DataError
from sarm_control.files import write_text

if TYPE_CHECKING:
    from markupsafe import Markup

_TOP = 12


def render(report: Mapping[str, Any]) -> str:
    """The whole page.

    Args:
        report: the contents of `report.json`, as `sarm compare` writes it.

    Raises:
        DataError: the JSON is not a comparison of this format.
    """
    if report.get("format") != FORMAT:
        raise DataError(
            f"not a comparison report of format {FORMAT}: {report.get('format', 'no format field')}",
            hint="make it again with sarm compare",
        )
    arms = report["arms"]
    page = render_template(
        "page.html",
        report=report,
        reward_sd=number(arms[0]["reward_sd"], 5),
        changes=change_panels(report),
        arms=[_arm(arm, report["settings"]["prompts"]) for arm in arms],
        differences=_differences(report),
        curves=training_curves(arms),
        samples=[_sample(sample) for sample in report["samples"]],
        manifest=json.dumps(report["manifest"], indent=1, ensure_ascii=False),
    )
    return str(page)


def write_report(source: Path, target: Path) -> None:
    """Reads `report.json` and writes `report.html`."""
    write_text(target, render(read_json_object(source, most_bytes=1 << 30)))


class _Arm(NamedTuple):
    name: str
    measures: Table
    ledger_chart: "Markup | None"
    ledger: Table


class _Answer(NamedTuple):
    arm: str
    text: str
    reward: Number | None
    length: int
    ended: bool


class _Sample(NamedTuple):
    prompt: str
    why: str
    answers: list[_Answer]


def _arm(arm: Mapping[str, Any], prompts: int) -> _Arm:
    controls, ledger = "; ".join(arm["controls"]) or "none", arm["ledger"]
    measured = (
        f"Controls: {controls}. Means over {prompts} prompts with 95 % intervals over prompts; "
        "the change is paired by prompt."
    )
    outside = ", with the residual of what no latent holds," if "outside" in ledger else ""
    entries = (
        f"The {min(_TOP, len(ledger['entries']))} largest of {ledger['latents']} entries, in reward units. "
        f"All entries{outside} sum to the change of the mean unedited reward within "
        f"{abs(ledger['residual']):.0e}; every entry is in ledger.parquet."
    )
    return _Arm(
        arm["name"],
        measures_table(arm, measured),
        ledger_chart(ledger, name=arm["name"], top=_TOP) if ledger["entries"] else None,
        ledger_table(ledger, entries, top=_TOP),
    )


def _differences(report: Mapping[str, Any]) -> Table | None:
    if not report["differences"]:
        return None
    prompts = report["settings"]["prompts"]
    caption = f"Paired differences between trained policies over {prompts} prompts, 95 % intervals."
    return differences_table(report["differences"], caption)


def _sample(sample: Mapping[str, Any]) -> _Sample:
    answers = [
        _Answer(one["arm"], one["text"], number(one["reward"], 4, sign=True), one["length"], one["ended"])
        for one in sample["answers"]
    ]
    return _Sample(sample["prompt"], sample["why"], answers)
