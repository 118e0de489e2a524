"""Which of the given paths are runs, comparisons, discoveries, audits and evaluations; what they hold."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sarm_control.bounded_json import read_json_object
from sarm_control.comparison import arm_title, run_names
from sarm_control.data import Reason, json_object, read_lines
from sarm_control.errors import ConfigError, TrainingError
from sarm_control.training import Role, RunConfig, read_run_config, role_of_run

# bytes: a comparison holds answers and every latent, far more than other JSON files of ours
_LARGEST = 1 << 30
_COMPARISON, _DISCOVERY = "sarm-compare-1", "sarm-features-1"
_KNOWN = "run folders, and folders of sarm compare, discover, audit or eval"


@dataclass(frozen=True)
class Run:
    """A run folder, read without its weights.

    Args:
        path: the folder.
        name: unique among the runs of a report.
        config: its settings.
        metrics: a row a step.
        warnings: monitors that began to fire, in order.
        evaluations: a row for each evaluation during the run.
        manifest: inputs, versions and settings.
    """

    path: Path
    name: str
    config: RunConfig
    metrics: Sequence[Mapping[str, Any]]
    warnings: Sequence[Mapping[str, Any]]
    evaluations: Sequence[Mapping[str, Any]]
    manifest: Mapping[str, Any]

    @property
    def role(self) -> Role:
        """What it is in a comparison, by its manifest.

        Raises:
            TrainingError: the manifest names another role than there are.
        """
        return role_of_run(self.manifest, self.path, self.config)

    @property
    def title(self) -> str:
        """How readers see it: a run without controls is called that, whatever its folder is called."""
        return arm_title({"name": self.name, "role": self.role})


@dataclass(frozen=True)
class Sources:
    """What a report is made from.

    Args:
        runs: in the order given.
        comparison: the content of `report.json`, or None.
        comparison_path: its folder.
        discoveries: path -> content of `features.json`.
        audits: path -> content of `audit.json`.
        evaluations: path -> content of `results.json` of `sarm eval`.
    """

    runs: Sequence[Run]
    comparison: Mapping[str, Any] | None = None
    comparison_path: Path | None = None
    discoveries: Mapping[Path, Mapping[str, Any]] = field(default_factory=dict)
    audits: Mapping[Path, Mapping[str, Any]] = field(default_factory=dict)
    evaluations: Mapping[Path, Mapping[str, Any]] = field(default_factory=dict)


def read_sources(paths: Sequence[Path]) -> Sources:
    """Reads every path.

    A comparison that is not given is looked for in `compare` of each run, and in `report` beside the runs,
    where `sarm compare` and `sarm demo` write it; it counts when it compares the runs given.

    Args:
        paths: folders, or the JSON files in them.

    Raises:
        ConfigError: nothing was given, a path is none of these, or two comparisons are given.
        DataError: a file cannot be read.
    """
    if not paths:
        raise ConfigError("nothing was given to report", hint="sarm report runs/NAME -o report")
    folders, comparisons = [], {}
    discoveries: dict[Path, Mapping[str, Any]] = {}
    audits: dict[Path, Mapping[str, Any]] = {}
    evaluations: dict[Path, Mapping[str, Any]] = {}
    for path in paths:
        # before its JSON files: a run folder may hold a report of its own
        if (path / "config.yaml").is_file():
            folders.append(path)
            continue
        file = _json_of(path)
        content = read_json_object(file, most_bytes=_LARGEST)
        if content.get("format") == _COMPARISON:
            comparisons[path] = content
        elif content.get("format") == _DISCOVERY:
            discoveries[path] = content
        # audits and evaluations name no format, so they are told by keys that occur
        # together in no other file of ours
        elif "attributes" in content and "headlines" in content:
            audits[path] = content
        elif "benchmark" in content and "subsets" in content:
            evaluations[path] = content
        else:
            raise ConfigError(f"{file} is nothing that a report knows", hint=f"give {_KNOWN}")
    if len(comparisons) > 1:
        given = " and ".join(str(path) for path in comparisons)
        raise ConfigError(f"several comparisons were given: {given}", hint="give one, over all the runs")
    names = run_names(folders) if folders else []
    runs = [_read_run(path, name) for path, name in zip(folders, names, strict=True)]
    found = next(iter(comparisons.items()), None) or _beside(folders)
    return Sources(runs, found and found[1], found and found[0], discoveries, audits, evaluations)


def _json_of(path: Path) -> Path:
    """The JSON file of a folder that a command wrote."""
    if path.is_file():
        return path
    for name in ("report.json", "features.json", "audit.json", "results.json"):
        if (path / name).is_file():
            return path / name
    what = "does not exist" if not path.exists() else "is nothing that a report knows"
    raise ConfigError(f"{path} {what}", hint=f"give {_KNOWN}")


def _beside(folders: Sequence[Path]) -> tuple[Path, Mapping[str, Any]] | None:
    """A comparison of exactly these runs, where sarm compare or sarm demo put it."""
    names = sorted(path.resolve().name for path in folders)
    for path in folders:
        # exactly these runs: a comparison of fewer or others would be read as if it said something of all
        for place in (path / "compare", path.parent / "report"):
            if (place / "report.json").is_file():
                content = read_json_object(place / "report.json", most_bytes=_LARGEST)
                arms = content.get("arms", []) if content.get("format") == _COMPARISON else []
                # by the last part alone, since arms of equally named folders carry
                # the names of their parents too
                if sorted(str(arm["name"]).rsplit("/", 1)[-1] for arm in arms) == names:
                    return place, content
    return None


def _read_run(path: Path, name: str) -> Run:
    manifest = path / "manifest.json"
    return Run(
        path,
        name,
        read_run_config(path),
        list(_rows(path / "metrics.jsonl")),
        list(_rows(path / "warnings.jsonl")),
        list(_rows(path / "evaluation.jsonl")),
        read_json_object(manifest) if manifest.is_file() else {},
    )


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    if not path.is_file():
        return
    for line in read_lines(path):
        try:
            yield json_object(line.data)
        except Reason as reason:
            raise TrainingError(
                f"{path}:{line.place.line}: {reason}",
                hint="go on with sarm train --resume, which repairs the rows",
            ) from None
