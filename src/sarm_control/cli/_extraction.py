"""What `sarm latents` does: plan, extract shard by shard, and say what came of it."""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sarm_control.cli._next import beside, say_next
from sarm_control.cli._outputs import check_outputs, say_dry_run, write_html
from sarm_control.cli._row_flags import RowFlags
from sarm_control.cli._scoring import check_has_latents, model_name, or_lab
from sarm_control.console import progress, say, set_quiet
from sarm_control.errors import ConfigError, OutputError, SarmError

if TYPE_CHECKING:
    from sarm_control.latents import Engine, Job, LatentsWriter, Manifest, Ranks, ScoredRows
    from sarm_control.reward_model import Description

_LATENTS_HINT = "write it like 12,345 or features.json#harms[:3]"
_IDS = re.compile(r"\s*\d+(\s*,\s*\d+)*\s*")


class Scoring(NamedTuple):
    """How the model scores; see `cli/_scoring.py`."""

    device: str | None
    dtype: str | None
    max_length: int | None
    batch_tokens: int | None
    template_date: str | None = None


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line.

    Args:
        files: the data.
        missing: what the embedded world stands in for beside the model, in words.
        model: `--model` as typed.
        scoring: how it scores.
        out: what is made.
        only: `--latents` as typed.
        states: whether the trunk's states are kept.
        skip_bad_rows: a folder for rows that cannot be used.
        rows: how rows are read.
        json_file: where the summary goes.
        html: where the page goes.
        overwrite: whether outputs may be replaced.
    """

    files: tuple[Path, ...]
    missing: tuple[str, ...]
    model: str | None
    scoring: Scoring
    out: Path
    only: str | None
    states: bool
    skip_bad_rows: Path | None
    rows: RowFlags
    json_file: Path | None
    html: Path | None
    overwrite: bool


class Running(NamedTuple):
    """How the folder is made: rows of a shard, processes, what runs them, and whether anything is done."""

    shard_size: int
    workers: int
    engine: str
    resume: bool
    dry_run: bool


def extract_latents(request: Request, how: Running) -> None:
    """Makes the folder, alone or together with the processes of a launcher."""
    from sarm_control.latents import launched, read_manifest

    with launched() as ranks:
        # one process speaks for all
        if ranks.rank > 0:
            set_quiet(True)
        # one process checks and locks the outputs; the others wait, and end with its error
        ranks.together(lambda: _check(request, how), only_first=True)
        # workers of workers would load a model each, as many as the product of both numbers
        if ranks.count > 1 and (how.workers > 1 or how.engine != "processes"):
            raise ConfigError(
                f"{ranks.count} processes were launched, each is one worker",
                hint="leave out --workers and --engine, or start sarm latents without a launcher",
            )
        running = _engine(how.engine, how.workers)
        name = or_lab(request.model, *request.missing)
        job, described = _plan(name, request, how.shard_size)
        writer = job.writer(request.out)
        if how.dry_run:
            if ranks.rank == 0:
                _say_plan(request, how, job, writer)
            return
        ranks.together(lambda: _open(writer, described, request, resume=how.resume), only_first=True)
        _work(job, writer, ranks, running)
        ranks.together(writer.finish, only_first=True)
        if ranks.rank == 0:
            _report(request, read_manifest(request.out))


def chosen_latents(spec: str, size: int, fingerprint: str) -> tuple[int, ...]:
    """The latents that `12,345` or `features.json#harms[:3]` names, in that order.

    Args:
        spec: numbers, a features file (all its lists), or a part of one.
        size: L, the latents of the model.
        fingerprint: of its head.

    Raises:
        ConfigError: nothing is named, one twice, or one the model does not have.
        DataError: a features file that is none, or of another head.
    """
    from sarm_control.control import check_exists
    from sarm_control.discovery import load_features, select

    if _IDS.fullmatch(spec):
        found = [int(number) for number in spec.split(",")]
        # typed twice it is a slip; the lists of a file may share a latent, which is kept once
        repeated = next((one for one in found if found.count(one) > 1), None)
        if repeated is not None:
            raise ConfigError(f"--latents names latent {repeated} twice")
    elif "#" in spec:
        found = [feature.latent for feature in select(spec, fingerprint)]
    elif Path(spec).is_file():
        lists = load_features(spec, fingerprint).lists
        found = [feature.latent for features in lists.values() for feature in features]
    else:
        raise ConfigError(f"--latents {spec}: neither numbers nor a features file", hint=_LATENTS_HINT)
    if not found:
        raise ConfigError(f"--latents {spec}: it names no latent", hint=_LATENTS_HINT)
    for latent in found:
        check_exists(latent, size)
    return tuple(dict.fromkeys(found))


def _say_plan(request: Request, how: Running, job: "Job", writer: "LatentsWriter") -> None:
    from sarm_control.reward_model import check_placement

    check_placement(job.model.device, job.model.dtype)
    if how.resume:
        writer.check_resumable()
    kept = "all latents" if request.only is None else f"latents {request.only}"
    say(f"{job.data.rows} rows, {job.data.answers} answers in {writer.shards} shards; {kept} are kept")
    say_dry_run(request.out)


def _check(request: Request, how: Running) -> None:
    from sarm_control.data import is_row_folder
    from sarm_control.files import put_back

    resume, make = how.resume, not how.dry_run
    if resume and request.overwrite:
        raise ConfigError("--resume and --overwrite exclude each other")
    folders = (path for path in request.files if path.is_dir() and not is_row_folder(path))
    folder = next(folders, None)
    if folder is not None:
        raise ConfigError(f"{folder} is a folder", hint="sarm latents reads files of answers")
    check_outputs(
        [request.json_file, request.html],
        [*request.files, request.out],
        overwrite=request.overwrite or resume,
        make=make,
    )
    # whether the folder may exist is said below, where `--resume` is a way out too
    check_outputs([request.out], request.files, overwrite=True, make=make)
    if make:
        # of an `--overwrite` that was cut off before its first shard: the folder it set aside is the
        # output again
        put_back(request.out)
    if request.out.exists() and not (resume or request.overwrite):
        raise OutputError(
            f"{request.out} exists already",
            hint="go on with it with --resume, choose another name or pass --overwrite",
        )


def _plan(name: str, request: Request, shard_size: int) -> "tuple[Job, Description]":
    """Reads model files and data; loads no trunk."""
    from sarm_control.latents import ModelSpec, plan, survey, template_check
    from sarm_control.reward_model import describe, read_template

    check_has_latents(name, "no latents can be kept")
    described = describe(name, template_date=request.scoring.template_date)
    head = described.head.fingerprint
    chosen = None if request.only is None else chosen_latents(request.only, described.latents, head)
    device, dtype, max_length, batch_tokens, _ = request.scoring
    # one day for all processes, also where the work goes on past midnight
    day = None if described.template_date is None else described.template_date.isoformat()
    bad = request.skip_bad_rows
    data = survey(
        request.files,
        want={"answer", "pair", "candidates"},
        shard_rows=shard_size,
        aside=None if bad is None else lambda path: bad / f"{path.stem}.bad.jsonl",
        options=request.rows.options,
        limit=request.rows.first_rows,
        # with the tokenizer alone: a row that the template refuses is told before any trunk is loaded
        check=template_check(read_template(name, max_length=max_length, template_date=day)),
    )
    # torchrun gives every process of a machine a number; without it all would load onto the first GPU
    device = device or _device_of_rank()
    spec = ModelSpec(name, model_name(name), device, dtype, max_length, batch_tokens, day)
    job = plan(data, spec, described, shard_rows=shard_size, chosen=chosen, states=request.states)
    return job, described


def _device_of_rank() -> str | None:
    import torch

    local = os.environ.get("LOCAL_RANK")
    return f"cuda:{local}" if local is not None and torch.cuda.is_available() else None


def _open(writer: "LatentsWriter", described: "Description", request: Request, *, resume: bool) -> None:
    from sarm_control.latents import set_latents_aside

    if request.overwrite:
        set_latents_aside(request.out)
    if not resume:
        writer.start(described.head.weight)
        return
    for problem in writer.resume(described.head.weight):
        say(f"warning: {problem}; this shard is made again")


def _work(job: "Job", writer: "LatentsWriter", ranks: "Ranks", engine: "Engine") -> None:
    from sarm_control.latents import extract

    missing = writer.missing()
    done = writer.shards - len(missing)
    kept = f"; {done} shards are there already" if done else ""
    say(f"{job.data.rows} rows, {job.data.answers} answers in {writer.shards} shards{kept}")
    try:
        ranks.together(lambda: extract(job, writer, ranks.of(missing), engine, progress=progress))
    except KeyboardInterrupt:
        # raised again with words: `run_safely` prints them and gives the exit code of an interrupt
        raise KeyboardInterrupt(_interrupted(writer)) from None
    except SarmError:
        # nothing was done yet: no folder is left that the next try would have to replace
        if ranks.rank == 0:
            writer.discard_if_empty()
        raise


def _interrupted(writer: "LatentsWriter") -> str:
    from sarm_control.files import replaced

    done = writer.shards - len(writer.missing())
    before = replaced(writer.path)
    kept = f"; the folder it replaces waits in {before}" if before.exists() else ""
    if writer.discard_if_empty():
        return "interrupted before the first shard was done: nothing was kept"
    return (
        f"interrupted; {done} of {writer.shards} shards are done{kept}\n"
        "  go on with: the same command and --resume"
    )


def _engine(name: str, workers: int) -> "Engine":
    if name == "ray":
        from sarm_control.latents import on_ray

        return on_ray(workers)
    from sarm_control.latents import in_processes, in_this_process

    return in_this_process if workers == 1 else in_processes(workers)


def summary_of(folder: Path, manifest: "Manifest") -> dict[str, Any]:
    """What a folder holds, in numbers."""
    # of latents alone: states are as large in both forms, and would hide what is saved
    tables = [record.size for name, record in manifest.files.items() if name.startswith("answers-")]
    config = manifest.about["config"]
    return {
        "folder": folder.name,
        **{name: config[name] for name in ("model", "head", "latents", "k", "chosen")},
        "rows": manifest.rows,
        "answers": manifest.answers,
        "shards": manifest.shards,
        "bytes_per_answer": sum(tables) / manifest.answers,
        "dense_bytes_per_answer": 4 * config["latents"],
        "states": bool(config.get("states")),
    }


def _report(request: Request, manifest: "Manifest") -> None:
    from sarm_control.latents import LatentsFolder

    found = summary_of(request.out, manifest)
    say(
        f"{request.out}: {found['answers']} answers of {found['rows']} rows in {found['shards']} shards, "
        f"{found['bytes_per_answer']:.0f} bytes an answer{', its state included' if found['states'] else ''} "
        f"(dense float32: {found['dense_bytes_per_answer']})"
    )
    summarise(request, found, LatentsFolder(request.out).shards, manifest.chosen)
    _say_next(request)


def summarise(
    request: Request,
    found: dict[str, Any],
    parts: "Callable[[], Iterable[ScoredRows]]",
    chosen: "Sequence[int] | None",
) -> None:
    """Writes the summary as JSON, with the latents that fire, and the page that is made of it.

    Args:
        request: says where.
        found: what is known already.
        parts: the answers, part by part; called twice.
        chosen: the latents that are looked at; None for all.
    """
    from sarm_control.evaluation import answer_coverage
    from sarm_control.files import write_json
    from sarm_control.report import coverage_page

    # the summary reads every shard twice, and is made only where somebody asked for it
    if request.json_file is None and request.html is None:
        return
    summary = {**found, "seen": answer_coverage(parts, chosen=chosen).as_json()}
    if request.json_file is not None:
        write_json(request.json_file, summary)
    write_html(request.html, lambda command: coverage_page(summary, command=command))


def _say_next(request: Request) -> None:
    """Latents of a few cannot be searched; of pairs they can, of other rows they can be edited."""
    from sarm_control.latents import LatentsFolder

    first = next(LatentsFolder(request.out).shards()).rows[0]
    if request.only is None and first.kind == "pair":
        say_next("discover", request.out, "-o", beside(request.out, f"{request.out.name}-discovery"))
    else:
        say_next("score", request.out, "--top", "0", "-o", beside(request.out, f"{request.out.name}.jsonl"))
