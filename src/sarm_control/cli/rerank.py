"""`sarm rerank`: what edits do to a choice among candidates."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, validators

from sarm_control.cli._edits import EditsFile, EditSpecs, read_edits
from sarm_control.cli._help import COMPUTE, INPUT, OUTPUT, RARE_COMPUTE, RARE_OUTPUT
from sarm_control.cli._next import of_model, say_next
from sarm_control.cli._outputs import Html, Overwrite, check_outputs, write_html
from sarm_control.cli._row_flags import AS_THEY_ARE, RowFlags
from sarm_control.cli._scoring import BatchTokens, Device, Dtype, MaxLength, Model, SkipBadRows, TemplateDate
from sarm_control.cli._sources import ModelFlags, read_scored
from sarm_control.embedded import AUDIT, LAB_MODELS
from sarm_control.errors import ConfigError

if TYPE_CHECKING:
    from sarm_control.control import Edit
    from sarm_control.evaluation import CandidateSets, LatentImpact, Reranking

_SIZES = "1,2,4,8,16"
_EXAMPLE = 'sarm rerank --model M candidates.jsonl --edit "12345=0"'


Candidates = Annotated[
    Path,
    Parameter(
        group=INPUT,
        help="Rows with candidates, pairs or answers, or latents folders; answers to one "
        "prompt compete. Default with the lab model: lab:audit.",
    ),
]

AllLatents = Annotated[
    bool,
    Parameter(
        group=COMPUTE, negative="", help="Also set every latent alone to 0: which change most winners?"
    ),
]

Top = Annotated[
    int,
    Parameter(
        group=RARE_OUTPUT, validator=validators.Number(gte=1), help="Latents of --all-latents to print."
    ),
]


def rerank(
    *candidates: Candidates,
    model: Model = None,
    edit: EditSpecs = None,
    edits_file: EditsFile = None,
    n: Annotated[str, Parameter(group=COMPUTE, help="Sizes of set for the best-of-N curve.")] = _SIZES,
    all_latents: AllLatents = False,
    attribute: Annotated[
        list[str] | None,
        Parameter(group=COMPUTE, help="Column with one number for each answer of a row; may be repeated."),
    ] = None,
    top: Top = 10,
    out: Annotated[
        Path | None,
        Parameter(
            group=OUTPUT, name=["--out", "-o"], help="The candidates, rewards and winners of each prompt."
        ),
    ] = None,
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
) -> None:
    """Choose among candidates, with and without edits: who wins?

    One scoring pass, then algebra: how often the winner changes, in which direction (length, chosen in
    pairs, columns of your own), and the attribute expected of the best of N candidates, exactly, with
    intervals over prompts.
    """
    from sarm_control.evaluation import candidate_sets, check_candidates, single_latents
    from sarm_control.evaluation import rerank as run

    sizes = _sizes(n)
    given = read_edits(edit, edits_file, required=not all_latents)
    data = _data(model, candidates)
    check_outputs((out, json_file, html), (*data, *given.inputs), overwrite=overwrite, rows=out)
    missing = () if candidates or model is not None else ("candidates",)
    flags = ModelFlags(model, device, dtype, max_length, batch_tokens, template_date, missing)
    flags.needs_latents = "edits of latents cannot be tried"
    source = read_scored(
        data,
        flags,
        want={"candidates", "pair", "answer"},
        latents=None if all_latents else given.latents,
        skip_bad_rows=skip_bad_rows,
        row_flags=rows,
        check=lambda rows: check_candidates(rows, attribute or ()),
        check_head=given.on,
    )
    scored = source.scored_rows.scored
    edits = given.on(scored.latents.size, scored.fingerprint)
    sets = candidate_sets(source.scored_rows, attribute or ())
    found = run(sets, scored, edits, n=sizes)
    impacts = single_latents(sets, scored) if all_latents else None
    about = {"model": source.model, "head": scored.fingerprint, "edits": [str(one) for one in edits]}
    config = {
        **about,
        "n": sizes,
        "attributes": list(sets.attributes),
        "dtype": dtype,
        "max_length": flags.context,
        **flags.dated,
        **rows.recorded,
    }
    _write(found, sets, impacts, config, out, json_file, html, inputs=[*data, *given.inputs], seed=seed)
    _print(found, sets, edits, impacts, top)
    tried = [str(edit) for edit in edits] or [f"{one.latent}=0" for one in (impacts or ())[:1]]
    words = [word for edit in tried for word in ("--edit", edit)]
    say_next("probe", *data, *of_model(model), *words, "--save-edits", "edits.json")


def _data(model: str | None, data: tuple[Path, ...]) -> tuple[Path, ...]:
    if not data and model not in LAB_MODELS:
        raise ConfigError("no file of candidates was given", hint=_EXAMPLE)
    return data or (AUDIT,)


def _sizes(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError(
            f"--n: {text!r} is not a list of whole numbers of at least 1", hint=f"write it like {_SIZES}"
        )
    return sorted({int(part) for part in parts})


def _write(
    found: "Reranking",
    sets: "CandidateSets",
    impacts: "Sequence[LatentImpact] | None",
    config: dict[str, Any],
    out: Path | None,
    json_file: Path | None,
    html: Path | None,
    *,
    inputs: Sequence[Path],
    seed: int,
) -> None:
    from sarm_control.data import write_rows
    from sarm_control.evaluation import changed_choices, reranked_rows
    from sarm_control.files import manifest, write_json
    from sarm_control.report import reranking_page

    if out is not None:
        write_rows(out, list(reranked_rows(found, sets)))
        record = manifest("rerank", inputs=inputs, config=config, seed=seed)
        write_json(out.with_name(f"{out.name}.manifest.json"), record)
    if json_file is None and html is None:
        return
    counts = {"prompts": len(sets), "candidates": len(sets.answers), "alone": sets.alone}
    latents = {} if impacts is None else {"latents": [one.as_json() for one in impacts]}
    examples = {"examples": changed_choices(found, sets)}
    summary = {**config, **counts, **found.as_json(), **latents, **examples}
    if json_file is not None:
        write_json(json_file, summary)
    write_html(html, lambda command: reranking_page(summary, command=command))


def _print(
    found: "Reranking",
    sets: "CandidateSets",
    edits: "Sequence[Edit]",
    impacts: "Sequence[LatentImpact] | None",
    top: int,
) -> None:
    from sarm_control.evaluation import impacts_text, reranking_text

    sys.stdout.write(reranking_text(found, sets, edits))
    if impacts is not None:
        sys.stdout.write("\n" + impacts_text(impacts, sets, top))
