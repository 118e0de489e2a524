"""`sarm demo`: a reward model is hacked, the latents that pay for it are found, and a control is tried."""

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, validators

from sarm_control.cli import _demo_story as story
from sarm_control.console import progress, say
from sarm_control.embedded import LAB
from sarm_control.errors import OutputError

if TYPE_CHECKING:
    from sarm_control.control import Controls
    from sarm_control.discovery.discover import Discovery
    from sarm_control.lab.demo import Names
    from sarm_control.lab.study import Called
    from sarm_control.lab.world import World
    from sarm_control.sarm import RewardModel

_RESULT = "demo.json"


def demo(
    *,
    seed: Annotated[
        int, Parameter(validator=validators.Number(gte=0), help="Of training, answers and the placebo.")
    ] = 0,
    lab: Annotated[str, Parameter(help="A world of sarm lab build. Default: lab, the embedded one.")] = LAB,
    steps: Annotated[int, Parameter(validator=validators.Number(gte=1), help="PPO steps of each arm.")] = 40,
    out: Annotated[
        Path | None, Parameter(name=["--out", "-o"], help="Folder for runs and report. Default: runs/demo.")
    ] = None,
    json_file: Annotated[Path | None, Parameter(name="--json", help="Also the numbers as JSON.")] = None,
) -> None:
    """See a reward model hacked, and whether a control holds.

    Scores a pair and shows which latents paid, discovers the latents that harm, trains a small policy
    by PPO without control, with the suggested controls and with the same controls on latents drawn by
    chance, and compares the three by a gold reward that nothing was trained on. Takes a few minutes,
    offline. The folder of an earlier demo is replaced. The same seed gives the same numbers on the
    same machine.
    """
    from sarm_control.files import check_writable, write_json

    started = time.monotonic()
    folder = out or Path("runs") / "demo"
    _clear(folder)
    if json_file is not None:
        check_writable(json_file)
    with _one_thread():
        result = _result(lab, seed, steps, folder)
    result["seconds"] = round(time.monotonic() - started, 1)
    for path in filter(None, (folder / _RESULT, json_file)):
        write_json(path, result)
    _tell(f"\n   The whole comparison, latent by latent: {result['report']}")


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


def _result(lab: str, seed: int, steps: int, folder: Path) -> dict[str, Any]:
    """Tells the story, step by step, and returns its numbers."""
    from sarm_control.lab.demo import names_of
    from sarm_control.lab.world import World
    from sarm_control.sarm import RewardModel

    world, names = World.open(lab), names_of(lab)
    model = RewardModel.from_pretrained(names.model, device="cpu")
    _tell("sarm demo", story.opening(seed, steps))
    _show_pair(world, model)
    controls, judged = _discover(world, model, seed)
    _train(names, controls, folder, seed, steps)
    report, arms = _compare(names, world, model, folder, seed)
    return {
        "seed": seed,
        "world_seed": world.seed,
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
        },
        "report": str(folder / "report" / "report.html"),
    }


def _tell(*texts: str) -> None:
    sys.stdout.write("\n".join(texts) + "\n")
    sys.stdout.flush()


def _clear(folder: Path) -> None:
    """Makes room for the demo, and never deletes a folder that is something else."""
    import shutil

    from sarm_control.files import check_writable

    check_writable(folder)
    if not folder.exists():
        return
    ours = {"none", "controls", "random", "report", _RESULT}
    if {child.name for child in folder.iterdir()} - ours:
        raise OutputError(f"{folder} holds other files than a demo's", hint="choose another folder with -o")
    shutil.rmtree(folder)


def _show_pair(world: "World", model: "RewardModel") -> None:
    from sarm_control.lab.demo import example

    _tell(story.heading(1, "What does the reward model pay for?"))
    _tell(story.scored_pair(example(world, model)))


def _discover(world: "World", model: "RewardModel", seed: int) -> "tuple[dict[str, Controls], Called]":
    """The controls of the three arms, and the called latents judged by the planted truth."""
    from sarm_control.control import Controls
    from sarm_control.discovery.discover import discover
    from sarm_control.discovery.suggestion import suggested
    from sarm_control.lab.arms import controlled, random_controls
    from sarm_control.lab.study import called, shipped_audit

    _tell(story.heading(2, "Which latents harm?"))
    world.truth.check(model.fingerprint)
    pairs = shipped_audit(world, model)
    found: Discovery = discover(pairs)
    harms, judged = controlled(found), called(found, world.truth)
    prompts = found.selection.prompts + found.confirmation.prompts
    _tell(story.found_latents(found.lists["harms"], prompts, judged))
    arms = {
        "none": Controls(),
        "controls": suggested(harms, fingerprint=found.head),
        "random": random_controls(harms, pairs, seed=seed),
    }
    return arms, judged


def _train(names: "Names", controls: "Mapping[str, Controls]", folder: Path, seed: int, steps: int) -> None:
    from sarm_control.lab.demo import run_config, train_arm

    _tell(story.heading(3, "Train against it"), story.arms_text(controls), "")
    for number, (name, one) in enumerate(controls.items(), start=1):
        say(f"   run {number} of {len(controls)}: {name}")
        train_arm(run_config(names, one, seed=seed, steps=steps), folder / name, progress=progress)


def _compare(
    names: "Names", world: "World", model: "RewardModel", folder: Path, seed: int
) -> tuple[dict[str, Any], dict[str, dict[str, float]]]:
    """Every policy answers the held-out prompts; the report is written as `sarm compare` writes it."""
    from sarm_control.cli._comparing import comparison_report, comparison_settings, write_comparison
    from sarm_control.conversation.rows import read_rows
    from sarm_control.evaluation.answering import Sampling
    from sarm_control.evaluation.runs import compare_runs
    from sarm_control.evaluation.trained_run import open_run

    _tell(story.heading(4, "Did it work, and what did it cost?"))
    rows = read_rows(names.held_out_prompts, want={"prompt"})
    _tell(
        story.paragraph(
            f"All policies answer the same {len(rows)} held-out prompts; the reward model and the gold "
            "reward judge them."
        ),
        "",
    )
    runs = [open_run(folder / name) for name in ("none", "controls", "random")]
    training = runs[0].config.training
    sampling = Sampling(1, training.max_new_tokens, training.temperature, seed, batch=64)
    settings = comparison_settings(runs, names.held_out_prompts, rows, sampling)
    found = compare_runs(runs, rows, model, sampling, gold=world.gold, progress=progress)
    report = comparison_report(found, {**settings, "head": model.fingerprint}, names.held_out_prompts, None)
    write_comparison(report, found, folder / "report", None, overwrite=False)
    arms = {arm["name"]: _ends(arm) for arm in report["arms"]}
    _tell(story.results(report, arms))
    return report, arms


def _ends(arm: Mapping[str, Any]) -> dict[str, float]:
    rows = {row["key"]: row for row in arm["measures"]}
    return {
        f"{name}_{when}": rows[key][column]["mean"]
        for name, key in (("gold", "gold/reward"), ("reward_model", "reward/model"))
        for when, column in (("start", "base"), ("end", "trained"))
    }
