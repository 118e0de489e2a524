"""Latents of data files of any size: one survey, then each shard is scored and written.

A `Job` holds everything that a process needs to make any shard of a folder. The same extraction therefore
runs in one process, in several, or as an actor of another engine, and every way gives the same shards.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sarm_control.console import ProgressFactory, no_progress
from sarm_control.data import AUTOMATIC
from sarm_control.embedded import is_input_name
from sarm_control.errors import ModelError
from sarm_control.files import manifest, named_inputs
from sarm_control.latents.manifest import FORMAT, mark_of
from sarm_control.latents.rows import ScoredRows, score_rows, template_check
from sarm_control.latents.shard import ShardBytes, encode_shard
from sarm_control.latents.survey_folder import Data
from sarm_control.latents.writer import LatentsWriter

if TYPE_CHECKING:
    from sarm_control.reward_model import Description, LinearHead, RewardModel


@dataclass(frozen=True)
class ModelSpec:
    """The model that scores, and how it is loaded; see `RewardModel.from_pretrained`.

    Args:
        name: folder, hub id or `lab`.
        shown: its name in outputs.
        device: see `RewardModel.from_pretrained`.
        dtype: see `RewardModel.from_pretrained`.
        max_length: see `RewardModel.from_pretrained`.
        batch_tokens: padded tokens of one forward pass.
        template_date: see `RewardModel.from_pretrained`.
    """

    name: str
    shown: str
    device: str | None = None
    dtype: str | None = None
    max_length: int | None = None
    batch_tokens: int | None = None
    template_date: str | None = None

    def load(self) -> "RewardModel":
        """The reward model."""
        from sarm_control.reward_model import RewardModel

        return RewardModel.from_pretrained(
            self.name,
            device=self.device,
            dtype=self.dtype,
            max_length=self.max_length,
            template_date=self.template_date,
        )


@dataclass(frozen=True)
class Job:
    """Everything a process needs to make any shard of one folder; it can be pickled.

    Args:
        data: the rows, cut into shards.
        model: the model that scores them.
        chosen: latents to keep, ascending; None keeps all.
        about: the part of the manifest that says where the latents came from.
        names: the name of each data file in outputs.
        states: whether the trunk's states are kept beside the latents.
    """

    data: Data
    model: ModelSpec
    chosen: tuple[int, ...] | None
    about: Mapping[str, Any]
    names: Mapping[Path, str]
    states: bool = False

    def writer(self, folder: Path) -> LatentsWriter:
        """The writer of the folder."""
        return LatentsWriter(folder, self.about, len(self.data.spans))


class Shard(NamedTuple):
    """A finished shard: its number, its files, and how many rows and answers it has."""

    number: int
    data: ShardBytes
    rows: int
    answers: int


class Extractor:
    """Makes shards of one job. It loads the model once, when it is created.

    Raises:
        ModelError: the model is not the one that the job was planned for.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.model = job.model.load()
        planned = job.about["config"]
        for what, has, of in (
            ("head", self.model.fingerprint, planned["head"]),
            ("model fingerprint", self.model.model_fingerprint, planned["model_fingerprint"]),
        ):
            if has != of:
                raise ModelError(
                    f"{job.model.shown} has the {what} {has}, but the extraction began with {of}",
                    hint="the model has changed; start again",
                )

    def shard(self, number: int) -> Shard:
        """Reads, scores and encodes one shard.

        Raises:
            DataError: the data changed meanwhile, the chat template refuses a conversation, or a latent is
                NaN.
        """
        job, span = self.job, self.job.data.spans[number]
        # rows that the survey set aside have to be known again; without that none was left out
        left_out = job.data.checked and job.data.skip
        rows = job.data.read(span, template_check(self.model.template) if left_out else None)
        scored = score_rows(self.model, rows, batch_tokens=job.model.batch_tokens, keep_states=job.states)
        found = ScoredRows(rows, scored)
        mark = mark_of(job.about)
        data = encode_shard(found, first=span.first, names=job.names, chosen=job.chosen, mark=mark)
        return Shard(number, data, len(rows), len(found.scored))


Engine = Callable[[Job, Sequence[int]], AbstractContextManager[Iterator[Shard]]]
"""A function that makes the shards with these numbers, in any order."""


def plan(
    data: Data,
    model: ModelSpec,
    described: "Description",
    *,
    shard_rows: int,
    chosen: Sequence[int] | None,
    states: bool = False,
) -> Job:
    """The job of one folder. No model is loaded.

    Args:
        data: from `survey`.
        model: the model that will score it.
        described: the description of the same model.
        shard_rows: as in the survey.
        chosen: latents to keep; None keeps all.
        states: whether the trunk's states are kept too.
    """
    # ascending and once each: --resume compares plans, in which the order of typing is no difference
    kept = None if chosen is None else tuple(sorted(set(chosen)))
    config = {
        "model": model.shown,
        "head": described.head.fingerprint,
        "model_fingerprint": described.model_fingerprint,
        "latents": described.latents,
        "k": described.k,
        "chosen": None if kept is None else list(kept),
        "template": described.template,
        "max_length": model.max_length,
        "dtype": model.dtype,
        "shard_rows": shard_rows,
        # keys only where they are set, so that folders begun before these keys existed can be resumed
        **({"states": True} if states else {}),
        **({"template_date": model.template_date} if model.template_date else {}),
        **({} if data.options == AUTOMATIC else {"rows_read_as": asdict(data.options)}),
        **({} if data.limit is None else {"first_rows": data.limit}),
        **_own_head(described.head),
    }
    record = manifest("latents", inputs=data.files, config=config)
    # `format` stays first: `is_latents` looks at the beginning of the file alone
    about = {"format": FORMAT, **record, "rows": data.rows, "answers": data.answers}
    return Job(data, model, kept, about, _names(data.files), states)


@contextmanager
def in_this_process(job: Job, numbers: Sequence[int]) -> Iterator[Iterator[Shard]]:
    """The engine that needs no other process."""
    # a folder that is whole already needs no model, and loading one may take minutes
    if not numbers:
        yield iter(())
        return
    extractor = Extractor(job)
    yield (extractor.shard(number) for number in numbers)


def extract(
    job: Job,
    writer: LatentsWriter,
    numbers: Sequence[int],
    engine: Engine = in_this_process,
    *,
    progress: ProgressFactory = no_progress,
) -> None:
    """Makes shards and writes each as soon as it is done.

    Args:
        job: from `plan`.
        writer: the folder's writer, started or resumed.
        numbers: the shards to make; a finished one stays even if a later one fails.
        engine: runs the model.
        progress: counts answers.
    """
    # only what is still to be made: a resumed extraction's time left is that of its own shards
    total = sum(job.data.spans[number].answers for number in numbers)
    with progress("Extracting latents", total) as advance, engine(job, numbers) as shards:
        for shard in shards:
            writer.put(shard.number, shard.data, rows=shard.rows, answers=shard.answers)
            advance(shard.answers)


def _own_head(head: "LinearHead") -> dict[str, Any]:
    """What a folder of a reward model with a head of its own says beside."""
    if head.own is None:
        return {}
    from sarm_control.reward_model import LinearHead

    # The folder holds the latents' weights alone, and its reader can check nothing but them. The head's own
    # fingerprint, by which controls are bound, is of the reward model's head as well.
    weights = LinearHead(head.weight).fingerprint
    return {"kind": "attached", "constant": head.constant, "weights": weights}


def _names(files: Sequence[Path]) -> dict[Path, str]:
    """The name of each file in outputs, by the path that was given."""
    named = {path: name for name, path in named_inputs(files).items()}
    return {file: named[file if is_input_name(file) else file.resolve()] for file in files}
