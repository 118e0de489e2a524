"""Trackers of a run, through accelerate's classes.

Every step goes to `metrics.jsonl` first and to the trackers afterwards, so a tracker that fails costs a
warning and never a step. `runs/NAME/trackers.json` holds each tracker's own id of the run and the last step
that it was given. A resumed run goes on under the same id and repeats no step: it redoes those after its
checkpoint, and a tracker that has them is not given them again. TensorBoard is: it hides what a resumed
writer overwrites (`purge_step`).
"""

import contextlib
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sarm_control.bounded_json import read_json_object
from sarm_control.errors import TrainingError
from sarm_control.files import write_json
from sarm_control.training.config.run_config import RunConfig
from sarm_control.training.run.run_folder import Listener, RunFolder, Start
from sarm_control.training.tracking.kinds import Kind, kind_of
from sarm_control.training.tracking.names import tracked_numbers

Report = Callable[[str], None]
FILE = "trackers.json"


def check_trackers(names: Sequence[str]) -> None:
    """Refuses trackers that cannot start, before any model is loaded.

    Raises:
        MissingExtraError: a package is missing, or accelerate is too old.
        ConfigError: wandb was told to be online and has no key: it would ask for one.
    """
    for name in names:
        kind_of(name).check()


@contextlib.contextmanager
def tracked(config: RunConfig, start: Start, report: Report) -> Iterator[None]:
    """Gives every step of the run folder to the configured trackers until the block ends.

    Args:
        config: its `logging.trackers` are opened; without any nothing happens.
        start: the run; the listener that its folder has already stays.
        report: gets a line for each tracker that opens or fails.

    Raises:
        TrainingError: a tracker does not start.
    """
    names = config.logging.trackers
    if not names:
        yield
        return
    check_trackers(names)
    opened = [_Tracker(kind_of(name), config, start, report) for name in names]
    before = start.folder.listener
    start.folder.listener = _all_of([*([before] if before else []), *(tracker.log for tracker in opened)])
    try:
        yield
    finally:
        start.folder.listener = before
        for tracker in opened:
            tracker.finish()


def _all_of(listeners: Sequence[Listener]) -> Listener:
    def each(step: int, values: Mapping[str, Any]) -> None:
        for listener in listeners:
            listener(step, values)

    return each


class _Tracker:
    """One open tracker, which stops at its first failure."""

    def __init__(self, kind: Kind, config: RunConfig, start: Start, report: Report) -> None:
        self._kind, self._report, self._folder = kind, report, start.folder
        known = _read(start.folder).get(kind.name)
        self._seen: int = 0 if known is None else known["step"]
        # not derived from the seed: runs of equal seeds must not share an id in a tracker
        self._id: str = secrets.token_hex(4) if known is None else known["id"]
        try:
            opened = kind.open(start.folder.path, self._id, None if known is None else start.step)
            kind.describe(opened.tracker, config.to_dict(), new=known is None)
        # whatever a foreign library raises: the cause is in its words
        except Exception as error:
            raise TrainingError(
                f"{kind.name} does not start: {' '.join(str(error).split())}",
                hint=f"{kind.otherwise}, or leave {kind.name} out of logging.trackers",
            ) from error
        self._opened: Any = opened.tracker
        self._id = opened.id
        self._note()
        report(f"{kind.name}: {opened.shown}")

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Gives one step to the tracker, unless it has it."""
        if self._opened is None or (step <= self._seen and not self._kind.overwrites):
            return
        self._seen = max(step, self._seen)
        # before the step is given: a kill in between costs a point, the other order would double it
        self._note()
        numbers = self._kind.taken(dict(tracked_numbers(values)))
        self._guarded(lambda: self._opened.log(numbers, step=step))

    def finish(self) -> None:
        """Ends the tracker's run, which flushes it."""
        if self._opened is not None:
            self._guarded(lambda: self._kind.finish(self._opened))
            self._opened = None

    def _guarded(self, work: Callable[[], object]) -> None:
        try:
            work()
        # whatever a foreign library raises: the run itself has every number in its files and goes on
        except Exception as error:
            said = " ".join(str(error).split()) or type(error).__name__
            self._report(f"warning: {self._kind.name} gets no more steps: {said}; metrics.jsonl has them all")
            self._close()

    def _close(self) -> None:
        """Ends what has failed already, which another run in this process would be refused beside."""
        opened, self._opened = self._opened, None
        # it has failed and was reported: a second failure says nothing new
        with contextlib.suppress(Exception):
            self._kind.finish(opened)

    def _note(self) -> None:
        known = _read(self._folder)
        write_json(self._folder.path / FILE, {**known, self._kind.name: {"id": self._id, "step": self._seen}})


def _read(folder: RunFolder) -> dict[str, Any]:
    path = folder.path / FILE
    if not path.is_file():
        return {}
    hint = f"remove {path}: the trackers then begin new runs"
    found = read_json_object(path, hint=hint, error=TrainingError)
    for name, entry in found.items():
        whole = isinstance(entry, dict) and isinstance(entry.get("id"), str)
        if not whole or not isinstance(entry.get("step"), int):
            raise TrainingError(f"{path} is damaged: {name} has no id and step", hint=hint)
    return found
