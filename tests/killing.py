"""`sarm train` in a forked process that dies by SIGKILL, at a place in the code or from outside.

Nothing in the package knows of this: the forked process wraps functions of `os`, `shutil`, `safetensors`,
`torch` and the sampler, counts their calls and kills itself at one of them. A fork has everything imported
already, so that sixty kills take minutes.
"""

import contextlib
import os
import shutil
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LONGEST = 300.0
LOGS = ("metrics.jsonl", "samples.jsonl", "evaluation.jsonl", "warnings.jsonl", "ledger.parquet")
FILES = (*LOGS, "config.yaml", "reference.json", "checkpoints/latest")


@dataclass(frozen=True)
class Kill:
    """When to die.

    Args:
        place: one of `PLACES`, or `time`.
        at: the call of that place, from 1; seconds for `time`.
    """

    place: str
    at: float


PLACES = {
    "rollout": "while an answer is drawn",
    "reward": "before the answers are scored",
    "update": "before an optimizer step",
    "updated": "after an optimizer step",
    "row": "with half of the rows of a step written",
    "tensor": "with half of a checkpoint's file written",
    "fsync": "before a file is synced to disk",
    "rename": "before a checkpoint gets its name",
    "pointer": "between the checkpoint's name and the pointer",
    "pointed": "between the pointer and dropping old checkpoints",
    "drop": "with half of an old checkpoint deleted",
    "policy": "before the trained policy gets its name",
    "finish": "before the run is marked as finished",
}


class _Counter:
    """Counts calls by place; dies at the one it was told of."""

    def __init__(self, kill: Kill | None) -> None:
        self.kill = kill
        self.calls: Counter[str] = Counter()

    def due(self, place: str) -> bool:
        self.calls[place] += 1
        return self.kill is not None and self.kill.place == place and self.calls[place] >= self.kill.at

    def visit(self, place: str) -> None:
        if self.due(place):
            die()


def die() -> None:
    """The process is gone before the next instruction."""
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def run(words: Sequence[object], folder: Path, kill: Kill | None = None) -> int:
    """`sarm train WORDS` in a fork; the exit code, or minus the signal it died by.

    Args:
        words: of the command line, after `sarm train`.
        folder: `said.txt` takes what it prints, `calls.txt` how often it came by each place.
        kill: when it is to die; it may come to its end before.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        child = os.fork()
    if child == 0:
        _train(words, folder, kill)
    after = kill.at if kill is not None and kill.place == "time" else LONGEST
    return _wait(child, after, strict=after == LONGEST)


def _wait(child: int, seconds: float, *, strict: bool) -> int:
    deadline = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            assert not strict, f"no end after {seconds} s"
            return -signal.SIGKILL
        time.sleep(0.002)


def _train(words: Sequence[object], folder: Path, kill: Kill | None) -> None:
    code = 99
    try:
        with (folder / "said.txt").open("w") as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            counter = _Counter(kill)
            with wrapped(counter):
                from sarm_control.cli import main

                code = main(["train", *map(str, words)])
            lines = [f"{place} {count}\n" for place, count in counter.calls.items()]
            (folder / "calls.txt").write_text("".join(lines))
            sys.stderr.flush()
            sys.stdout.flush()
    finally:
        os._exit(code)


def counting_calls(kill: Kill | None) -> contextlib.AbstractContextManager[None]:
    """This process dies as it is told while the context lasts."""
    return wrapped(_Counter(kill))


def calls(folder: Path) -> dict[str, int]:
    """How often a run that was not killed came by each place."""
    pairs = (line.split() for line in (folder / "calls.txt").read_text().splitlines())
    return {place: int(count) for place, count in pairs}


def differences(run: Path, other: Path) -> list[str]:
    """The files in which two finished runs differ, and what a kill left lying about."""
    names = [*FILES, *(f"policy/{path.name}" for path in (other / "policy").iterdir())]
    names += [f"checkpoints/{path.name}/manifest.json" for path in (other / "checkpoints").glob("step-*")]
    differing = [name for name in names if _bytes(run / name) != _bytes(other / name)]
    kept = {path.name for path in (run / "checkpoints").iterdir()}
    expected = {path.name for path in (other / "checkpoints").iterdir()}
    left = [str(path.relative_to(run)) for path in run.rglob(".*")]
    return sorted({*differing, *left, *(kept ^ expected)})


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


@contextlib.contextmanager
def wrapped(counter: _Counter) -> Iterator[None]:
    """Functions on the way of a step and a checkpoint, each telling the counter that it was called."""
    import safetensors.torch
    import torch

    from sarm_control.reward_model.reward_model import RewardModel
    from sarm_control.training.rollout import sampler as sampling

    changes: list[tuple[Any, str, Callable[..., Any]]] = [
        (os, "replace", _replace(counter)),
        (os, "fsync", _first(counter, "fsync", os.fsync)),
        (shutil, "rmtree", _rmtree(counter)),
        (Path, "open", _open(counter)),
        (sampling, "draw", _first(counter, "rollout", sampling.draw)),
        (RewardModel, "score", _first(counter, "reward", RewardModel.score)),
        (torch.optim.AdamW, "step", _optimizer_step(counter)),
        (safetensors.torch, "save_file", _save_file(counter)),
    ]
    kept = [getattr(owner, name) for owner, name, _ in changes]
    for owner, name, function in changes:
        setattr(owner, name, function)
    try:
        yield
    finally:
        for (owner, name, _), function in zip(changes, kept, strict=True):
            setattr(owner, name, function)


def _first(counter: _Counter, place: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*words: Any, **named: Any) -> Any:
        counter.visit(place)
        return function(*words, **named)

    return call


def _replace(counter: _Counter) -> Callable[..., None]:
    real = os.replace

    def replace(source: Any, target: Any) -> None:
        name, parent = Path(target).name, Path(target).parent.name
        before = {"latest": "pointer", "policy": "policy"}.get(name)
        if name.startswith("step-") and parent == "checkpoints":
            before = "rename"
        if name == "manifest.json" and '"finished"' in Path(source).read_text():
            before = "finish"
        if before is not None:
            counter.visit(before)
        real(source, target)
        if before == "pointer":
            counter.visit("pointed")

    return replace


def _rmtree(counter: _Counter) -> Callable[..., None]:
    real = shutil.rmtree

    def rmtree(path: Any, *words: Any, **named: Any) -> None:
        if Path(path).name.startswith("step-") and counter.due("drop"):
            files = sorted(Path(path).iterdir())
            for file in files[: len(files) // 2]:
                file.unlink()
            die()
        real(path, *words, **named)

    return rmtree


def _open(counter: _Counter) -> Callable[..., Any]:
    real = Path.open

    def opened(self: Path, mode: str = "r", *words: Any, **named: Any) -> Any:
        stream: Any = real(self, mode, *words, **named)
        if mode == "a" and self.suffix == ".jsonl" and counter.due("row"):
            write = stream.write

            def half(text: str) -> int:
                write(text[: len(text) // 2])
                stream.flush()
                die()
                return 0

            stream.write = half
        return stream

    return opened


def _optimizer_step(counter: _Counter) -> Callable[..., Any]:
    import torch

    real = torch.optim.AdamW.step

    def step(self: Any, *words: Any, **named: Any) -> Any:
        counter.visit("update")
        found = real(self, *words, **named)
        counter.visit("updated")
        return found

    return step


def _save_file(counter: _Counter) -> Callable[..., None]:
    import safetensors.torch

    real = safetensors.torch.save_file

    def save_file(tensors: Any, path: Any, *words: Any, **named: Any) -> None:
        real(tensors, path, *words, **named)
        if counter.due("tensor"):
            os.truncate(path, os.path.getsize(path) // 2)
            die()

    return save_file
