"""`sarm probe`: what edits do to the rewards of given answers."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from sarm_control.cli._edits import EditsFile, EditSpecs, GivenEdits, read_edits
from sarm_control.cli._help import COMPUTE, INPUT, OUTPUT, RARE_COMPUTE
from sarm_control.cli._next import of_model, of_training, say_next
from sarm_control.cli._outputs import Html, Overwrite, check_outputs, write_html
from sarm_control.cli._row_flags import AS_THEY_ARE, RowFlags
from sarm_control.cli._scoring import BatchTokens, Device, Dtype, MaxLength, Model, SkipBadRows, TemplateDate
from sarm_control.cli._sources import ModelFlags, Source, read_scored
from sarm_control.console import progress
from sarm_control.embedded import AUDIT, LAB_MODELS
from sarm_control.errors import ConfigError

if TYPE_CHECKING:
    from sarm_control.control import Edit
    from sarm_control.evaluation import Probe

_TOLERANCE = 1e-6
_EXAMPLE = 'sarm probe --model M answers.jsonl --edit "12345=0"'


Verify = Annotated[
    bool,
    Parameter(
        group=COMPUTE,
        negative="",
        help="Score the text again with the edits inside the model, and compare.",
    ),
]


def probe(
    *data: Annotated[
        Path,
        Parameter(
            group=INPUT,
            help="Rows with answers, or latents folders. Default with the lab model: lab:audit.",
        ),
    ],
    model: Model = None,
    edit: EditSpecs = None,
    edits_file: EditsFile = None,
    out: Annotated[
        Path | None,
        Parameter(
            group=OUTPUT, name=["--out", "-o"], help="Rows with before, after and delta of each answer."
        ),
    ] = None,
    save_edits: Annotated[
        Path | None,
        Parameter(
            group=OUTPUT, help="Write the edits to this file, for score, rerank, eval, train, convert."
        ),
    ] = None,
    verify: Verify = False,
    seed: Annotated[
        int, Parameter(group=RARE_COMPUTE, help="Kept in the manifest; nothing here is random.")
    ] = 0,
    rows: RowFlags = AS_THEY_ARE,
    skip_bad_rows: SkipBadRows = None,
    batch_tokens: BatchTokens = None,
    device: Device = None,
    dtype: Dtype = None,
    max_length: MaxLength = None,
    template_date: TemplateDate = None,
    json_file: Annotated[
        Path | None, Parameter(group=OUTPUT, name="--json", help="The summary as JSON.")
    ] = None,
    html: Html = None,
    overwrite: Overwrite = False,
) -> int:
    """Try edits on answers: the reward before, after, and the exact change.

    One scoring pass, then algebra on its latents. The summary counts every prompt once; chosen and
    rejected answers of pairs are summed up apart. With --verify the text is scored again with the edits
    inside the model, and the exit code is 1 when a change differs by more than 1e-6.
    """
    given = read_edits(edit, edits_file, required=True)
    missing = () if data or model is not None else ("data",)
    data = _data(model, data)
    check_outputs((out, save_edits, json_file, html), (*data, *given.inputs), overwrite=overwrite, rows=out)
    flags = ModelFlags(model, device, dtype, max_length, batch_tokens, template_date, missing)
    flags.needs_latents = "edits of latents cannot be tried"
    found, source, edits = _probed(data, flags, given, skip_bad_rows, rows)
    difference = _verified(flags, source, edits, found) if verify else None
    _print(found, edits, difference)
    config = {
        "model": source.model,
        "head": source.scored_rows.scored.fingerprint,
        "edits": [str(one) for one in edits],
        "dtype": dtype,
        "max_length": flags.context,
        **flags.dated,
        **rows.recorded,
    }
    _write(found, source, edits, config, out, save_edits, inputs=[*data, *given.inputs], seed=seed)
    _summarise(found, source, {**config, "largest_difference": difference}, json_file, html)
    if save_edits is not None:
        run = save_edits.with_name(f"{save_edits.stem}-run")
        say_next("train", "--edits-file", save_edits, *of_training(model), "-o", run)
    else:
        given_edits = [word for one in edits for word in ("--edit", str(one))]
        say_next("probe", *data, *of_model(model), *given_edits, "--save-edits", "edits.json")
    # asked this way round so that a NaN is a failure too
    return 0 if difference is None or difference <= _TOLERANCE else 1


def _summarise(
    found: "Probe", source: Source, about: dict[str, Any], json_file: Path | None, html: Path | None
) -> None:
    """The summary as JSON, and the page that is made of it."""
    from sarm_control.evaluation import change_bins, most_moved
    from sarm_control.files import write_json
    from sarm_control.report import probe_page

    if json_file is None and html is None:
        return
    moved = {"changes": change_bins(found), "moved": most_moved(source.scored_rows.rows, found)}
    summary = {**about, **found.as_json(), **moved}
    if json_file is not None:
        write_json(json_file, summary)
    write_html(html, lambda command: probe_page(summary, command=command))


def _data(model: str | None, data: tuple[Path, ...]) -> tuple[Path, ...]:
    if not data and model not in LAB_MODELS:
        raise ConfigError("no file of answers was given", hint=_EXAMPLE)
    return data or (AUDIT,)


def _probed(
    data: Sequence[Path],
    flags: ModelFlags,
    given: GivenEdits,
    skip_bad_rows: Path | None,
    row_flags: RowFlags,
) -> "tuple[Probe, Source, list[Edit]]":
    from sarm_control.evaluation import probe as run

    source = read_scored(
        data,
        flags,
        want={"answer", "pair", "candidates"},
        latents=given.latents,
        skip_bad_rows=skip_bad_rows,
        row_flags=row_flags,
        check_head=given.on,
    )
    scored = source.scored_rows.scored
    edits = given.on(scored.latents.size, scored.fingerprint)
    return run(source.scored_rows, edits), source, edits


def _verified(flags: ModelFlags, source: Source, edits: "Sequence[Edit]", found: "Probe") -> float:
    """The largest difference between the exact changes and those of another pass over the text."""
    import numpy as np

    from sarm_control.evaluation import rescored_delta

    # by code that shares nothing with the algebra: a fault in both would have to be made twice
    again = rescored_delta(
        flags.load(), source.scored_rows, edits, batch_tokens=flags.batch_tokens, progress=progress
    )
    return float(np.abs(again - found.delta).max())


def _print(found: "Probe", edits: "Sequence[Edit]", difference: float | None) -> None:
    from sarm_control.evaluation import probe_text

    sys.stdout.write(probe_text(found, edits))
    if difference is not None:
        verdict = "verified" if difference <= _TOLERANCE else "not verified"
        print(
            f"\n{verdict}: scored again with the edits inside the model, the changes differ by at most "
            f"{difference:.2g} (tolerance {_TOLERANCE:g})"
        )


def _write(
    found: "Probe",
    source: Source,
    edits: "Sequence[Edit]",
    config: dict[str, Any],
    out: Path | None,
    save_edits: Path | None,
    *,
    inputs: Sequence[Path],
    seed: int,
) -> None:
    from sarm_control.control import save_edits as save
    from sarm_control.data import write_rows
    from sarm_control.evaluation import probed_rows
    from sarm_control.files import manifest, write_json

    if out is not None:
        write_rows(out, list(probed_rows(source.scored_rows.rows, found)))
        record = manifest("probe", inputs=inputs, config=config, seed=seed)
        write_json(out.with_name(f"{out.name}.manifest.json"), record)
    if save_edits is not None:
        save(save_edits, edits, fingerprint=config["head"], model=config["model"])
