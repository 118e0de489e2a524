"""`sarm latents`: the latents of data files in a folder that other commands take in their place."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, validators

from sarm_control.cli._help import COMPUTE, INPUT, OUTPUT, RARE_COMPUTE, RARE_INPUT
from sarm_control.cli._outputs import DryRun, Html, Overwrite
from sarm_control.cli._row_flags import AS_THEY_ARE, RowFlags
from sarm_control.cli._scoring import BatchTokens, Device, Dtype, MaxLength, Model, SkipBadRows, TemplateDate
from sarm_control.embedded import AUDIT, LAB_MODELS
from sarm_control.errors import ConfigError

_HUMAN = Path("lab:human")

ShardSize = Annotated[
    int,
    Parameter(
        group=RARE_COMPUTE,
        validator=validators.Number(gte=1),
        help="Rows of a shard: what is held in memory, and what a killed run loses at most.",
    ),
]
Workers = Annotated[
    int,
    Parameter(
        group=COMPUTE, validator=validators.Number(gte=1), help="Processes, each with a model of its own."
    ),
]
States = Annotated[
    bool,
    Parameter(
        group=COMPUTE,
        negative="",
        help="Keep the trunk's states too (4 bytes x hidden size an answer, before compression): "
        "discover --levels 3 and its probe need them.",
    ),
]
AsHuman = Annotated[
    bool,
    Parameter(
        group=COMPUTE,
        negative="",
        help="Write the human buffer of a training run instead: OUT is a .safetensors file.",
    ),
]
DisjointFrom = Annotated[
    list[Path] | None,
    Parameter(
        group=RARE_INPUT,
        consume_multiple=True,
        help="With --as-human: refuse demonstrations whose prompts are in one of these files.",
    ),
]


Only = Annotated[
    str | None,
    Parameter(
        group=COMPUTE,
        name="--latents",
        help="Keep these latents alone: 12,345 or features.json#harms[:3]. Rewards stay whole.",
    ),
]


def latents(
    *data: Annotated[
        Path,
        Parameter(
            group=INPUT,
            help="Rows with answers. Default with the lab model: lab:audit, or lab:human.",
        ),
    ],
    model: Model = None,
    out: Annotated[Path, Parameter(group=OUTPUT, name=["--out", "-o"], help="Folder to make.")],
    only: Only = None,
    states: States = False,
    shard_size: ShardSize = 1000,
    resume: Annotated[
        bool,
        Parameter(group=OUTPUT, negative="", help="Go on with a folder that was begun by the same command."),
    ] = False,
    workers: Workers = 1,
    engine: Annotated[
        Literal["processes", "ray"],
        Parameter(group=RARE_COMPUTE, help="What runs the workers; ray needs the extra ray."),
    ] = "processes",
    as_human: AsHuman = False,
    disjoint_from: DisjointFrom = None,
    rows: RowFlags = AS_THEY_ARE,
    skip_bad_rows: SkipBadRows = None,
    batch_tokens: BatchTokens = None,
    device: Device = None,
    dtype: Dtype = None,
    max_length: MaxLength = None,
    template_date: TemplateDate = None,
    json_file: Annotated[Path | None, Parameter(group=OUTPUT, name="--json", help="Summary as JSON.")] = None,
    html: Html = None,
    dry_run: DryRun = False,
    overwrite: Overwrite = False,
) -> None:
    """Score answers once: keep their latents and rewards on disk.

    The folder holds Parquet tables that anything can read, and takes the place of the data files in
    score, discover, probe, rerank, eval and train. It is written shard by shard, in memory that does not
    grow with the data; after an interruption the same command with --resume goes on. With --as-human the
    latents of demonstrations become the human buffer that data.human of sarm train takes.
    """
    from sarm_control.cli._extraction import Request, Running, Scoring, extract_latents
    from sarm_control.cli._human_buffer import make_human_buffer

    if not data and model not in LAB_MODELS:
        raise ConfigError("no data file was given", hint="sarm latents --model M answers.jsonl -o DIR")
    files = data or (_HUMAN if as_human else AUDIT,)
    request = Request(
        files=files,
        missing=() if data else ("data",),
        model=model,
        scoring=Scoring(device, dtype, max_length, batch_tokens, template_date),
        out=out,
        only=only,
        states=states,
        skip_bad_rows=skip_bad_rows,
        rows=rows,
        json_file=json_file,
        html=html,
        overwrite=overwrite,
    )
    if states and (as_human or only is not None):
        raise ConfigError(
            f"--states is of no use with {'--as-human' if as_human else '--latents'}",
            hint="what reads states needs a folder of all latents",
        )
    if as_human:
        if resume:
            raise ConfigError("--resume is of no use with --as-human", hint="the buffer is made in one pass")
        make_human_buffer(request, disjoint_from or [], dry_run=dry_run)
        return
    if disjoint_from:
        raise ConfigError("--disjoint-from is of use with --as-human only", hint="add --as-human")
    running = Running(shard_size, workers, engine, resume=resume, dry_run=dry_run)
    extract_latents(request, running)
