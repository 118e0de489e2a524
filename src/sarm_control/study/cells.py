"""The cells of a study, and what is known of each on disk.

`cells/WORLD/ARM/seed-S/` is the run folder. Beside it stand `seed-S.json` (what was asked, and once it is
done what came out), `seed-S.answers.jsonl` (every answer to the held-out prompts, measured) and `seed-S.log`.
"""

import fnmatch
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sarm_control.bounded_json import read_json_object
from sarm_control.embedded import is_data_name, is_input_name
from sarm_control.errors import ConfigError, OutputError
from sarm_control.files import sha256_file
from sarm_control.study.study_config import StudyConfig, folder_name

DONE, BEGUN = "done", "begun"


class Cell(NamedTuple):
    """One run of a study.

    Args:
        world: its name.
        arm: its name.
        seed: of the run.
    """

    world: str
    arm: str
    seed: int

    @property
    def name(self) -> str:
        """`world/arm/seed-0`, as it is printed and as its folders are called."""
        return f"{folder_name(self.world)}/{folder_name(self.arm)}/seed-{self.seed}"

    def run(self, study: Path) -> Path:
        """The run folder."""
        return study / "cells" / self.name

    def record(self, study: Path) -> Path:
        """What was asked and what came out."""
        run = self.run(study)
        return run.with_name(f"{run.name}.json")

    def answers(self, study: Path) -> Path:
        """The measured answers."""
        run = self.run(study)
        return run.with_name(f"{run.name}.answers.jsonl")

    def measurement(self, study: Path, step: int) -> Path:
        """What was measured after a step, until the cell is done."""
        run = self.run(study)
        return run.with_name(f"{run.name}.step-{step:06d}.jsonl")

    def measurements(self, study: Path) -> list[Path]:
        """Every such file that is there."""
        run = self.run(study)
        return sorted(run.parent.glob(f"{run.name}.step-*.jsonl"))

    def log(self, study: Path) -> Path:
        """What the process printed."""
        run = self.run(study)
        return run.with_name(f"{run.name}.log")


class CellState(NamedTuple):
    """What is known of a cell.

    Args:
        cell: which one.
        status: `done`, `begun`, or `new` where nothing is there.
        record: what `seed-S.json` holds.
    """

    cell: Cell
    status: str
    record: dict[str, Any]


def cells_of(study: StudyConfig) -> list[Cell]:
    """Every cell, in the order in which they are begun.

    The baseline and the arms that are compared come first, seed by seed, so that a study that is stopped has
    whole comparisons.
    """
    first = {study.baseline, *(arm for pair in study.compare for arm in pair)}
    # what these follow comes with them, since they could not begin without it
    first |= {str(study.arms[arm].follows) for arm in first if study.arms[arm].follows}
    cells = [
        Cell(world, arm, seed) for world in study.worlds for arm in study.arms for seed in study.seeds_of(arm)
    ]
    arms = list(study.arms)
    return sorted(
        cells,
        key=lambda cell: (
            cell.arm not in first,
            cell.seed,
            arms.index(cell.arm),
            study.arms[cell.arm].follows is not None,
        ),
    )


def chosen_cells(cells: Sequence[Cell], only: Sequence[str]) -> list[Cell]:
    """The cells that match one of the patterns: an arm, a world, or `world/arm/seed-0` with `*` for anything.

    Raises:
        ConfigError: a pattern matches none; the hint names some that there are.
    """
    if not only:
        return list(cells)
    kept: set[Cell] = set()
    for pattern in only:
        found = {cell for cell in cells if _matches(cell, pattern)}
        if not found:
            raise ConfigError(
                f"--only {pattern}: no such cell",
                hint="name an arm, a world or a cell: " + ", ".join(_some_names(cells)),
            )
        kept |= found
    return [cell for cell in cells if cell in kept]


def first_to_probe(study: StudyConfig, cells: Sequence[Cell]) -> Cell | None:
    """The first cell that needs neither a discovery nor another run; None where there is none."""
    return next((cell for cell in cells if _stands_alone(study, cell)), None)


def _stands_alone(study: StudyConfig, cell: Cell) -> bool:
    arm = study.arms[cell.arm]
    return arm.discover is None and arm.follows is None


def _matches(cell: Cell, pattern: str) -> bool:
    names = (cell.world, cell.arm, folder_name(cell.world), folder_name(cell.arm))
    return pattern in names or fnmatch.fnmatchcase(cell.name, pattern)


def _some_names(cells: Sequence[Cell]) -> list[str]:
    return [
        *dict.fromkeys(cell.arm for cell in cells),
        *dict.fromkeys(cell.world for cell in cells),
        cells[0].name,
    ]


def asked(study: StudyConfig, base: dict[str, Any], cell: Cell) -> str:
    """A digest of all that decides what a cell is: settings and data files, not where the study lies.

    Args:
        study: the study.
        base: the values of its base file.
        cell: which one.
    """
    arm, world = study.arms[cell.arm], study.worlds[cell.world]
    # of an arm that another one follows, the settings count too
    arms = {cell.arm: arm, **{name: study.arms[name] for name in ([arm.follows] if arm.follows else [])}}
    if arm.follows:
        arms[study.baseline] = study.arms[study.baseline]
    files = [study.prompts_of(cell.world)]
    for one in arms.values():
        files += study.pairs_of(cell.world, one.discover) if one.discover else []
        files += [one.controls] if one.controls else []
    values = {
        "base": base,
        "set": study.set,
        # without defaults, so that a key which a later version adds leaves the cells of today as they are
        "world": world.model_dump(mode="json", exclude_defaults=True),
        "arms": {
            # a seed that is added leaves the cells of the others as they are
            name: one.model_dump(mode="json", exclude={"seeds"}, exclude_defaults=True)
            for name, one in arms.items()
        },
        "seed": cell.seed,
        "answers": study.answers_per_prompt,
        # as above: cells of studies without them stay as they are
        **({"measure_every": study.measure_every} if study.measure_every else {}),
        **({"kl_levels": study.kl_levels} if study.kl_levels else {}),
        "files": {str(path): _content(path) for path in files},
    }
    return digest(values)


def _content(path: Path) -> str:
    # a name of the package or of a hub has no file here to hash
    if is_data_name(path) or is_input_name(path):
        return str(path)
    if not path.exists():
        raise ConfigError(
            f"{path} does not exist", hint="paths of a study file are relative to the current folder"
        )
    return sha256_file(path)


def digest(values: Any) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of plain values."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def state_of(study: Path, cell: Cell, wanted: str) -> CellState:
    """What is on disk of a cell.

    Args:
        study: the folder of the study.
        cell: which one.
        wanted: `asked` of today.

    Raises:
        OutputError: the cell was made from other settings or data.
    """
    path = cell.record(study)
    if not path.is_file():
        return CellState(cell, "new", {})
    record = read_json_object(path, hint=f"delete {path} and {cell.run(study)}", error=OutputError)
    if record.get("asked") != wanted:
        raise OutputError(
            f"{cell.name} in {study} was made with other settings or data than the study file names now",
            hint=f"choose another folder with -o, or delete {path} and {cell.run(study)}",
        )
    return CellState(cell, str(record.get("status", BEGUN)), record)
