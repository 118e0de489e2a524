"""`sarm plan` beside real runs: memory against the measured peak, seconds against the steps' own.

Five training runs with random weights, each in a process of its own, as `sarm train` starts it: the lab, and
models of two to eight layers with and without adapters, in float32 and bfloat16. Answers of a random policy
practically never end early; the plan is told the run's own mean length all the same. Peak memory is that
of the whole process (`ru_maxrss`); seconds are the median of `seconds/step` after the first step, or with
OMP_NUM_THREADS=1 the process's own processor time of a step, which other programs do not lengthen much.

    python benchmarks/plan.py [--cases lab ...] [--json benchmarks/results/plan.json]

The bars: memory within 15 % of the peak, time within 25 %. Linux only.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sarm_control.study.provenance import processor

MEMORY_BAR, TIME_BAR = 0.15, 0.25
MIB = 2**20

# vocabulary, width, inner, layers, heads, key-value heads, source layer, latents; then settings of the run
CASES: dict[str, tuple[tuple[int, ...] | None, dict[str, Any]]] = {
    "lab": (None, {"training.max_new_tokens": 48}),
    "lora": ((8192, 256, 1024, 4, 4, 2, 2, 4096), {}),
    "every weight": ((8192, 256, 1024, 4, 4, 2, 2, 4096), {"policy.lora": "null"}),
    "long answers": (
        (2048, 256, 1024, 2, 4, 4, 1, 1024),
        {"training.max_new_tokens": 192, "training.micro_batch": 16},
    ),
    "critic of its own": ((8192, 256, 1024, 4, 4, 2, 4, 16384), {"training.value": "model"}),
}
STEPS = 3


def make_models(sizes: tuple[int, ...], folder: Path) -> dict[str, Any]:
    """A policy and a SARM over its first layers, with random weights, as folders."""
    from random_models import Shape, _random, make_reward_model, make_template
    from transformers import LlamaForCausalLM

    vocabulary, width, inner, layers, heads, shared, source, latents = sizes
    shape = Shape(vocabulary, width, inner, layers, heads, shared, True, source, latents, 32)
    policy = _random(LlamaForCausalLM, shape.config(), False, "cpu")
    policy.save_pretrained(folder / "policy")
    make_template(shape).tokenizer.save_pretrained(folder / "policy")
    make_reward_model(shape, half=False, device="cpu").save_pretrained(folder / "sarm")
    words = [" ".join(f"w{(7 * i + 3 * j) % 1000}" for j in range(40)) for i in range(64)]
    rows = "".join(json.dumps({"prompt": text}) + "\n" for text in words)
    (folder / "prompts.jsonl").write_text(rows, encoding="utf-8")
    return {
        "policy.model": str(folder / "policy"),
        "reward.model": str(folder / "sarm"),
        "data.prompts": str(folder / "prompts.jsonl"),
    }


def run(words: list[str]) -> tuple[float, float]:
    """Peak MiB and processor seconds of `sarm WORDS`."""
    command = [sys.executable, "-m", "sarm_control", "--quiet", *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"sarm {' '.join(words)} ended with {os.waitstatus_to_exitcode(status)}")
    return usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime


def run_steps(words: list[str], timing: Path) -> tuple[float, float]:
    """Peak MiB of `sarm WORDS`, and processor seconds of a step after the first, all it does in one included.

    The process's own clock is read when a step's line is written, to a hundredth of a second.
    """
    command = [sys.executable, "-m", "sarm_control", "--quiet", *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    ticks, seen = os.sysconf("SC_CLK_TCK"), []
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        done = timing.read_bytes().count(b"\n") if timing.exists() else 0
        if done > len(seen):
            fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
            seen += [(int(fields[11]) + int(fields[12])) / ticks] * (done - len(seen))
        time.sleep(0.005)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"sarm {' '.join(words)} ended with {os.waitstatus_to_exitcode(status)}")
    return usage.ru_maxrss / 1024, (seen[-1] - seen[0]) / (len(seen) - 1)


def case(name: str, folder: Path, probe: bool) -> dict[str, Any]:
    """One plan and one run."""
    sizes, asked = CASES[name]
    settings = {
        **({} if sizes is None else make_models(sizes, folder)),
        "training.steps": STEPS,
        "training.reference_answers": 32,
        "evaluation.every": 0,
        **asked,
    }
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    plan_file, out = folder / "plan.json", folder / "run"
    before = os.getloadavg()[0]
    peak, clock = run_steps(["train", *words, "-o", str(out)], out / "timing.jsonl")
    lines = (out / "timing.jsonl").read_text(encoding="utf-8").splitlines()
    wall = statistics.median([json.loads(line)["seconds/step"] for line in lines][1:])
    # of one thread: what the step would take by the clock if no other program ran
    seconds = clock if os.environ.get("OMP_NUM_THREADS") == "1" else wall
    lengths = [
        json.loads(line)["answers/length"] for line in (out / "metrics.jsonl").read_text().splitlines()
    ]
    mean = ["--answer-tokens", str(statistics.mean(lengths[1:]))]
    taken = run(["plan", "train", *words, *mean, "--json", str(plan_file), *(["--probe"] if probe else [])])[
        1
    ]
    plan = json.loads(plan_file.read_text(encoding="utf-8"))
    found = {
        "planned_peak_mib": plan["memory"]["peak_mib"],
        "peak_mib": peak,
        "memory_error": plan["memory"]["peak_mib"] / peak - 1,
        "planned_phase": plan["memory"]["peak_phase"],
        "program_mib": plan["memory"]["program_mib"],
        "planned_seconds_a_step": plan["seconds_a_step"],
        "timed_by": plan["timed_by"],
        "seconds_a_step": seconds,
        "wall_seconds_a_step": wall,
        "time_error": plan["seconds_a_step"] / seconds - 1,
        "plan_processor_seconds": taken,
        "load_before": before,
    }
    print(
        f"{name}: memory {found['planned_peak_mib']:.0f} planned, {peak:.0f} MiB "
        f"({100 * found['memory_error']:+.0f} %); time {found['planned_seconds_a_step']:.2f} planned, "
        f"{seconds:.2f} s ({100 * found['time_error']:+.0f} %)",
        flush=True,
    )
    return found


def main() -> None:
    """All cases, and whether the bars hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=tuple(CASES), default=list(CASES))
    parser.add_argument("--table", action="store_true", help="time by rates alone, without a probe")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = {}
    for name in options.cases:
        with tempfile.TemporaryDirectory() as folder:
            found[name] = case(name, Path(folder), not options.table)
    cores = os.cpu_count() or 1
    result = {
        **about(),
        "busy": max(one["load_before"] for one in found.values()) > 0.5 * cores,
        "bars": {"memory": MEMORY_BAR, "time": TIME_BAR},
        "cases": found,
        "memory_holds": all(abs(one["memory_error"]) <= MEMORY_BAR for one in found.values()),
        "time_holds": all(abs(one["time_error"]) <= TIME_BAR for one in found.values()),
    }
    print(json.dumps({key: value for key, value in result.items() if key != "cases"}, indent=2))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def about() -> dict[str, Any]:
    """The machine, the versions and the commit of a measurement."""
    import torch
    import transformers

    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return {
        **processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "commit": commit or None,
        "when": time.strftime("%Y-%m-%d", time.gmtime()),
    }


if __name__ == "__main__":
    main()
