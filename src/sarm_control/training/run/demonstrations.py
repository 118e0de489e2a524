"""The human demonstrations of a run, read as rows to score, a latents folder, or a human buffer.

A human buffer holds the latents of demonstrations; the human-KL term compares a step's answers with it.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from sarm_control.console import ProgressFactory, no_progress
from sarm_control.control import HumanKL
from sarm_control.data import AUTOMATIC, RowOptions, is_row_folder, read_rows, stream_rows
from sarm_control.errors import DataError, ModelError
from sarm_control.latents import HumanBuffer, LatentsFolder, check_same_model, score_rows, template_check
from sarm_control.training.run.checkpoint import writing

if TYPE_CHECKING:
    from sarm_control.conversation import ChatTemplate
    from sarm_control.reward_model import RewardModel

_BUFFER = ".safetensors"


def check_human(
    path: Path | None, term: HumanKL | None, answers: int, options: RowOptions = AUTOMATIC
) -> None:
    """Refuses demonstrations that cannot be used, before any model is loaded.

    Args:
        path: `data.human`: rows, a latents folder or a human buffer.
        term: the human-KL term that compares with them; without one they are not read.
        answers: of a step, to which the demonstrations are compared.
        options: how rows are read, see `read_rows`.

    Raises:
        DataError: a file that cannot be used, or fewer demonstrations than answers of a step.
        ConfigError: a buffer, or a folder, of other latents than the term's.
    """
    if term is None or path is None:
        return
    count = _count(path, term.latents, options)
    if count < answers:
        raise DataError(
            f"{path} has {count} demonstrations, a step has {answers} answers",
            hint="give more demonstrations, or lower training.prompts_per_step",
        )


def check_human_model(
    path: Path | None, term: HumanKL | None, fingerprint: str, model_fingerprint: str | None
) -> None:
    """Refuses latents of another reward model, by what their files say; rows are scored by the run itself.

    Args:
        path: `data.human`: rows, a latents folder or a human buffer.
        term: the human-KL term that compares with them; without one they are not read.
        fingerprint: of the reward model's head.
        model_fingerprint: of its trunk and autoencoder.

    Raises:
        ModelError: naming both.
    """
    if term is None or path is None:
        return
    if path.suffix == _BUFFER:
        HumanBuffer.load(path).check(fingerprint, model_fingerprint)
    elif path.is_dir():
        found = LatentsFolder(path).manifest
        check_same_model(found.fingerprint, found.model_fingerprint, fingerprint, model_fingerprint)


def check_human_rows(
    path: Path | None, term: HumanKL | None, template: "ChatTemplate", options: RowOptions = AUTOMATIC
) -> None:
    """Refuses demonstrations that the reward model's chat template refuses.

    Args:
        path: `data.human`: rows; a latents folder or a human buffer passes, since it was scored already.
        term: the human-KL term that compares with them; without one they are not read.
        template: of the reward model.
        options: how rows are read, see `read_rows`.

    Raises:
        DataError: `file:line: reason`.
    """
    if term is None or path is None or path.suffix == _BUFFER or (path.is_dir() and not is_row_folder(path)):
        return
    for _ in stream_rows(path, want={"answer"}, options=options, check=template_check(template)):
        pass


def human_buffer(
    path: Path | None,
    term: HumanKL | None,
    model: "RewardModel",
    kept: Path,
    *,
    answers: int,
    options: RowOptions = AUTOMATIC,
    progress: ProgressFactory = no_progress,
) -> HumanBuffer | None:
    """The demonstrations' latents, which are written to `kept` once; None without a human-KL term.

    Args:
        path: `data.human`: rows, a latents folder or a human buffer.
        term: the human-KL term that compares with them.
        model: scores rows; latents and buffers must belong to its head.
        kept: the run's own file, which is read if it exists.
        answers: of a step; there must be at least as many demonstrations.
        options: how rows are read, see `read_rows`.
        progress: shows the scoring of rows.

    Raises:
        DataError: see `check_human`.
        ConfigError: likewise.
        ModelError: latents of another head.
    """
    if term is None or path is None:
        return None
    # the run's own copy first: a resumed run has to compare with the very latents that it was started with
    own = kept.is_file()
    buffer = read_demonstrations(kept if own else path, term.latents, model, progress, options)
    if own and buffer.fingerprint != model.fingerprint:
        raise ModelError(
            f"reward.model is not the one the run was started with: its head was {buffer.fingerprint}, "
            f"now it is {model.fingerprint}",
            hint="put the model back, or start another run with --out",
        )
    buffer.check(model.fingerprint, model.model_fingerprint)
    buffer.check_latents(term.latents)
    buffer.check_size(answers)
    if not own:
        with writing(kept):
            buffer.save(kept)
    return buffer


def read_demonstrations(
    path: Path,
    latents: tuple[int, ...],
    model: "RewardModel",
    progress: ProgressFactory = no_progress,
    options: RowOptions = AUTOMATIC,
) -> HumanBuffer:
    """The buffer of a file of demonstrations.

    Args:
        path: rows, a latents folder or a human buffer.
        latents: to compare; empty takes those that the demonstrations name or choose.
        model: scores rows; latents and buffers must belong to its head.
        progress: shows the scoring of rows.
        options: how rows are read, see `read_rows`.

    Raises:
        DataError: rows or a folder that cannot be used.
        ConfigError: a folder of other latents.
    """
    if path.suffix == _BUFFER:
        return HumanBuffer.load(path)
    if path.is_dir() and not is_row_folder(path):
        folder = LatentsFolder(path)
        chosen = latents or folder.manifest.chosen or ()
        latents_of_rows = folder.read(latents=chosen or None)
        wrong = next((row for row in latents_of_rows.rows if row.kind != "answer"), None)
        if wrong is not None:
            raise DataError(
                f"{path}: {wrong.where} has kind {wrong.kind}, demonstrations are rows with one response",
                hint="make the folder from rows of prompt and response",
            )
        return HumanBuffer.from_scored(latents_of_rows.scored, chosen)
    rows = read_rows(path, want={"answer"}, options=options)
    return HumanBuffer.from_scored(score_rows(model, rows, progress=progress), latents)


def _count(path: Path, latents: tuple[int, ...], options: RowOptions) -> int:
    if path.suffix == _BUFFER:
        buffer = HumanBuffer.load(path)
        buffer.check_latents(latents)
        return len(buffer)
    if path.is_dir() and not is_row_folder(path):
        folder = LatentsFolder(path)
        folder.check_holds(latents or folder.manifest.chosen)
        return folder.manifest.answers
    return sum(1 for _ in stream_rows(path, want={"answer"}, options=options))
