"""A map of latents: their decoder directions on a plane, coloured by what a discovery found of each.

The decoder is read from the reward model's files; its trunk is not loaded. The plane is that of the first two
principal components of unit directions, so near latents write alike into the state as far as two directions
can show.

Shapes: `L` latents, `D` numbers of a state, `M` latents that are drawn.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.charts import Spot, Tone, spots, tone_of
from sarm_control.errors import ModelError
from sarm_control.pages import Drawing, Prose, Section
from sarm_control.report.names import named

MOST = 2000
"""Latents that are drawn at most: those that were called, then those of the largest weight."""
_NAMED = 8
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


def read_directions(model: str, head: str) -> Directions | None:
    """The decoder and head of a reward model with latents, from its files alone; nothing is downloaded.

    Args:
        model: folder or name.
        head: the fingerprint that its head must have, since latent numbers belong to one.

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
        if weights.fingerprint != head or not len(weights.weight):
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
    units = np.divide(directions, lengths, out=np.zeros_like(directions), where=lengths > 0)
    centred = units - units.mean(axis=0)
    # the eigenvectors of the M x M products are the places up to their lengths, and M is the smaller side
    sizes, vectors = np.linalg.eigh(centred @ centred.T)
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
    return sorted(list(dict.fromkeys([*called, *by_weight]))[:MOST])


def _cloud(drawn: Sequence[int], places: Floats, found: Found, names: Mapping[int, str]) -> list[Spot]:
    called: dict[int, tuple[Tone, float]] = {}
    meanings: dict[str, Tone] = {"harms": "bad", "promotes": "good"}
    for kind, meaning in meanings.items():
        for one in found["lists"][kind]:
            clear = tone_of(one["low"], one["high"], more_is="good") != "unclear"
            called[int(one["latent"])] = (meaning if clear else "unclear", abs(float(one["effect"])))
    largest = sorted(called, key=lambda latent: -called[latent][1])[:_NAMED]
    return [
        Spot(
            float(x),
            float(y),
            called.get(latent, ("unclear", 0.0))[1],
            called.get(latent, ("unclear", 0.0))[0],
            named(latent, names) if latent in largest else "",
        )
        for latent, (x, y) in zip(drawn, places, strict=True)
    ]
