"""A controlled reward from files: a run file or run folder, demonstrations, reference answers."""

from pathlib import Path
from typing import NamedTuple

from sarm_control.comparison import open_run
from sarm_control.control import Controls, ReferenceStatistics, read_edit_file
from sarm_control.data import read_rows
from sarm_control.engines.reward.controlled_reward import ControlledReward
from sarm_control.errors import ConfigError
from sarm_control.latents import HumanBuffer, is_latents, read_latents, score_rows
from sarm_control.reward_model import RewardModel, Scored
from sarm_control.training import RunConfig, items, load_config, read_demonstrations, setting


class ControlFiles(NamedTuple):
    """The files that the controls of a reward come from; each may be left out.

    Args:
        controls: a YAML file with a `reward:` section (`sarm discover --write-controls` writes one, and run
            files have one), a JSON file of edits (`--save-edits` writes one), or the folder of a run, whose
            controls are loaded as they were at its last checkpoint.
        human: demonstrations for the human-KL term; they replace the file's `data.human`.
        reference: answers of the policy before training, on which SDs and quantiles are measured: a file of
            rows, a folder of `sarm latents`, or saved statistics (`.json`).
    """

    controls: Path | None = None
    human: Path | None = None
    reference: Path | None = None


_NO_FILES = ControlFiles()


def open_reward(
    model: RewardModel, files: ControlFiles = _NO_FILES, *, standardize: bool = False, seed: int = 0
) -> ControlledReward:
    """A model's reward under the controls that files describe.

    Raises:
        ConfigError: a file without controls, or controls that need reference answers or demonstrations.
        DataError: rows that cannot be used.
        ModelError: something of another head.
    """
    if files.controls is not None and files.controls.is_dir():
        return _of_run(model, files, standardize=standardize)
    config = None if files.controls is None else _config(files.controls)
    controls = Controls() if config is None else config.reward.controls()
    # before answers are read and scored for the reference, which may take minutes
    controls.check(model.config.latents, model.fingerprint, model.kind)
    _without_patterns(config, files.controls)
    reference = None if files.reference is None else read_reference(files.reference, model, controls)
    demonstrations = files.human or (None if config is None else config.data.human)
    return ControlledReward(
        model,
        controls,
        missing_end=_missing_end(config, reference),
        reference=reference,
        human=_human(demonstrations, controls, model),
        standardize=standardize,
        shaping="none" if config is None else config.reward.shaping,
        seed=seed,
    )


def _without_patterns(config: RunConfig | None, path: Path | None) -> None:
    """Engines reward scores, whose texts are not kept."""
    if config is not None and config.reward.patterns:
        raise ConfigError(
            f"{path}: reward.patterns are for `sarm train`; other engines are given scores without texts",
            hint="take them out, and subtract them in the engine's own reward function",
        )


def _config(path: Path) -> RunConfig:
    if path.suffix != ".json":
        return load_config(path)
    found = read_edit_file(path)
    documents = [items(("reward", "edits"), [str(edit) for edit in found.edits], str(path))]
    if found.head is not None:
        documents.append(setting(("reward", "fingerprint"), found.head, str(path)))
    return load_config(None, documents)


def _missing_end(config: RunConfig | None, reference: ReferenceStatistics | None) -> float | str:
    """The penalty that the file sets. Its default is an SD, which has no size without reference answers."""
    if config is None:
        return 0.0
    given = "missing_end_penalty" in config.reward.model_fields_set
    return config.reward.missing_end_penalty if given or reference is not None else 0.0


def read_reference(path: Path, model: RewardModel, controls: Controls) -> ReferenceStatistics:
    """Statistics of the reference policy's answers.

    Args:
        path: rows with one response each, a latents folder, or saved statistics (`.json`).
        model: scores rows.
        controls: name the latents whose quantiles are kept.

    Raises:
        DataError: rows or statistics that cannot be used.
        ModelError: latents of another head.
    """
    if path.suffix == ".json":
        return ReferenceStatistics.load(path)
    return ReferenceStatistics.from_scored(_scored(path, model), controls.quantile_latents())


def _scored(path: Path, model: RewardModel) -> Scored:
    # latents that were kept need no forward pass
    if is_latents(path):
        return read_latents(path).scored
    return score_rows(model, read_rows(path, want={"answer"}))


def _human(path: Path | None, controls: Controls, model: RewardModel) -> HumanBuffer | None:
    if controls.human_kl is None or path is None:
        return None
    buffer = read_demonstrations(path, controls.human_kl.latents, model)
    buffer.check_latents(controls.human_kl.latents)
    return buffer


def _of_run(model: RewardModel, files: ControlFiles, *, standardize: bool) -> ControlledReward:
    if files.controls is None or files.human is not None or files.reference is not None:
        raise ConfigError(
            f"{files.controls} is a run folder, which has its own demonstrations and statistics",
            hint="leave --human and --reference out",
        )
    run = open_run(files.controls)
    _without_patterns(run.config, files.controls)
    found = run.open_controls(model)
    return ControlledReward(
        model,
        found.controls,
        missing_end=found.missing_end,
        reference=run.statistics,
        learner=found.state,
        standardize=standardize,
        shaping=run.config.reward.shaping,
    )
