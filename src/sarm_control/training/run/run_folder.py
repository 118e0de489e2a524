"""A run's folder: its settings, its measurements, and how a stopped run goes on.

`runs/NAME/{config.yaml, manifest.json, metrics.jsonl, timing.jsonl, samples.jsonl, evaluation.jsonl,
warnings.jsonl, ledger.parquet, checkpoints/}`.
`metrics.jsonl` holds nothing that differs between two equal runs; times go to `timing.jsonl`.
"""

import itertools
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sarm_control.bounded_json import read_json_object, shown
from sarm_control.conversation import TODAY, read_date
from sarm_control.errors import ConfigError, OutputError, TrainingError
from sarm_control.files import (
    atomic_folder,
    check_writable,
    drop_replaced,
    manifest,
    named_inputs,
    put_aside,
    put_back,
    remove_folder,
    sha256_file,
    write_json,
    write_text,
)
from sarm_control.locks import hold, locked
from sarm_control.training.config.roles import (
    CONTROLLED,
    ROLE,
    Role,
    inferred_role,
    is_placebo_name,
    known_role,
    settled_role,
)
from sarm_control.training.config.run_config import RunConfig
from sarm_control.training.config.validation import load_config
from sarm_control.training.config.yaml_source import dump_yaml
from sarm_control.training.run import checkpoint
from sarm_control.training.run.jsonl import append_rows, check_rows, cut_back, sync, uninterrupted

TEMPLATE_DATE = "template_date"
_CONFIG, _MANIFEST = "config.yaml", "manifest.json"
_LOGS = ("metrics", "timing", "samples", "evaluation", "warnings")
_OF_STEPS = (*(f"{name}.jsonl" for name in _LOGS), "ledger.parquet")
_MISSING = object()


Listener = Callable[[int, Mapping[str, Any]], None]


class Start(NamedTuple):
    """Where a run begins.

    Args:
        folder: the run folder, open for writing.
        checkpoint: is loaded first; None starts from the untrained policy.
        step: steps done already.
        notes: lines for the user (damaged checkpoints, a restart from the beginning).
    """

    folder: "RunFolder"
    checkpoint: Path | None
    step: int
    notes: tuple[str, ...]


class RunFolder:
    """Writes one run's rows and checkpoints.

    Args:
        path: the folder, already made by `start_run`.
        keep: checkpoints to keep.
        new: the folder was made for this run just now, so it holds nothing of an earlier one.
        listener: gets each step's metrics once they are on disk.
    """

    def __init__(self, path: Path, *, keep: int, new: bool = False, listener: Listener | None = None) -> None:
        self.path = path
        self.keep = keep
        self.new = new
        self.listener = listener

    def record(
        self,
        step: int,
        metrics: Mapping[str, Any],
        *,
        timing: Mapping[str, Any] | None = None,
        samples: Sequence[Mapping[str, Any]] = (),
        evaluation: Mapping[str, Any] | None = None,
        warnings: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Appends one step's rows; `step` counts from 1.

        Args:
            step: the step just done.
            metrics: names -> numbers that are the same in equal runs.
            timing: seconds by phase, memory, clocks.
            samples: prompts, answers and their rewards.
            evaluation: metrics of the evaluation after the step, if there was one.
            warnings: monitors that began to fire.
        """
        with uninterrupted():
            append_rows(self.path / "samples.jsonl", [{"step": step, **sample} for sample in samples])
            append_rows(self.path / "timing.jsonl", [{"step": step, **timing}] if timing else [])
            append_rows(self.path / "evaluation.jsonl", [{"step": step, **evaluation}] if evaluation else [])
            append_rows(self.path / "warnings.jsonl", [{"step": step, **warning} for warning in warnings])
            # last: a step with a row here has all its other rows
            append_rows(self.path / "metrics.jsonl", [{"step": step, **metrics}])
        if self.listener is not None:
            self.listener(step, {**metrics, **(evaluation or {}), **(timing or {})})

    def save(self, step: int, tensors: Mapping[str, Mapping[str, Any]], state: Mapping[str, Any]) -> Path:
        """Writes a checkpoint once all earlier rows are on disk, and deletes the oldest checkpoints."""
        with uninterrupted():
            for name in _LOGS:
                sync(self.path / f"{name}.jsonl")
            written = checkpoint.save_checkpoint(self.path, step, tensors, state)
            # in this order a kill leaves at worst an old pointer, or one checkpoint more than `keep`
            checkpoint.point(self.path, written)
            checkpoint.prune(self.path, self.keep)
            drop_replaced(self.path)
        return written

    @property
    def unused(self) -> bool:
        """Whether the folder was made just now and has no checkpoint yet."""
        return self.new and not checkpoint.list_checkpoints(self.path)

    def discard_if_unused(self) -> bool:
        """Removes the folder of a new run that stopped before its first checkpoint, to free its name.

        The run that it was to overwrite is put back. A folder of an earlier run always stays.
        """
        if not self.unused:
            return False
        remove_folder(self.path)
        put_back(self.path)
        return True

    def settled(self, config: RunConfig) -> RunConfig:
        """The settings with the policy's type and the day of when the run was started.

        `auto` may mean another type on this machine, and `today` means another day tomorrow.
        """
        known = _read_manifest(self.path / _MANIFEST)
        dtype = known.get("models", {}).get("policy.dtype", config.policy.dtype)
        config = settled_days(self.path, config)
        policy = config.policy.model_copy(update={"dtype": dtype})
        return config.model_copy(update={"policy": policy})

    def same_models(self, digests: Mapping[str, str]) -> None:
        """Records which weights the run was started with, or refuses to go on with others.

        Args:
            digests: `policy.model` and `reward.model` -> their `weights_digest`; `policy.dtype` -> the type
                that the policy computes in.

        Raises:
            TrainingError: names the key whose model was replaced.
        """
        path = self.path / _MANIFEST
        known = _read_manifest(path)
        if "models" not in known:
            write_json(path, {**known, "models": dict(digests)})
            return
        for key, digest in digests.items():
            was = known["models"].get(key)
            if key.endswith(f".{TEMPLATE_DATE}") and was != digest:
                raise TrainingError(
                    f"{self.path} was started with {was or 'the date of the calendar'} as {key}, now it is "
                    f"{digest}",
                    hint="put the chat template back, or start another run with --out",
                )
            if was != digest:
                raise TrainingError(
                    f"{key} is not the model {self.path} was started with (its weights differ)",
                    hint="put the model back, or start another run with --out",
                )

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Marks the run as finished in its manifest; `summary` must hold `step`."""
        path = self.path / _MANIFEST
        write_json(path, {**_read_manifest(path), "finished": dict(summary)})


def check_run(path: Path, *, resume: bool, overwrite: bool, make: bool = True) -> None:
    """Fails before any work where `path` cannot become a run folder, or cannot go on as one.

    Args:
        path: `runs/NAME`.
        resume: the run may exist and goes on.
        overwrite: the run may exist and starts over.
        make: make the parent folder.

    Raises:
        OutputError: the name is in use, is not a run folder, or cannot be written.
        ConfigError: both `resume` and `overwrite`.
    """
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite exclude each other", hint="pass one of them")
    check_writable(path, make=make)
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not (path / _CONFIG).is_file():
        raise OutputError(f"{path} exists and is not a run folder", hint="choose another name with --out")
    if not (resume or overwrite):
        raise OutputError(
            f"{path} exists already",
            hint="go on with --resume, start over with --overwrite, or choose another name with --out",
        )
    check_writable(path / _MANIFEST)


def start_run(
    path: Path,
    config: RunConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    inputs: Sequence[Path] = (),
    role: Role | None = None,
) -> Start:
    """Makes a new run folder, or opens one to go on.

    Args:
        path: `runs/NAME`.
        config: the settings given now.
        resume: go on from the newest checkpoint that verifies; an unused name starts a new run.
        overwrite: start over; the old run is kept aside until the new one has a checkpoint.
        inputs: data files whose hashes are recorded, and compared on resume.
        role: what the run is in comparisons, written in its manifest. None is `controlled` with controls and
            `no control` without; on resume it leaves the run the role it has.

    Raises:
        OutputError: see `check_run`.
        ConfigError: the settings differ from the run's; each differing key is shown. Or they belie the role.
        TrainingError: an input changed, or rows before the checkpoint are missing.
    """
    check_writable(path)
    with locked(path):
        check_run(path, resume=resume, overwrite=overwrite)
        if resume and (path / _CONFIG).is_file():
            return _go_on(path, config, inputs, role)
        settled = settled_role(role, controls=config.reward.has_controls)
        _make(path, config, inputs, settled, overwrite=overwrite)
    notes = ["no run of that name yet: starting from the beginning"] if resume else []
    if role is None and settled == CONTROLLED and is_placebo_name(path.name):
        notes.append(f"{path} counts as controlled; where it is a placebo, say so: --role placebo")
    return Start(RunFolder(path, keep=config.checkpoints.keep, new=True), None, 0, tuple(notes))


def hold_run(path: Path) -> None:
    """Locks the run for this process, until it ends or calls `sarm_control.locks.let_go`.

    A run that an interrupted `--overwrite` put aside is put back if nothing stands in its place.

    Raises:
        OutputError: another process writes it, or its folder cannot be written.
    """
    check_writable(path)
    hold(path)
    put_back(path)


def settled_days(path: Path, config: RunConfig) -> RunConfig:
    """The settings with the day that the run in `path` was started instead of `today`."""
    day = _read_manifest(path / _MANIFEST).get(TEMPLATE_DATE)
    if day is None or config.data.template_date != TODAY:
        return config
    return config.model_copy(update={"data": config.data.model_copy(update={TEMPLATE_DATE: day})})


def read_run_config(path: Path) -> RunConfig:
    """The settings a run was made with."""
    return load_config(path / _CONFIG)


def role_of_run(manifest: Mapping[str, Any], path: Path, config: RunConfig) -> Role:
    """The role of a run by its manifest; of one of an earlier version by its folder's name and its controls.

    Args:
        manifest: the content of the run's `manifest.json`; empty where there is none.
        path: the run folder.
        config: its settings.

    Raises:
        TrainingError: the manifest names another role than there are.
    """
    if ROLE in manifest:
        return known_role(manifest[ROLE], str(path / _MANIFEST), TrainingError)
    return inferred_role(path.resolve().name, controls=config.reward.has_controls)


def record_role(path: Path, role: Role | None) -> bool:
    """Gives a run another role; returns whether it had not that one before.

    Args:
        path: the run folder, held by this process.
        role: of the run from now on; None leaves it the one it has.

    Raises:
        ConfigError: the run's controls belie it.
        TrainingError: the manifest cannot be read.
    """
    if role is None:
        return False
    known = _read_manifest(path / _MANIFEST)
    settled = settled_role(role, controls=read_run_config(path).reward.has_controls)
    if known.get(ROLE) == settled:
        return False
    write_json(path / _MANIFEST, {**known, ROLE: settled})
    return True


def finished_step(path: Path) -> int | None:
    """The last step of a finished run; None for an unfinished run, or where there is none."""
    if not (path / _MANIFEST).is_file():
        return None
    step = _read_manifest(path / _MANIFEST).get("finished", {}).get("step")
    return step if isinstance(step, int) else None


def config_differences(before: RunConfig, now: RunConfig) -> list[str]:
    """`key: before -> now` for each differing key."""
    old, new = _flat(before.to_dict()), _flat(now.to_dict())
    keys = dict.fromkeys((*old, *new))
    return [
        f"{key}: {_show(old.get(key, _MISSING))} -> {_show(new.get(key, _MISSING))}"
        for key in keys
        if old.get(key, _MISSING) != new.get(key, _MISSING)
    ]


def check_same_config(path: Path, config: RunConfig) -> None:
    """Refuses settings that differ from the run's; `training.steps` may grow, and trackers may change.

    Raises:
        ConfigError: with a line for each differing key.
    """
    before = read_run_config(path).model_copy(update={"logging": config.logging})
    steps = before.training.steps
    if config.training.steps >= steps:
        grown = before.training.model_copy(update={"steps": config.training.steps})
        before = before.model_copy(update={"training": grown})
    differences = config_differences(before, config)
    if differences:
        raise ConfigError(
            f"{path} was made with other settings (only training.steps may change, and only grow):\n  "
            + "\n  ".join(differences),
            hint="put the settings back, or start another run with --out",
        )


def _make(path: Path, config: RunConfig, inputs: Sequence[Path], role: Role, *, overwrite: bool) -> None:
    if overwrite and (path / _CONFIG).is_file():
        # an earlier --overwrite may have been killed before its first checkpoint: the run it put aside stays
        put_aside(path, worth_keeping=bool(checkpoint.list_checkpoints(path)))
    # an empty folder, see `check_run`
    if path.exists():
        path.rmdir()
    try:
        with atomic_folder(path) as temporary:
            _write_config(temporary, config)
            write_json(temporary / _MANIFEST, _new_manifest(config, inputs, role))
            (temporary / checkpoint.FOLDER).mkdir()
    # on Ctrl-C as well: the run that was put aside has to come back
    except BaseException:
        put_back(path)
        raise


def _go_on(path: Path, config: RunConfig, inputs: Sequence[Path], role: Role | None) -> Start:
    check_same_config(path, config)
    _check_inputs(path, inputs)
    record_role(path, role)
    found = checkpoint.newest_checkpoint(path)
    # before anything is changed: a run whose rows were lost is refused as it is
    check_rows(path / "metrics.jsonl", found.step)
    notes = [f"{item.path} is damaged: {item.reason}; set aside" for item in found.damaged]
    checkpoint.set_aside(found.damaged)
    checkpoint.point(path, found.path)
    # a kill can leave an old checkpoint half deleted, and there may be no later save to remove it
    checkpoint.prune(path, config.checkpoints.keep)
    if found.path is None:
        notes += _start_over(path, len(found.damaged))
    # the steps after the checkpoint are done again, so their rows would stand there twice
    for name in _LOGS:
        cut_back(path / f"{name}.jsonl", found.step)
    _write_config(path, config)
    return Start(RunFolder(path, keep=config.checkpoints.keep), found.path, found.step, tuple(notes))


def _start_over(path: Path, damaged: int) -> list[str]:
    """Copies the measurements of a run without a good checkpoint aside; returns notes for the user."""
    none = f"none of {damaged} checkpoints is good" if damaged else "no checkpoint to resume from"
    notes = []
    kept = [name for name in _OF_STEPS if (path / name).is_file() and (path / name).stat().st_size]
    if kept:
        places = (path / f"before-restart-{number}" for number in itertools.count(1))
        aside = next(place for place in places if not place.exists())
        with atomic_folder(aside) as temporary:
            for name in kept:
                shutil.copyfile(path / name, temporary / name)
        notes.append(f"what was measured before is kept in {aside}")
    known = _read_manifest(path / _MANIFEST)
    if known.pop("finished", None) is not None:
        write_json(path / _MANIFEST, known)
    return [*notes, f"{none}: starting from the beginning"]


def _check_inputs(path: Path, inputs: Sequence[Path]) -> None:
    known = _read_manifest(path / _MANIFEST).get("inputs", {})
    for name, file in named_inputs(inputs).items():
        if name in known and sha256_file(file) != known[name]:
            raise TrainingError(
                f"{file} changed since {path} was started (its SHA-256 differs)",
                hint="put the file back, or start another run with --out",
            )


def _write_config(folder: Path, config: RunConfig) -> None:
    write_text(folder / _CONFIG, dump_yaml(config.to_dict()))


def _new_manifest(config: RunConfig, inputs: Sequence[Path], role: Role) -> dict[str, Any]:
    record = manifest("train", inputs=inputs, config=config.to_dict(), seed=config.training.seed)
    record = {**record, ROLE: role}
    # the day is recorded, since `today` would be another one when the run is resumed
    return {**record, TEMPLATE_DATE: str(read_date(TODAY))} if config.data.template_date == TODAY else record


def _read_manifest(path: Path) -> dict[str, Any]:
    hint = "start over with --overwrite"
    try:
        found = read_json_object(path, hint=hint, error=TrainingError)
    except TrainingError as error:
        raise TrainingError(f"{path} is not readable ({error})", hint=hint) from error
    for key in ("models", "finished", "inputs"):
        if not isinstance(found.get(key, {}), dict):
            raise TrainingError(f"{path} is damaged: {key} is {shown(found[key])}", hint=hint)
    return found


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, dict):
        return {prefix: values}
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}.{key}" if prefix else key)
    return flat


def _show(value: Any) -> str:
    return "(not set)" if value is _MISSING else json.dumps(value, ensure_ascii=False)
