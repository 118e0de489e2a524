"""RM-Bench (arXiv 2410.16184): three styles of a good answer against three styles of a bad one.

For each row, `A[i][j] = [s(chosen_i) > s(rejected_j)]` (strict), with the styles concise, detailed plain text
and detailed markdown. Hard is `(A01 + A02 + A12) / 3` (the chosen answer has the plainer style), normal is
the mean of the diagonal, easy is `(A10 + A20 + A21) / 3`, and average is the mean of all nine. The figures of
a domain are means over its rows; the rows of the two safety files are one domain. The total is the unweighted
mean of the domains.

Shapes: `R` rows.
"""

from collections.abc import Sequence

import numpy as np

from sarm_control.data import Row, Source, rows_of
from sarm_control.errors import DataError
from sarm_control.evaluation.answer_places import Floats
from sarm_control.evaluation.benchmarks.benchmark import Benchmark

NAME = "rm-bench"
DOMAINS = ("chat", "code", "math", "safety")
RM_BENCH_FILES = ("total_dataset.json",)
"""The files of the hub's data set that hold the rows."""

_STYLES = 3
# rows are styles of the chosen answer: above the diagonal it is the plainer one
_UPPER, _LOWER = np.triu_indices(_STYLES, 1), np.tril_indices(_STYLES, -1)


def rm_bench(rows: Sequence[Row] | Source) -> Benchmark:
    """The benchmark on rows with `prompt`, three `chosen`, three `rejected` and a `domain`.

    Args:
        rows: pairs; or what `read_rows` takes, such as a list of dicts or a data frame.

    Raises:
        DataError: a row with another number of answers, or an unknown domain.
    """
    rows = rows_of(rows, want={"pair"})
    for row in rows:
        if (len(row.chosen), len(row.rejected)) != (_STYLES, _STYLES):
            raise DataError(
                f"{row.where}: {len(row.chosen)} chosen and {len(row.rejected)} rejected answers; "
                "RM-Bench has three styles of each",
                hint="is this another benchmark? see --benchmark",
            )
    parts = [str(row.raw.get("domain", "")) for row in rows]
    domains = [part.partition("-")[0] for part in parts]
    for row, domain in zip(rows, domains, strict=True):
        if domain not in DOMAINS:
            raise DataError(
                f"{row.where}: {row.raw.get('domain')!r} is not a domain of RM-Bench",
                hint=f"they are {', '.join(DOMAINS)}; safety-refuse and safety-response are both safety",
            )
    return Benchmark(
        name=NAME,
        figures=("average", "easy", "normal", "hard"),
        units=tuple(str(row.raw.get("id", row.line)) for row in rows),
        subset=np.array(domains, dtype=np.str_),
        part=np.array(parts, dtype=np.str_),
        unit_of_answer=np.repeat(np.arange(len(rows)), 2 * _STYLES),
        chance=np.full(len(rows), 0.5),
        whole=DOMAINS,
        credit=_credit,
    )


def _credit(scores: Floats) -> Floats:
    """[R, 4] average, easy, normal and hard of each row."""
    sides = scores.reshape(-1, 2, _STYLES)
    # strict, as in the benchmark: a model that scores all answers alike gets 0 and not one half
    wins = sides[:, 0, :, None] > sides[:, 1, None, :]
    return np.stack(
        [
            wins.mean(axis=(1, 2)),
            wins[:, _LOWER[0], _LOWER[1]].mean(axis=1),
            np.trace(wins, axis1=1, axis2=2) / _STYLES,
            wins[:, _UPPER[0], _UPPER[1]].mean(axis=1),
        ],
        axis=1,
    )
