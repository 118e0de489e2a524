"""`sarm eval`: RewardBench 2 and RM-Bench, with and without edits."""

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, validators

from sarm_control.cli._edits import EditsFile, EditSpecs, read_edits
from sarm_control.cli._help import INPUT, OUTPUT, RARE_COMPUTE, RARE_INPUT
from sarm_control.cli._next import of_model, of_training, say_next
from sarm_control.cli._outputs import Html, Overwrite, check_outputs
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
from sarm_control.cli._sources import ModelFlags
from sarm_control.errors import ConfigError

Data = Annotated[
    list[str] | None,
    Parameter(
        group=INPUT,
        consume_multiple=True,
        help="Files of rows, latents folders, or a hub id, which is downloaded.",
    ),
]
Subsets = Annotated[
    list[str] | None,
    Parameter(
        group=INPUT,
        help="Subset to look at, may be repeated. With edits: the one they are meant for; all other rows "
        "are the complement.",
    ),
]


def eval(
    *,
    model: Model = None,
    benchmark: Annotated[
        Literal["reward-bench-2", "rm-bench"] | None, Parameter(group=INPUT, help="Whose rules count.")
    ] = None,
    data: Data = None,
    subset: Subsets = None,
    complement: Annotated[
        list[Path] | None,
        Parameter(
            group=RARE_INPUT,
            consume_multiple=True,
            help="More rows, of any kind, that the edits should leave alone.",
        ),
    ] = None,
    edit: EditSpecs = None,
    edits_file: EditsFile = None,
    sets: Annotated[
        int,
        Parameter(
            group=RARE_COMPUTE,
            validator=validators.Number(gte=100),
            help="Random sets of matched latents to compare with.",
        ),
    ] = 1000,
    reproduce_published_steering: Annotated[
        bool,
        Parameter(
            group=RARE_COMPUTE,
            negative="",
            help="The published steering table; --data adds its recorded rewards, --model exact changes.",
        ),
    ] = False,
    out: Annotated[
        Path | None,
        Parameter(group=OUTPUT, name=["--out", "-o"], help="Folder for results.json and items.jsonl."),
    ] = None,
    seed: Annotated[int, Parameter(group=RARE_COMPUTE, help="Of the tests and random sets.")] = 0,
    rows: RowFlags = AS_THEY_ARE,
    skip_bad_rows: SkipBadRows = None,
    batch_tokens: BatchTokens = None,
    device: Device = None,
    dtype: Dtype = None,
    max_length: MaxLength = None,
    template_date: TemplateDate = None,
    reading: Read = None,
    json_file: Annotated[
        Path | None, Parameter(group=OUTPUT, name="--json", help="The results as JSON.")
    ] = None,
    html: Html = None,
    overwrite: Overwrite = False,
) -> None:
    """Evaluate a reward model by the rules of RewardBench 2 or RM-Bench.

    A self-check of the model comes first. Then every subset with intervals, beside what chance and
    length alone would get. With edits: figures before and after, flips with their exact test, rewards of
    target and complement, selectivity, and where the edits lie among the same edits on random latents.
    """
    given = read_edits(edit, edits_file)
    flags = ModelFlags(model, device, dtype, max_length, batch_tokens, template_date, reading=reading)
    inputs = [Path(one) for one in data or [] if Path(one).exists()]  # ids of the hub are no files
    check_outputs((out, json_file, html), (*inputs, *(complement or ()), *given.inputs), overwrite=overwrite)
    if reproduce_published_steering:
        from sarm_control.cli._benchmarks import reproduce

        _refuse_page(html)
        reproduce(data or [], flags, json_file)
        say_next("eval", *of_model(model, reading), "--benchmark", "reward-bench-2", "--data", "rows.jsonl")
        return
    from sarm_control.cli._benchmarks import Request, evaluate, print_evaluation, write_evaluation

    request = Request(_benchmark(benchmark), _data(data), subset or [], complement or [], sets, seed, rows)
    found = evaluate(request, flags, given, skip_bad_rows)
    print_evaluation(found, sys.stdout)
    write_evaluation(found, request, flags, given, out, json_file, html, overwrite=overwrite)
    if flags.loaded is not None and flags.loaded.dictionary is None:
        say_next("serve", *of_model(model, reading))
    else:
        _say_next(request.data, model, [str(one) for one in found.edits])


def _refuse_page(html: Path | None) -> None:
    if html is not None:
        raise ConfigError(
            "the published table has no page", hint="leave --html out; --json FILE has the table"
        )


def _say_next(data: list[str], model: str | None, edits: list[str]) -> None:
    """Edits can be trained with; without any, look for latents to edit in rows of this machine."""
    words = [word for edit in edits for word in ("--edit", edit)]
    if edits:
        say_next("train", *words, *of_training(model), "-o", "runs/edits")
    elif all(Path(one).exists() for one in data):
        say_next("rerank", *data, *of_model(model), "--all-latents")
    else:
        say_next("discover", "pairs.jsonl", *of_model(model), "-o", "runs/discovery")


def _benchmark(name: str | None) -> str:
    if name is None:
        raise ConfigError(
            "no benchmark was named",
            hint="sarm eval --model M --benchmark reward-bench-2 --data reward_bench_2.jsonl",
        )
    return name


def _data(data: list[str] | None) -> list[str]:
    if not data:
        raise ConfigError(
            "no rows were given",
            hint="--data FILE, or --data allenai/reward-bench-2 or THU-KEG/RM-Bench to download them",
        )
    return data
