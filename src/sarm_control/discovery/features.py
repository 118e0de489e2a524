"""`features.json`: the lists of latents that a discovery found, bound to one head.

Latent numbers mean nothing on another head, so a file is refused for a model whose head has another
fingerprint. `features.json#harms[:3]` names a part of a list.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sarm_control.bounded_json import MISSHAPEN, read_json, shown
from sarm_control.control import Edit, Penalty
from sarm_control.errors import ConfigError, DataError
from sarm_control.files import write_json

FORMAT = "sarm-features-1"
LISTS = ("promotes", "harms")

_SPEC = re.compile(r"@?(?P<path>.+)#(?P<list>[A-Za-z_]+)(\[(?P<part>[-\d:\s]*)\])?")
_AGAIN = "make it with sarm discover"
_EXAMPLE = "write it like features.json#harms[:3]"


@dataclass(frozen=True)
class Feature:
    """One latent that promotes or harms, with its evidence.

    Effects, rates and auroc are measured on the confirmation prompts, p and q on the selection prompts.

    Args:
        latent: its number on the head that the file names.
        kind: such as "paid-for-bad".
        weight: its head weight.
        effect: mean margin contribution, reward units.
        low: lower end of the 95 % interval of the effect; None where too few prompts differ.
        high: upper end.
        p: two-sided, by redrawing the labels, see `discovery.permutation.label_tests`.
        q: Benjamini-Hochberg over all tested latents.
        q_confirm: Benjamini-Hochberg over the selected latents, on the confirmation prompts.
        effect_sd: the effect in SDs of the reward over answers.
        share_of_margin: the effect divided by the mean margin.
        rate_chosen: share of chosen answers in which it is active.
        rate_rejected: share of rejected answers in which it is active.
        auroc: probability that z is larger in a chosen answer.
        d_z: the effect in SDs over prompts.
        q_by: like q, by Benjamini-Yekutieli.
        p_max_t: step-down max-T over all tested latents, on the selection prompts.
        effect_equal_length: the effect between answers of equal length; None where undefined.
        equal_length_low: lower end of its 95 % interval.
        equal_length_high: upper end.
        prompts_for_interval: about how many confirmation prompts would be enough for an interval; None
            where there is one.
        levels: the levels of evidence that agree with the effect, see `discovery.evidence.ablations`; none
            where the interval contains 0 or does not exist.
        controls: suggested controls of a latent that harms and has evidence of level 1; chosen together
            with those of the other latents.
        carried_by: the similar latents whose controls cover this latent too, where it has none of its own.
    """

    latent: int
    kind: str
    weight: float
    effect: float
    low: float | None
    high: float | None
    p: float
    q: float
    q_confirm: float
    effect_sd: float | None
    share_of_margin: float | None
    rate_chosen: float
    rate_rejected: float
    auroc: float
    d_z: float | None = None
    q_by: float | None = None
    p_max_t: float | None = None
    effect_equal_length: float | None = None
    equal_length_low: float | None = None
    equal_length_high: float | None = None
    prompts_for_interval: float | None = None
    levels: tuple[str, ...] = ()
    controls: tuple[Edit | Penalty, ...] = ()
    carried_by: tuple[int, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The feature as a JSON object."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        controls = [control_json(control) for control in self.controls]
        carried_by = list(self.carried_by)
        return {**plain, "levels": list(self.levels), "controls": controls, "carried_by": carried_by}


# the types that a file may have in the fields that are plain numbers or text
_OF_TYPE: dict[Any, tuple[type, ...]] = {int: (int,), str: (str,), float: (int, float)}
_KINDS = {
    field.name: _OF_TYPE.get(field.type, (int, float, type(None)))
    for field in dataclasses.fields(Feature)
    if field.name not in ("levels", "controls", "carried_by")
}


@dataclass(frozen=True)
class Features:
    """The content of a features file.

    Args:
        head: fingerprint of the head.
        model: the model's id or folder name.
        goal: what the lists promote or harm.
        lists: "promotes" and "harms", largest effect first.
        about: counts, settings and hashes of the data, as JSON.
    """

    head: str
    model: str
    goal: str
    lists: Mapping[str, tuple[Feature, ...]]
    about: Mapping[str, Any]

    def save(self, path: Path) -> None:
        """Writes the file atomically."""
        lists = {name: [feature.as_json() for feature in items] for name, items in self.lists.items()}
        head = {"format": FORMAT, "head": self.head, "model": self.model, "goal": self.goal}
        write_json(path, {**head, **self.about, "lists": lists})


def ends_of_effect(feature: Feature, style: str) -> str:
    """The ends of the interval of a latent's effect, or a note that too few confirmation prompts differ."""
    if feature.low is None or feature.high is None:
        enough = feature.prompts_for_interval
        return f"(too few prompts{'' if enough is None else f', about {enough:,.0f} would do'})"
    return f"[{feature.low:{style}}, {feature.high:{style}}]"


def control_json(control: Edit | Penalty) -> dict[str, dict[str, Any]]:
    """`{"edit": {...}}` or `{"penalty": {...}}` with the fields that are set."""
    fields = {field.name: getattr(control, field.name) for field in dataclasses.fields(control)}
    set_fields = {name: value for name, value in fields.items() if value is not None}
    if isinstance(control, Edit):
        return {"edit": set_fields}
    # the other forms do not use it
    if control.form != "sigmoid":
        set_fields.pop("temperature")
    return {"penalty": set_fields}


def load_features(path: Path | str, fingerprint: str) -> Features:
    """Reads a features file for the model whose head has this fingerprint.

    Raises:
        DataError: the file is missing or not a features file, or it was made on another
            head; the message names both fingerprints.
    """
    path = Path(path)
    content = _features_json(path)
    head = content.pop("head")
    if head != fingerprint:
        raise DataError(
            f"{path}: found on the head {head}, this model has the head {fingerprint}; "
            "latent numbers mean other things there",
            hint="run sarm discover with this model",
        )
    try:
        lists = {
            name: tuple(_feature(item) for item in items) for name, items in content.pop("lists").items()
        }
        return Features(head, str(content.pop("model")), str(content.pop("goal")), lists, content)
    except (ConfigError, *MISSHAPEN) as error:
        raise DataError(f"{path}: not a features file: {error}", hint=_AGAIN) from error


def _features_json(path: Path) -> dict[str, Any]:
    content = read_json(path, hint=_AGAIN)
    form = content.pop("format", None) if isinstance(content, dict) else None
    if form != FORMAT or not isinstance(content.get("head"), str):
        raise DataError(f"{path}: not a features file (format {shown(form)}, wants {FORMAT!r})", hint=_AGAIN)
    return dict(content)


def _feature(item: Mapping[str, Any]) -> Feature:
    known = {field.name for field in dataclasses.fields(Feature)}
    # fields that a later version adds are left out, so that its files can be read
    fields = {name: value for name, value in item.items() if name in known}
    controls = tuple(_control(control) for control in item.get("controls", ()))
    levels = tuple(map(str, item.get("levels", ())))
    carried_by = tuple(map(int, item.get("carried_by", ())))
    feature = Feature(**{**fields, "levels": levels, "controls": controls, "carried_by": carried_by})
    for name, kinds in _KINDS.items():
        value = getattr(feature, name)
        # bool is a subclass of int
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise TypeError(f"{name} is {shown(value)}")
    if feature.latent < 0:
        raise ValueError(f"latent is {feature.latent}")
    return feature


def _control(item: Mapping[str, Mapping[str, Any]]) -> Edit | Penalty:
    if "edit" in item:
        return Edit(**item["edit"])
    return Penalty(**item["penalty"])


def select(spec: str, fingerprint: str) -> tuple[Feature, ...]:
    """The latents that a text such as `features.json#harms[:3]` names; a leading `@` is allowed.

    Args:
        spec: `FILE#LIST`, `FILE#LIST[i]` or `FILE#LIST[start:stop]`, with indices as in Python.
        fingerprint: of the head of the model they are meant for.

    Raises:
        ConfigError: the text is not such a name, the list does not exist, or that part is empty.
        DataError: the file cannot be used with this head.
    """
    parts = _SPEC.fullmatch(spec.strip())
    if parts is None:
        raise ConfigError(f"{spec!r} does not name a list of features", hint=_EXAMPLE)
    lists = load_features(parts["path"], fingerprint).lists
    name = parts["list"]
    if name not in lists:
        raise ConfigError(f"{spec}: no list {name}", hint=f"the lists are {', '.join(lists)}")
    chosen = _part(lists[name], parts["part"], spec)
    if not chosen:
        raise ConfigError(
            f"{spec}: nothing there, {name} has {len(lists[name])} latents",
            hint="an empty list is a null result of the discovery: there is nothing to control",
        )
    return chosen


def _part(items: Sequence[Feature], part: str | None, spec: str) -> tuple[Feature, ...]:
    if part is None:
        return tuple(items)
    try:
        ends = [int(end) if end.strip() else None for end in part.split(":")]
    except ValueError:
        raise ConfigError(f"{spec}: [{part}] is not a slice", hint=_EXAMPLE) from None
    if len(ends) == 1 and ends[0] is not None:
        index = ends[0] if ends[0] >= 0 else ends[0] + len(items)
        return tuple(items[index : index + 1]) if index >= 0 else ()
    if len(ends) != 2:
        raise ConfigError(f"{spec}: [{part}] is not a slice", hint=_EXAMPLE)
    return tuple(items[ends[0] : ends[1]])
