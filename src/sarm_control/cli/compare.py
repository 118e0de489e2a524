"""`sarm compare`: what training changed, latent by latent."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, validators

from sarm_control.cli._comparing import comparison_report, comparison_settings, write_comparison
from sarm_control.cli._help import COMPUTE, INPUT, OUTPUT, RARE_COMPUTE, RARE_INPUT
from sarm_control.cli._next import say_next
from sarm_control.cli._outputs import Overwrite, hold_output
from sarm_control.cli._row_flags import AS_THEY_ARE, RowFlags
from sarm_control.cli._scoring import Device, Dtype, load_model, say_stand_in
from sarm_control.console import progress, say
from sarm_control.embedded import HELD_OUT_PROMPTS, LAB
from sarm_control.errors import ConfigError

if TYPE_CHECKING:
    from sarm_control.comparison import Gold, TrainedRun
    from sarm_control.data import Row

_EXAMPLE = "sarm compare runs/NAME --prompts held_out.jsonl"


Prompts = Annotated[
    Path | None,
    Parameter(
        group=INPUT,
        help="Held-out prompts (any row kind). Default for runs of the lab policy: lab:held_out_prompts.",
    ),
]

MaxNewTokens = Annotated[
    int | None,
    Parameter(
        group=RARE_COMPUTE,
        validator=validators.Number(gte=1),
        help="Longest answer. Default: the longest of the runs.",
    ),
]

Batch = Annotated[
    int,
    Parameter(
        group=RARE_COMPUTE,
        validator=validators.Number(gte=1),
        help="Answers decoded together; changes no result.",
    ),
]


def compare(
    *runs: Annotated[
        Path, Parameter(group=INPUT, help="Run folders of sarm train; several are compared side by side.")
    ],
    prompts: Prompts = None,
    answers_per_prompt: Annotated[
        int,
        Parameter(
            group=COMPUTE, validator=validators.Number(gte=1), help="Answers of each policy to each prompt."
        ),
    ] = 1,
    max_new_tokens: MaxNewTokens = None,
    batch: Batch = 64,
    seed: Annotated[int, Parameter(group=RARE_COMPUTE, help="Of the answers.")] = 0,
    out: Annotated[
        Path | None,
        Parameter(
            group=OUTPUT,
            name=["--out", "-o"],
            help="Folder for the report. Default: compare in the first run.",
        ),
    ] = None,
    gold: Annotated[
        str | None,
        Parameter(
            group=COMPUTE, help="A world of sarm lab build, or lab: its gold reward judges every answer too."
        ),
    ] = None,
    row_flags: RowFlags = AS_THEY_ARE,
    skip_bad_rows: Annotated[
        Path | None, Parameter(group=RARE_INPUT, help="Set rows that cannot be used aside in this file.")
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    json_file: Annotated[
        Path | None, Parameter(group=OUTPUT, name="--json", help="Also write report.json to this file.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Compare trained policies with their base, latent by latent.

    Base and trained policies answer the same prompts with the same random numbers. The answers are
    scored with the runs' reward model. The report says what changed (reward, firing of the
    controlled latents, KL, length) with 95 % intervals over prompts, and splits the change of the
    reward into exact contributions of latents: report.html, report.json, ledger.parquet, answers.jsonl.
    The order of the runs makes no difference; those without controls come first.
    """
    if not runs:
        raise ConfigError("no run folder was given", hint=_EXAMPLE)
    from sarm_control.comparison import check_same_base, compare_runs, in_order, open_run, sampling_of
    from sarm_control.statistics import for_terminal

    opened = [open_run(path) for path in runs]
    check_same_base(opened)
    opened = in_order(opened)
    folder = out or runs[0] / "compare"
    # held before anything is loaded: answers may take hours, and a name that is taken is told at once
    for path in (folder, json_file):
        hold_output(path, overwrite=overwrite, hint="choose another name with -o, or pass --overwrite")
    prompts = _prompts(opened, prompts)
    rows = _read(prompts, skip_bad_rows, row_flags)
    sampling = sampling_of(opened, answers_per_prompt, max_new_tokens, seed, batch)
    settings = comparison_settings(opened, prompts, rows, sampling)
    how: dict[str, Any] = {
        "device": device,
        "dtype": dtype,
        "template_date": opened[0].config.data.template_date,
    }
    rm = load_model(opened[0].config.reward.model, max_length=None, **how)
    judge = None if gold is None else _gold(gold, rows)
    found = compare_runs(opened, rows, rm, sampling, gold=judge, device=device, progress=progress)
    report = comparison_report(found, {**settings, "head": rm.fingerprint}, prompts, dtype)
    write_comparison(report, found, folder, json_file, overwrite=overwrite)
    for sentence in report["headline"]:
        print(for_terminal(sentence))
    print(f"{folder / 'report.html'}")
    if len(runs) > 1:
        say_next("config", "diff", *runs[:2])
    else:
        say_next("config", "show", runs[0] / "config.yaml")


def _prompts(runs: "Sequence[TrainedRun]", given: Path | None) -> Path:
    """The file of held-out prompts; the embedded world has one for its own policy."""
    if given is not None:
        return given
    if runs[0].config.policy.model != LAB:
        raise ConfigError("no held-out prompts were given", hint=_EXAMPLE)
    say_stand_in(["--prompts"])
    return HELD_OUT_PROMPTS


def _gold(world: str, rows: "Sequence[Row]") -> "Gold":
    """The world's gold reward, after a look at every prompt."""
    from sarm_control.lab import World

    opened = World.open(world)
    # an empty answer to each: a prompt that the world cannot judge is refused before hours of sampling
    opened.gold([row.prompt_text for row in rows], [""] * len(rows))
    return opened.gold


def _read(prompts: Path, skip_bad_rows: Path | None, row_flags: RowFlags) -> "list[Row]":
    from sarm_control.comparison import unique_prompts
    from sarm_control.data import read_rows

    rows = read_rows(
        prompts,
        want={"prompt"},
        skip_bad_rows=skip_bad_rows,
        options=row_flags.options,
        limit=row_flags.first_rows,
    )
    kept = unique_prompts(rows)
    if len(kept) < len(rows):
        say(f"{prompts}: {len(rows) - len(kept)} repeated prompts are answered once")
    return kept
