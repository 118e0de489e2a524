"""A small table of numpy columns of equal length, which can be written as Parquet."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarm_control.files import atomic_file
from sarm_control.notebooks import Bar, data_frame, html_table, number, span

_SHOWN = 20


@dataclass(frozen=True)
class EffectTable:
    """One row per tested latent, ascending by latent.

    `table["effect"]` is a numpy column, `len(table)` the number of rows, `table.rows()` yields dicts, and
    `table.to_arrow()` is a `pyarrow.Table`. Libraries that read the Arrow stream protocol (pandas, polars,
    pyarrow) accept the table directly.

    Args:
        columns: name to [M] column, all of one length.
    """

    columns: Mapping[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.columns[name]

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names, in order."""
        return tuple(self.columns)

    def take(self, rows: NDArray[Any]) -> "EffectTable":
        """The chosen rows, by index or by a mask."""
        return EffectTable({name: column[rows] for name, column in self.columns.items()})

    def rows(self) -> Iterator[dict[str, Any]]:
        """Each row as a dict of Python values; NaN becomes None."""
        for values in zip(*(column.tolist() for column in self.columns.values()), strict=True):
            yield {name: _plain(value) for name, value in zip(self.columns, values, strict=True)}

    def to_arrow(self) -> Any:
        """The same as a `pyarrow.Table`; NaN becomes null."""
        import pyarrow as pa

        arrays = {
            # null and not NaN: a reader of Parquet would sort and average NaN as a number
            name: pa.array(column, mask=np.isnan(column) if column.dtype.kind == "f" else None)
            for name, column in self.columns.items()
        }
        return pa.table(arrays)

    def to_pandas(self) -> Any:
        """The same as a pandas frame, with the latent as its index; a missing number is NaN.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        return data_frame(self.rows(), "latent")

    def _repr_html_(self) -> str:
        """The largest effects in a notebook, as bars."""
        columns = set(self.names)
        if not {"latent", "effect"} <= columns:
            return html_table(f"{len(self)} rows", self.names, (list(row.values()) for row in self.rows()))
        order = np.argsort(-np.abs(self["effect"]), kind="stable")[:_SHOWN]
        rows = list(self.take(order).rows())
        longest = max((abs(row["effect"] or 0.0) for row in rows), default=0.0)
        more = [name for name in ("weight", "q", "rate_chosen", "rate_rejected") if name in columns]
        cells = (
            (
                row["latent"],
                row.get("kind") or "",
                Bar(row["effect"] or 0.0, longest, number(row["effect"])),
                span(row.get("low"), row.get("high")),
                *(number(row[name], ".3g") for name in more),
            )
            for row in rows
        )
        head = ("latent", "kind", "effect", "95 % interval", *(name.replace("_", " ") for name in more))
        title = f"{len(self)} tested latents" + (f", the {_SHOWN} largest" if len(self) > _SHOWN else "")
        return html_table(title, head, cells, "effects in reward units, mean over prompts")

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def write_parquet(self, path: Path) -> None:
        """Writes the table atomically."""
        import pyarrow.parquet as pq

        with atomic_file(path) as temporary:
            pq.write_table(self.to_arrow(), temporary)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
