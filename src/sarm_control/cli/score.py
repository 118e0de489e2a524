"""`sarm score`: rewards and contributions for the rows of a data file."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, validators

from sarm_control.cli._edits import EditsFile, EditSpecs, read_edits
from sarm_control.cli._help import COMPUTE, INPUT, OUTPUT, RARE_INPUT
from sarm_control.cli._next import beside, of_model, say_next
from sarm_control.cli._outputs import Overwrite, check_outputs
from sarm_control.cli._row_flags import AS_THEY_ARE, RowFlags
from sarm_control.cli._scoring import BatchTokens, Device, Dtype, MaxLength, Model, Read, TemplateDate
from sarm_control.cli._sources import ModelFlags, prepare, warn_of_empty
from sarm_control.console import say
from sarm_control.errors import ConfigError

if TYPE_CHECKING:
    from sarm_control.control import Edit
    from sarm_control.data import Row
    from sarm_control.reward_model import Kind, RewardModel, Scored

Data = Annotated[
    Path | None,
    Parameter(group=INPUT, help="Rows with answers, or a folder of sarm latents; lab:audit is one to try."),
]


def score(
    data: Data = None,
    /,
    *,
    model: Model = None,
    out: Annotated[
        Path | None,
        Parameter(
            group=OUTPUT,
            name=["--out", "-o"],
            help="Rows with scores: .jsonl, .parquet or .csv. Default: standard output.",
        ),
    ] = None,
    edit: EditSpecs = None,
    edits_file: EditsFile = None,
    top: Annotated[
        int,
        Parameter(
            group=COMPUTE, validator=validators.Number(gte=0), help="Contributions to write for each answer."
        ),
    ] = 10,
    rows: RowFlags = AS_THEY_ARE,
    skip_bad_rows: Annotated[
        Path | None,
        Parameter(group=RARE_INPUT, help="Set rows that cannot be used aside in this file and go on."),
    ] = None,
    batch_tokens: BatchTokens = None,
    device: Device = None,
    dtype: Dtype = None,
    max_length: MaxLength = None,
    template_date: TemplateDate = None,
    reading: Read = None,
    json_file: Annotated[Path | None, Parameter(group=OUTPUT, name="--json", help="Summary as JSON.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Score answers: reward, top contributions, and the reward under edits.

    Each row keeps its fields and its place and gains reward, edited_reward (with edits),
    contributions ([[latent, z, w, w*z], ...]), truncated and ended. Pairs and candidates gain
    chosen_scores and rejected_scores, or candidate_scores: a list of the same for each answer.
    """
    from sarm_control.evaluation import annotate

    if data is None:
        raise ConfigError("no file of answers was given", hint="sarm score lab:audit -o scores.jsonl")
    given = read_edits(edit, edits_file)
    check_outputs((out, json_file), (data, *given.inputs, skip_bad_rows), overwrite=overwrite, rows=out)
    scoring = ModelFlags(model, device, dtype, max_length, batch_tokens, template_date, reading=reading)
    (source,) = prepare(
        [[data]],
        scoring,
        want={"answer", "pair", "candidates"},
        # without contributions only the edited latents are read, of a folder
        # that may hold all of a large model
        latents=None if top else given.latents,
        aside=lambda _: skip_bad_rows,
        row_flags=rows,
        check_head=given.on,
    ).score()
    found, scored = source.scored_rows
    edits = given.on(scored.latents.size, scored.fingerprint)
    annotated = annotate(found, scored, edits, top=top)
    summary = _summary(scoring.loaded, found, scored, edits)
    config = {
        "model": source.model,
        "head": scored.fingerprint,
        "edits": [str(one) for one in edits],
        "top": top,
        "dtype": dtype,
        "max_length": scoring.context,
        **scoring.dated,
        **rows.recorded,
    }
    _write(out, annotated, [data, *given.inputs], config, scored.kind)
    if json_file is not None:
        # nothing is set aside from a latents folder, and a file of that name would be another run's
        _write_summary(json_file, summary, config, None if scoring.loaded is None else skip_bad_rows)
    _say_remarks(found, annotated, summary)
    _say_next(data, out, scoring, scored)


def _say_next(data: Path, out: Path | None, scoring: ModelFlags, scored: "Scored") -> None:
    """Try an edit on the latent that moved these rewards most; without latents, serve the rewards."""
    import numpy as np

    if scored.kind == "classifier":
        say_next("serve", *of_model(scoring.model, scoring.reading))
        return
    moved = np.abs(scored.latents.values * scored.head[scored.latents.indices])
    sums = np.bincount(scored.latents.indices, weights=moved, minlength=scored.latents.size)
    # names such as lab:audit lie in no folder
    saved = beside(out or data, "edits.json") if out or data.exists() else Path("edits.json")
    if sums.any():
        edit = ("--edit", f"{int(sums.argmax())}=0", "--save-edits", saved)
        say_next("probe", data, *of_model(scoring.model), *edit)
    else:
        say_next("score", data, *of_model(scoring.model), "--top", "20")


def _summary(
    rm: "RewardModel | None", rows: "Sequence[Row]", scored: "Scored", edits: "Sequence[Edit]"
) -> dict[str, Any]:
    import numpy as np

    from sarm_control.control import edit_delta
    from sarm_control.data import count_empty_answers
    from sarm_control.evaluation import count_long_prompts

    rewards = scored.rewards.astype(np.float64)
    delta = edit_delta(scored, edits)
    edited = {"edited_mean": float((rewards + delta).mean()), "changed": int((delta != 0).sum())}
    return {
        "rows": len(rows),
        "answers": len(scored),
        "reward_mean": float(rewards.mean()),
        "reward_sd": float(rewards.std(ddof=1)) if len(rewards) > 1 else None,
        "reward_min": float(rewards.min()),
        "reward_max": float(rewards.max()),
        **(edited if edits else {}),
        "truncated": int((scored.truncated > 0).sum()),
        "prompt_fills_context": None if rm is None else count_long_prompts(rm, rows, scored),
        "not_ended": int((~scored.ended).sum()),
        "empty_answers": count_empty_answers(rows),
    }


def _write(
    out: Path | None,
    annotated: Sequence[dict[str, Any]],
    inputs: list[Path],
    config: dict[str, Any],
    kind: "Kind",
) -> None:
    from sarm_control.data import output_form, write_rows
    from sarm_control.files import manifest, write_json

    if out is None:
        for row in annotated:
            sys.stdout.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
        return
    if kind != "sarm" and output_form(out) == "Parquet":
        annotated = [_named_parts_as_text(row) for row in annotated]
    write_rows(out, annotated)
    write_json(out.with_name(f"{out.name}.manifest.json"), manifest("score", inputs=inputs, config=config))


def _named_parts_as_text(value: Any) -> Any:
    """Contributions as JSON: `residual` stands among numbers, and Parquet has one type a column."""
    if isinstance(value, list):
        return [_named_parts_as_text(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        name: json.dumps(one) if name == "contributions" else _named_parts_as_text(one)
        for name, one in value.items()
    }


def _write_summary(
    path: Path, summary: dict[str, Any], config: dict[str, Any], skip_bad_rows: Path | None
) -> None:
    from sarm_control.files import write_json

    aside = len(skip_bad_rows.read_bytes().splitlines()) if skip_bad_rows else 0
    write_json(path, {**config, **summary, "rows_set_aside": aside})


def _say_remarks(rows: "Sequence[Row]", annotated: Sequence[dict[str, Any]], summary: dict[str, Any]) -> None:
    from sarm_control.evaluation import replaced_fields

    spread = "" if summary["reward_sd"] is None else f" (SD {summary['reward_sd']:.4g})"
    counts = f"{summary['answers']} answers of {summary['rows']} rows"
    say(f"{counts}: mean reward {summary['reward_mean']:.4g}{spread}")
    if "edited_mean" in summary:
        say(f"with the edits {summary['edited_mean']:.4g}; {summary['changed']} answers changed")
    if summary["truncated"]:
        long = summary["prompt_fills_context"]
        known = "" if long is None else f"; in {long} of them the prompt alone is too long"
        say(f"warning: {summary['truncated']} answers were cut from the left to fit the context{known}")
    warn_of_empty(rows)
    replaced = replaced_fields(rows, annotated)
    if replaced:
        say(f"warning: fields the rows had before were replaced: {', '.join(replaced)}")
