"""How fast rows are read from each form of data file, and that memory does not grow with the file.

    python benchmarks/data_reading.py --out benchmarks/results/data_reading.json

Each measurement is a process of its own: rows are counted as they come and none is kept. `peak_mib` is the
largest resident memory of that process (VmHWM of Linux), imports included.
"""

import argparse
import itertools
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sarm_control.data import stream_rows, write_rows
from sarm_control.files import write_json
from sarm_control.study.provenance import processor

SIZES = (10_000, 100_000, 1_000_000)
FORMS = {
    "rows.jsonl": SIZES,
    "rows.parquet": SIZES,
    "rows.jsonl.gz": SIZES[:2],
    "rows.csv": SIZES[:2],
}


def rows(count: int) -> Iterator[dict[str, Any]]:
    """Pairs of about 500 bytes."""
    for number in range(count):
        yield {
            "id": number,
            "prompt": f"question {number}: what is the best way to learn something new every day ? " * 2,
            "chosen": f"start small, number {number % 97}, and go on . " * 3,
            "rejected": f"it depends, says number {number % 89} . " * 4,
            "score": number / 7,
        }


def measure(path: Path) -> dict[str, Any]:
    """Reads a file once, in this process."""
    start = time.perf_counter()
    count = sum(1 for _ in stream_rows(path, want={"pair"}))
    seconds = time.perf_counter() - start
    # of this program alone: what getrusage says begins with the memory of who started it
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    peak = None if found is None else int(found[1]) / 1024
    return {"rows": count, "seconds": seconds, "rows_per_second": count / seconds, "peak_mib": peak}


def write(path: Path, count: int) -> None:
    """The file; Parquet batch by batch, as a library writes it."""
    if path.suffix != ".parquet":
        write_rows(path, rows(count))
        return
    import pyarrow
    from pyarrow import parquet

    made = rows(count)
    first = pyarrow.Table.from_pylist(list(itertools.islice(made, 10_000)))
    with parquet.ParquetWriter(path, first.schema) as writer:
        writer.write_table(first)
        while batch := list(itertools.islice(made, 10_000)):
            writer.write_table(pyarrow.Table.from_pylist(batch, schema=first.schema))


def reading(name: str, size: int, folder: Path) -> dict[str, Any]:
    """Writes a file, reads it in a process of its own, and removes it."""
    path = folder / name
    write(path, size)
    command = [sys.executable, __file__, "--read", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = {"form": name.removeprefix("rows"), "bytes": path.stat().st_size, **json.loads(done.stdout)}
    path.unlink()
    print(f"{name:14} {size:9,} rows: {found['rows_per_second']:9,.0f} rows/s, {found['peak_mib']:.0f} MiB")
    return found


def main() -> None:
    """Measures every form at every size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--most", type=int, default=SIZES[-1], help="leave out larger files")
    given = parser.parse_args()
    if given.read is not None:
        print(json.dumps(measure(given.read)))
        return
    with tempfile.TemporaryDirectory() as folder:
        found = [
            reading(name, size, Path(folder))
            for name, sizes in FORMS.items()
            for size in sizes
            if size <= given.most
        ]
    if given.out is not None:
        write_json(given.out, {**processor(), "readings": found})


if __name__ == "__main__":
    main()
