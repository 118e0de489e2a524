"""Length against reward, before and after training: the correlation over held-out prompts."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sarm_control.charts import Row, forest
from sarm_control.data import json_object, read_lines
from sarm_control.pages import Drawing, Prose, Section

_FEWEST = 5


class Correlation(NamedTuple):
    """A correlation with its 95 % interval (Fisher's z) over n prompts; no interval below five prompts."""

    policy: str
    value: float
    low: float | None
    high: float | None
    n: int


def length_correlations(rows: Sequence[Mapping[str, Any]]) -> list[Correlation]:
    """Pearson's correlation of length and unedited reward, for each policy, base first.

    Args:
        rows: of `answers.jsonl`: policy, prompt, reward, length. Answers to one prompt are averaged first,
            since they are not independent. Policies whose lengths or rewards are all equal have none.
    """
    found = []
    for policy in dict.fromkeys(str(row["policy"]) for row in rows):
        sums: dict[str, list[tuple[float, float]]] = {}
        for row in rows:
            if row["policy"] == policy:
                sums.setdefault(str(row["prompt"]), []).append((float(row["length"]), float(row["reward"])))
        points = np.array([np.mean(values, axis=0) for values in sums.values()])
        # numpy would divide by 0 and warn; no correlation is a better answer than NaN in a chart
        if len(points) < 2 or not np.all(points.std(axis=0) > 0):
            continue
        value = float(np.corrcoef(points.T)[0, 1])
        found.append(Correlation(policy, value, *_fisher(value, len(points)), len(points)))
    return found


def length_section(folder: Path | None, titles: Mapping[str, str]) -> Section | None:
    """Length against reward for each policy, by the titles of its arms; None where there are no answers."""
    file = None if folder is None else (folder if folder.is_dir() else folder.parent) / "answers.jsonl"
    if file is None or not file.is_file():
        return None
    found = length_correlations([json_object(line.data) for line in read_lines(file)])
    if not found:
        return None
    found = [one._replace(policy=titles.get(one.policy, one.policy)) for one in found]
    rows = [Row(one.policy, one.value, one.low, one.high) for one in found]
    figure = forest(
        rows,
        name="length-and-reward",
        title="How closely reward goes with length.",
        x_title="correlation of length and unedited reward (95 %)",
    )
    said = ", ".join(f"{one.policy} {one.value:+.2f}" for one in found)
    note = f"Pearson's correlation over {found[0].n} prompts; the interval is Fisher's."
    return Section(
        "length",
        "Length and reward, before and after",
        f"{said}.",
        [Drawing(figure, "", 600), Prose([note], quiet=True)],
    )


def _fisher(value: float, n: int) -> tuple[float | None, float | None]:
    if n < _FEWEST or abs(value) >= 1:
        return None, None
    # atanh r is nearly normal with the variance 1 / (n - 3), where r itself is skewed near its ends
    middle, half = math.atanh(value), 1.959963984540054 / math.sqrt(n - 3)
    return math.tanh(middle - half), math.tanh(middle + half)
