"""Which arm of a comparison is which: by its role, in old comparisons by its name (golden); bad input."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from sarm_control.cli import main
from sarm_control.comparison.first_screen import verdict_of
from sarm_control.comparison.headline import arm_title, headline, role_of
from sarm_control.errors import DataError
from sarm_control.statistics import MINUS
from tests.comparison.test_page import with_gold, with_placebo

CONTROLS = ["penalty on latent 3"]
BETWEEN = {("none", "controls"): 0.6, ("none", "random"): -0.1, ("controls", "random"): -0.7}
BASE = {"none": -0.5, "controls": 0.1, "random": -0.6}


@pytest.mark.parametrize(
    ("name", "role", "title"),
    [
        ("none", "no control", "no control"),
        ("shuffled/seed-0", "placebo", "shuffled/seed-0 (placebo)"),
        ("placebo", "placebo", "placebo"),
        ("random", "controlled", "random"),
        ("ours", "controlled", "ours"),
    ],
)
def test_golden_an_arm_is_named_by_its_role(name: str, role: str, title: str) -> None:
    arm = {"name": name, "role": role, "controls": [] if role == "no control" else CONTROLS}
    assert role_of(arm) == role
    assert arm_title(arm) == title


@pytest.mark.parametrize(
    ("name", "controls", "role"),
    [
        ("none", [], "no control"),
        ("placebo", [], "no control"),
        ("placebo", CONTROLS, "placebo"),
        ("seeds/random", CONTROLS, "placebo"),
        ("ours", CONTROLS, "controlled"),
    ],
)
def test_golden_an_arm_of_an_earlier_version_is_told_by_name_and_controls(
    name: str, controls: list[str], role: str
) -> None:
    assert role_of({"name": name, "controls": controls}) == role


def test_a_role_that_there_is_not_names_those_that_there_are() -> None:
    with pytest.raises(DataError) as caught:
        role_of({"name": "ours", "role": "placbo", "controls": CONTROLS})
    allowed = "'no control', 'controlled', 'placebo'"
    assert str(caught.value) == f"arm ours of the comparison: role is 'placbo'; it may be {allowed}"


def swapped(report: dict[str, Any], **names: str) -> dict[str, Any]:
    """The report with arms called otherwise; what they are stays."""
    found = copy.deepcopy(report)
    for arm in found["arms"]:
        arm["name"] = names.get(arm["name"], arm["name"])
    for pair in found["differences"]:
        pair["from"], pair["to"] = (names.get(pair[end], pair[end]) for end in ("from", "to"))
    return found


def test_the_verdict_goes_by_roles_whatever_the_folders_are_called(report: dict[str, Any]) -> None:
    known = with_gold(with_placebo(report), BASE, BETWEEN)
    assert [arm["role"] for arm in known["arms"]] == ["no control", "controlled", "placebo"]
    misnamed = swapped(known, none="placebo", controls="random", random="none")
    line = "The control worked: gold ends higher than under no control and under the placebo."
    for found in (known, misnamed):
        assert verdict_of(found).line == line
        assert verdict_of(found).tiles[1].detail.endswith(" against the placebo")
    assert [sentence.split(":")[0] for sentence in headline(misnamed)] == [
        "placebo (no control) against the base policy",
        "random against placebo (no control)",
        "none (placebo) against placebo (no control)",
    ]


def test_a_comparison_of_an_earlier_version_has_the_same_verdict(report: dict[str, Any]) -> None:
    known = with_gold(with_placebo(report), BASE, BETWEEN)
    old = copy.deepcopy(known)
    for arm in old["arms"]:
        del arm["role"]
    assert verdict_of(old) == verdict_of(known)
    assert headline(old) == headline(known)


@pytest.mark.long
def test_a_terminal_has_one_kind_of_minus_sign(
    report: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page has typographic ones; all other numbers on a terminal have hyphens."""
    known = with_gold(report, {"none": -0.5, "controls": -0.4}, {("none", "controls"): -0.1})
    (tmp_path / "report.json").write_text(json.dumps(known))
    assert main(["report", str(tmp_path / "report.json"), "-o", str(tmp_path / "whole")]) == 0
    said = capsys.readouterr().out
    assert "Did it work? -0.1" in said
    assert MINUS not in said
    assert f"{MINUS}0.1" in (tmp_path / "whole" / "report.html").read_text()
