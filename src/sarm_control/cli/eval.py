"""`sarm eval`: RewardBench 2 and RM-Bench, with and without edits."""

import sys
import tempfile
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, validators

from sarm_control.cli._edits import EditsFile, EditSpecs, read_edits
from sarm_control.cli._outputs import check_outputs
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
        consume_multiple=True,
        help="Rows: JSON Lines, .json, .parquet, latents folders, or a hub id, which is downloaded.",
    ),
]
Subsets = Annotated[
    list[str] | None,
    Parameter(
        help="Subset to look at, may be repeated. With edits: the one they are meant for; all other rows "
        "are the complement."
    ),
]


def eval(
    *,
    model: Model = None,
    benchmark: Annotated[
        Literal["reward-bench-2", "rm-bench"] | None, Parameter(help="Whose rules count.")
    ] = None,
    data: Data = None,
    subset: Subsets = None,
    complement: Annotated[
        list[Path] | None,
        Parameter(consume_multiple=True, help="More rows, of any kind, that the edits should leave alone."),
    ] = None,
    edit: EditSpecs = None,
    edits_file: EditsFile = None,
    sets: Annotated[
        int,
        Parameter(
            validator=validators.Number(gte=100), help="Random sets of matched latents to compare with."
        ),
    ] = 1000,
    reproduce_published_steering: Annotated[
        bool,
        Parameter(
            negative="",
            help="The published steering table; --data adds its recorded rewards, --model exact changes.",
        ),
    ] = False,
    out: Annotated[
        Path | None, Parameter(name=["--out", "-o"], help="Folder for results.json and items.jsonl.")
    ] = None,
    seed: Annotated[int, Parameter(help="Of the tests and random sets.")] = 0,
    skip_bad_rows: SkipBadRows = None,
    batch_tokens: BatchTokens = None,
    device: Device = None,
    dtype: Dtype = None,
    max_length: MaxLength = None,
    template_date: TemplateDate = None,
    reading: Read = None,
    json_file: Annotated[Path | None, Parameter(name="--json", help="The results as JSON.")] = None,
    overwrite: Annotated[bool, Parameter(negative="", help="Replace the outputs if they exist.")] = False,
) -> None:
    """Evaluate a reward model by the rules of RewardBench 2 or RM-Bench.

    A self-check of the model comes first. Then every subset with intervals, beside what chance and
    length alone would get. With edits: figures before and after, flips with their exact test, rewards of
    target and complement, selectivity, and where the edits lie among the same edits on random latents.
    """
    given = read_edits(edit, edits_file)
    flags = ModelFlags(model, device, dtype, max_length, batch_tokens, template_date, reading=reading)
    inputs = [Path(one) for one in data or [] if Path(one).exists()]
    check_outputs((out, json_file), (*inputs, *(complement or ()), *given.inputs), overwrite=overwrite)
    if reproduce_published_steering:
        from sarm_control.cli._benchmarks import reproduce

        reproduce(data or [], flags, json_file)
        return
    from sarm_control.cli._benchmarks import Request, evaluate, print_evaluation, write_evaluation

    request = Request(_benchmark(benchmark), _data(data), subset or [], complement or [], sets, seed)
    with tempfile.TemporaryDirectory() as temporary:
        found = evaluate(request, flags, given, skip_bad_rows, Path(temporary))
        print_evaluation(found, sys.stdout)
        write_evaluation(found, request, flags, given, out, json_file, overwrite=overwrite)


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
