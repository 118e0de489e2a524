"""`benchmarks/study_table.py`, oracle: its cells are those of a study, its last row that over worlds."""

import json
from pathlib import Path
from types import ModuleType

import pytest

from sarm_control.study import over_worlds
from tests.outside import load

ROOT = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load(ROOT / "study_table.py")


def test_oracle_every_world_is_a_row_and_the_last_is_over_them(script: ModuleType) -> None:
    found = json.loads((ROOT / "results" / "lab_attached.json").read_text())
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in script.table(found, "gold").split("\n")
    ]
    assert [row[0] for row in rows] == ["world", "---", "world 0", "world 1", "world 2", "over 3 worlds"]
    place = rows[0].index("controls - shuffled labels")
    one = found["worlds"]["world 1"]["measures"]["gold"]["against"]["controls - shuffled labels"]
    assert rows[3][place] == f"{one['mean']:+.2f} [{one['low']:+.2f}, {one['high']:+.2f}]"
    means = [
        world["measures"]["gold"]["against"]["controls - shuffled labels"]["mean"]
        for world in found["worlds"].values()
    ]
    whole = over_worlds(means)
    assert rows[5][place] == f"{whole.mean:+.2f} [{whole.low:+.2f}, {whole.high:+.2f}]"


def test_a_measure_that_the_study_has_not_is_named(script: ModuleType) -> None:
    found = json.loads((ROOT / "results" / "lab_attached.json").read_text())
    with pytest.raises(SystemExit, match="the study has no judge over worlds"):
        script.table(found, "judge")
