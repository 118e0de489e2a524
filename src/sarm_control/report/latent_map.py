"""Maps of latents: their decoder directions on a plane, coloured by what a discovery found of each.

One map shows the discovery, the others what training moved: a latent is as large as the change of what the
policy earns by it. The decoder is read from the reward model's files; its trunk is not loaded. The plane is
that of the first two principal components of unit directions, so near latents write alike into the state as
far as two directions can show.

Shapes: `L` latents, `D` numbers of a state, `M` latents that are drawn.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.charts import Spot, Tone, slug, spots, tone_of
from sarm_control.errors import ModelError
from sarm_control.pages import Block, Drawing, Panels, Prose, Section
from sarm_control.report.names import named
from sarm_control.report.sources import Run
from sarm_control.statistics import fixed
from sarm_control.training import read_ledger

MOST = 2000
"""Latents that are drawn at most: those that were called, then those of the largest weight."""
MOST_MOVED = 400
"""Latents that are drawn at most on a map of training: those that moved most at any evaluation."""
_NAMED = 8
_MEANING_OF: dict[str, Tone] = {"harms": "bad", "promotes": "good"}
_SEEN = 3
"""Evaluations of a run that are drawn: the first, one in the middle, the last."""
_PANEL = 440
_DECODER = "sae.decoder.weight"
Floats = NDArray[np.float64]
Found = Mapping[str, Any]


class Directions(NamedTuple):
    """What a map is drawn from: the decoder [D, L] and the head weights [L]."""

    decoder: NDArray[np.float32]
    weight: NDArray[np.float32]


class Plane(NamedTuple):
    """Places [M, 2] on the plane of the first two principal components, and its share of the variance."""

    places: Floats
    share: float


def map_section(found: Found, models: Iterable[str], names: Mapping[int, str]) -> Section:
    """The map of one discovery; where no decoder can be read, the sentence that says so.

    Args:
        found: the content of `features.json`.
        models: where its reward model may lie: names of models, of which one with its head is used.
        names: latent -> words.
    """
    title = "Map of latents"
    directions = next((one for model in models if (one := read_directions(model, found["head"]))), None)
    if directions is None:
        why = (
            f"Not drawn: no reward model with the head {found['head'][:12]} can be read here. Give the "
            "report a run that was trained with it, or run sarm report where its folder lies."
        )
        return Section("map", title, why, [])
    called = [one for listed in found["lists"].values() for one in listed]
    drawn = _drawn([int(one["latent"]) for one in called], directions.weight)
    plane = principal_plane(directions.decoder[:, drawn].T.astype(np.float64))
    cloud = _cloud(drawn, plane.places, found, names)
    figure = spots(
        cloud,
        name="latent-map",
        title="Where latents write into the state.",
        x_title="first principal component of decoder directions",
        y_title="second principal component",
        size_title="effect on the margin",
    )
    all_of = len(directions.weight)
    shown = f"All {all_of}" if len(drawn) == all_of else f"{len(drawn)} of {all_of}"
    harms, promotes = (len(found["lists"][kind]) for kind in ("harms", "promotes"))
    finding = f"{shown} latents: {harms} that harm, {promotes} that promote, the others grey."
    note = (
        f"Both directions hold {100 * plane.share:.0f} % of the variance of the unit directions: latents "
        "that lie apart differ, those that lie together may still differ in the rest. "
        "Names stand at the largest effects."
    )
    caption = "Vermilion diamonds harm, teal triangles promote; larger for a larger effect on the margin."
    return Section(
        "map", title, finding, [Drawing(figure, caption, 720, numbers=False), Prose([note], quiet=True)]
    )


def training_maps(runs: Sequence[Run], found: Found | None, names: Mapping[int, str]) -> Section | None:
    """Which latents the policy came to earn by: maps of a run's first, middle and last evaluation.

    Args:
        runs: in the order of the report; those whose ledger holds no evaluation have no map.
        found: the content of a discovery's `features.json` for the colours, or None.
        names: latent -> words.

    Returns:
        None where no run has a ledger.

    Raises:
        TrainingError: a ledger cannot be read.
    """
    blocks: list[Block] = []
    lines = []
    for run in runs:
        moved = read_moves(run)
        if not moved:
            continue
        last = moved[max(moved)]
        most = max(last, key=lambda latent: (abs(last[latent]), -latent))
        lines.append(
            f"{run.title}: most by {named(most, names)}, {fixed(last[most], 3, sign=True)} reward units."
        )
        # no fingerprint is asked for: the run's own ledger gave the latents, and it was made with this model
        directions = read_directions(str(run.config.reward.model), None)
        if directions is None:
            lines.append("Not drawn: its reward model cannot be read here.")
            continue
        blocks.append(Panels(_moves_of(run, moved, directions, found, names)))
    if not lines:
        return None
    note = (
        "A spot is a latent, in the place of its decoder direction (first two principal components), the "
        "same place in all charts of a run. It is larger where what the policy earns by it, weight times "
        "firing, changed more since the untrained policy; sizes are comparable within a run. "
    )
    note += (
        "Vermilion diamonds: harming by the discovery; teal triangles: promoting."
        if found is not None
        else "No discovery was given, so nothing says which of them harm."
    )
    blocks.append(Prose([note], quiet=True))
    return Section("training-map", "Which latents training moved", " ".join(lines), blocks)


def read_moves(run: Run) -> dict[int, dict[int, float]]:
    """Step -> latent -> change of the latent's mean part of the reward since the untrained policy.

    Raises:
        TrainingError: the ledger cannot be read.
    """
    table = read_ledger(run.path / "ledger.parquet")
    moved: dict[int, dict[int, float]] = {}
    if table is None:
        return moved
    columns = (table[name].to_pylist() for name in ("step", "term", "latent", "change"))
    for step, term, latent, change in zip(*columns, strict=True):
        if term == "latent":
            moved.setdefault(step, {})[latent] = change
    return moved


def _moves_of(
    run: Run,
    moved: Mapping[int, Mapping[int, float]],
    directions: Directions,
    found: Found | None,
    names: Mapping[int, str],
) -> list[Drawing]:
    """The maps of one run, all on one plane and with one scale of sizes."""
    most: dict[int, float] = {}
    for changes in moved.values():
        for latent, change in changes.items():
            most[latent] = max(most.get(latent, 0.0), abs(change))
    # those of any evaluation, so that all charts of a run have the same spots
    drawn = sorted(sorted(most, key=lambda latent: (-most[latent], latent))[:MOST_MOVED])
    plane = principal_plane(directions.decoder[:, drawn].T.astype(np.float64))
    meanings = {} if found is None else _meanings(found)
    steps = sorted(moved)
    drawings = []
    # a set, since with one or two evaluations first, middle and last are the same
    for step in sorted({steps[round(place)] for place in np.linspace(0, len(steps) - 1, _SEEN)}):
        sizes = [abs(moved[step].get(latent, 0.0)) for latent in drawn]
        largest = sorted(zip(sizes, drawn, strict=True), key=lambda one: (-one[0], one[1]))[: _NAMED // 2]
        # where nothing has moved yet, names would stand at latents chosen by their number
        labelled = {latent for size, latent in largest if size > 0}
        cloud = [
            Spot(float(x), float(y), size, meanings.get(latent, "plain" if found is None else "unclear"),
                 named(latent, names) if latent in labelled else "")
            for latent, size, (x, y) in zip(drawn, sizes, plane.places, strict=True)
        ]  # fmt: skip
        figure = spots(
            cloud,
            name=f"training-map-{slug(run.name)}-{step}",
            title=f"{run.title}, step {step}.",
            x_title="first principal component",
            y_title="second principal component",
            size_title="change since the untrained policy",
            # of the whole run: with a scale for each chart the first would look as if
            # as much had moved as at the end
            largest=max(most.values()) or 1.0,
        )
        drawings.append(Drawing(figure, "", _PANEL, numbers=False))
    return drawings


def read_directions(model: str, head: str | None) -> Directions | None:
    """The decoder and head of a reward model with latents, from its files alone; nothing is downloaded.

    Args:
        model: folder or name.
        head: the fingerprint that its head must have, since latent numbers belong to one; None for any, where
            the model is the one that gave the numbers.

    Returns:
        None where there is no such model here, it has another head, or no latents.
    """
    from sarm_control.reward_model import (
        find_folder,
        is_attached,
        load_tensors,
        read_attached,
        read_head,
        read_index,
    )

    try:
        folder = find_folder(model, local_files_only=True)
        weights = read_head(model)
        if head not in (None, weights.fingerprint) or not len(weights.weight):
            return None
        if is_attached(folder):
            decoder = read_attached(folder, model).autoencoder.decoder.weight.detach()
        else:
            decoder = load_tensors(read_index(folder, model), [_DECODER])[_DECODER]
    except (ModelError, KeyError):
        # the map is one part of a report, which is whole without it; the section says that it is missing
        return None
    return Directions(decoder.float().numpy(), weights.weight)


def principal_plane(directions: Floats) -> Plane:
    """Principal components of unit directions.

    Args:
        directions: [M, D], of any lengths; those of length 0 lie in the middle.
    """
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    # unit length, or the plane would be that of the longest directions; which of them writes most is a matter
    # of z and not of the decoder alone
    units = np.divide(directions, lengths, out=np.zeros_like(directions), where=lengths > 0)
    centred = units - units.mean(axis=0)
    # the eigenvectors of the M x M products are the places up to their lengths, and M is the smaller side
    sizes, vectors = np.linalg.eigh(centred @ centred.T)
    # `eigh` sorts upwards, and rounding leaves eigenvalues just below 0, of which there is no root
    sizes = np.clip(sizes[::-1], 0.0, None)
    places = np.zeros((len(directions), 2))
    top = min(2, len(sizes))
    places[:, :top] = vectors[:, ::-1][:, :top] * np.sqrt(sizes[:top])
    # the sign of an eigenvector is arbitrary: the latent farthest out lies on the positive side
    farthest = places[np.abs(places).argmax(axis=0), [0, 1]]
    places *= np.where(farthest < 0, -1.0, 1.0)
    total = float(sizes.sum())
    return Plane(places, float(sizes[:2].sum()) / total if total > 0 else 0.0)


def _drawn(called: Sequence[int], weight: NDArray[np.float32]) -> list[int]:
    """Latents of the map, in order of their numbers."""
    by_weight = np.argsort(-np.abs(weight), kind="stable").tolist()
    # the called ones first, so that none of them is cut off by a heavier latent that nobody asks about
    return sorted(list(dict.fromkeys([*called, *by_weight]))[:MOST])


def _meanings(found: Found) -> dict[int, Tone]:
    """What a discovery says of each latent that it called."""
    called: dict[int, Tone] = {}
    for kind, meaning in _MEANING_OF.items():
        for one in found["lists"][kind]:
            # a latent is called by a corrected test on other prompts; where its effect on the confirming ones
            # may be 0 it is grey, as in the tables
            clear = tone_of(one["low"], one["high"], more_is="good") != "unclear"
            called[int(one["latent"])] = meaning if clear else "unclear"
    return called


def _cloud(drawn: Sequence[int], places: Floats, found: Found, names: Mapping[int, str]) -> list[Spot]:
    meanings = _meanings(found)
    sizes = {
        int(one["latent"]): abs(float(one["effect"])) for kind in _MEANING_OF for one in found["lists"][kind]
    }
    largest = sorted(sizes, key=lambda latent: -sizes[latent])[:_NAMED]
    return [
        Spot(
            float(x),
            float(y),
            sizes.get(latent, 0.0),
            meanings.get(latent, "unclear"),
            named(latent, names) if latent in largest else "",
        )
        for latent, (x, y) in zip(drawn, places, strict=True)
    ]
