"""What `sarm audit` is held against: an earlier reward model, a training run, candidates of a policy."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sarm_control.cli._audit_flags import BesideFlags
from sarm_control.cli._scoring import model_name
from sarm_control.cli._sources import ModelFlags
from sarm_control.console import progress, say
from sarm_control.embedded import LAB_MODELS
from sarm_control.errors import ConfigError, DataError

if TYPE_CHECKING:
    from sarm_control.auditing import Attribute, PriceChanges, RunMovement
    from sarm_control.data import Row
    from sarm_control.latents import ScoredRows
    from sarm_control.reward_model import RewardModel


_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_DATA = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".gz", ".zst")


class Named(NamedTuple):
    """The reward models and the data among the words of a command line.

    Args:
        data: files of rows, and folders of latents.
        model: that is audited.
        before: an earlier one that it is compared with.
    """

    data: tuple[Path, ...]
    model: str | None
    before: str | None


def named_models(words: Sequence[Path], model: str | None, before: str | None) -> Named:
    """Tells reward models from data: `sarm audit OLD NEW pairs.jsonl` compares two of them.

    Args:
        words: what stands on the command line without an option.
        model: of `--model`.
        before: of `--before`.

    Raises:
        ConfigError: three reward models, or one both with an option and without.
    """
    models = [str(word) for word in words if _is_model(word)]
    data = tuple(word for word in words if str(word) not in models)
    if len(models) > 2:
        raise ConfigError(
            f"{len(models)} reward models: {', '.join(models)}",
            hint="two are compared: sarm audit OLD NEW PAIRS",
        )
    if models and (model is not None or before is not None):
        option = "--model" if model is not None else "--before"
        raise ConfigError(
            f"{models[-1]} is a reward model, and {option} names another",
            hint="write both as sarm audit OLD NEW PAIRS, or both with --before OLD --model NEW",
        )
    if not models:
        return Named(data, model, before)
    # the last is audited, as one reads from old to new
    return Named(data, models[-1], models[0] if len(models) == 2 else None)


def _is_model(word: Path) -> bool:
    """Whether a word names a reward model: the lab's, a folder of one, or an id on the model hub."""
    from sarm_control.latents import is_latents

    if str(word) in LAB_MODELS:
        return True
    if word.exists():
        kinds = ("config.json", "attached.json")
        return word.is_dir() and any((word / name).is_file() for name in kinds) and not is_latents(word)
    # a data file that does not exist, as in a typing error, has the form of an id: data/pairs.jsonl
    return bool(_HUB_ID.fullmatch(str(word))) and not str(word).endswith(_DATA)


class Compared(NamedTuple):
    """What came of it.

    Args:
        changes: of prices since the earlier reward model; None without one.
        moved: what the run did; None without one, or with too few samples.
        missing: what was not measured.
    """

    changes: "PriceChanges | None" = None
    moved: "tuple[RunMovement, ...] | None" = None
    missing: tuple[str, ...] = ()

    def as_json(self, beside: BesideFlags) -> dict[str, Any]:
        """For audit.json; null where nothing was asked for."""
        changes = None if self.changes is None else self.changes.as_json()
        moved = None if self.moved is None else [one.as_json() for one in self.moved]
        return {
            "before": None
            if beside.before is None
            else {"model": model_name(beside.before), "changes": changes},
            "run": None
            if beside.run is None
            else {
                "run": beside.run.resolve().name,
                "attributes": moved,
                "missing": list(self.missing),
            },
        }

    def text(self, beside: BesideFlags) -> str:
        """For the terminal."""
        from sarm_control.auditing import changes_text, run_text

        parts = []
        if self.changes is not None and beside.before is not None:
            parts.append(changes_text(self.changes, model_name(beside.before)))
        if self.moved is not None:
            parts.append(run_text(self.moved))
        parts += [f"not measured: {one}\n" for one in self.missing]
        return "".join(f"\n{part}" for part in parts)


def model_of_run(run: Path | None, model: str | None) -> str | None:
    """The reward model that a run was trained with, where no other was named.

    Raises:
        ConfigError: the folder is no run, or has no samples.
    """
    if run is None:
        return model
    from sarm_control.training import read_run_config

    for name in ("config.yaml", "samples.jsonl"):
        if not (run / name).is_file():
            raise ConfigError(
                f"{run} is not a run folder: it has no {name}",
                hint="give the folder that sarm train wrote, such as runs/NAME",
            )
    return model or read_run_config(run).reward.model


def sampled_candidates(
    rm: "RewardModel", rows: "Sequence[Row]", beside: BesideFlags, seed: int, device: str | None
) -> "ScoredRows":
    """Answers of a policy to some of the prompts, scored; a row of candidates for each prompt.

    Args:
        rm: scores them.
        rows: whose prompts are answered.
        beside: which policy, and how many prompts and answers.
        seed: of the prompts and the answers.
        device: of the policy.

    Raises:
        ModelError: the policy cannot be loaded.
    """
    import numpy as np

    from sarm_control.comparison import Sampling, answer_prompts, unique_prompts
    from sarm_control.data import Row
    from sarm_control.latents import ScoredRows
    from sarm_control.seeds import numpy_generator
    from sarm_control.training import Policy, PolicyConfig, encode_prompts

    every = unique_prompts(rows)
    most = min(beside.policy_prompts, len(every))
    # in the order of the file, in which everything else names its prompts
    drawn = np.sort(numpy_generator(seed, "prompts of a policy").choice(len(every), most, replace=False))
    asked = [every[i] for i in drawn]
    policy = Policy.load(PolicyConfig(model=str(beside.policy)), seed=seed, device=device)
    prompts = encode_prompts(
        policy, [row.prompt for row in asked], [row.where for row in asked], beside.max_new_tokens
    )
    # at temperature 1: best-of-N is measured from the policy itself, and its bound in nats holds for that
    # alone
    sampling = Sampling(beside.n, beside.max_new_tokens, 1.0, seed, 64)
    answers = answer_prompts(policy, prompts, sampling, label="Policy answers", progress=progress)
    # its memory is needed for scoring
    del policy
    texts = [answers.texts[p * beside.n : (p + 1) * beside.n] for p in range(len(asked))]
    found = [
        Row(
            row.path,
            row.line,
            {"prompt": row.prompt, "candidates": list(own)},
            "candidates",
            row.prompt,
            candidates=tuple(own),
            unit=row.unit,
            file=row.file,
        )
        for row, own in zip(asked, texts, strict=True)
    ]
    scored = rm.score(
        [row.prompt for row in found for _ in row.answers],
        list(answers.texts),
        # an answer cut at the length limit has no end of turn, and is scored as such
        ended=answers.ended,
        progress=progress,
    )
    say(f"{len(answers.texts)} answers of {model_name(str(beside.policy))} to {len(found)} prompts")
    return ScoredRows(found, scored)


def run_moved(
    samples: "ScoredRows", attributes: "Sequence[Attribute]", beside: BesideFlags
) -> "tuple[tuple[RunMovement, ...] | None, tuple[str, ...]]":
    """What a run did to each attribute; else why that cannot be said."""
    from sarm_control.auditing import attribute_table, run_movements, steps_of

    steps = steps_of(samples.rows)
    table = attribute_table(samples, attributes)
    try:
        return run_movements(table, steps, certified=beside.verdicts()), ()
    except DataError as error:
        return None, (f"Run: {error}. {error.hint or ''}".strip(),)


def check_same_rows(rows: "Sequence[Row]", before: "Sequence[Row]", beside: BesideFlags) -> None:
    """Refuses to compare reward models that do not score the same rows.

    Args:
        rows: those of the audited one.
        before: those of the earlier one.
        beside: names the earlier one.

    Raises:
        DataError: saying how many rows one of them alone can score.
    """
    own, others = ({(str(row.path), row.file, row.line) for row in of} for of in (rows, before))
    apart = len(own ^ others)
    if apart:
        raise DataError(
            f"{apart} rows can be scored by one of the two reward models alone: the chat template of the "
            f"audited one or of {model_name(str(beside.before))} refuses them",
            hint="leave them out of the data, so that both score the same rows",
        )


def earlier(beside: BesideFlags, flags: ModelFlags) -> ModelFlags:
    """How the earlier reward model is loaded: as the new one is."""
    from sarm_control.reward_model import find_folder, latents_of

    name = str(beside.before)
    # what has a dictionary is of one output, read at one token, and refuses to be told either; a classifier
    # read at another output than the new one would show changes that no training made
    own = latents_of(find_folder(name), name) > 0
    return ModelFlags(
        beside.before,
        flags.device,
        flags.dtype,
        flags.max_length,
        flags.batch_tokens,
        flags.template_date,
        reading=None if own else flags.reading,
    )
