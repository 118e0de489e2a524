"""The settings of a cell, and the controls of arms that discover.

`controls/WORLD/ARM.yaml`, or `ARM-seed-S.yaml` where chance has a part, holds the controls; the `.json`
beside it says how they were chosen. The pairs of a world are scored once for all its arms.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sarm_control.bounded_json import read_json_object
from sarm_control.console import ProgressFactory, no_progress
from sarm_control.control import Controls, Edit, Penalty, in_sd
from sarm_control.data import read_rows
from sarm_control.discovery import (
    Discovery,
    Feature,
    PairLatents,
    discover,
    good_correlation,
    group_by_prompt,
    joint_controls,
    suggested,
)
from sarm_control.errors import ConfigError, TrainingError
from sarm_control.files import write_json, write_text
from sarm_control.lab import controlled, random_controls
from sarm_control.latents import ScoredRows, score_rows
from sarm_control.reward_model import RewardModel
from sarm_control.seeds import numpy_generator
from sarm_control.study.cells import Cell
from sarm_control.study.study_config import Arm, Discovered, StudyConfig, folder_name
from sarm_control.training import PLACEBO, Document, Role, RunConfig, dump_yaml, load_config, settled_role

LAST_STEPS = 3
"""Steps over whose mean a run's KL is taken: of a single step it is noisy."""
_FACTORS = 100
"""Sizes of a gentle placebo are scaled by whole hundredths."""


class Chosen(NamedTuple):
    """Controls and how they were chosen.

    Args:
        controls: edits and penalties.
        about: as JSON.
    """

    controls: Controls
    about: dict[str, Any]


def controls_file(folder: Path, study: StudyConfig, cell: Cell) -> Path | None:
    """Where the controls of a cell that discovers are; None for other cells."""
    found = study.arms[cell.arm].discover
    if found is None:
        return None
    suffix = f"-seed-{cell.seed}" if found.by_chance else ""
    return folder / "controls" / folder_name(cell.world) / f"{folder_name(cell.arm)}{suffix}.yaml"


def run_config(folder: Path, study: StudyConfig, cell: Cell) -> RunConfig:
    """The settings of a cell, as `sarm train` would read them.

    Args:
        folder: of the study; the controls of its discoveries must be there, and the runs that an arm follows.
        study: the study.
        cell: which one.

    Raises:
        ConfigError: one line for each mistake.
        TrainingError: the run that the arm follows has no steps.
    """
    arm, path = study.arms[cell.arm], controls_file(folder, study, cell)
    # later ones win: no setting of an arm replaces the seed or what makes its KL that of another
    documents = [
        *shared_documents(study, cell.world),
        *_own_documents(study, cell.world, cell.arm),
        *(_controls(one) for one in (arm.controls, path) if one is not None),
        Document({"training": {"seed": cell.seed}}, {}, "seeds"),
        Document({"training": _matched(folder, study, cell)}, {}, f"arm {cell.arm}"),
    ]
    return load_config(study.base, documents)


def role_of_cell(study: StudyConfig, cell: Cell, config: RunConfig) -> Role | None:
    """What a cell is in comparisons; None where its controls say it.

    Arms whose labels are shuffled or whose latents are random are placebos. Where a discovery calls nothing,
    an arm is one without control, whatever it was meant for.

    Args:
        study: the study.
        cell: which one.
        config: its settings, with the controls that were chosen.
    """
    arm = study.arms[cell.arm]
    if arm.discover is None:
        return arm.role
    wanted = PLACEBO if arm.role is None and arm.discover.by_chance else arm.role
    return wanted if config.reward.has_controls else None


def check_settings(study: StudyConfig) -> None:
    """Refuses settings that no run file could have, before anything is run.

    Raises:
        ConfigError: one line for each mistake of the first arm that has one.
    """
    for world in study.worlds:
        for name, arm in study.arms.items():
            files = [_controls(arm.controls)] if arm.controls is not None else []
            own = _own_documents(study, world, name)
            # the controls of discoveries are not among them: they exist only once the study runs
            config = load_config(study.base, [*shared_documents(study, world), *own, *files])
            if arm.discover is None:
                _check_role(name, arm, config)


def _check_role(name: str, arm: Arm, config: RunConfig) -> None:
    try:
        settled_role(arm.role, controls=config.reward.has_controls)
    except ConfigError as error:
        raise ConfigError(f"arm {name}: {error}", hint=error.hint) from error


def _own_documents(study: StudyConfig, world: str, name: str) -> list[Document]:
    """What an arm changes in one world, but for its controls."""
    arm, rule = study.arms[name], study.worlds[world].rule
    documents = [Document(arm.set, {}, f"arm {name}: set")]
    if arm.rule_penalty is not None:
        patterns = {"reward": {"patterns": {rule: arm.rule_penalty}}}
        documents.append(Document(patterns, {}, f"arm {name}: rule_penalty"))
    return documents


def shared_documents(study: StudyConfig, world: str) -> list[Document]:
    """What all arms of a world share, beside the base file."""
    spec = study.worlds[world]
    return [
        Document(study.set, {}, "the study's set"),
        Document(_of_lab(spec.lab), {}, f"world {world}"),
        Document(spec.set, {}, f"world {world}: set"),
    ]


def _of_lab(lab: str | None) -> dict[str, Any]:
    """The models and data of a world of `sarm lab build`."""
    if lab is None:
        return {}
    if lab == "lab":
        return {
            "policy": {"model": lab},
            "reward": {"model": lab},
            "data": {"prompts": "lab:train_prompts", "human": "lab:human"},
        }
    return {
        "policy": {"model": f"{lab}/policy"},
        "reward": {"model": f"{lab}/sarm"},
        "data": {"prompts": f"{lab}/train_prompts.jsonl", "human": f"{lab}/human.jsonl"},
    }


def _controls(path: Path) -> Document:
    from sarm_control.training import read_document

    found = read_document(path)
    return found if "reward" in found.values else found.under(("reward",))


def _matched(folder: Path, study: StudyConfig, cell: Cell) -> dict[str, Any]:
    """The steps or the KL target that make the KL of a cell that of another arm."""
    arm = study.arms[cell.arm]
    if arm.follows is None:
        return {}
    # of the same seed: KL differs from seed to seed, and pairs of runs are compared seed by seed
    target = float(np.mean(kl_curve(Cell(cell.world, arm.follows, cell.seed).run(folder))[-LAST_STEPS:]))
    if arm.hold_kl_of is not None:
        # a target must be above 0, and a run that did not move has none
        return {"kl_target": max(target, 1e-3)}
    # the run without control is not trained again to find the step: equal seeds give equal steps, so the
    # curve of the one that is done tells it
    curve = kl_curve(Cell(cell.world, study.baseline, cell.seed).run(folder))
    return {"steps": step_of_kl(curve, target)}


def step_of_kl(curve: Sequence[float], target: float) -> int:
    """The first step whose KL, averaged with the steps before it, reaches the target; else the last step.

    Args:
        curve: KL by step, nats an answer.
        target: nats an answer.
    """
    for step in range(1, len(curve) + 1):
        # averaged as the target is, or the noise of one step would end the run early
        if np.mean(curve[max(0, step - LAST_STEPS) : step]) >= target:
            return step
    return len(curve)


def kl_curve(run: Path) -> list[float]:
    """KL to the starting policy by step, nats an answer, of a run folder.

    Raises:
        TrainingError: there are no steps.
    """
    from sarm_control.bounded_json import parse_json

    path = run / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    found = [float(parse_json(line)["objective/kl"]) for line in lines]
    if not found:
        raise TrainingError(f"{run} has no steps, so there is no KL to match", hint="run that cell first")
    return found


def write_controls(
    folder: Path, study: StudyConfig, world: str, *, progress: ProgressFactory = no_progress
) -> None:
    """Discovers in one world, and writes the controls of all its arms and seeds.

    Raises:
        SarmError: a model or file that cannot be used, or too few pairs.
    """
    config = load_config(study.base, shared_documents(study, world))
    model = RewardModel.from_pretrained(config.reward.model, template_date=config.data.template_date)
    scored: dict[tuple[Path, ...], ScoredRows] = {}
    for name, arm in study.arms.items():
        if arm.discover is None:
            continue
        files = study.pairs_of(world, arm.discover)
        # the forward passes are what takes long; every arm and seed after the
        # first is algebra on their latents
        if files not in scored:
            rows = [row for path in files for row in read_rows(path, want={"pair"})]
            scored[files] = ScoredRows(rows, score_rows(model, rows, progress=progress))
        for seed in study.seeds_of(name):
            path = controls_file(folder, study, Cell(world, name, seed))
            # kept where it is: a study that goes on must not change the controls of cells that are done
            if path is not None and not path.is_file():
                _write(path, chosen_controls(scored[files], arm.discover, seed), model.fingerprint)


def chosen_controls(pairs: ScoredRows, asked: Discovered, seed: int) -> Chosen:
    """The controls that an arm asks for.

    Args:
        pairs: scored pairs with their given labels.
        asked: how controls are chosen.
        seed: of the shuffle or the draw, where there is one.
    """
    found = discover(pairs).with_suggestions(of_margin=asked.material)
    harms = controlled(found)
    about: dict[str, Any] = {
        "head": found.head,
        "called": [one.latent for one in found.lists["harms"]],
        "controlled": [one.latent for one in harms],
    }
    controls = given = suggested(harms, fingerprint=found.head)
    if asked.latents == "random":
        controls = random_controls(harms, pairs, seed=seed)
    if asked.labels == "shuffled":
        controls, further = placebo(pairs, harms, seed)
        about |= further
    controls, latents = _kept(controls, asked), group_by_prompt(pairs.rows, pairs.scored).latents
    if asked.as_gentle:
        controls, factor = as_gentle(latents, controls, _kept(given, asked))
        about["factor"] = factor
    # a control that ruins the reward holds every shortcut: whoever reads the study can see it
    about["good_correlation"] = good_correlation(latents, [*controls.edits, *controls.penalties])
    return Chosen(controls, {**about, "latents": list(controls.latents())})


def as_gentle(pairs: PairLatents, controls: Controls, like: Controls) -> tuple[Controls, float]:
    """The controls, scaled down until good answers keep their reward as well as under other controls.

    Penalties and added amounts are multiplied by one factor, caps raised towards the latent's largest value
    by the rest. The factor is the largest number of hundredths, 1 to 100, at which the controlled reward of
    the chosen answers correlates with the unedited one at least as under `like`; 0.01 where none does.

    Args:
        pairs: with their given labels.
        controls: to be scaled.
        like: the controls that set the correlation.
    """
    # a placebo that ruins the reward more than the real controls do would lose for that alone, and the
    # comparison would say nothing of which latents were chosen
    wanted = good_correlation(pairs, [*like.edits, *like.penalties])
    # from the largest down and no bisection: the correlation need not rise steadily as the factor falls
    for hundredths in range(_FACTORS, 0, -1):
        factor = hundredths / _FACTORS
        scaled = _scaled(pairs, controls, factor)
        kept = good_correlation(pairs, [*scaled.edits, *scaled.penalties])
        if wanted is None or (kept is not None and kept >= wanted):
            break
    return scaled, factor


def _scaled(pairs: PairLatents, controls: Controls, factor: float) -> Controls:
    return replace(
        controls,
        edits=tuple(_milder_edit(pairs, one, factor) for one in controls.edits),
        penalties=tuple(replace(one, alpha=_times(one, factor)) for one in controls.penalties),
    )


def _milder_edit(pairs: PairLatents, edit: Edit, factor: float) -> Edit:
    if edit.max is not None:
        # a cap at the largest value of both sides cuts nothing, which is what the factor 0 stands for
        values = [side[:, [edit.latent]].toarray() for side in (pairs.chosen, pairs.rejected)]
        top = max(edit.max, *(float(side.max(initial=0.0)) for side in values))
        edit = replace(edit, max=_four_digits(edit.max + (1 - factor) * (top - edit.max)))
    if edit.add is not None:
        edit = replace(edit, add=_four_digits(edit.add * factor))
    return edit


def _times(penalty: Penalty, factor: float) -> float | str:
    assert penalty.alpha is not None  # a target rate is refused with the study file
    sds = in_sd(penalty.alpha, "alpha")
    return float(penalty.alpha) * factor if sds is None else f"{_four_digits(sds * factor):g}sd"


def _four_digits(value: float) -> float:
    # as the file is written, so that the correlation is that of the numbers which the run will read
    return float(f"{value:.4g}")


def placebo(pairs: ScoredRows, harms: Sequence[Feature], seed: int) -> tuple[Controls, dict[str, Any]]:
    """The controls of a discovery that saw shuffled labels.

    Such a discovery confirms hardly ever a latent, and without controls it would be no placebo but the run
    without control again. So as many latents of each kind are taken as the given labels gave, those that
    harm most by the shuffled labels, and their sizes are chosen as always, on the shuffled pairs.

    Args:
        pairs: with their given labels.
        harms: the latents that the given labels gave controls.
        seed: of the shuffle.
    """
    found = discover(shuffled(pairs, seed))
    by_effect = np.argsort(found.table["effect"], kind="stable")
    kinds: dict[int, str] = {}
    for kind in dict.fromkeys(one.kind for one in harms):
        wanted = sum(one.kind == kind for one in harms)
        # of the same sign: a latent is penalised or capped where its weight is positive and edited where it
        # is negative, so a stand-in of the other sign would get another kind of control
        sign = np.sign(next(one.weight for one in harms if one.kind == kind))
        rows = [row for row in by_effect if np.sign(found.table["weight"][row]) == sign]
        kinds |= {int(found.table["latent"][row]): kind for row in rows[:wanted]}
    joint = joint_controls(found.parts.selection.latents, kinds)
    controls = _as_controls(joint.controls, found)
    called = [one.latent for one in found.lists["harms"]]
    return controls, {"called_by_shuffled_labels": called, "stand_ins": sorted(kinds)}


def shuffled(pairs: ScoredRows, seed: int) -> ScoredRows:
    """The pairs with labels drawn by chance: within each row, which answers count as chosen."""
    rng = numpy_generator(seed, "shuffled labels")
    rows, order, start = [], [], 0
    for row in pairs.rows:
        answers, chosen = row.answers, len(row.chosen)
        place = rng.permutation(len(answers))
        mixed = [answers[i] for i in place]
        rows.append(replace(row, chosen=tuple(mixed[:chosen]), rejected=tuple(mixed[chosen:])))
        # scores move along with their answers: only labels change, so nothing is scored again
        order += [start + int(i) for i in place]
        start += len(answers)
    return ScoredRows(rows, pairs.scored.take(np.asarray(order, dtype=np.int64)))


def _as_controls(found: Sequence[Any], discovery: Discovery) -> Controls:
    return Controls(
        edits=[one for one in found if isinstance(one, Edit)],
        penalties=[one for one in found if isinstance(one, Penalty)],
        fingerprint=discovery.head,
    )


def _kept(controls: Controls, asked: Discovered) -> Controls:
    edits = controls.edits if asked.keep != "penalties" else ()
    penalties = controls.penalties if asked.keep != "edits" else ()
    if asked.target_rate is not None:
        penalties = tuple(replace(one, alpha=None, target_rate=asked.target_rate) for one in penalties)
    return replace(controls, edits=edits, penalties=penalties)


def _write(path: Path, chosen: Chosen, fingerprint: str) -> None:
    controls = chosen.controls
    reward = {"edits": controls.edits, "penalties": controls.penalties, "fingerprint": fingerprint}
    # through the run's own model, so that what is written is what `sarm train` would read back
    plain = RunConfig.model_validate({"reward": reward}).to_dict()["reward"]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path.with_suffix(".json"), chosen.about)
    # last: where this file is, the other one is too
    write_text(path, dump_yaml({"reward": {key: plain[key] for key in reward}}))


def controls_about(path: Path) -> Mapping[str, Any]:
    """How the controls of a file were chosen."""
    return read_json_object(path.with_suffix(".json"), hint="delete the folder controls", error=TrainingError)
