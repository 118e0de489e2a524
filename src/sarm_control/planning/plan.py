"""A plan: what a run will need, in parts, and how it is shown."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sarm_control.console import aligned, duration
from sarm_control.errors import SarmError
from sarm_control.planning.machines import MIB, Machine

PARTS = (
    "program",
    "weights",
    "adapters",
    "optimizer",
    "kv_cache",
    "activations",
    "logits",
    "latents",
    "allocator",
)
"""What memory is for, in the order it is shown. `optimizer` has the gradients with the moments; `allocator`
is what other phases freed and the C library did not give back."""


class MemoryTooSmall(SarmError, MemoryError):
    """A run that needs more memory than its machine has."""


@dataclass(frozen=True)
class Plan:
    """What a run will need.

    Args:
        what: `train`, `latents`, `serve` or `attach`.
        machine: where it takes place.
        parameters: weights by model.
        phases: for each phase of the run the bytes of each of `PARTS`; the largest sum is the peak.
        seconds: of each phase of a step; empty where nothing is known.
        timed_by: where the seconds come from, in words.
        total_seconds: of the whole run; None where its size is not known.
        disk: bytes by what is written.
        notes: what was assumed, one sentence each.
        changes: what would make it smaller, and the peak that it would then have, in bytes.
    """

    what: str
    machine: Machine
    parameters: Mapping[str, int]
    phases: Mapping[str, Mapping[str, float]]
    seconds: Mapping[str, float]
    timed_by: str
    total_seconds: float | None
    disk: Mapping[str, float]
    notes: tuple[str, ...] = ()
    changes: tuple[tuple[str, float], ...] = ()

    @property
    def largest(self) -> str:
        """The phase that needs most."""
        return max(self.phases, key=lambda phase: sum(self.phases[phase].values()))

    @property
    def peak(self) -> float:
        """Bytes of the largest phase."""
        return sum(self.phases[self.largest].values())

    @property
    def fits(self) -> bool:
        """Whether the machine has that much; true where its memory is not known."""
        return self.machine.memory is None or self.peak <= self.machine.memory

    @property
    def seconds_a_step(self) -> float | None:
        """Seconds of all phases of a step; None where nothing is known."""
        return sum(self.seconds.values()) if self.seconds else None

    def to_dict(self) -> dict[str, Any]:
        """JSON: `memory` in MiB, with the parts of the largest phase and all phases; `seconds_a_step`."""
        largest = self.phases[self.largest]
        return {
            "what": self.what,
            "machine": self.machine.name,
            "machine_mib": None if self.machine.memory is None else self.machine.memory / MIB,
            "fits": self.fits,
            "parameters": dict(self.parameters),
            "memory": {
                "peak_mib": self.peak / MIB,
                "peak_phase": self.largest,
                **{f"{part}_mib": largest.get(part, 0.0) / MIB for part in PARTS},
                "phases": {
                    phase: {part: parts.get(part, 0.0) / MIB for part in PARTS}
                    for phase, parts in self.phases.items()
                },
            },
            "seconds_a_step": self.seconds_a_step,
            "seconds": dict(self.seconds),
            "timed_by": self.timed_by,
            "total_seconds": self.total_seconds,
            "disk_mib": sum(self.disk.values()) / MIB,
            "disk": {name: size / MIB for name, size in self.disk.items()},
            "notes": list(self.notes),
            "changes": [{"change": text, "peak_mib": peak / MIB} for text, peak in self.changes],
        }

    def lines(self) -> Iterator[str]:
        """The plan as text, one fact a line, and a table of memory."""
        named = ", ".join(f"{name} {_count(number)}" for name, number in self.parameters.items())
        yield f"parameters: {named}"
        yield from self._memory()
        if self.seconds:
            parts = ", ".join(f"{phase} {seconds:.2g}" for phase, seconds in self.seconds.items())
            yield f"time: {_seconds(self.seconds_a_step or 0)} a step ({parts}), {self.timed_by}"
        if self.total_seconds is not None:
            yield f"  all of it: {duration(self.total_seconds)}"
        written = ", ".join(f"{name} {size(value)}" for name, value in self.disk.items() if value)
        yield f"disk: {size(sum(self.disk.values()))}{f' ({written})' if written else ''}"
        yield from (f"note: {note}" for note in self.notes)

    def refuse_too_large(self, override: str) -> None:
        """Stops a run before it loads anything that will not fit.

        Args:
            override: the option with which the run starts all the same.

        Raises:
            MemoryTooSmall: the peak is more than the machine has; the hint says what to change.
        """
        if self.fits or self.machine.memory is None:
            return
        fitting = [text for text, peak in self.changes if peak <= self.machine.memory]
        smallest = [text for text, _ in sorted(self.changes, key=lambda change: change[1])]
        # one thing to type: the first that fits, else what comes nearest
        change = (fitting or smallest)[:1]
        hint = (
            f"{change[0]}, or start it all the same: {override}"
            if change
            else f"start it all the same: {override}"
        )
        raise MemoryTooSmall(
            f"the run needs about {size(self.peak)} in its largest phase ({self.largest}), and "
            f"{self.machine.name} has {size(self.machine.memory)}",
            hint=hint,
        )

    def _memory(self) -> Iterator[str]:
        has = "" if self.machine.memory is None else f"; {self.machine.name} has {size(self.machine.memory)}"
        verdict = "" if self.fits else ": it will not fit"
        yield f"memory: {size(self.peak)} at most, in {self.largest}{has}{verdict}"
        # a column for what some phase needs, even where the largest needs none of it
        shown = [part for part in PARTS if any(parts.get(part, 0) >= 1 for parts in self.phases.values())]
        header = ["MiB", *(part.replace("_", " ") for part in shown), "sum"]
        rows = [
            [phase, *(_mib(parts.get(part, 0)) for part in shown), _mib(sum(parts.values()))]
            for phase, parts in self.phases.items()
        ]
        yield from aligned([header, *rows], left=1)
        for text, peak in self.changes:
            yield f"  {text}: {size(peak)}"


def with_allocator(
    phases: Mapping[str, Mapping[str, float]], held: Mapping[str, float], where: Machine
) -> dict[str, dict[str, float]]:
    """The phases with what a processor's C library keeps of the largest other phase's own memory.

    Blocks of up to 32 MiB come from a heap that seldom shrinks, and a phase whose blocks have other sizes
    than the ones that were freed takes new ones. On a GPU PyTorch's own allocator splits and joins blocks.
    """
    if where.kind != "cpu":
        return {phase: dict(parts) for phase, parts in phases.items()}
    lasting = sum(held.values())
    own = {phase: sum(parts.values()) - lasting for phase, parts in phases.items()}
    return {
        phase: {**parts, "allocator": max((own[other] for other in own if other != phase), default=0.0)}
        for phase, parts in phases.items()
    }


def size(bytes_: float) -> str:
    """Bytes in words: `812 MiB`, `16.3 GiB`."""
    return f"{bytes_ / MIB:.0f} MiB" if bytes_ < 2**30 else f"{bytes_ / 2**30:.1f} GiB"


def _mib(bytes_: float) -> str:
    return f"{bytes_ / MIB:.0f}" if bytes_ >= 10 * MIB or bytes_ == 0 else f"{bytes_ / MIB:.1f}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 10 else duration(seconds)


def _count(number: int) -> str:
    for unit, name in ((1e9, "billion"), (1e6, "million")):
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return f"{number:,}"
