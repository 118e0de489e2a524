"""What the explorer shows: everything opened, checked against one head, and held in memory.

Shapes: `L` latents, `M` tested latents.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.bounded_json import MISSHAPEN, read_json_object, shown
from sarm_control.console import say
from sarm_control.discovery import discover, load_features
from sarm_control.embedded import LAB
from sarm_control.errors import DataError, ModelError
from sarm_control.explorer.columns import table_of_features
from sarm_control.explorer.live_run import LiveRun
from sarm_control.explorer.notes import Notes
from sarm_control.lab import World
from sarm_control.latents import ScoredRows
from sarm_control.reward_model import RewardModel, Scored, SparseLatents

Table = Mapping[str, NDArray[Any]]


class LatentName(NamedTuple):
    """A name of a latent, and how well it was found to fit.

    Args:
        text: the name.
        skill: how well the name, or the attribute of that name, tells apart answers in which the latent is
            active; None where that was not measured.
        measure: what `skill` is: "balanced accuracy" or "AUROC".
        low: lower end of its 95 % interval, where there is one.
        high: upper end.
    """

    text: str
    skill: float | None = None
    measure: str | None = None
    low: float | None = None
    high: float | None = None


class Found(NamedTuple):
    """The effects of a discovery.

    Args:
        table: `latent` [M], `kind` and the columns of a discovery's table.
        goal: what the latents promote or harm, in words.
        whole: whether the table has every tested latent, or the called ones alone.
    """

    table: Table
    goal: str
    whole: bool


@dataclass(frozen=True)
class Sources:
    """The inputs of the explorer.

    Args:
        model: what the pages call the reward model.
        fingerprint: of its head.
        head: [L] float32 head weights.
        rm: the reward model; None where a latents folder stands alone. Nothing new can be scored then.
        data: scored rows; none where only a model was given.
        data_name: what the pages call them.
        found: the effects; None where there are no pairs.
        names: names of latents.
        audit: the content of `audit.json`.
        run: a run folder to follow.
        notes: the file of notes; None where notes cannot be kept, as in an export.
        about: a sentence on the model for who sees it for the first time; None where there is none.
    """

    model: str
    fingerprint: str
    head: NDArray[np.float32]
    rm: RewardModel | None
    data: ScoredRows
    data_name: str | None = None
    found: Found | None = None
    names: Mapping[int, LatentName] = field(default_factory=dict)
    audit: Mapping[str, Any] | None = None
    run: LiveRun | None = None
    notes: Notes | None = None
    about: str | None = None

    @property
    def size(self) -> int:
        """L."""
        return len(self.head)


def no_rows(rm: RewardModel) -> ScoredRows:
    """No rows, of a reward model's head."""
    none = np.zeros(0)
    latents = SparseLatents(
        np.zeros(1, dtype=np.int64), none.astype(np.int32), none.astype(np.float32), len(rm.head.weight)
    )
    scored = Scored(
        rewards=none.astype(np.float32),
        latents=latents,
        head=rm.head.weight,
        truncated=none.astype(np.int64),
        ended=none.astype(np.bool_),
        lengths=none.astype(np.int64),
        fingerprint=rm.fingerprint,
        residual=none,
        constant=rm.head.constant,
        kind=rm.kind,
    )
    return ScoredRows([], scored)


def found_in(features: Path | None, data: ScoredRows, name: str | None) -> Found | None:
    """The effects of latents: those of a features file, or those that the rows' own pairs show.

    Beside a features file its `effects.parquet` is read, which has every tested latent.

    Args:
        features: `features.json` of `sarm discover`.
        data: scored rows, of which pairs are used where no file is given.
        name: what they are called.

    Returns:
        None where there are neither file nor enough pairs.

    Raises:
        DataError: a file that cannot be used, or of another head.
    """
    if features is not None:
        return _of_file(features, data.scored.fingerprint)
    if not any(row.chosen and row.rejected for row in data.rows):
        return None
    # of a file with other rows too, the pairs alone: effects are of margins
    pairs = np.array([bool(row.chosen and row.rejected) for row in data.rows])
    kept = np.repeat(pairs, [len(row.answers) for row in data.rows])
    rows = [row for row, wanted in zip(data.rows, pairs, strict=True) if wanted]
    try:
        own = discover(ScoredRows(rows, data.scored.take(np.flatnonzero(kept))))
    except DataError:
        # too few prompts to test any latent: the pages then show what they can without effects
        return None
    return Found(own.table.columns, f"chosen over rejected in {name or 'the rows'}", whole=True)


def _of_file(features: Path, fingerprint: str) -> Found:
    content = load_features(features, fingerprint)
    called = [one for items in content.lists.values() for one in items]
    beside = features.with_name("effects.parquet")
    if not beside.is_file():
        return Found(table_of_features(called), content.goal, whole=False)
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(beside)
        columns = {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}
        if not {"latent", "kind", "effect"} <= set(columns):
            raise ValueError("it lacks latent, kind or effect")
    except (OSError, ValueError) as error:
        raise DataError(
            f"{beside} cannot be read: {error}", hint="make it again with sarm discover"
        ) from error
    return Found(columns, content.goal, whole=True)


def names_in(
    labels: Path, fingerprint: str, size: int, model_fingerprint: str | None = None
) -> dict[int, LatentName]:
    """The names that a language model gave, and words where it gave none; of `sarm label`.

    Args:
        labels: the JSON file. One that does not say its head is used, and a line on stderr says so.
        fingerprint: of the head whose latents are shown.
        size: L.
        model_fingerprint: of trunk and autoencoder; None where it is not known.

    Raises:
        DataError: not a file of labels, or one of latents that the model does not have.
        ModelError: labels on another head, or on another model with an equal head.
    """
    content = read_json_object(labels, hint="make it with sarm label")
    _check_labelled(labels, content, fingerprint, model_fingerprint)
    try:
        names = {int(one["latent"]): _name(one) for one in content["labels"]}
    except MISSHAPEN as error:
        raise DataError(
            f"{labels}: not a file of labels: {shown(error, 200)}", hint="make it with sarm label"
        ) from error
    beyond = [latent for latent in names if not 0 <= latent < size]
    if beyond:
        raise DataError(
            f"{labels}: there is no latent {beyond[0]}, this model has {size}",
            hint="label this model's latents",
        )
    return {latent: name for latent, name in names.items() if name is not None}


_KNOWN = 0.75
"""The AUROC from which a planted attribute is used as the name of a latent."""


def planted_names(fingerprint: str) -> dict[int, LatentName]:
    """For the embedded world, the attributes that its latents are known to detect; else no names."""
    truth = World.open(LAB).truth
    if truth.fingerprint != fingerprint:
        return {}
    return {
        latent: LatentName(name.replace("_", " "), float(auroc), "AUROC")
        for latent, (name, auroc) in enumerate(zip(truth.detects, truth.detects_auroc, strict=True))
        if auroc >= _KNOWN
    }


def _check_labelled(
    labels: Path, content: Mapping[str, Any], fingerprint: str, model_fingerprint: str | None
) -> None:
    head, model = content.get("head"), content.get("model_fingerprint")
    hint = "label this model's latents: sarm label"
    if head is None:
        say(f"{labels} does not say which head its latents are of: its names are shown as they are")
    elif head != fingerprint:
        raise ModelError(
            f"{labels} names latents of the head {shown(head)}, this model has the head {fingerprint}; "
            "their latents have other meanings",
            hint=hint,
        )
    # equal heads weigh latents alike; what makes these fire is in trunk and autoencoder
    if None not in (model, model_fingerprint) and model != model_fingerprint:
        raise ModelError(
            f"{labels} names latents of the model {shown(model)}, this one is {model_fingerprint}: "
            "the heads are equal, trunk or autoencoder are not",
            hint=hint,
        )


def _name(label: Mapping[str, Any]) -> LatentName | None:
    name = label["name"]
    if name is not None:
        ends = (float(name["low"]), float(name["high"]))
        return LatentName(str(name["text"]), float(name["balanced_accuracy"]), "balanced accuracy", *ends)
    words = [str(one["text"]) for one in label["words"]][:3]
    return LatentName(", ".join(words)) if words else None


def read_audit(folder: Path, fingerprint: str) -> dict[str, Any]:
    """`audit.json` of a folder that `sarm audit` wrote.

    Raises:
        DataError: there is none, or it is of another head.
    """
    path = folder / "audit.json" if folder.is_dir() else folder
    content = read_json_object(path, hint="make it with sarm audit -o DIR")
    if content.get("head") != fingerprint:
        raise DataError(
            f"{path}: an audit of the head {shown(content.get('head'))}, this model has {fingerprint}",
            hint="audit this model",
        )
    try:
        # read once here: a file of another kind is told when it is opened, not when a latent is
        # clicked
        attributes_of(content, 0)
    except MISSHAPEN as error:
        raise DataError(
            f"{path}: not an audit: {shown(error, 200)}", hint="make it with sarm audit -o DIR"
        ) from error
    return dict(content)


def attributes_of(audit: Mapping[str, Any], latent: int) -> list[dict[str, Any]]:
    """The attributes that a latent carries, by the audit's changes of the text, largest first."""
    found: list[dict[str, Any]] = []
    for one in audit["attributes"]:
        causal = one.get("causal")
        for part in [] if causal is None else causal["latents"]:
            if part["latent"] == latent:
                carried = {"edit": causal["edit"], "sd": part["sd"], "of": causal["sd"]}
                found.append({"name": one["name"], "words": one["words"], **carried})
    return sorted(found, key=lambda item: -abs(item["sd"]))
