"""The human demonstrations of a run: rows to score, latents already kept, or a finished human buffer."""

from pathlib import Path
from typing import TYPE_CHECKING

from sarm_control.console import ProgressFactory, no_progress
from sarm_control.data import is_saved_folder, read_rows, stream_rows
from sarm_control.errors import DataError, ModelError
from sarm_control.latents import HumanBuffer, LatentsFolder, score_rows
from sarm_control.training.config.run_config import RunConfig
from sarm_control.training.run.checkpoint import writing

if TYPE_CHECKING:
    from sarm_control.reward_model import RewardModel

_BUFFER = ".safetensors"


def check_human(config: RunConfig) -> None:
    """Refuses demonstrations that cannot be used, before any model is loaded.

    Raises:
        DataError: a file that cannot be used, or fewer demonstrations than answers of a step.
        ConfigError: a buffer, or a folder, of other latents than the term's.
    """
    term, path = config.reward.human_kl, config.data.human
    if term is None or path is None:
        return
    count = _count(path, term.latents)
    answers = config.training.answers_per_step
    if count < answers:
        raise DataError(
            f"{path} has {count} demonstrations, a step has {answers} answers",
            hint="give more demonstrations, or lower training.prompts_per_step",
        )


def human_buffer(
    config: RunConfig, model: "RewardModel", kept: Path, *, progress: ProgressFactory = no_progress
) -> HumanBuffer | None:
    """The demonstrations' latents, written to `kept` once; None without a human-KL term.

    Args:
        config: `data.human` names rows, a latents folder or a human buffer.
        model: scores rows; the others have to be of its head.
        kept: the run's own file, read when it is there.
        progress: shows the scoring of rows.

    Raises:
        DataError: see `check_human`.
        ConfigError: likewise.
        ModelError: latents of another head.
    """
    term = config.reward.human_kl
    if term is None or config.data.human is None:
        return None
    own = kept.is_file()
    buffer = read_demonstrations(kept if own else config.data.human, term.latents, model, progress)
    if own and buffer.fingerprint != model.fingerprint:
        raise ModelError(
            f"reward.model is not the one the run was started with: its head was {buffer.fingerprint}, "
            f"now it is {model.fingerprint}",
            hint="put the model back, or start another run with --out",
        )
    buffer.check(model.fingerprint, model.model_fingerprint)
    buffer.check_latents(term.latents)
    buffer.check_size(config.training.answers_per_step)
    if not own:
        with writing(kept):
            buffer.save(kept)
    return buffer


def read_demonstrations(
    path: Path,
    latents: tuple[int, ...],
    model: "RewardModel",
    progress: ProgressFactory = no_progress,
) -> HumanBuffer:
    """The buffer of a file of demonstrations.

    Args:
        path: rows, a latents folder or a human buffer.
        latents: to compare on; empty lets the demonstrations choose.
        model: scores rows; the others have to be of its head.
        progress: shows the scoring of rows.

    Raises:
        DataError: rows or a folder that cannot be used.
        ConfigError: a folder of other latents.
    """
    if path.suffix == _BUFFER:
        return HumanBuffer.load(path)
    if path.is_dir() and not is_saved_folder(path):
        folder = LatentsFolder(path)
        chosen = latents or folder.manifest.chosen or ()
        found = folder.read(latents=chosen or None)
        other = next((row for row in found.rows if row.kind != "answer"), None)
        if other is not None:
            raise DataError(
                f"{path}: {other.where} has kind {other.kind}, demonstrations are rows with one response",
                hint="make the folder from rows of prompt and response",
            )
        return HumanBuffer.from_scored(found.scored, chosen)
    rows = read_rows(path, want={"answer"})
    return HumanBuffer.from_scored(score_rows(model, rows, progress=progress), latents)


def _count(path: Path, latents: tuple[int, ...]) -> int:
    if path.suffix == _BUFFER:
        buffer = HumanBuffer.load(path)
        buffer.check_latents(latents)
        return len(buffer)
    if path.is_dir() and not is_saved_folder(path):
        folder = LatentsFolder(path)
        folder.check_holds(latents or folder.manifest.chosen)
        return folder.manifest.answers
    return sum(1 for _ in stream_rows(path, want={"answer"}))
