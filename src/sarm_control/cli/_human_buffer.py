"""What `sarm latents --as-human` does: demonstrations scored, checked, and kept as the human buffer."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sarm_control.cli._extraction import Request, chosen_latents
from sarm_control.cli._outputs import check_outputs
from sarm_control.cli._sources import ModelFlags, Source, read_parts, warn
from sarm_control.console import say
from sarm_control.errors import ConfigError

if TYPE_CHECKING:
    from sarm_control.latents import Coverage, HumanBuffer

SUFFIX = ".safetensors"


def make_human_buffer(request: Request, disjoint_from: Sequence[Path]) -> None:
    """Writes the buffer and its manifest, and says what it covers."""
    from sarm_control.latents import Coverage, HumanBuffer, check_disjoint

    if request.out.suffix != SUFFIX:
        raise ConfigError(f"{request.out}: a human buffer is a {SUFFIX} file", hint=f"-o human{SUFFIX}")
    inputs = [*request.files, *disjoint_from]
    check_outputs([request.out, request.json_file], inputs, overwrite=request.overwrite)
    bad = request.skip_bad_rows
    flags = ModelFlags(request.model, *request.scoring, missing=request.missing)
    flags.needs_latents = "no human buffer can be made"
    (source,) = read_parts(
        [request.files],
        flags,
        want={"answer"},
        latents=() if _kept(request.files) else None,
        aside=lambda path: bad / f"{path.stem}.bad.jsonl" if bad else None,
        check=lambda rows: check_disjoint(rows, disjoint_from),
    )
    warn([source])
    scored = source.scored_rows.scored
    chosen = _chosen(request, source)
    buffer = HumanBuffer.from_scored(scored, chosen)
    coverage = Coverage.of(scored, buffer.latents)
    buffer.save(request.out)
    _record(request, source, buffer, coverage, disjoint_from)
    _say(request.out, buffer, coverage)


def _kept(files: Sequence[Path]) -> tuple[int, ...] | None:
    """The latents that the folders among the files kept; None when all were kept everywhere."""
    from sarm_control.latents import LatentsFolder

    kept = [LatentsFolder(path).manifest.chosen for path in files if path.is_dir()]
    some = [set(latents) for latents in kept if latents is not None]
    return tuple(sorted(set.intersection(*some))) if some else None


def _chosen(request: Request, source: Source) -> tuple[int, ...]:
    """The latents of the buffer; empty where `HumanBuffer` is to choose them."""
    scored = source.scored_rows.scored
    kept = _kept(request.files)
    if request.only is None:
        return kept or ()
    chosen = chosen_latents(request.only, scored.latents.size, scored.fingerprint)
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
    }
    record = manifest("latents", inputs=[*request.files, *others], config=config)
    write_json(request.out.with_name(f"{request.out.name}.manifest.json"), record)
    if request.json_file is not None:
        write_json(request.json_file, {**config, "rates": buffer.rates.tolist(), "notes": buffer.notes})


def _say(path: Path, buffer: "HumanBuffer", coverage: "Coverage") -> None:
    say(
        f"{path}: {len(buffer)} demonstrations; {coverage.chosen_firing} of {coverage.chosen} chosen latents "
        f"fire in them, {coverage.firing} of all {coverage.latents}"
    )
    for note in buffer.notes:
        say(f"warning: {note}")
