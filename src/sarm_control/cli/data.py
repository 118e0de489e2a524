"""`sarm data`: what a data file is and what is wrong with it, and any form of rows as plain ones."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

from cyclopts import Parameter

from sarm_control.cli._help import INPUT, MODEL, OUTPUT, RARE_INPUT
from sarm_control.cli._next import of_model, say_next
from sarm_control.cli._outputs import Overwrite, check_outputs
from sarm_control.cli._row_flags import AS_THEY_ARE, RowFlags
from sarm_control.cli._scoring import MaxLength, TemplateDate
from sarm_control.console import say
from sarm_control.errors import DataError

if TYPE_CHECKING:
    from sarm_control.data import FileCheck, Lengths, Row, RowLengths

_UNUSABLE = 2


def check(
    data: Annotated[
        Path,
        Parameter(group=INPUT, help="The data file of any form, or a name: lab:audit, -, hf:owner/name."),
    ],
    /,
    *,
    model: Annotated[
        str | None,
        Parameter(
            group=MODEL,
            name=["--model", "-m"],
            help="SARM folder or hub id: counts tokens, and finds rows that its chat template refuses.",
        ),
    ] = None,
    rows: RowFlags = AS_THEY_ARE,
    max_length: MaxLength = None,
    template_date: TemplateDate = None,
    json_file: Annotated[
        Path | None, Parameter(group=OUTPUT, name="--json", help="What was found as JSON.")
    ] = None,
    overwrite: Overwrite = False,
) -> int:
    """Say what a data file is, and what is wrong with it.

    Its form, how many rows of each kind, rows that cannot be used by reason with their first places, empty
    answers, repeated prompts, and with --model how many tokens conversations have. Exit code 2 when
    a row cannot be used.
    """
    from sarm_control.data import check_rows
    from sarm_control.files import write_json

    check_outputs((json_file,), (data,), overwrite=overwrite)
    lengths = None if model is None else _lengths(model, max_length, template_date)
    found = check_rows(data, rows.options, lengths, limit=rows.first_rows)
    _print(found, sys.stdout)
    if json_file is not None:
        write_json(json_file, found.as_json())
    if found.problems or not found.usable:
        return _UNUSABLE
    _say_next(data, found.kinds, model)
    return 0


def convert(
    data: Annotated[
        Path,
        Parameter(group=INPUT, help="The data file of any form, or a name: lab:audit, -, hf:owner/name."),
    ],
    /,
    *,
    out: Annotated[
        Path,
        Parameter(
            group=OUTPUT,
            name=["--out", "-o"],
            help="The plain rows; the suffix says the form (.parquet, .csv, .tsv), else JSON Lines.",
        ),
    ],
    rows: RowFlags = AS_THEY_ARE,
    skip_bad_rows: Annotated[
        Path | None,
        Parameter(group=RARE_INPUT, help="Set rows that cannot be used aside in this file and go on."),
    ] = None,
    json_file: Annotated[Path | None, Parameter(group=OUTPUT, name="--json", help="Summary as JSON.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write the rows of a file of any form as plain ones.

    Every row keeps its place and the fields that are no part of its form. Read again, the rows
    are those that other commands read from the file itself.
    """
    from sarm_control.data import plain_row, read_rows, write_rows
    from sarm_control.files import manifest, write_json

    check_outputs((out, json_file), (data, skip_bad_rows), overwrite=overwrite, rows=out)
    read = read_rows(
        data,
        want=("pair", "candidates", "answer", "prompt"),
        skip_bad_rows=skip_bad_rows,
        options=rows.options,
        limit=rows.first_rows,
    )
    write_rows(out, [plain_row(row) for row in read])
    kinds: dict[str, int] = {
        kind: sum(row.kind == kind for row in read) for kind in sorted({row.kind for row in read})
    }
    summary = {"rows": len(read), "kinds": kinds, **rows.recorded}
    record = manifest("data convert", inputs=[data], config=summary)
    write_json(out.with_name(f"{out.name}.manifest.json"), record)
    if json_file is not None:
        write_json(json_file, summary)
    say(f"{out}: {len(read)} plain rows ({_counted(kinds)})")
    _say_next(out, kinds, None)


def _say_next(data: Path, kinds: "Mapping[str, int]", model: str | None) -> None:
    """Rows with answers can be scored as they are; prompts are for a policy."""
    if set(kinds) - {"prompt"}:
        say_next("score", data, *of_model(model))
    else:
        say_next("train", "--prompts", data, "--dry-run", "-o", "runs/first")


def _lengths(model: str, max_length: int | None, template_date: str | None) -> "Lengths":
    """Counts the tokens of a row's conversations with the tokenizer and template of a SARM."""
    from sarm_control.data import RowLengths
    from sarm_control.reward_model import read_template

    template = read_template(model, max_length=max_length, template_date=template_date)

    def lengths(row: "Row") -> "RowLengths":
        if not row.answers:
            tokens = len(template.encode_prompt(row.prompt))
            limit = template.max_length
            # a prompt as long as the context leaves no room for an answer
            return RowLengths((tokens,), int(limit is not None and tokens >= limit))
        # `encode` cuts to fit; what was cut is added again, since the length asked for is that of the
        # text
        encoded = [template.encode(row.prompt, answer) for answer in row.answers]
        cut = [one.truncated for one in encoded]
        whole = tuple(len(one.input_ids) + dropped for one, dropped in zip(encoded, cut, strict=True))
        return RowLengths(whole, sum(dropped > 0 for dropped in cut))

    return lengths


def _print(found: "FileCheck", stream: TextIO) -> None:
    stream.write("".join(f"{line}\n" for line in _lines(found)))


def _lines(found: "FileCheck") -> Iterator[str]:
    if not found.usable and not found.problems:
        raise DataError(f"{found.path}: the file has no rows", hint='each line is one row: {"prompt": "..."}')
    yield f"{found.path} read as: {found.form or 'nothing: no row can be used'}"
    if found.usable:
        yield f"  {_counted(found.kinds)}"
    for problem in found.problems:
        places = ", ".join(problem.places(Path(found.name)))
        more = ", ..." if problem.count > len(problem.lines) else ""
        yield f"  {problem.count} cannot be used: {problem.reason} ({places}{more})"
        if problem.hint:
            yield f"    hint: {problem.hint}"
    yield f"  empty answers: {found.empty_answers}"
    respelled = f", {found.respelled_prompts} of them in other case or white space"
    yield (
        f"  rows with the prompt of an earlier one: {found.repeated_prompts}"
        f"{respelled if found.respelled_prompts else ''}"
    )
    if found.tokens is not None:
        yield from _token_lines(found)


def _token_lines(found: "FileCheck") -> Iterator[str]:
    spread = found.as_json()["tokens"]
    if spread is not None:
        yield (
            f"  tokens: {spread['total']} in {spread['conversations']} conversations, "
            f"median {spread['median']}, 95 % at most {spread['p95']}, longest {spread['max']}"
        )
        yield f"  longer than the context: {found.too_long}"


def _counted(kinds: dict[str, int]) -> str:
    names = {
        "answer": "with one answer",
        "pair": "pairs",
        "candidates": "of candidates",
        "prompt": "of a prompt alone",
    }
    return ", ".join(f"{count} {names[kind]}" for kind, count in kinds.items())
