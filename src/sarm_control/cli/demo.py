"""`sarm demo`: a reward model is hacked, the latents that reward it are found, and a control is tried."""

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, validators

from sarm_control.cli import _demo_story as story
from sarm_control.cli._help import COMPUTE, INPUT, OUTPUT
from sarm_control.cli._next import beside, of_model, say_next
from sarm_control.console import progress, say
from sarm_control.embedded import LAB, LAB_ATTACHED
from sarm_control.errors import DataError, OutputError

if TYPE_CHECKING:
    from sarm_control.control import Controls
    from sarm_control.discovery import Discovery
    from sarm_control.lab import Called, Stage

_COMMAND, _MANIFEST, _RESULT = "demo", "manifest.json", "demo.json"
_OURS = {"none", "controls", "random", "report", _MANIFEST, _RESULT}
_LARGEST_SEED = 2**63 - 1


def demo(
    *,
    seed: Annotated[
        int,
        Parameter(
            group=COMPUTE,
            validator=validators.Number(gte=0, lte=_LARGEST_SEED),
            help="Of training, answers and the placebo.",
        ),
    ] = 0,
    lab: Annotated[
        str, Parameter(group=INPUT, help="A world of sarm lab build. Default: lab, the embedded one.")
    ] = LAB,
    attached: Annotated[
        bool,
        Parameter(
            group=INPUT,
            negative="",
            help="The world's other reward model: a sequence classifier with a dictionary attached.",
        ),
    ] = False,
    steps: Annotated[
        int, Parameter(group=COMPUTE, validator=validators.Number(gte=1), help="PPO steps of each arm.")
    ] = 40,
    out: Annotated[
        Path | None,
        Parameter(group=OUTPUT, name=["--out", "-o"], help="Folder for runs and report. Default: runs/demo."),
    ] = None,
    json_file: Annotated[
        Path | None, Parameter(group=OUTPUT, name="--json", help="Also the numbers as JSON.")
    ] = None,
) -> None:
    """See a reward model hacked, and whether a control holds.

    Scores a pair and shows which latents made the difference, discovers the latents that harm, trains a
    small policy by PPO without control, with the suggested controls and with the same controls on latents
    drawn by chance, and compares the three by a gold reward that nothing was trained on. Takes a few
    minutes, offline. The folder of an earlier demo is replaced at the end, any other folder is left
    alone. The same seed gives the same numbers on the same machine. Where discovery calls nothing there
    is nothing to control: the run without control is made alone.
    """
    from sarm_control.files import manifest, write_json
    from sarm_control.lab import set_stage
    from sarm_control.locks import hold

    started = time.monotonic()
    folder = out or Path("runs") / "demo"
    _check(folder, json_file)
    # two demos in one folder would each set the other's runs aside
    hold(folder)
    with _one_thread():
        stage = set_stage(lab, attached=attached)
        with _replacing(folder):
            files = (stage.names.train_prompts, stage.names.held_out_prompts)
            config = {"world_seed": stage.world.seed, "steps": steps, "attached": attached}
            write_json(folder / _MANIFEST, manifest(_COMMAND, inputs=files, config=config, seed=seed))
            result = _result(stage, seed, steps, folder)
            result["seconds"] = round(time.monotonic() - started, 1)
            for path in filter(None, (folder / _RESULT, json_file)):
                write_json(path, result)
    _report(f"\n   The whole comparison, latent by latent: {result['report']}")
    _say_next(folder, LAB_ATTACHED if attached and lab == LAB else None)


def _say_next(folder: Path, model: str | None) -> None:
    """What to look at now: what else it rewards, and the reader's own data."""
    say_next("explore", "--run", folder / ("controls" if (folder / "controls").is_dir() else "none"))
    say_next("audit", *of_model(model), "-o", beside(folder, f"{folder.name}-audit"))
    say_next("discover", "--model", "MODEL", "pairs.jsonl", "-o", beside(folder, "own-discovery"))


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Models this small are no faster on more threads, whose number would change the last digits."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _result(stage: "Stage", seed: int, steps: int, folder: Path) -> dict[str, Any]:
    """Tells the story, step by step, and returns its numbers."""
    attached = stage.model.kind == "attached"
    _report("sarm demo", story.opening(seed, steps, attached=attached))
    _report(story.heading(1, "What does the reward model reward?"), story.scored_pair(stage.example))
    controls, judged = _discover(stage, seed)
    _train(stage, controls, folder, seed, steps)
    report, arms = _compare(stage, list(controls), folder, seed)
    return {
        "seed": seed,
        "world_seed": stage.world.seed,
        "steps": steps,
        "arms": arms,
        "discovery": {
            "recall": judged.recall,
            "precision": judged.precision,
            "latents": list(judged.latents),
        },
        "against_none": {
            "gold": story.difference(report, "none", "controls", "gold/reward"),
            "reward_model": story.difference(report, "none", "controls", "reward/model"),
        }
        if "controls" in arms
        else None,
        "residual": _residual(report) if attached else None,
        "report": str(folder / "report" / "report.html"),
    }


def _residual(report: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """By arm: the change of the reward, and of the residual's part of it with its interval."""
    return {
        arm["name"]: {
            "reward_change": arm["ledger"]["model_change"],
            **{f"residual_{name}": arm["ledger"]["outside"][name] for name in ("delta", "low", "high")},
        }
        for arm in report["arms"]
    }


def _report(*texts: str) -> None:
    sys.stdout.write("\n".join(texts) + "\n")
    # each part is seen when it happens, through a pipe too
    sys.stdout.flush()


def _check(folder: Path, json_file: Path | None) -> None:
    """Whether everything can be written, and what the folder holds is an earlier demo's and nothing else.

    Folders such as `none` and `controls` may be somebody's own runs: only the demo's manifest
    says that they are not.
    """
    from sarm_control.files import check_writable

    here = Path.cwd()
    if folder.resolve() in (here, *here.parents):
        raise OutputError(
            f"{folder} is the current folder or holds it, and a demo's folder is replaced",
            hint="choose a folder of its own: sarm demo -o runs/demo",
        )
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file", hint="choose a folder with -o")
    names = {child.name for child in folder.iterdir()} if folder.exists() else set()
    # What a demo that was killed leaves is named .NAME.SOMETHING, where NAME is what it wrote.
    others = {name for name in names - _OURS if name[:1] != "." or name[1:].rpartition(".")[0] not in _OURS}
    if names and (others or not _is_demo(folder)):
        raise OutputError(
            f"{folder} holds other files than a demo's",
            hint="choose another folder with -o, or delete it yourself",
        )
    check_writable(folder)
    if json_file is not None:
        if json_file.is_dir():
            raise OutputError(f"{json_file} is a folder", hint="give a file: --json demo.json")
        check_writable(json_file)


def _is_demo(folder: Path) -> bool:
    from sarm_control.bounded_json import read_json_object

    try:
        return read_json_object(folder / _MANIFEST).get("command") == _COMMAND
    except DataError:
        return False


@contextlib.contextmanager
def _replacing(folder: Path) -> Iterator[None]:
    """Makes an empty folder; an earlier demo is there again unless this one comes to its end.

    One that was killed leaves the earlier demo aside, and the next demo takes it up as its own.
    """
    from sarm_control.files import drop_replaced, put_aside, put_back, remove_folder, replaced

    place = folder.resolve()  # what a link points to, so that the link stays
    put_back(place)
    put_aside(place, worth_keeping=(place / _RESULT).is_file())
    place.mkdir(parents=True)
    try:
        yield
    # also an interrupt: an earlier demo is not lost because this one was stopped
    except BaseException:
        if replaced(place).is_dir():
            remove_folder(place)
            put_back(place)
        raise
    drop_replaced(place)


def _discover(stage: "Stage", seed: int) -> "tuple[dict[str, Controls], Called]":
    """The controls of the arms, and the called latents judged by the planted truth."""
    from sarm_control.control import Controls
    from sarm_control.discovery import discover, suggested
    from sarm_control.lab import called, controlled, random_controls, shipped_audit

    _report(story.heading(2, "Which latents harm?"))
    pairs = shipped_audit(stage.world, stage.model)
    found: Discovery = discover(pairs)
    harms, judged = controlled(found), called(found, stage.truth)
    _report(story.found_latents(found, judged, stage.truth, stage.example.first))
    arms = {"none": Controls()}
    if harms:
        arms["controls"] = suggested(harms, fingerprint=found.head)
        arms["random"] = random_controls(harms, pairs, seed=seed)
    return arms, judged


def _train(stage: "Stage", controls: "Mapping[str, Controls]", folder: Path, seed: int, steps: int) -> None:
    from sarm_control.lab import run_config, train_arm
    from sarm_control.training import PLACEBO

    _report(story.heading(3, "Train against it"), story.arms_text(controls), "")
    for number, (name, one) in enumerate(controls.items(), start=1):
        say(f"   run {number} of {len(controls)}: {name}")
        # said, since its controls look like any other's: only who drew the
        # latents knows that they are a placebo
        role = PLACEBO if name == "random" else None
        config = run_config(stage.names, one, seed=seed, steps=steps)
        train_arm(config, folder / name, role=role, progress=progress)


def _compare(
    stage: "Stage", arms: Sequence[str], folder: Path, seed: int
) -> tuple[dict[str, Any], dict[str, dict[str, float]]]:
    """Every policy answers the held-out prompts; the report is written as `sarm compare` writes it."""
    from sarm_control.cli._comparing import comparison_report, comparison_settings, write_comparison
    from sarm_control.comparison import Sampling, compare_runs, open_run
    from sarm_control.data import read_rows

    _report(story.heading(4, "Did it work, and what did it cost?"))
    prompts = stage.names.held_out_prompts
    rows = read_rows(prompts, want={"prompt"})
    _report(
        story.paragraph(
            f"All policies answer the same {len(rows)} held-out prompts; the reward model and the gold "
            "reward judge them: where the first is high and the second low, a shortcut was rewarded."
        ),
        "",
    )
    runs = [open_run(folder / name) for name in arms]
    # at the settings of training, where the policies are what they were rewarded for
    training = runs[0].config.training
    sampling = Sampling(1, training.max_new_tokens, training.temperature, seed, batch=64)
    settings = comparison_settings(runs, prompts, rows, sampling)
    found = compare_runs(runs, rows, stage.model, sampling, gold=stage.world.gold, progress=progress)
    report = comparison_report(found, {**settings, "head": stage.model.fingerprint}, prompts, None)
    write_comparison(report, found, folder / "report", None, overwrite=False)
    ends = {arm["name"]: _ends(arm) for arm in report["arms"]}
    residual = [story.through_residual(report)] if stage.model.kind == "attached" else []
    _report(story.results(report, ends), *residual, story.closing(report))
    return report, ends


def _ends(arm: Mapping[str, Any]) -> dict[str, float]:
    rows = {row["key"]: row for row in arm["measures"]}
    return {
        f"{name}_{when}": rows[key][column]["mean"]
        for name, key in (("gold", "gold/reward"), ("reward_model", "reward/model"))
        for when, column in (("start", "base"), ("end", "trained"))
    }
