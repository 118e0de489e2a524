"""Targets: attributes of single answers that a discovery looks for instead of a preference.

Answers with more of the attribute are the *chosen* side, those with less the *rejected* side; the rest of
the discovery is the same. So latents of verbosity or refusal are found in the same way as safety latents.

Shapes: `N` answers.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from sarm_control.data import WITH_ANSWERS, Prompt, Row, Source, rows_of
from sarm_control.discovery.pairs.prompt_pairs import AnswerPlace, PromptPairs, pairs_of_places
from sarm_control.errors import ConfigError, DataError
from sarm_control.reward_model import Scored
from sarm_control.seeds import derive_seed

Kind = Literal["length", "column", "regex"]

T = TypeVar("T")

_EXAMPLES = "write length, column:NAME, column:NAME=VALUE or regex:PATTERN"
_BETWEEN = "\x1f"


@dataclass(frozen=True)
class Target:
    """An attribute of an answer.

    - `length`: the number of tokens of the answer.
    - `column`: a number or a truth value in the data: one for the row, or a list with one for each
      of the row's answers. With `value`, whether the column has that value.
    - `regex`: whether the answer matches a regular expression.

    Args:
        kind: one of these.
        name: the column or the pattern; empty for `length`.
        value: of the column.
        less: whether the answers with less of it are the chosen side.
    """

    kind: Kind
    name: str = ""
    value: str | None = None
    less: bool = False

    @property
    def goal(self) -> str:
        """The chosen side in words."""
        side = "less" if self.less else "more"
        if self.kind == "length":
            return "shorter over longer answers" if self.less else "longer over shorter answers"
        if self.kind == "regex":
            return f"answers {'without' if self.less else 'with'} /{self.name}/ over others"
        if self.value is not None:
            return f"answers with {self.name} {'!=' if self.less else '='} {self.value} over others"
        return f"{side} {self.name}"

    @property
    def column(self) -> str | None:
        """The column of the data that is read; None for the other kinds."""
        return self.name if self.kind == "column" else None


def parse_target(text: str, *, less: bool = False) -> Target:
    """A target from `length`, `column:NAME`, `column:NAME=VALUE` or `regex:PATTERN`.

    Raises:
        ConfigError: the text is none of these, or the pattern is not a regular expression.
    """
    kind, _, rest = text.partition(":")
    if text == "length":
        return Target("length", less=less)
    if kind == "column" and rest:
        name, equals, value = rest.partition("=")
        return Target("column", name, value if equals else None, less)
    if kind == "regex" and rest:
        try:
            re.compile(rest)
        except re.error as error:
            raise ConfigError(
                f"--target {text}: {error}", hint="it is a regular expression of Python"
            ) from None
        return Target("regex", rest, less=less)
    raise ConfigError(f"--target {text!r} names no attribute", hint=_EXAMPLES)


def target_values(rows: Sequence[Row], scored: Scored, target: Target) -> NDArray[np.float64]:
    """[N] the attribute of every answer of every row, in order; a higher value is on the chosen side.

    Raises:
        DataError: `file:line: reason` for a column that is missing, or is neither a number nor a truth value.
    """
    if target.kind == "length":
        values = scored.lengths.astype(np.float64)
    elif target.kind == "regex":
        pattern = re.compile(target.name)
        values = np.array([pattern.search(text) is not None for row in rows for text in row.answers])
    else:
        values = np.array([value for row in rows for value in _column(row, target)])
    return values.astype(np.float64) * (-1.0 if target.less else 1.0)


def group_by_target(
    rows: Sequence[Row] | Source, scored: Scored, target: Target, *, seed: int = 0
) -> PromptPairs:
    """Pairs of answers with more and with less of the attribute, in units whose labels the tests can redraw.

    Where prompts have answers on both sides, the unit is the prompt, split at the middle between its lowest
    and highest value. Where none has (one answer for each prompt), the unit is a random pair of prompts: one
    of each kind for an attribute with two values, and for a number any two, with the higher one as chosen.
    From the prompt with more answers, as many are drawn as the other one has. No prompt is in two units.

    Args:
        rows: rows with answers, of any kind; preferences are not used. Or what `read_rows` takes, such as
            a list of dicts or a data frame.
        scored: scores of `Row.answers` of every row, in order.
        target: what to look for.
        seed: of the draw.

    Raises:
        DataError: no two answers differ in the attribute; see also `target_values`.
    """
    rows = rows_of(rows, want=WITH_ANSWERS)
    values = target_values(rows, scored, target)
    prompts = _by_prompt(rows, values)
    # units within prompts are preferred: they hold the prompt fixed, and pairs of prompts do not
    units = dict(_within(prompts)) or dict(_across(prompts, seed))
    if not units:
        raise DataError(
            f"no two answers differ in the target: {target.goal}", hint="look for another attribute"
        )
    # reversed, so that of a prompt's rows the first stays
    first = {row.prompt_key: row for row in reversed(rows)}
    chosen, rejected = (
        [
            AnswerPlace(one.number, u, one.text, one.prompt)
            for u, unit in enumerate(units.values())
            for one in unit[side]
        ]
        for side in (0, 1)
    )
    own_rows = tuple(first[key.split(_BETWEEN)[0]] for key in units)
    return pairs_of_places(chosen, rejected, tuple(units), own_rows, scored)


class _Valued(NamedTuple):
    number: int
    text: str
    prompt: Prompt
    value: float


_Unit = tuple[list[_Valued], list[_Valued]]


def _column(row: Row, target: Target) -> list[float]:
    value = row.raw.get(target.name)
    own = value if isinstance(value, list) else [value] * len(row.answers)
    if len(own) != len(row.answers):
        raise DataError(f"{row.where}: {target.name} has {len(own)} values for {len(row.answers)} answers")
    if target.value is not None:
        return [float(_as_text(one) == target.value) for one in own]
    return [_number(one, row, target) for one in own]


def _number(value: Any, row: Row, target: Target) -> float:
    if not isinstance(value, bool | int | float):
        raise DataError(
            f"{row.where}: {target.name} is {value!r}, wants a number or a truth value",
            hint=f"name a value: --target column:{target.name}=VALUE",
        )
    return float(value)


def _as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _by_prompt(rows: Sequence[Row], values: NDArray[np.float64]) -> dict[str, list[_Valued]]:
    """The answers of each prompt; one that occurs in several rows counts once."""
    found: dict[str, dict[str, _Valued]] = {}
    number = 0
    for row in rows:
        own = found.setdefault(row.prompt_key, {})
        for text in row.answers:
            own.setdefault(text, _Valued(number, text, row.prompt, float(values[number])))
            number += 1
    return {key: list(own.values()) for key, own in found.items()}


def _within(prompts: Mapping[str, list[_Valued]]) -> Iterator[tuple[str, _Unit]]:
    for key, answers in prompts.items():
        # the middle of the range and not the median: with two values it separates them, whatever their counts
        middle = (min(one.value for one in answers) + max(one.value for one in answers)) / 2
        more = [one for one in answers if one.value > middle]
        less = [one for one in answers if one.value < middle]
        if more and less:
            yield key, (more, less)


def _across(prompts: Mapping[str, list[_Valued]], seed: int) -> Iterator[tuple[str, _Unit]]:
    # by text and seed, not by place: the same prompts are paired whatever their order in the file
    keys = sorted(prompts, key=lambda key: derive_seed(seed, "pairing", key))
    # no prompt has two values here (see `_within`), so its first answer stands for all
    levels = sorted({answers[0].value for answers in prompts.values()})
    if len(levels) == 2:
        kinds = [[key for key in keys if prompts[key][0].value == level] for level in levels]
        drawn = list(zip(kinds[1], kinds[0], strict=False))
    else:
        drawn = [
            _higher_first(one, other, prompts) for one, other in zip(keys[::2], keys[1::2], strict=False)
        ]
    for high, low in drawn:
        if prompts[high][0].value > prompts[low][0].value:
            # the key does not depend on the side, so that `less` gives the same halves
            fewest = min(len(prompts[high]), len(prompts[low]))
            more, less = (_some(key, prompts[key], fewest, seed) for key in (high, low))
            yield _BETWEEN.join(sorted((high, low))), (more, less)


def _some(key: str, answers: list[_Valued], count: int, seed: int) -> list[_Valued]:
    """`count` of a prompt's answers, drawn independently of their order.

    Between two prompts, single answers are not exchangeable, but whole prompts are, if both have equally many
    answers: the mean of eight answers is not distributed like a single one.
    """
    drawn = sorted(answers, key=lambda one: derive_seed(seed, "answers of a unit", key, one.text))[:count]
    return [one for one in answers if one in drawn]


def _higher_first(one: str, other: str, prompts: Mapping[str, list[_Valued]]) -> tuple[str, str]:
    return (one, other) if prompts[one][0].value > prompts[other][0].value else (other, one)
