"""Writes the tables of docs/performance.md and docs/scaling.md from what the benchmarks measured.

    python scripts/performance.py [--check]

`--check` says whether the tables in the pages are those of today (a test asks the same). A figure stands in
a page only if a file in benchmarks/results holds it; what has none is called not measured.
"""

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BEGIN = "<!-- python scripts/performance.py writes this table -->\n"
END = "<!-- end of the table -->\n"
Result = dict[str, Any]


class Claim(NamedTuple):
    """One row of the table.

    Args:
        what: is measured, and against what.
        file: in benchmarks/results, without `.json`; its script has the same name unless `script` says so.
        value: of the result, as a number to be compared with `bar`.
        bar: the limit; None where none was set.
        at_least: whether the value must be as large as the bar; else as small.
        unit: behind the numbers: `x`, `s`, `MiB`, `%`.
        script: of benchmarks/, where its name is another.
        part: of the result that has a record of the machine of its own.
    """

    what: str
    file: str
    value: Callable[[Result], float]
    bar: float | None = None
    at_least: bool = True
    unit: str = "x"
    script: str = ""
    part: str = ""

    def row(self) -> str:
        """A line of Markdown."""
        script = f"`benchmarks/{self.script or self.file}.py`"
        sign, path = ("≥" if self.at_least else "≤"), RESULTS / f"{self.file}.json"
        bar = "-" if self.bar is None else f"{sign} {self.bar:g} {self.unit}"
        if not path.is_file():
            return f"| {self.what} | {bar} | not measured | - | - | {script} |"
        found = json.loads(path.read_text(encoding="utf-8"))
        try:
            value = self.value(found)
        except KeyError:
            return f"| {self.what} | {bar} | not measured | - | - | {script} |"
        shown = f"{value:.3g} {self.unit}"
        part = found.get(self.part) or found.get("cases", {}).get(self.part) or found
        about = machine(part if "machine" in part else found)
        return f"| {self.what} | {bar} | {shown} | {self.distance(value)} | {about} | {script} |"

    def distance(self, value: float) -> str:
        """How far a value is on the wrong side of the limit."""
        if self.bar is None:
            return "-"
        holds = value >= self.bar if self.at_least else value <= self.bar
        return "holds" if holds else f"missed: {abs(value / self.bar - 1):.0%} away"


def machine(found: Result) -> str:
    """The processor of a result in a few words, and whether other work ran beside."""
    about = found.get("machine", found)
    about = about if isinstance(about, dict) else {}
    known = about.get("processor")
    nested = known if isinstance(known, dict) else about
    name = nested.get("processor") or nested.get("name") or "?"
    flags = nested.get("flags") or []
    units = [
        word
        for word, found_as in (("AVX-512", "avx512f"), ("bfloat16", "avx512_bf16"), ("AMX", "amx_tile"))
        if found_as in flags
    ]
    kind = ", ".join(units) if units else ("AVX2" if flags else "flags not recorded")
    shown = "x86-64" if name in ("?", "x86_64") else str(name).replace("(R)", "").strip()
    busy = "; **busy**" if about.get("busy", _load(found) > 1) else ""
    return f"{shown}, {kind}{busy}"


def _load(found: Result) -> float:
    """The largest load average that a result names at its top or in a part."""
    places = [found, *(part for part in found.values() if isinstance(part, dict))]
    return max(
        (float(one[key]) for one in places for key in ("load", "load_average") if key in one), default=0.0
    )


def half_of_a_row(found: Result) -> float:
    """The ratio where the prompt is half of the row."""
    return float(next(one["ratio"] for one in found["prompts"] if one["prompt"] == found["shape"]["answer"]))


PLANNED = {
    "lora": "PPO with adapters",
    "groups": "RLOO of every weight",
    "latents": "`sarm latents`",
    "attach": "`sarm attach`",
    "serve": "`sarm serve`",
}
"""What benchmarks/plan.py plans and runs, by the name of its case."""


def plan_error(case: str, error: str, found: Result) -> float:
    """How far a plan was from a run, in percent."""
    return 100 * abs(float(found["cases"][case][error]))


CLAIMS = (
    Claim(
        "PPO step, SmolLM2 shape, bfloat16, against TRL's last PPOTrainer: time",
        *("ppo", lambda found: found["compared"]["TRL / ours, bfloat16"]["times"], 4.0),
    ),
    Claim(
        "the same: memory",
        *("ppo", lambda found: found["compared"]["TRL / ours, bfloat16"]["memory"], 4.0),
    ),
    Claim(
        "PPO step, float32 on AVX2 alone: time",
        *("ppo_float32", lambda found: found["compared"]["TRL / ours"]["times"], 2.0),
        script="ppo",
    ),
    Claim(
        "rollout, SmolLM2 shape, float32, against every weight read once a token",
        *("rollout", lambda found: found["types"]["float32"]["times_the_limit"], 2.0, False),
    ),
    Claim(
        "16 answers to one prompt, prompt half of the row, against each alone",
        "shared_prompts",
        half_of_a_row,
        2.0,
    ),
    Claim(
        "answers of mixed length, rows a second, against batches in file order",
        "mixed_lengths",
        lambda found: found["ratio"],
        2.0,
    ),
    Claim(
        "scoring with 65,536 latents against the bare trunk: time",
        *("scoring", lambda found: found["pooled"]["time_ratio"], 1.0, False),
    ),
    Claim("the same: memory", "scoring", lambda found: found["pooled"]["memory_ratio"], 1.05, False),
    Claim(
        "an attached dictionary of 65,536 latents against the bare classifier: time",
        "attached",
        lambda found: found["time_ratio"],
        1.05,
        False,
    ),
    Claim("the same: memory", "attached", lambda found: found["memory_ratio"], 1.1, False),
    Claim(
        "100 latents on 1,000 rows, from stored latents, against a forward pass for each",
        "probing",
        lambda found: found["ratio"],
        100.0,
    ),
    Claim(
        "audit of 10,000 answers from stored latents",
        "audit",
        lambda found: found["speed"]["seconds"],
        60.0,
        False,
        "s",
        part="speed",
    ),
    Claim(
        "the same: memory",
        *("audit", lambda found: found["speed"]["peak_mib"], 2048.0, False, "MiB"),
        part="speed",
    ),
    Claim(
        "discovery, 10,000 prompts, 65,536 latents",
        "discovery",
        lambda found: found["speed"]["seconds"],
        60.0,
        False,
        "s",
        part="speed",
    ),
    Claim(
        "64 clients of one server, batched, against one request a pass",
        "server",
        lambda found: found["compared"]["ratio"],
    ),
    Claim(
        "memory of `sarm latents` at 16 times the rows, growth",
        "latents",
        lambda found: found["growth_1x_to_16x_bytes"]["sarm latents"] / 2**20,
        None,
        False,
        "MiB",
    ),
    Claim("`sarm --help`", "startup", lambda found: found["median_seconds"]["sarm --help"], 0.4, False, "s"),
    Claim(
        "`import sarm_control`",
        *("startup", lambda found: found["median_seconds"]["import sarm_control"], 0.1, False, "s"),
    ),
    Claim(
        "the explorer's table on the screen, 24 latents",
        "explorer",
        lambda found: found["lab"]["first_paint_s"]["median"],
        1.0,
        False,
        "s",
    ),
    Claim(
        "the same, 65,536 latents",
        "explorer",
        lambda found: found["random"]["first_paint_s"]["median"],
        2.0,
        False,
        "s",
    ),
    *(
        claim
        for key, name in PLANNED.items()
        for claim in (
            Claim(
                f"`sarm plan` of {name}: memory against the work's peak",
                *("plan", partial(plan_error, key, "memory_error"), 15.0, False, "%"),
                *("", key),
            ),
            Claim(
                "the same: time",
                *("plan", partial(plan_error, key, "time_error"), 25.0, False, "%"),
                *("", key),
            ),
        )
    ),
)


def table() -> str:
    """The table of today."""
    head = f"| what, against what | limit | measured | | processor | script |\n{'| --- ' * 6}|\n"
    return head + "".join(f"{claim.row()}\n" for claim in CLAIMS)


def growth() -> str:
    """How time grows, and what a second process or replica brings."""
    found = json.loads((RESULTS / "scaling.json").read_text(encoding="utf-8"))
    lines = ["| grows | sizes | processor seconds | exponent |", "| --- | --- | --- | --- |"]
    for name, one in found["series"].items():
        sizes = ", ".join(f"{size:,}" for size in one["sizes"])
        seconds = ", ".join(f"{value:.3g}" for value in one["seconds"])
        lines.append(f"| {name}: {one['what'].rstrip('.')} | {sizes} | {seconds} | {one['exponent']:.2f} |")
    lines += ["", f"On {machine(found)}.", "", "| two against one | rows a second | speed-up | processor |"]
    lines.append("| --- | --- | --- | --- |")
    for key, name in (("processes", "processes of one core"), ("ray", "actors of a local Ray, of one core")):
        one = found.get(key)
        if one is None:
            lines.append(f"| {name} | not measured | - | - |")
            continue
        rates = " and ".join(f"{value:.0f}" for value in one["rows_a_second"].values())
        lines.append(f"| {name} | {rates} | {one['speed_up']:.2f} | {machine(one)} |")
    return "\n".join(lines) + "\n"


TABLES = {ROOT / "docs" / "performance.md": table, ROOT / "docs" / "scaling.md": growth}


def page_of_today(path: Path) -> str:
    """A page with the table of today between its marks."""
    page = path.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{TABLES[path]()}\n{END}{after}"


def main() -> int:
    """Writes the pages, or compares them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, exit with 1 when one is old")
    if parser.parse_args().check:
        return int(any(page_of_today(path) != path.read_text(encoding="utf-8") for path in TABLES))
    for path in TABLES:
        path.write_text(page_of_today(path), encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
