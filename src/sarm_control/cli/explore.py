"""`sarm explore`: latents, answers and exact edits in a browser."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from sarm_control.cli._help import INPUT, OUTPUT, RARE_INPUT, RARE_OUTPUT
from sarm_control.cli._next import again, of_model, say_next
from sarm_control.cli._outputs import Overwrite, check_outputs
from sarm_control.cli._scoring import BatchTokens, Device, Dtype, MaxLength, Model, Read, TemplateDate
from sarm_control.cli._sources import ModelFlags, read_scored
from sarm_control.console import say
from sarm_control.embedded import AUDIT, LAB
from sarm_control.errors import ConfigError, MissingExtraError
from sarm_control.extras import install

if TYPE_CHECKING:
    from sarm_control.explorer import LiveRun, Sources
    from sarm_control.latents import ScoredRows

LatentsFrom = Annotated[
    Path | None,
    Parameter(
        group=INPUT,
        help="Folder of sarm latents, or a file of rows, which is scored. Default for lab: lab:audit.",
    ),
]
Features = Annotated[
    Path | None,
    Parameter(
        group=INPUT,
        help="features.json of sarm discover. Default: what the pairs among the rows show.",
    ),
]
Labels = Annotated[Path | None, Parameter(group=INPUT, help="Names of latents, as sarm label writes them.")]
Run = Annotated[
    Path | None, Parameter(group=INPUT, help="Run folder of sarm train to follow, also while it is written.")
]
Audit = Annotated[Path | None, Parameter(group=INPUT, help="Folder of sarm audit.")]
NotesFile = Annotated[
    Path,
    Parameter(group=OUTPUT, help="File that keeps your notes on latents; made by the first note."),
]
Export = Annotated[
    Path | None,
    Parameter(
        group=OUTPUT, help="Folder for the same pages as files, which need no server; nothing is served then."
    ),
]
Port = Annotated[
    int,
    Parameter(group=OUTPUT, validator=validators.Number(gte=0, lte=65535), help="Port; 0 takes a free one."),
]
Host = Annotated[str, Parameter(group=RARE_OUTPUT, help="Address to bind; a public one wants a token.")]
TokenFile = Annotated[
    Path | None, Parameter(group=RARE_OUTPUT, help="File with the token that the page asks for.")
]
MaxBody = Annotated[
    int, Parameter(group=RARE_OUTPUT, validator=validators.Number(gte=1), help="MiB of a request at most.")
]
ExportLatents = Annotated[
    int,
    Parameter(
        group=RARE_OUTPUT,
        validator=validators.Number(gte=1),
        help="Latents of an export that have a page of their own: called ones first.",
    ),
]
ExportRows = Annotated[
    int,
    Parameter(
        group=RARE_OUTPUT, validator=validators.Number(gte=0), help="Rows of an export that the bench opens."
    ),
]
FirstRows = Annotated[
    int | None,
    Parameter(
        group=RARE_INPUT,
        name="--rows",
        validator=validators.Number(gte=1),
        help="First rows of a file to read. Default: all.",
    ),
]


def explore(
    *,
    model: Model = None,
    latents: LatentsFrom = None,
    features: Features = None,
    labels: Labels = None,
    run: Run = None,
    audit: Audit = None,
    rows: FirstRows = None,
    notes: NotesFile = Path("sarm-notes.json"),
    export: Export = None,
    export_latents: ExportLatents = 200,
    export_rows: ExportRows = 200,
    host: Host = "127.0.0.1",
    port: Port = 8400,
    token_file: TokenFile = None,
    max_body_mb: MaxBody = 8,
    batch_tokens: BatchTokens = None,
    device: Device = None,
    dtype: Dtype = None,
    max_length: MaxLength = None,
    template_date: TemplateDate = None,
    reading: Read = None,
    overwrite: Overwrite = False,
) -> None:
    """See in a browser what each latent does, and edit it exactly.

    Four pages: all latents, one latent, a bench where edits move rewards at once, and a run as it trains.
    Without options the embedded world is opened. Only this machine can reach the pages, and nothing is
    read but what is named here. --export writes the pages as files.
    """
    # files can be written without the packages that serve them
    if export is None:
        _check_extra()
    check_outputs((export,), [], overwrite=overwrite)
    followed = _followed(run)
    model = model or _model_of(followed, latents)
    default = latents is None and model in (None, LAB)
    flags = ModelFlags(
        model,
        device,
        dtype,
        max_length,
        batch_tokens,
        template_date,
        missing=("--latents",) if default else (),
        reading=reading,
        needs_latents="there is nothing to explore",
    )
    opened = _opened(flags, AUDIT if default else latents, features, labels, audit, followed, rows)
    if export is not None:
        _export(opened, export, export_latents, export_rows, overwrite=overwrite)
        say_next("explore", *([] if default else _named(latents)), *of_model(model, reading))
        return
    _serve(opened, notes, host, port, token_file, max_body_mb)


def _check_extra() -> None:
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"sarm explore needs {error.name}, which is not installed",
            hint=f"{install('explore')}, or write the pages with --export DIR",
        ) from error


def _followed(run: Path | None) -> "LiveRun | None":
    from sarm_control.explorer import LiveRun

    return None if run is None else LiveRun(run)


def _model_of(run: "LiveRun | None", latents: Path | None) -> str | None:
    """The reward model of a run, where nothing else says which model is meant."""
    # latents come with a head of their own, which need not be the run's
    named = None if run is None or latents is not None else run.reward_model()
    if named is not None:
        say(f"the reward model of the run: {named}")
    return named


def _opened(
    flags: ModelFlags,
    latents: Path | None,
    features: Path | None,
    labels: Path | None,
    audit: Path | None,
    run: "LiveRun | None",
    first_rows: int | None,
) -> "Sources":
    """Everything read and checked against one head."""
    from sarm_control.explorer import Sources, found_in, names_in, no_rows, planted_names, read_audit
    from sarm_control.latents import is_latents

    data, name, called = None, None, flags.name
    if latents is not None:
        found = _read(latents, flags, first_rows)
        data, called = found
        name = str(latents) if latents.parts[:1] == (AUDIT.name,) else latents.name
    # a latents folder alone needs no model: what has to be scored anew cannot be asked then
    alone = latents is not None and flags.model is None and is_latents(latents)
    rm = None if alone else flags.load()
    if data is None:
        assert rm is not None
        data = no_rows(rm)
    head = data.scored.head
    fingerprint = data.scored.fingerprint
    effects = found_in(features, data, name)
    return Sources(
        model=called,
        fingerprint=fingerprint,
        head=head,
        rm=rm,
        data=data,
        data_name=name,
        found=effects,
        names=planted_names(fingerprint)
        if labels is None
        else names_in(labels, fingerprint, len(head), data.scored.model_fingerprint),
        audit=None if audit is None else read_audit(audit, fingerprint),
        run=run,
        about=_LAB if called.partition(":")[0] == LAB else None,
    )


_LAB = "The lab is a tiny model in the package, with shortcuts planted in it."


def _read(latents: Path, flags: ModelFlags, first_rows: int | None) -> "tuple[ScoredRows, str]":
    from sarm_control.cli._row_flags import RowFlags

    found = read_scored(
        [latents], flags, want={"pair", "candidates", "answer"}, row_flags=RowFlags(first_rows=first_rows)
    )
    return found.scored_rows, found.model


def _named(latents: Path | None) -> tuple[str, ...]:
    return () if latents is None else ("--latents", str(latents))


def _export(opened: "Sources", folder: Path, latents: int, rows: int, *, overwrite: bool) -> None:
    from sarm_control.explorer import Site, export_site

    written = export_site(Site(opened), folder, latents=latents, rows=rows, overwrite=overwrite)
    say(
        f"{folder / 'index.html'}: {opened.size} latents, {written.latents} of them with a page, "
        f"{written.rows} rows for the bench, {written.size / 1e6:.1f} MB"
    )


def _serve(
    opened: "Sources",
    notes: Path,
    host: str,
    port: int,
    token_file: Path | None,
    max_body_mb: int,
) -> None:
    import logging
    import os
    from dataclasses import replace

    from sarm_control.explorer import Notes, Site, create_explorer
    from sarm_control.server import ServiceSettings, address, bind, check_bind, read_token
    from sarm_control.server import serve as run

    if notes.is_dir():
        raise ConfigError(f"{notes} is a folder", hint="--notes FILE")
    token = None if token_file is None else read_token(token_file)
    settings = ServiceSettings(
        model_name=opened.model, token=token, hosts=check_bind(host, token), body_bytes=max_body_mb << 20
    )
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # bound before tables are made: a port that is in use is told at once
    with contextlib.closing(bind(host, port)) as listening:
        site = Site(replace(opened, notes=Notes(notes, opened.fingerprint)))
        where = address(listening)

        def ready() -> None:
            promote, harm = site.verdicts()
            if promote or harm:
                say(f"of {opened.size} latents {promote} promote what was preferred, {harm} harm it")
            # behind a #, which browsers keep to themselves: the token is in no request line and no log
            say(f"open {where}/{'' if token is None else f'#token={token}'} in a browser; Ctrl-C stops")
            say_next(*again("--export", "site"))

        run(create_explorer(site, settings), listening, settings=settings, ready=ready)
