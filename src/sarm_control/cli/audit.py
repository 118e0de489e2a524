"""`sarm audit`: what a reward model pays for, where the pressure goes, and what a mend would cost."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, validators

from sarm_control.cli._audit_flags import AttributeFlags, MendFlags, check_names, read_limits
from sarm_control.cli._help import INPUT, OUTPUT, RARE_COMPUTE
from sarm_control.cli._next import again, of_model, of_training, say_next
from sarm_control.cli._outputs import Overwrite, check_outputs
from sarm_control.cli._row_flags import AS_THEY_ARE, RowFlags
from sarm_control.cli._scoring import (
    BatchTokens,
    Device,
    Dtype,
    MaxLength,
    Model,
    Read,
    SkipBadRows,
    TemplateDate,
)
from sarm_control.cli._sources import ModelFlags, Source, prepare, warn
from sarm_control.console import progress, say
from sarm_control.embedded import AUDIT, LAB, LAB_MODELS, is_data_name
from sarm_control.errors import ConfigError

if TYPE_CHECKING:
    from sarm_control.auditing import Audit, Judge, Mend, OwnAttributes
    from sarm_control.latents import ScoredRows

_ATTRIBUTES, _MEND = AttributeFlags(), MendFlags()

Pairs = Annotated[
    Path,
    Parameter(
        group=INPUT,
        help="Files of pairs, candidates or answers, or folders of sarm latents; several are pooled. "
        "Default with the lab model: lab:audit.",
    ),
]

Candidates = Annotated[
    Path | None,
    Parameter(group=INPUT, help="Rows of candidates that one policy sampled, for what best-of-N selects."),
]

Most = Annotated[
    int,
    Parameter(
        group=RARE_COMPUTE,
        validator=validators.Number(gte=6),
        help="Prompts that each edit of the text is tried on, at most.",
    ),
]

Out = Annotated[
    Path,
    Parameter(
        group=OUTPUT, name=["--out", "-o"], help="Folder for report.html, audit.json and attributes.parquet."
    ),
]

JsonFile = Annotated[
    Path | None, Parameter(group=OUTPUT, name="--json", help="audit.json once more, to this file.")
]

FailIf = Annotated[
    list[str] | None,
    Parameter(
        group=OUTPUT,
        help='Exit with 1 when a price is beyond a limit, such as "closing>0.3sd"; may be repeated.',
    ),
]


def audit(
    *pairs: Pairs,
    model: Model = None,
    out: Out,
    candidates: Candidates = None,
    attributes: AttributeFlags = _ATTRIBUTES,
    mend: MendFlags = _MEND,
    prompts_per_edit: Most = 200,
    fail_if: FailIf = None,
    seed: Annotated[int, Parameter(group=RARE_COMPUTE, help="Of what is drawn.")] = 0,
    rows: RowFlags = AS_THEY_ARE,
    skip_bad_rows: SkipBadRows = None,
    reading: Read = None,
    batch_tokens: BatchTokens = None,
    device: Device = None,
    dtype: Dtype = None,
    max_length: MaxLength = None,
    template_date: TemplateDate = None,
    json_file: JsonFile = None,
    overwrite: Overwrite = False,
) -> int:
    """See what a reward model pays for that you would not.

    Attributes of answers (length, Markdown, praise, closings, hedging, refusals and more) are priced twice:
    beside each other, by a regression within prompts, and alone, by changing the text and scoring again.
    Best-of-N shows where the pressure goes. With --mend edits of latents are proposed that take prices
    away, and judged on other prompts. The exit code is 1 when --fail-if says so.
    """
    from sarm_control.auditing import audit as run

    limits = read_limits(fail_if or ())
    data = _data(model, pairs)
    judge = attributes.asked(out)
    own = _attributes(data, attributes.against, judge)
    known = [one.name for one in own.attributes]
    check_names([one.name for one in limits], known, "--fail-if")
    check_names(mend.names, known, "--mend")
    beside = [path for path in (candidates, mend.guard_pairs) if path is not None]
    inputs = [*data, *beside, *_files(attributes.against, own)]
    check_outputs((out, json_file), inputs, overwrite=overwrite)
    missing = () if pairs else ("pairs",)
    flags = ModelFlags(
        model, device, dtype, max_length, batch_tokens, template_date, missing, reading=reading
    )
    if mend.mend is not None:
        flags.needs_latents = "a mend edits latents"
    sources = _scored([data, *([path] for path in beside)], flags, skip_bad_rows, rows)
    parts = [source.scored_rows for source in sources]
    found = run(
        flags.load(),
        parts[0],
        candidates=parts[1] if candidates else None,
        attributes=own.attributes,
        edits=own.edits,
        most=prompts_per_edit,
        seed=seed,
        batch_tokens=batch_tokens,
        progress=progress,
    )
    mended = _mended(found, mend, parts, seed)
    config = {
        "model": sources[0].model,
        "head": parts[0].scored.fingerprint,
        "data": [path.name for path in data],
        "beside": [path.name for path in beside],
        "prompts_per_edit": prompts_per_edit,
        "dtype": dtype,
        "max_length": flags.context,
        **flags.dated,
        **rows.recorded,
    }
    content = {**config, **found.as_json(), "mend": None if mended is None else mended.as_json()}
    record = {"inputs": inputs, "config": config, "seed": seed}
    _write(found, mended, content, out, json_file, record=record, overwrite=overwrite)
    attributes.say_cost(judge)
    broken = _print(found, mended, [str(one) for one in limits if one.broken(found)])
    _say_next(found, mended, pairs, flags, out)
    return broken


def _data(model: str | None, data: tuple[Path, ...]) -> tuple[Path, ...]:
    if not data and model not in LAB_MODELS:
        raise ConfigError("no file of pairs was given", hint="sarm audit --model M pairs.jsonl -o DIR")
    return data or (AUDIT,)


def _attributes(data: Sequence[Path], against: Path | None, judge: "Judge | None") -> "OwnAttributes":
    """The battery, or for the embedded world what its own program reads; and the user's own."""
    from sarm_control.auditing import BATTERY, EDITS, OwnAttributes, load_attributes

    if all(is_data_name(path) for path in data):
        from sarm_control.lab import World, lab_attributes

        every = lab_attributes(World.open(LAB))
    else:
        every = OwnAttributes(BATTERY, EDITS)
    if against is None:
        return every
    own = load_attributes(against, judge=judge)
    return OwnAttributes((*every.attributes, *own.attributes), (*every.edits, *own.edits), own.files)


def _files(against: Path | None, own: "OwnAttributes") -> list[Path]:
    return [*([against] if against else []), *own.files]


def _scored(
    parts: Sequence[Sequence[Path]], flags: ModelFlags, skip_bad_rows: Path | None, row_flags: RowFlags
) -> list[Source]:
    sources = prepare(
        parts,
        flags,
        want={"pair", "candidates", "answer"},
        aside=lambda path: None if skip_bad_rows is None else skip_bad_rows / f"{path.stem}.bad.jsonl",
        row_flags=row_flags,
        named=True,
    ).score()
    warn(sources)
    return sources


def _mended(found: "Audit", mend: MendFlags, parts: "Sequence[ScoredRows]", seed: int) -> "Mend | None":
    """The mend that was asked for; the last of the parts guards it, where pairs for that were given."""
    from sarm_control.auditing import mend as propose

    targets = mend.targets(found)
    if not targets:
        return None
    guarding = parts[-1] if mend.guard_pairs else None
    return propose(found, parts[0], targets, guard_points=mend.guard, guard_data=guarding, seed=seed)


def _say_next(
    found: "Audit", mended: "Mend | None", pairs: Sequence[Path], flags: ModelFlags, out: Path
) -> None:
    """Train with the edits of a mend; without one propose it; without a headline see what edits would do."""
    data, model = [str(path) for path in pairs], of_model(flags.model, flags.reading)
    if mended is not None:
        say_next("train", "--controls", out / "controls.yaml", *of_training(flags.model), "-o", f"{out}-run")
    elif found.headlines and flags.load().dictionary is not None:
        say_next("audit", *data, *model, "--mend", "auto", "-o", f"{out}-mended")
    elif flags.load().dictionary is not None:
        say_next("rerank", *data, *model, "--all-latents")
    else:
        say_next("eval", *model, "--benchmark", "reward-bench-2", "--data", "rows.jsonl")


def _write(
    found: "Audit",
    mended: "Mend | None",
    content: dict[str, Any],
    out: Path,
    json_file: Path | None,
    *,
    record: dict[str, Any],
    overwrite: bool,
) -> None:
    from sarm_control.auditing import controls_text
    from sarm_control.files import atomic_folder, manifest, write_json, write_text
    from sarm_control.pages import write_page
    from sarm_control.report import audit_page

    with atomic_folder(out, overwrite=overwrite) as folder:
        write_json(folder / "audit.json", content)
        write_page(audit_page(content, command=shlex.join(["sarm", *again()])), folder / "report.html")
        found.table.write_parquet(folder / "attributes.parquet")
        if mended is not None:
            write_text(folder / "controls.yaml", controls_text(mended, model=content["model"]))
        write_json(folder / "manifest.json", manifest("audit", **record))
    if json_file is not None:
        write_json(json_file, content)


def _print(found: "Audit", mended: "Mend | None", broken: Sequence[str]) -> int:
    from sarm_control.auditing import audit_text

    sys.stdout.write(audit_text(found, mended))
    for limit in broken:
        say(f"failed: {limit}")
    return 1 if broken else 0
