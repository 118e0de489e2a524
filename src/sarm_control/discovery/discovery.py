"""A discovery from scored pairs: select latents on some prompts, confirm them on others, suggest controls.

The pairs are scored once before; everything here is algebra on their sparse latents.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sarm_control.control import Edit, Penalty
from sarm_control.data import Row
from sarm_control.discovery.effects.baselines import Competitor, compete
from sarm_control.discovery.effects.effect_table import EffectTable
from sarm_control.discovery.effects.effects import replicated_effects
from sarm_control.discovery.effects.groups import GroupEffect, group_effects, group_members
from sarm_control.discovery.effects.kinds import direction
from sarm_control.discovery.effects.margin_summary import (
    Cumulative,
    LostMargin,
    Summary,
    cumulative_margin,
    lost_margin,
    summarise,
)
from sarm_control.discovery.effects.residual_effect import ResidualEffect, residual_effect
from sarm_control.discovery.enough import check_arrangements, check_enough
from sarm_control.discovery.features import LISTS, Feature
from sarm_control.discovery.pairs.prompt_pairs import (
    PromptPairs,
    PromptSplit,
    drop_shared,
    group_by_prompt,
    split_halves,
    without_shared,
)
from sarm_control.discovery.pairs.targets import Target, group_by_target
from sarm_control.discovery.suggested_controls.suggestion import (
    Suggested,
    material_latents,
    shown_latents,
    suggest,
    with_controls,
)
from sarm_control.errors import DataError
from sarm_control.latents import ScoredRows as ScoredRows
from sarm_control.notebooks import Bar, html_table, number, span
from sarm_control.reward_model import Scored, SparseLatents
from sarm_control.statistics import SETS, leaves_out_zero

PARTS = ("selection", "confirmation")
_LATER = ("levels", "controls", "carried_by")
_FEATURE_COLUMNS = tuple(name for name in Feature.__dataclass_fields__ if name not in _LATER)


def _in_short(control: Edit | Penalty) -> str:
    """As it is written after `--edit` or `--penalize`."""
    if isinstance(control, Edit):
        return str(control)
    tau = f"{control.tau:.4g}" if isinstance(control.tau, float) else control.tau
    size = control.alpha if control.target_rate is None else control.target_rate
    return f"{control.latent}:tau={tau},{'alpha' if control.target_rate is None else 'target_rate'}={size}"


@dataclass(frozen=True)
class DiscoverySettings:
    """The settings of a discovery.

    Args:
        alpha: false discovery rate of selection and of confirmation.
        min_prompts: latents active in fewer selection prompts are not tested.
        seed: of the halves, the redraws of labels and the random sets.
        by: a column of the data; margins and called latents are also reported for each of its values.
        sets: the number of matched random sets with which every selection is compared.
        target: an attribute of an answer to look for instead of the preference.
    """

    alpha: float = 0.05
    min_prompts: int = 10
    seed: int = 0
    by: str | None = None
    sets: int = SETS
    target: Target | None = None


@dataclass(frozen=True)
class Discovery:
    """Every tested latent, the called ones, and summaries.

    Args:
        table: one row per tested latent, see `replicated_effects`.
        lists: "promotes" and "harms", largest effect first.
        suggested: controls for the harming latents, chosen jointly, and their effects.
        selection: summary of the prompts on which latents are selected.
        confirmation: summary of the prompts on which effects are reported.
        groups: by part ("selection", "confirmation"), the summary of each value of `settings.by`.
        group_effects: the effects of called latents on each of these groups, in both parts.
        competitors: for "promotes" and "harms", the tests compared with other ways to choose latents.
        lost: how much of the excess reward of worse answers the harming latents carry.
        cumulative: how many latents make a share of the margin.
        residual: the part of the margin that no latent holds; None for a SARM.
        parts: the prompts of both parts.
        shared: number of prompts dropped from the confirmation because the selection has them.
        settings: of this discovery.
        head: fingerprint of the head.
    """

    table: EffectTable
    lists: Mapping[str, tuple[Feature, ...]]
    suggested: Suggested
    selection: Summary
    confirmation: Summary
    groups: Mapping[str, Mapping[str, Summary]]
    group_effects: tuple[GroupEffect, ...]
    competitors: Mapping[str, tuple[Competitor, ...]]
    lost: LostMargin | None
    cumulative: Cumulative | None
    residual: ResidualEffect | None
    parts: PromptSplit
    shared: int
    settings: DiscoverySettings
    head: str

    @property
    def counts(self) -> dict[str, int]:
        """The numbers of latents tested, selected, confirmed, and of each direction."""
        selected = self.table["q"] <= self.settings.alpha
        named = {name: len(items) for name, items in self.lists.items()}
        tested = {"tested": len(self.table), "selected": int(selected.sum())}
        return {**tested, "confirmed": sum(named.values()), **named, "shared_prompts_dropped": self.shared}

    def to_pandas(self) -> Any:
        """Every tested latent as a pandas frame, see `EffectTable.to_pandas`."""
        return self.table.to_pandas()

    def _repr_html_(self) -> str:
        """What promotes and what harms in a notebook, with the controls that are suggested."""
        called = [one for items in self.lists.values() for one in items]
        longest = max((abs(one.effect) for one in called), default=0.0)
        head = ("latent", "kind", "effect", "95 % interval", "q", "suggested control")
        counts = self.counts
        told = ", ".join(f"{counts[name]} {name}" for name in ("tested", "selected", "confirmed"))
        title = f"latents: {told}"
        parts = [html_table(title, (), ())]
        for name, items in self.lists.items():
            rows = (
                (
                    one.latent,
                    one.kind,
                    Bar(one.effect, longest, number(one.effect)),
                    span(one.low, one.high),
                    number(one.q, ".3g"),
                    ", ".join(_in_short(control) for control in one.controls),
                )
                for one in items
            )
            parts.append(html_table(name if items else f"{name}: none", head, rows))
        return "".join(parts)

    def with_suggestions(self, *, of_margin: float = 0.0, of_sd: float = 0.0) -> "Discovery":
        """The same discovery with controls for harming latents of a material effect only, chosen for these.

        Args:
            of_margin: the smallest |effect|, as a share of the mean margin.
            of_sd: the smallest |effect|, in SDs of the reward over answers.
        """
        harms = material_latents(self.lists["harms"], of_margin=of_margin, of_sd=of_sd)
        # chosen anew and not taken from the sizes there are: those were chosen to
        # act together, with all of them
        suggested = suggest(harms, self.parts)
        lists = {**self.lists, "harms": with_controls(self.lists["harms"], suggested.joint)}
        return replace(self, lists=lists, suggested=suggested)

    def as_json(self) -> dict[str, Any]:
        """Counts, summaries and settings as a JSON object."""
        return {
            "counts": self.counts,
            "alpha": self.settings.alpha,
            "min_prompts": self.settings.min_prompts,
            "seed": self.settings.seed,
            "target": None if self.settings.target is None else self.settings.target.goal,
            "selection": self.selection.as_json(),
            "confirmation": self.confirmation.as_json(),
            "groups": {
                part: {value: group.as_json() for value, group in groups.items()}
                for part, groups in self.groups.items()
            },
            "group_effects": [one.as_json() for one in self.group_effects],
            "selections": {name: [one.as_json() for one in ways] for name, ways in self.competitors.items()},
            "lost_margin": None if self.lost is None else self.lost.as_json(),
            "cumulative": None if self.cumulative is None else self.cumulative.as_json(),
            "residual": None if self.residual is None else self.residual.as_json(),
            "suggested_controls": self.suggested.as_json(),
        }


def discover(
    pairs: ScoredRows, confirm: ScoredRows | None = None, settings: DiscoverySettings | None = None
) -> Discovery:
    """Finds the latents that promote or harm what the pairs prefer.

    Args:
        pairs: pairs to select on. Without `confirm`, half of their prompts is kept for confirmation.
        confirm: other pairs, scored by the same head; prompts that `pairs` has too are dropped.
        settings: rates, filter and seed.

    Raises:
        DataError: too few prompts for any latent to be tested or confirmed (see `discovery.enough`), scores
            of two heads, or a column that no row has.
        ConfigError: a rate outside (0, 1).
    """
    settings = settings or DiscoverySettings()
    check_column([*pairs.rows, *(confirm.rows if confirm else [])], settings.by)
    parts = _parts(pairs, confirm, settings)
    # before anything is tested: data that could show nothing must not end in a table that says "no latent"
    check_enough(parts, alpha=settings.alpha, min_prompts=settings.min_prompts, halved=confirm is None)
    # the table is computed once; lists, groups and competitors read it, so they agree on what was selected
    table = replicated_effects(
        parts.selection.latents,
        parts.confirmation.latents,
        alpha=settings.alpha,
        min_prompts=settings.min_prompts,
        seed=settings.seed,
    )
    lists = _lists(table)
    suggested = suggest(shown_latents(lists["harms"]), parts)
    lists["harms"] = with_controls(lists["harms"], suggested.joint)
    called = [one for items in lists.values() for one in items]
    first, second = parts.selection.latents, parts.confirmation.latents
    return Discovery(
        table=table,
        lists=lists,
        suggested=suggested,
        selection=summarise(first),
        confirmation=summarise(second),
        groups={part: _groups(getattr(parts, part), settings) for part in PARTS},
        group_effects=tuple(
            one for part in PARTS for one in group_effects(part, getattr(parts, part), settings.by, called)
        ),
        competitors={name: _compete(parts, table, name, settings) for name in LISTS},
        lost=lost_margin(
            second,
            [one.latent for one in lists["harms"]],
            settings.seed,
            settings.sets,
            table["latent"],
        ),
        cumulative=cumulative_margin(first, second),
        residual=residual_effect(first, second, alpha=settings.alpha, seed=settings.seed),
        parts=parts,
        shared=parts.shared,
        settings=settings,
        head=pairs.scored.fingerprint,
    )


def _compete(
    parts: PromptSplit, table: EffectTable, name: str, settings: DiscoverySettings
) -> tuple[Competitor, ...]:
    return compete(
        parts.selection.latents,
        parts.confirmation.latents,
        table["latent"],
        table["q"] <= settings.alpha,
        sign=-1 if name == "harms" else 1,
        sets=settings.sets,
        seed=settings.seed,
    )


def _parts(pairs: ScoredRows, confirm: ScoredRows | None, settings: DiscoverySettings) -> PromptSplit:
    grouped = _grouped(pairs, settings)
    if confirm is None:
        return split_halves(grouped, settings.seed)
    if settings.target is None:
        return drop_shared(grouped, _grouped(confirm, settings))
    # a unit of a target may hold two prompts, so shared prompts are dropped before units are made
    others = without_shared(pairs, confirm)
    return PromptSplit(grouped, _grouped(others.rows, settings), others.shared)


def _grouped(pairs: ScoredRows, settings: DiscoverySettings) -> PromptPairs:
    if settings.target is None:
        return group_by_prompt(pairs.rows, pairs.scored)
    return group_by_target(pairs.rows, pairs.scored, settings.target, seed=settings.seed)


def check_column(rows: Sequence[Row], by: str | None) -> None:
    """Refuses a column that no row has.

    Raises:
        DataError: the message names the existing columns.
    """
    if by is not None and not any(by in row.raw for row in rows):
        columns = sorted({name for row in rows for name in row.raw})
        raise DataError(f"no row has the column {by}", hint=f"the columns are {', '.join(columns)}")


def check_rows(pairs: Sequence[Row], confirm: Sequence[Row] | None, settings: DiscoverySettings) -> None:
    """Refuses rows on which nothing could be found, before any of them is scored.

    Args:
        pairs: as for `discover`, without scores.
        confirm: likewise.
        settings: likewise. Of the target `length` only columns are checked: a model's tokenizer counts.

    Raises:
        DataError: see `check_column` and `check_arrangements`; or no two answers differ in the target.
    """
    target = settings.target
    for column in (settings.by, None if target is None else target.column):
        check_column([*pairs, *(confirm or [])], column)
    if target is not None and target.kind == "length":
        return
    parts = _parts(_unscored(pairs), None if confirm is None else _unscored(confirm), settings)
    check_arrangements(parts, alpha=settings.alpha, halved=confirm is None)


def _unscored(rows: Sequence[Row]) -> ScoredRows:
    """Rows whose answers have one latent that is never active: what depends on the rows alone is right."""
    count = sum(len(row.answers) for row in rows)
    zeros = np.zeros(count, dtype=np.int64)
    none = SparseLatents(
        np.zeros(count + 1, dtype=np.int64), np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32), 1
    )
    rewards, head = np.zeros(count, dtype=np.float32), np.zeros(1, dtype=np.float32)
    return ScoredRows(
        list(rows), Scored(rewards, none, head, zeros, np.ones(count, dtype=np.bool_), zeros, fingerprint="")
    )


def _groups(pairs: PromptPairs, settings: DiscoverySettings) -> dict[str, Summary]:
    members = group_members(pairs, settings.by)
    return {value: summarise(pairs.take(own).latents) for value, own in members.items()}


def _lists(table: EffectTable) -> dict[str, tuple[Feature, ...]]:
    lists: dict[str, list[Feature]] = {name: [] for name in LISTS}
    named = np.array([direction(kind) is not None for kind in table["kind"]], dtype=np.bool_)
    for row in table.take(named).rows():
        # an effect that may be 0 on the confirmation prompts is no evidence, so the latent gets no control
        shown = leaves_out_zero(row["effect"], row["low"], row["high"])
        columns = {name: row[name] for name in _FEATURE_COLUMNS}
        lists[str(direction(row["kind"]))].append(Feature(**columns, levels=("L1",) if shown else ()))
    return {name: tuple(sorted(items, key=lambda one: -abs(one.effect))) for name, items in lists.items()}
