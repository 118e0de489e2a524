"""How each tracker is checked, opened and told what a run is; the classes are accelerate's.

Nothing here asks a question: Weights & Biases runs offline unless it has a key.
"""

import contextlib
import json
import netrc
import os
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from sarm_control.errors import ConfigError, MissingExtraError
from sarm_control.extras import import_extra, install

PROJECT = "sarm-control"
_WANDB = "https://api.wandb.ai"


class Opened(NamedTuple):
    """An open tracker of accelerate's, the id under which it goes on, and where to look."""

    tracker: Any
    id: str
    shown: str


class Kind(NamedTuple):
    """A tracker.

    Args:
        name: as in `logging.trackers`.
        package: what it needs, as pip knows it.
        module: what is imported.
        open: (run folder, id, steps done if the run goes on, else None) -> the open tracker.
        otherwise: what to do when it does not start.
        overwrites: a step that is given twice replaces the first.
        paths: it may keep a number in a file of its name: `reward` cannot stand beside `reward/total`.
    """

    name: str
    package: str
    module: str
    open: Callable[[Path, str, int | None], Opened]
    otherwise: str
    overwrites: bool = False
    paths: bool = False

    def taken(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """The numbers of a step that the tracker can keep beside each other."""
        folders = {name.rsplit("/", depth)[0] for name in numbers for depth in range(1, name.count("/") + 1)}
        return {name: value for name, value in numbers.items() if not (self.paths and name in folders)}

    def check(self) -> None:
        """Refuses what cannot start.

        Raises:
            MissingExtraError: a package is missing, or accelerate is too old.
            ConfigError: wandb was told to be online and has no key.
        """
        _class_of(self.name)
        needed = f"logging.trackers: {self.name} needs {self.package}"
        try:
            import_extra(self.module, "track", needed=needed)
        except MissingExtraError as error:
            error.hint = f"pip install {self.package}, or leave {self.name} out of logging.trackers"
            raise
        if self.name == "wandb":
            _wandb_mode()

    def describe(self, tracker: Any, config: Mapping[str, Any], *, new: bool) -> None:
        """Stores the settings with the run, for a run that goes on where the tracker takes them again."""
        flat = dict(_flat(config))
        if not new and self.name in ("tensorboard", "mlflow"):
            # TensorBoard has the text already; MLflow refuses parameters that change, as training.steps may
            return
        if self.name == "tensorboard":
            # accelerate's way would open a second run beside this one, which holds nothing else
            tracker.tracker.add_text(
                "config", "\n".join(f"    {key}: {value}" for key, value in flat.items())
            )
        else:
            tracker.store_init_configuration(flat)

    def finish(self, tracker: Any) -> None:
        """Ends the tracker's run, which flushes it."""
        with contextlib.redirect_stdout(sys.stderr):
            if self.name == "trackio":
                # as accelerate does, and Trackio forgets the run: else it ends it again when Python exits
                import_extra("trackio", "track", needed="logging.trackers: trackio needs trackio").finish()
            else:
                tracker.finish()


def kind_of(name: str) -> Kind:
    """The tracker of a name in `logging.trackers`."""
    return next(kind for kind in _KINDS if kind.name == name)


def _tensorboard(folder: Path, own_id: str, done: int | None) -> Opened:
    # accelerate puts the files of run NAME into LOGGING_DIR/NAME
    purge = {} if done is None else {"purge_step": done + 1}
    tracker = _started("tensorboard", run_name="tensorboard", logging_dir=folder, **purge)
    return Opened(tracker, own_id, f"tensorboard --logdir {folder.parent}")


def _wandb(folder: Path, own_id: str, done: int | None) -> Opened:
    mode = _wandb_mode()
    wandb = import_extra("wandb", "track", needed="logging.trackers: wandb needs wandb")
    tracker = _started(
        "wandb",
        run_name=os.environ.get("WANDB_PROJECT", PROJECT),
        name=folder.name,
        id=own_id,
        resume="never" if done is None else "allow",
        mode=mode,
        dir=str(folder),
        # what is printed belongs to the terminal, not to somebody's server
        settings=wandb.Settings(console="off", quiet=True),
    )
    where = tracker.tracker.url if mode == "online" else f"wandb sync {folder / 'wandb'}/offline-run-*"
    return Opened(tracker, own_id, str(where))


def _trackio(folder: Path, own_id: str, done: int | None) -> Opened:
    project = os.environ.get("TRACKIO_PROJECT", PROJECT)
    # Trackio finds a run again by its name, and two folders may have the same
    tracker = _started(
        "trackio",
        run_name=project,
        name=f"{folder.name}-{own_id}",
        resume="never" if done is None else "allow",
        embed=False,
        auto_log_cpu=False,
        auto_log_gpu=False,
    )
    return Opened(tracker, own_id, f"trackio show --project {project}")


def _mlflow(folder: Path, own_id: str, done: int | None) -> Opened:
    project = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
    tracker = _started(
        "mlflow",
        experiment_name=project,
        run_name=folder.name,
        run_id=None if done is None else own_id,
    )
    # MLflow chooses the id itself
    return Opened(tracker, str(tracker.tracker.info.run_id), "mlflow ui")


_KINDS = (
    Kind("tensorboard", "tensorboard", "torch.utils.tensorboard", _tensorboard, "see its message", True),
    Kind("wandb", "wandb", "wandb", _wandb, "WANDB_MODE=offline needs no server"),
    Kind("trackio", "trackio", "trackio", _trackio, "unset TRACKIO_SPACE_ID and TRACKIO_SERVER_URL"),
    Kind("mlflow", "mlflow", "mlflow", _mlflow, "check MLFLOW_TRACKING_URI", paths=True),
)


def _started(kind: str, /, **arguments: Any) -> Any:
    tracker = _class_of(kind)(**arguments)
    # what a command prints to stdout is its result
    with contextlib.redirect_stdout(sys.stderr):
        tracker.start()
    return tracker


def _class_of(name: str) -> Any:
    """The class of accelerate; 1.9 is the first version that has Trackio's and opens trackers by `start`."""
    module = import_extra("accelerate.tracking", "track", needed="logging.trackers needs accelerate")
    found = module.LOGGER_TYPE_TO_CLASS.get(name)
    if found is None or not hasattr(found, "start"):
        raise MissingExtraError(
            f"logging.trackers: {name} needs accelerate 1.9 or newer, this is {version('accelerate')}",
            hint=install("track", upgrade=True),
        )
    return found


def _wandb_mode() -> str:
    """Online with a key, offline without: wandb would ask for one.

    Raises:
        ConfigError: WANDB_MODE says online, and there is no key.
    """
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # no telemetry unless the user asks for it
    asked = os.environ.get("WANDB_MODE")
    if asked == "online" and not _wandb_key():
        raise ConfigError(
            "WANDB_MODE is online, but there is no key: wandb would ask for one",
            hint="set WANDB_API_KEY, type wandb login, or leave WANDB_MODE out to log offline",
        )
    return asked or ("online" if _wandb_key() else "offline")


def _wandb_key() -> bool:
    """Whether `wandb login` or the environment left a key; it is not read any further."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", _WANDB)).hostname or ""
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        return netrc.netrc(path).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _flat(values: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """`("training.steps", 20)` and so on; lists as JSON, since trackers take scalars."""
    if isinstance(values, Mapping):
        items = [_flat(value, f"{prefix}.{key}" if prefix else str(key)) for key, value in values.items()]
        return [pair for pairs in items for pair in pairs]
    return [
        (prefix, values if values is None or isinstance(values, str | int | float) else json.dumps(values))
    ]
