"""`sarm train`: a policy trained by PPO with the controls in its reward."""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from sarm_control.cli._help import INPUT, OUTPUT, RARE_OUTPUT
from sarm_control.cli._next import say_next
from sarm_control.cli._outputs import DryRun, say_dry_run
from sarm_control.cli._run_flags import RunFlags
from sarm_control.console import progress, say, set_quiet
from sarm_control.embedded import LAB
from sarm_control.errors import SarmError

# a code of its own: a script can tell a run that a monitor stopped from one that failed
EXIT_STOPPED = 3

if TYPE_CHECKING:
    from sarm_control.training import Gold, Processes, Role, RunConfig, RunFolder, Start

_NO_FLAGS = RunFlags()


def train(
    config: Annotated[
        Path | None, Parameter(group=INPUT, help="YAML file of a run; not needed when flags say it all.")
    ] = None,
    /,
    *,
    flags: RunFlags = _NO_FLAGS,
    out: Annotated[
        Path | None,
        Parameter(group=OUTPUT, name=["--out", "-o"], help="Run folder. Default: runs/ and the file's name."),
    ] = None,
    role: Annotated[
        Literal["no control", "controlled", "placebo"] | None,
        Parameter(
            group=RARE_OUTPUT,
            help="What the run is in comparisons: placebo where its controls know nothing of what harms. "
            "Default: by whether there are controls. A run may be given another one with --resume.",
        ),
    ] = None,
    resume: Annotated[
        bool,
        Parameter(group=OUTPUT, negative="", help="Go on from the newest good checkpoint of the run folder."),
    ] = False,
    overwrite: Annotated[
        bool, Parameter(group=OUTPUT, negative="", help="Start over if the run folder exists.")
    ] = False,
    dry_run: DryRun = False,
    ignore_memory: Annotated[
        bool,
        Parameter(
            group=RARE_OUTPUT,
            negative="",
            help="Start also where the plan needs more memory than this machine has (see sarm plan).",
        ),
    ] = False,
    json_file: Annotated[Path | None, Parameter(group=OUTPUT, name="--json", help="Summary as JSON.")] = None,
) -> int:
    """Train a policy by PPO with the controls in its reward.

    The settings come from a YAML file, from flags, or from both. `--resume` needs no file: the run
    folder has its own. The run folder holds metrics, samples, checkpoints and the trained policy.
    """
    from sarm_control.training import connected, hold_run, in_words, settled_role

    folder = out or Path("runs") / (config.stem if config else "train")

    def checked() -> "RunConfig | None":
        if not dry_run:
            # first: of two processes that start at once both would find the folder free
            hold_run(folder)
        settings = flags.config(_file(config, folder, resume=resume))
        # for its error alone; `start_run` settles it again
        settled_role(role, controls=settings.reward.has_controls)
        _check_outputs(folder, json_file, resume=resume, overwrite=overwrite, make=not dry_run)
        if resume and _finished(folder, settings, role, json_file, dry_run=dry_run):
            return None
        _check_inputs(settings, whole=dry_run, ignore_memory=ignore_memory)
        if dry_run:
            say_dry_run(folder)
        return None if dry_run else settings

    with connected() as processes:
        if not processes.is_main:
            set_quiet(True)
        if processes.count > 1:
            say(in_words(os.environ, processes.count))
        # one process reads and checks, so that all train by the same settings and an error is told
        # once
        settings = processes.from_main(checked)
        if settings is None:
            return 0
        summary = _run(settings, folder, processes, role, resume=resume, overwrite=overwrite)
        if processes.is_main:
            _report(folder, summary, json_file)
            if summary["stopped"]:
                say_next("train", "-o", folder, "--resume")
            else:
                _say_next(folder, settings)
        return EXIT_STOPPED if summary["stopped"] else 0


def _check_outputs(
    folder: Path, json_file: Path | None, *, resume: bool, overwrite: bool, make: bool
) -> None:
    from sarm_control.files import check_writable
    from sarm_control.training import check_run

    if json_file is not None:
        check_writable(json_file, make=make)
    check_run(folder, resume=resume, overwrite=overwrite, make=make)


def _check_inputs(settings: "RunConfig", *, whole: bool, ignore_memory: bool) -> None:
    """What can be wrong with models and rows; `whole` also looks for what the run itself comes upon later."""
    from sarm_control.planning import check_room, plan_training
    from sarm_control.training import (
        check_files,
        check_human,
        check_models,
        check_trackers,
        evaluation_lines,
        evaluation_rows,
        plan_lines,
        training_rows,
    )

    # from quick to slow: trackers are an import, models a few files, rows may be millions
    check_trackers(settings.logging.trackers)
    check_models(settings.policy, settings.reward)
    check_human(
        settings.data.human,
        settings.reward.human_kl,
        settings.training.answers_per_step,
        settings.data.row_options,
    )
    rows, evaluation = training_rows(settings.data, say_form=True), settings.evaluation
    evaluated = evaluation_rows(
        evaluation, settings.evaluation_prompts, rows.kept, settings.training.seed, say_form=True
    )
    for line in (*plan_lines(settings, rows), *evaluation_lines(evaluation, evaluated)):
        say(line)
    # a dry run plans in full; the run itself only where memory may be short, see `check_room`
    if whole:
        for line in check_files(settings, rows.kept, [*evaluated.rows, *evaluated.should_respond]):
            say(line)
        plan = plan_training(settings, rows=rows.kept)
        for line in plan.lines():
            say(line)
        if not ignore_memory:
            plan.refuse_too_large("--ignore-memory")
    elif not ignore_memory:
        check_room(settings, rows.kept)


def _file(config: Path | None, folder: Path, *, resume: bool) -> Path | None:
    own = folder / "config.yaml"
    return own if config is None and resume and own.is_file() else config


def _finished(
    folder: Path, settings: "RunConfig", role: "Role | None", json_file: Path | None, *, dry_run: bool
) -> bool:
    from sarm_control.training import finished_run, record_role

    # before models and rows are looked at: a run that is done needs neither
    run = finished_run(folder, settings)
    if run is None:
        return False
    print(f"{folder} is finished: all {run.step} steps are done, nothing to do")
    if run.missing is not None:
        print(f"  it cannot be made longer from its end: {run.missing}")
    if not dry_run:
        if record_role(folder, role):
            say(f"{folder} counts as {role} now")
        _write_summary(folder, run.summary(), json_file)
    _say_next(folder, settings)
    return True


def _run(
    settings: "RunConfig",
    folder: Path,
    processes: "Processes",
    role: "Role | None",
    *,
    resume: bool,
    overwrite: bool,
) -> dict[str, Any]:
    from sarm_control.data import make_copies
    from sarm_control.training import start_run, uninterrupted

    data = settings.data
    asked = settings.evaluation
    further = (data.human, settings.evaluation_prompts if asked.every else None, asked.should_respond)
    inputs = [data.prompts, *data.exclude, *(path for path in further if path is not None)]
    # their hashes are taken before they are read; of the prompts no more than are trained on
    make_copies([data.prompts], data.rows)
    make_copies(inputs[1:])
    start: Start | None = None
    try:
        # An interrupt here would leave a folder nobody knows of, or surface as a broken import.
        with uninterrupted():
            start = processes.from_main(
                lambda: start_run(
                    folder, settings, resume=resume, overwrite=overwrite, inputs=inputs, role=role
                )
            )
            from sarm_control.training import run_training
        _say_start(start, settings.training.steps)
        return run_training(
            settings, start, progress=progress, report=say, gold=_gold(settings), processes=processes
        )
    except KeyboardInterrupt:
        if start is None:
            raise
        raise KeyboardInterrupt(_interrupted(start.folder, settings.training.steps, processes)) from None
    except SarmError as error:
        if start is not None:
            _give_back_the_name(start, error, processes)
        raise


def _gold(settings: "RunConfig") -> "Gold | None":
    """What answers to the lab's own prompts are worth; nobody knows it of others."""
    from sarm_control.embedded import LAB, is_data_name
    from sarm_control.lab import World

    asked = settings.evaluation_prompts
    return World.open(LAB).gold if asked is not None and is_data_name(asked) else None


def _say_start(start: "Start", steps: int) -> None:
    for note in start.notes:
        say(note)
    if start.checkpoint is not None:
        say(f"resuming {start.folder.path} after step {start.step}")
    start.folder.listener = _step_line(steps)


def _give_back_the_name(start: "Start", error: SarmError, processes: "Processes") -> None:
    """A run that failed before its first checkpoint leaves nothing; a later one says how to go on."""
    if _discarded(start.folder, processes) or error.hint is None:
        return
    error.hint += f"; then sarm train -o {start.folder.path} --resume"


def _interrupted(folder: "RunFolder", steps: int, processes: "Processes") -> str:
    from sarm_control.training import list_checkpoints, step_of

    saved = list_checkpoints(folder.path)
    if _discarded(folder, processes):
        return "interrupted before the first checkpoint: nothing was kept"
    if not saved:
        return f"interrupted before the first checkpoint\n  go on with: sarm train -o {folder.path} --resume"
    return (
        f"interrupted; the last checkpoint is {saved[-1]} (step {step_of(saved[-1])} of {steps})\n"
        f"  go on with: sarm train -o {folder.path} --resume"
    )


def _discarded(folder: "RunFolder", processes: "Processes") -> bool:
    """Whether nothing was kept; the first process removes the folder, any may be the one that tells."""
    return folder.discard_if_unused() if processes.is_main else folder.unused


def _step_line(steps: int) -> Callable[[int, Mapping[str, Any]], None]:
    def report(step: int, values: Mapping[str, Any]) -> None:
        named = {
            "reward": values.get("reward/total"),
            "KL": values.get("objective/kl"),
            **{
                name.removeprefix("reward/"): value
                for name, value in values.items()
                if name.startswith(("reward/penalty/", "reward/human_kl", "reward/edits"))
            },
        }
        parts = [f"{name} {value:.4g}" for name, value in named.items() if value is not None]
        if "answers/length" in values:
            parts.append(f"length {values['answers/length']:.1f}")
        if "seconds/step" in values:
            parts.append(f"{values['seconds/step']:.1f} s")
        say(f"step {step}/{steps}: {', '.join(parts)}")

    return report


def _say_next(folder: Path, settings: "RunConfig") -> None:
    """What the training changed; the embedded world has prompts of its own, and a gold reward."""
    if settings.policy.model == LAB:
        say_next("compare", folder, "--gold", LAB)
    else:
        say_next("compare", folder, "--prompts", "held_out.jsonl")


def _of_them(summary: Mapping[str, Any]) -> str:
    now = summary["steps_now"]
    return "" if now == summary["step"] else f", {now or 'none'} of them now"


def _write_summary(folder: Path, summary: Mapping[str, Any], json_file: Path | None) -> None:
    from sarm_control.files import write_json
    from sarm_control.training import stable

    if json_file is not None:
        write_json(json_file, stable({"run": folder.name, **summary}))


def _report(folder: Path, summary: Mapping[str, Any], json_file: Path | None) -> None:
    _write_summary(folder, summary, json_file)
    written = {"policy": "plain transformers", "adapter": "peft"}
    print(f"{folder}: {summary['step']} steps done{_of_them(summary)}")
    if summary["stopped"]:
        print(f"  stopped on a warning: {summary['stopped']}")
    for name in summary.get("saved", ()):
        print(f"  {folder / name}: the trained policy for {written.get(name, name)}")
    print(f"  {folder / 'metrics.jsonl'}: one row a step")
    if (folder / "ledger.parquet").is_file():
        print(f"  {folder / 'ledger.parquet'}: what the change of the reward went to, latent by latent")
    sys.stdout.flush()
