"""What `sarm latents --as-human` does: demonstrations scored, checked, and kept as the human buffer."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sarm_control.cli._extraction import Request, chosen_latents, summarise
from sarm_control.cli._next import of_training, say_next
from sarm_control.cli._outputs import check_outputs, say_dry_run
from sarm_control.cli._sources import ModelFlags, Source, prepare, warn
from sarm_control.console import say
from sarm_control.errors import ConfigError

if TYPE_CHECKING:
    from sarm_control.latents import Coverage, HumanBuffer

SUFFIX = ".safetensors"


def make_human_buffer(request: Request, disjoint_from: Sequence[Path], *, dry_run: bool) -> None:
    """Writes the buffer and its manifest, and says what it covers."""
    from sarm_control.latents import Coverage, HumanBuffer, check_disjoint

    if request.out.suffix != SUFFIX:
        raise ConfigError(f"{request.out}: a human buffer is a {SUFFIX} file", hint=f"-o human{SUFFIX}")
    inputs = [*request.files, *disjoint_from]
    outputs = [request.out, request.json_file, request.html]
    check_outputs(outputs, inputs, overwrite=request.overwrite, make=not dry_run)
    bad = request.skip_bad_rows
    # `Scoring` has the fields that follow the model, in their order
    flags = ModelFlags(request.model, *request.scoring, missing=request.missing)
    flags.needs_latents = "no human buffer can be made"
    kept = _kept(request.files)
    prepared = prepare(
        [request.files],
        flags,
        want={"answer"},
        # where a folder kept only some latents none is demanded here; which there are is checked by
        # `_chosen`
        latents=() if kept else None,
        aside=lambda path: bad / f"{path.stem}.bad.jsonl" if bad else None,
        check=lambda rows: check_disjoint(rows, disjoint_from),
        row_flags=request.rows,
        check_head=lambda size, fingerprint: _chosen(request, kept, size, fingerprint),
    )
    if dry_run:
        say(f"{len(prepared.rows[0])} demonstrations")
        say_dry_run(request.out)
        return
    (source,) = prepared.score()
    warn([source])
    scored = source.scored_rows.scored
    chosen = _chosen(request, kept, scored.latents.size, scored.fingerprint)
    buffer = HumanBuffer.from_scored(scored, chosen)
    coverage = Coverage.of(scored, buffer.latents)
    buffer.save(request.out)
    _record(request, source, buffer, coverage, disjoint_from)
    _say(request.out, buffer, coverage)
    run = request.out.with_name(f"{request.out.stem}-run")
    term = ("--human", request.out, "--beta", "0.1sd")
    say_next("train", *term, *of_training(request.model), "-o", run, "--dry-run")


def _kept(files: Sequence[Path]) -> tuple[int, ...] | None:
    """The latents that the folders among the files kept; None when all were kept everywhere."""
    from sarm_control.data import is_row_folder
    from sarm_control.latents import LatentsFolder

    folders = [path for path in files if path.is_dir() and not is_row_folder(path)]
    kept = [LatentsFolder(path).manifest.chosen for path in folders]
    some = [set(latents) for latents in kept if latents is not None]
    # a latent that one folder left out has no values there, and no rate
    return tuple(sorted(set.intersection(*some))) if some else None


def _chosen(request: Request, kept: tuple[int, ...] | None, size: int, fingerprint: str) -> tuple[int, ...]:
    """The latents of the buffer; empty where `HumanBuffer` is to choose them."""
    if request.only is None:
        return kept or ()
    chosen = chosen_latents(request.only, size, fingerprint)
    missing = sorted(set(chosen) - set(chosen if kept is None else kept))
    if missing:
        raise ConfigError(
            f"latent {missing[0]} was not kept in the latents folder",
            hint="make the folder again with these latents, or without --latents",
        )
    return chosen


def _record(
    request: Request, source: Source, buffer: "HumanBuffer", coverage: "Coverage", others: Sequence[Path]
) -> None:
    from sarm_control.files import manifest, write_json

    config = {
        "model": source.model,
        "head": buffer.fingerprint,
        "latents": list(buffer.latents),
        "rows": len(buffer),
        "coverage": coverage._asdict(),
        "disjoint_from": [path.name for path in others],
        **request.rows.recorded,
    }
    record = manifest("latents", inputs=[*request.files, *others], config=config)
    write_json(request.out.with_name(f"{request.out.name}.manifest.json"), record)
    found = {**config, "rates": buffer.rates.tolist(), "notes": buffer.notes}
    summarise(request, found, lambda: [source.scored_rows], buffer.latents)


def _say(path: Path, buffer: "HumanBuffer", coverage: "Coverage") -> None:
    say(
        f"{path}: {len(buffer)} demonstrations; {coverage.chosen_firing} of {coverage.chosen} chosen latents "
        f"fire in them, {coverage.firing} of all {coverage.latents}"
    )
    for note in buffer.notes:
        say(f"warning: {note}")
