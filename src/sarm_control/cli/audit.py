"""`sarm audit`: what a reward model pays for, where the pressure goes, and what a mend would cost."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from cyclopts import Parameter, validators

from sarm_control.cli._audit_beside import (
    Compared,
    check_same_rows,
    earlier,
    model_of_run,
    named_models,
    run_moved,
    sampled_candidates,
)
from sarm_control.cli._audit_flags import (
    AttributeFlags,
    BesideFlags,
    Limit,
    MendFlags,
    check_changes,
    check_names,
    read_limits,
)
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
from sarm_control.cli._sources import ModelFlags, Prepared, Source, prepare, warn
from sarm_control.console import progress, say
from sarm_control.embedded import AUDIT, LAB, LAB_MODELS, is_data_name
from sarm_control.errors import ConfigError

if TYPE_CHECKING:
    from sarm_control.auditing import Audit, Judge, Mend, OwnAttributes
    from sarm_control.latents import ScoredRows

_ATTRIBUTES, _MEND, _BESIDE = AttributeFlags(), MendFlags(), BesideFlags()

Pairs = Annotated[
    Path,
    Parameter(
        group=INPUT,
        help="Files of pairs, candidates or answers, or folders of sarm latents; several are pooled. "
        "Default with the lab model: lab:audit. One reward model before them stands for --model, two for "
        "--before and --model.",
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

AllWordings = Annotated[
    bool,
    Parameter(
        group=RARE_COMPUTE,
        negative="",
        help="Try every wording of an edit on each of its answers. By default an answer gets one, or as many "
        "as 30 sets of all wordings need.",
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
    beside: BesideFlags = _BESIDE,
    prompts_per_edit: Most = 200,
    all_wordings: AllWordings = False,
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
    away, and judged on other prompts. sarm audit OLD NEW PAIRS compares two reward models on the same
    rows; with --run the samples of a training run are audited. The exit code is 1 when --fail-if says so.
    """
    # words before files, and files before models: a typing error is told in a second
    limits = read_limits(fail_if or ())
    pairs, model, before = named_models(pairs, model, beside.before)
    beside = replace(beside, before=before)
    beside.check(candidates)
    check_changes(limits, beside)
    judge = attributes.asked(out)
    flags = ModelFlags(
        model_of_run(beside.run, model),
        device,
        dtype,
        max_length,
        batch_tokens,
        template_date,
        () if pairs or beside.run else ("pairs",),
        reading=reading,
        needs_latents=None if mend.mend is None else "a mend edits latents",
    )
    data = _data(model, pairs, beside.samples)
    own = _attributes(data, attributes.against, judge, beside.run)
    known = [one.name for one in own.attributes]
    # by the attributes that there will be: a limit on a misspelt one could never be broken
    check_names([one.name for one in limits], known, "--fail-if")
    check_names(mend.names, known, "--mend")
    parts = _Parts(data, candidates, mend.guard_pairs, beside.samples)
    inputs = [*parts.paths, *_files(attributes.against, own)]
    check_outputs((out, json_file), inputs, overwrite=overwrite)
    asked = _Asked(parts, own, flags, rows, skip_bad_rows, mend, beside, prompts_per_edit, all_wordings, seed)
    found = _find(asked)
    _write(found, asked, inputs, out, json_file, overwrite=overwrite)
    attributes.say_cost(judge)
    # after everything is written: who fails a check wants to read the page that says why
    broken = _print(found, beside, limits)
    _say_next(found.audit, found.mended, pairs, beside.run, flags, out)
    return broken


class _Asked(NamedTuple):
    """What was asked for on the command line, checked."""

    parts: "_Parts"
    own: "OwnAttributes"
    flags: ModelFlags
    rows: RowFlags
    skip_bad_rows: Path | None
    mend: MendFlags
    beside: BesideFlags
    most: int
    all_wordings: bool
    seed: int

    def run(self, flags: ModelFlags, scored: "Mapping[str, ScoredRows]") -> "Audit":
        """The audit of one reward model."""
        from sarm_control.auditing import audit as run

        return run(
            flags.load(),
            scored["data"],
            candidates=scored.get("candidates"),
            attributes=self.own.attributes,
            edits=self.own.edits,
            most=self.most,
            all_wordings=self.all_wordings,
            seed=self.seed,
            batch_tokens=flags.batch_tokens,
            progress=progress,
        )


class _Found(NamedTuple):
    """What came of it."""

    audit: "Audit"
    mended: "Mend | None"
    compared: Compared
    scored: "dict[str, ScoredRows]"
    sampled: "ScoredRows | None"
    model: str


def _find(asked: _Asked) -> _Found:
    prepared = _prepared(asked.parts, asked.flags, asked)
    # before anything is scored: an audit takes long, and its comparison would fail at the end of it
    before = _prepared_earlier(asked, prepared)
    sources = _scored(prepared)
    scored = asked.parts.named(sources)
    sampled = None
    if asked.beside.policy is not None:
        rm, rows = asked.flags.load(), scored["data"].rows
        sampled = sampled_candidates(rm, rows, asked.beside, asked.seed, asked.flags.device)
        scored["candidates"] = sampled
    found = asked.run(asked.flags, scored)
    mended = _mended(found, asked.mend, scored, asked.seed)
    compared = _compared(found, asked, scored, before)
    return _Found(found, mended, compared, scored, sampled, sources[0].model)


class _Parts(NamedTuple):
    """The files that are scored, by what they are for."""

    data: tuple[Path, ...]
    candidates: Path | None
    guard: Path | None
    samples: Path | None

    @property
    def sets(self) -> dict[str, tuple[Path, ...]]:
        """Those that were given; the samples of a run apart where they are not the audited data."""
        found = {"data": self.data}
        if self.candidates is not None:
            found["candidates"] = (self.candidates,)
        if self.guard is not None:
            found["guard"] = (self.guard,)
        # apart, or the samples of a run that is audited alone would be scored twice
        if self.samples is not None and self.samples not in self.data:
            found["samples"] = (self.samples,)
        return found

    @property
    def paths(self) -> list[Path]:
        """All of them."""
        return [path for paths in self.sets.values() for path in paths]

    def named(self, sources: Sequence[Source]) -> "dict[str, ScoredRows]":
        """Their scores, by what they are for."""
        found = {name: one.scored_rows for name, one in zip(self.sets, sources, strict=True)}
        if self.samples is not None:
            found.setdefault("samples", found["data"])
        return found


def _prepared_earlier(asked: _Asked, prepared: Prepared) -> Prepared | None:
    """The audited rows as the earlier reward model will score them; None without one.

    Raises:
        SarmError: it cannot be loaded, or cannot score the rows that the audited one scores.
    """
    if asked.beside.before is None:
        return None
    parts = _Parts(asked.parts.data, None, None, None)
    before = _prepared(parts, earlier(asked.beside, asked.flags), asked)
    check_same_rows(prepared.rows[0], before.rows[0], asked.beside)
    before.flags.check_to_score(before.rows[0])
    return before


def _compared(
    found: "Audit", asked: _Asked, scored: "Mapping[str, ScoredRows]", before: Prepared | None
) -> Compared:
    """The audit held against an earlier reward model, and the first samples of a run against the last."""
    from sarm_control.auditing import price_changes

    beside = asked.beside
    changes, moved, missing = None, None, tuple[str, ...]()
    if before is not None:
        (source,) = _scored(before)
        # the same seed draws the same prompts, so the changed texts are the same for both and can be
        # paired
        changes = price_changes(found, asked.run(before.flags, {"data": source.scored_rows}))
    if beside.run is not None:
        moved, missing = run_moved(scored["samples"], found.table.attributes, beside)
    return Compared(changes, moved, missing)


def _accuracies(found: "Audit", mended: "Mend | None", data: "ScoredRows") -> dict[str, Any] | None:
    """On pairs, by the reward as it is and after the edits of a mend, on the prompts that chose them too."""
    if found.accuracy is None:
        return None
    after = None
    if mended is not None and mended.edits:
        from sarm_control.auditing import accuracy
        from sarm_control.control import edited_rewards

        # nothing is scored again: edits act behind the latents that are known
        after = accuracy(data, found.table, edited_rewards(data.scored, mended.edits)).as_json()
    return {**found.accuracy.as_json(), "after_mend": after}


def _data(model: str | None, data: tuple[Path, ...], samples: Path | None) -> tuple[Path, ...]:
    # a run alone: its samples are what is audited
    if not data and samples is not None:
        return (samples,)
    if not data and model not in LAB_MODELS:
        raise ConfigError("no file of pairs was given", hint="sarm audit --model M pairs.jsonl -o DIR")
    return data or (AUDIT,)


def _attributes(
    data: Sequence[Path], against: Path | None, judge: "Judge | None", run: Path | None
) -> "OwnAttributes":
    """The battery, or for the embedded world what its own program reads; and the user's own."""
    from sarm_control.auditing import BATTERY, EDITS, OwnAttributes, load_attributes

    # the lab's language is no English: the battery's words and Markdown do not occur in it
    if all(is_data_name(path) for path in _prompts_of(data, run)):
        from sarm_control.lab import World, lab_attributes

        every = lab_attributes(World.open(LAB))
    else:
        every = OwnAttributes(BATTERY, EDITS)
    if against is None:
        return every
    own = load_attributes(against, judge=judge)
    return OwnAttributes((*every.attributes, *own.attributes), (*every.edits, *own.edits), own.files)


def _prompts_of(data: Sequence[Path], run: Path | None) -> Sequence[Path]:
    """The files that the prompts came from: those of a run's samples are the run's."""
    if run is None or tuple(data) != (run / "samples.jsonl",):
        return data
    from sarm_control.training import read_run_config

    return (read_run_config(run).data.prompts,)


def _files(against: Path | None, own: "OwnAttributes") -> list[Path]:
    return [*([against] if against else []), *own.files]


def _prepared(parts: _Parts, flags: ModelFlags, asked: _Asked) -> Prepared:
    bad = asked.skip_bad_rows
    return prepare(
        list(parts.sets.values()),
        flags,
        want={"pair", "candidates", "answer"},
        aside=lambda path: None if bad is None else bad / f"{path.stem}.bad.jsonl",
        row_flags=asked.rows,
        # the model scores changed texts, so it is needed also where all data are latents that were
        # kept
        named=True,
    )


def _scored(prepared: Prepared) -> list[Source]:
    sources = prepared.score()
    warn(sources)
    return sources


def _mended(found: "Audit", mend: MendFlags, scored: "Mapping[str, ScoredRows]", seed: int) -> "Mend | None":
    """The mend that was asked for."""
    from sarm_control.auditing import mend as propose

    targets = mend.targets(found)
    if not targets:
        return None
    data, guarding = scored["data"], scored.get("guard")
    return propose(found, data, targets, guard_points=mend.guard, guard_data=guarding, seed=seed)


def _say_next(
    found: "Audit",
    mended: "Mend | None",
    pairs: Sequence[Path],
    run: Path | None,
    flags: ModelFlags,
    out: Path,
) -> None:
    """Train with the edits of a mend; without one propose it; without a headline see what edits would do."""
    data, model = [str(path) for path in pairs], of_model(flags.model, flags.reading)
    again_with = () if run is None else ("--run", str(run))
    if mended is not None:
        say_next("train", "--controls", out / "controls.yaml", *of_training(flags.model), "-o", f"{out}-run")
    elif found.headlines and flags.load().dictionary is not None:
        say_next("audit", *data, *model, *again_with, "--mend", "auto", "-o", f"{out}-mended")
    elif run is not None:
        say_next("compare", run)
    elif flags.load().dictionary is not None:
        say_next("rerank", *data, *model, "--all-latents")
    else:
        say_next("eval", *model, "--benchmark", "reward-bench-2", "--data", "rows.jsonl")


def _content(found: _Found, asked: _Asked, record: Mapping[str, Any]) -> dict[str, Any]:
    """What audit.json holds."""
    mended = None if found.mended is None else found.mended.as_json()
    return {
        "command": _command(),
        "versions": record["versions"],
        **record["config"],
        **found.audit.as_json(),
        "accuracy": _accuracies(found.audit, found.mended, found.scored["data"]),
        **found.compared.as_json(asked.beside),
        "mend": mended,
        "certificate": [] if mended is None else mended["certificate"],
    }


def _command() -> str:
    """What was typed; places of this machine by their last name alone."""
    return shlex.join(["sarm", *(Path(word).name if Path(word).is_absolute() else word for word in again())])


def _config(found: _Found, asked: _Asked) -> dict[str, Any]:
    paths, flags = asked.parts.paths, asked.flags
    return {
        "model": found.model,
        "head": found.scored["data"].scored.fingerprint,
        "data": [path.name for path in asked.parts.data],
        "beside": [path.name for path in paths if path not in asked.parts.data],
        "prompts_per_edit": asked.most,
        "all_wordings": asked.all_wordings,
        "dtype": flags.dtype,
        "max_length": flags.context,
        **asked.beside.recorded,
        **flags.dated,
        **asked.rows.recorded,
    }


def _write(
    found: _Found,
    asked: _Asked,
    inputs: Sequence[Path],
    out: Path,
    json_file: Path | None,
    *,
    overwrite: bool,
) -> None:
    from sarm_control.auditing import controls_text
    from sarm_control.files import atomic_folder, manifest, write_json, write_jsonl, write_text
    from sarm_control.pages import write_page
    from sarm_control.report import audit_page

    record = manifest("audit", inputs=inputs, config=_config(found, asked), seed=asked.seed)
    content = _content(found, asked, record)
    with atomic_folder(out, overwrite=overwrite) as folder:
        write_json(folder / "audit.json", content)
        write_page(audit_page(content, command=content["command"]), folder / "report.html")
        found.audit.table.write_parquet(folder / "attributes.parquet")
        if found.mended is not None:
            write_text(folder / "controls.yaml", controls_text(found.mended, model=found.model))
        if found.sampled is not None:
            write_jsonl(folder / "candidates.jsonl", [row.raw for row in found.sampled.rows])
        write_json(folder / "manifest.json", record)
    if json_file is not None:
        write_json(json_file, content)


def _print(found: _Found, beside: BesideFlags, limits: Sequence[Limit]) -> int:
    from sarm_control.auditing import audit_text

    sys.stdout.write(audit_text(found.audit, found.mended) + found.compared.text(beside))
    broken = [str(one) for one in limits if one.broken(found.audit, found.compared.changes)]
    for limit in broken:
        say(f"failed: {limit}")
    return 1 if broken else 0
