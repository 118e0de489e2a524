"""How long `sarm --help`, `sarm COMMAND --help` and `import sarm_control` take, beside an empty Python.

Wall time of fresh processes, in turn, several rounds; medians. The claims under test: every help page
answers in under 0.5 s and `sarm --help` in under 0.4 s, because none of them imports torch or numpy, and
`import sarm_control` takes under 0.1 s, Python's own start included.

    python benchmarks/startup.py [--rounds 9] [--json benchmarks/results/startup.json]
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from machine import Watch, machine

from sarm_control.cli import COMMANDS, GROUPS

LIMIT = 0.5
LIMITS = {"sarm --help": 0.4, "import sarm_control": 0.1}
"""Of what has one of its own."""


def pages() -> dict[str, list[str]]:
    """What is timed, by name."""
    sarm = str(Path(sys.executable).with_name("sarm"))
    commands = [[name] for name in COMMANDS]
    commands += [[group, name] for group, (_, names) in GROUPS.items() for name in names]
    timed = {
        "empty Python": [sys.executable, "-c", ""],
        "import sarm_control": [sys.executable, "-c", "import sarm_control"],
        "sarm --help": [sarm, "--help"],
    }
    return {**timed, **{f"sarm {' '.join(words)} --help": [sarm, *words, "--help"] for words in commands}}


def seconds(command: list[str]) -> float:
    """Wall seconds of one process from start to end."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Prints a table and exits with 1 when a page is too slow."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    watch = Watch()
    found: dict[str, list[float]] = {name: [] for name in pages()}
    for _ in range(arguments.rounds):
        for name, command in pages().items():
            found[name].append(seconds(command))
    medians = {name: statistics.median(times) for name, times in found.items()}
    for name, median in medians.items():
        print(f"{name:32} {median:.3f} s  [{min(found[name]):.3f}, {max(found[name]):.3f}]")
    slow = [name for name, median in medians.items() if median > LIMITS.get(name, LIMIT)]
    if arguments.json:
        about = machine(watch.others())
        values = {
            "machine": about,
            "limit": LIMIT,
            "limits": LIMITS,
            "rounds": arguments.rounds,
            "median_seconds": medians,
            "least_seconds": {name: min(times) for name, times in found.items()},
        }
        arguments.json.write_text(json.dumps(values, indent=2) + "\n")
    if slow:
        raise SystemExit(f"over the limit: {', '.join(slow)}")


if __name__ == "__main__":
    main()
