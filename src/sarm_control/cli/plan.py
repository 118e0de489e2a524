"""`sarm plan`: what a run will need, before it starts."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from cyclopts import Parameter, validators

from sarm_control.cli._help import COMPUTE, INPUT, OUTPUT, RARE_COMPUTE
from sarm_control.cli._next import say_next
from sarm_control.cli._outputs import Overwrite, check_outputs
from sarm_control.cli._scoring import BatchTokens, Dtype, Model, or_lab
from sarm_control.errors import ConfigError

if TYPE_CHECKING:
    from sarm_control.planning import Machine, Plan, Work

_WORK = ("latents", "attach", "serve")

Count = Annotated[int | None, Parameter(validator=validators.Number(gte=1))]
Steps = Annotated[
    Count, Parameter(group=RARE_COMPUTE, help="Steps of its training. Default: as sarm attach.")
]


def plan(
    what: Annotated[
        str,
        Parameter(
            group=INPUT,
            help="YAML file of a training run, or train (with --set), latents, attach or serve.",
        ),
    ],
    /,
    *data: Annotated[
        Path,
        Parameter(group=INPUT, help="Rows with answers: their lengths are read."),
    ],
    model: Model = None,
    set: Annotated[
        list[str] | None,
        Parameter(
            group=COMPUTE, help="A setting of the run, may be repeated: training.micro_batch=4 (training)."
        ),
    ] = None,
    machine: Annotated[
        Literal["h200", "h100", "a100", "4090", "cpu"] | None,
        Parameter(
            group=COMPUTE,
            name="--for",
            help="Machine the run is planned for. Default: this machine's GPU, or its processor.",
        ),
    ] = None,
    probe: Annotated[
        bool,
        Parameter(
            group=COMPUTE,
            negative="",
            help="Time a step here in about 20 seconds, with layers of the real width and random weights.",
        ),
    ] = False,
    answer_tokens: Annotated[
        float | None,
        Parameter(
            group=RARE_COMPUTE, help="Tokens of an answer on average, for the time. Default: the longest."
        ),
    ] = None,
    latents: Annotated[
        Count, Parameter(group=RARE_COMPUTE, name="--latents", help="Latents of the dictionary to attach.")
    ] = None,
    steps: Steps = None,
    workers: Annotated[Count, Parameter(group=RARE_COMPUTE, help="Processes, each with a model.")] = None,
    batch_tokens: BatchTokens = None,
    dtype: Dtype = None,
    json_file: Annotated[
        Path | None, Parameter(group=OUTPUT, name="--json", help="The plan as JSON.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Say what a run will need before it starts: memory, time, disk.

    Only configurations, the headers of weight files and the data are read; no weights are loaded. Memory is
    counted by the code of the run itself, on tensors that have sizes and no content. Where the machine is too
    small, the plan says what to change, and what each change would save.
    """
    from sarm_control.files import write_json
    from sarm_control.planning import machine as machine_of

    check_outputs([json_file], [Path(what), *data], overwrite=overwrite)
    if probe:
        _check_probe(machine)
    where = machine_of(machine, cast("Work", what) if what in _WORK else "train")
    if what in _WORK:
        asked = {"latents": latents, "steps": steps, "workers": workers or 1}
        found = _scoring(what, data, or_lab(model), where, probe, batch_tokens, dtype, asked)
        texts = ["--text"] if what == "attach" else []
        following = ["serve"] if what == "serve" else [what, *texts, *map(str, data), "-o", "DIR"]
    else:
        found = _training(what, data, model, set or [], where, answer_tokens, probe=probe)
        following = ["train", *([] if what == "train" else [what])]
    for line in found.lines():
        print(line)
    if json_file is not None:
        write_json(json_file, found.to_dict())
    say_next(*following)


def _training(
    what: str,
    data: tuple[Path, ...],
    model: str | None,
    settings: list[str],
    where: "Machine",
    answer_tokens: float | None,
    *,
    probe: bool,
) -> "Plan":
    from sarm_control.cli._run_flags import RunFlags
    from sarm_control.planning import plan_training

    if data:
        raise ConfigError(
            f"{data[0]}: a training run is planned from its YAML file alone",
            hint="set its prompts with --set data.prompts=FILE",
        )
    file = None if what == "train" else Path(what)
    if file is not None and not file.is_file():
        raise ConfigError(
            f"{what} is neither a file nor a kind of work",
            hint="give the YAML file of a run, or train, latents, attach or serve",
        )
    config = RunFlags(model=model, set=settings or None).config(file)
    return plan_training(config, where=where, answer_tokens=answer_tokens, probe=probe)


def _check_probe(machine: str | None) -> None:
    if machine not in (None, "cpu"):
        raise ConfigError(
            f"--probe times this machine, and --for {machine} names another",
            hint="leave one of them out",
        )


def _scoring(
    what: str,
    data: tuple[Path, ...],
    model: str,
    where: "Machine",
    probe: bool,
    batch_tokens: int | None,
    dtype: str | None,
    asked: Mapping[str, Any],
) -> "Plan":
    # after the machine was looked at, whose memory would else hold more than the work loads
    from sarm_control.planning import ScoringRequest, plan_scoring

    request = ScoringRequest(what, model, data, batch_tokens=batch_tokens, dtype=dtype, **asked)
    return plan_scoring(request, where, probe=probe)
