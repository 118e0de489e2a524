"""`sarm plan` beside real runs: memory against the measured peak, seconds against the work's own.

Five kinds of work with random weights, each in processes of its own, as a user starts them:

    lora      PPO with adapters
    groups    RLOO of every weight in float32, four answers a prompt, no critic
    latents   `sarm latents`
    attach    `sarm attach`, states and the training of a dictionary
    serve     `sarm serve` asked for the rewards of 320 answers

More trainings can be named: the lab, adapters in bfloat16 (which decode in float32 where there are no matrix
units), every weight with PPO, long answers, a critic of its own. Answers of a random policy practically never
end early; the plan is told the run's own mean length all the same. Peak
memory is that of the whole process (`ru_maxrss`). Seconds of a training are the median of `seconds/step`
after the first step. `latents` and `attach` are run with few answers and with many: the difference is
compared with that of the plans, so that starting and loading do not count. With OMP_NUM_THREADS=1 seconds are
processor time, which other programs do not lengthen much; else they are the clock's.

    OMP_NUM_THREADS=1 python benchmarks/plan.py [--cases lora ...] [--repeats 3]
        [--json benchmarks/results/plan.json]

Each case is planned and run several times, in turn: a processor's pace changes between a plan and its run.
The medians of both errors count, and the largest stand beside them.

Started again with the same file, it goes on with the cases that the file does not hold; `--again` measures
all that are named. The bars: memory within 15 % of the peak, time within 25 %. Linux only.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from machine import Watch, machine

MEMORY_BAR, TIME_BAR = 0.15, 0.25
STEPS = 3
WORDS = 1000
SARM = [sys.executable, "-m", "sarm_control", "--quiet"]
ALONE = os.environ.get("OMP_NUM_THREADS") == "1"


class Case(NamedTuple):
    """What is planned and run.

    Args:
        kind: `train`, `latents`, `attach` or `serve`.
        sizes: vocabulary, width, inner, layers, heads, key-value heads, source layer, latents; None is the
            lab.
        settings: of a training.
        answers: fewer and more of them, for what scores.
        steps: fewer and more of them, of a dictionary's training.
    """

    kind: str
    sizes: tuple[int, ...] | None
    settings: Mapping[str, Any] = MappingProxyType({})
    answers: tuple[int, int] = (64, 320)
    steps: tuple[int, int] = (4, 104)


class Ran(NamedTuple):
    """What a process took: its peak, processor seconds and seconds by the clock."""

    peak_mib: float
    processor: float
    clock: float

    @property
    def seconds(self) -> float:
        """Of one thread: what it would take by the clock if no other program ran."""
        return self.processor if ALONE else self.clock


SMALL = (8192, 256, 1024, 4, 4, 2, 2, 4096)
GROUPS = {"policy.lora": "null", "training.algorithm": "rloo", "training.answers_per_prompt": 4}
FIVE = {
    "lora": Case("train", SMALL),
    "groups": Case("train", SMALL, GROUPS),
    "latents": Case("latents", (8192, 384, 1024, 8, 6, 3, 6, 16384)),
    "attach": Case("attach", (8192, 256, 1024, 6, 4, 2, 6, 2048)),
    "serve": Case("serve", (8192, 384, 1024, 8, 6, 3, 6, 16384)),
}
FURTHER = {
    "lab": Case("train", None, {"training.max_new_tokens": 48}),
    "bfloat16": Case("train", SMALL, {"policy.dtype": "bfloat16"}),
    "every weight": Case("train", SMALL, {"policy.lora": "null"}),
    "long answers": Case(
        "train",
        (2048, 256, 1024, 2, 4, 4, 1, 1024),
        {"training.max_new_tokens": 192, "training.micro_batch": 16},
    ),
    "critic of its own": Case("train", (8192, 256, 1024, 4, 4, 2, 4, 16384), {"training.value": "model"}),
}
CASES = {**FIVE, **FURTHER}


def text(start: int, words: int) -> str:
    """So many words of the tokenizer; another start gives another text."""
    return " ".join(f"w{(7 * start + 3 * j + start * j) % WORDS}" for j in range(words))


def make_models(case: Case, folder: Path) -> None:
    """A policy, and a SARM over its first layers or a classifier of its shape, with random weights."""
    import torch
    from random_models import Shape, _random, make_reward_model, make_template
    from transformers import LlamaForCausalLM, LlamaForSequenceClassification

    assert case.sizes is not None
    vocabulary, width, inner, layers, heads, shared, source, latents = case.sizes
    shape = Shape(vocabulary, width, inner, layers, heads, shared, True, source, latents, 32)
    tokenizer = make_template(shape).tokenizer
    if case.kind == "train":
        _random(LlamaForCausalLM, shape.config(), False, "cpu").save_pretrained(folder / "policy")
        tokenizer.save_pretrained(folder / "policy")
    if case.kind != "attach":
        make_reward_model(shape, half=False, device="cpu").save_pretrained(folder / "model")
        return
    config = shape.config()
    config.num_labels = 1
    config.pad_token_id = tokenizer.pad_token_id or tokenizer.eos_token_id
    torch.manual_seed(0)
    LlamaForSequenceClassification(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")


def make_rows(path: Path, count: int) -> Path:
    """Prompts and answers of 40 to 87 words."""
    rows = ({"prompt": text(i, 40 + i % 48), "response": text(i + 1, 40 + 7 * i % 48)} for i in range(count))
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def run(words: Sequence[str]) -> Ran:
    """Runs `sarm WORDS`."""
    start = time.perf_counter()
    process = subprocess.Popen([*SARM, *words], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"sarm {' '.join(words)} ended with {os.waitstatus_to_exitcode(status)}")
    return Ran(usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime, time.perf_counter() - start)


def run_steps(words: Sequence[str], timing: Path) -> Ran:
    """Runs a training; seconds are those of a step after the first, with all that the process does in one.

    The process's own clock is read when a step's line is written, to a hundredth of a second.
    """
    process = subprocess.Popen([*SARM, *words], stdout=subprocess.DEVNULL)
    seen: list[float] = []
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        done = timing.read_bytes().count(b"\n") if timing.exists() else 0
        if done > len(seen):
            seen += [processor_seconds(process.pid)] * (done - len(seen))
        time.sleep(0.005)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"sarm {' '.join(words)} ended with {os.waitstatus_to_exitcode(status)}")
    lines = timing.read_text(encoding="utf-8").splitlines()
    clock = statistics.median([json.loads(line)["seconds/step"] for line in lines][1:])
    return Ran(usage.ru_maxrss / 1024, (seen[-1] - seen[0]) / (len(seen) - 1), clock)


def processor_seconds(pid: int) -> float:
    """Processor time of a process until now."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def planned(words: Sequence[str], folder: Path, probe: bool) -> dict[str, Any]:
    """What `sarm plan WORDS` writes."""
    file = folder / "plan.json"
    run(["plan", *words, "--json", str(file), "--overwrite", *(["--probe"] if probe else [])])
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def training(case: Case, folder: Path, probe: bool) -> dict[str, Any]:
    """A training: seconds of a step."""
    models = {}
    if case.sizes is not None:
        make_models(case, folder)
        prompts = "".join(json.dumps({"prompt": text(i, 40)}) + "\n" for i in range(64))
        (folder / "prompts.jsonl").write_text(prompts, encoding="utf-8")
        models = {
            "policy.model": str(folder / "policy"),
            "reward.model": str(folder / "model"),
            "data.prompts": str(folder / "prompts.jsonl"),
        }
    settings = {
        **models,
        "training.steps": STEPS,
        "training.reference_answers": 32,
        "evaluation.every": 0,
        **case.settings,
    }
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    out = folder / "run"
    ran = run_steps(["train", *words, "-o", str(out)], out / "timing.jsonl")
    lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    mean = statistics.mean([json.loads(line)["answers/length"] for line in lines][1:])
    plan = planned(["train", *words, "--answer-tokens", str(mean)], folder, probe)
    return compared(plan, ran, plan["seconds_a_step"], ran.seconds)


def scoring(case: Case, folder: Path, probe: bool) -> dict[str, Any]:
    """`sarm latents` or `sarm attach`: what more answers take, and steps of the training more."""
    make_models(case, folder)
    model, runs, plans = str(folder / "model"), [], []
    for number, (answers, steps) in enumerate(zip(case.answers, case.steps, strict=True)):
        rows = str(make_rows(folder / f"{number}.jsonl", answers))
        out = ["-o", str(folder / f"out-{number}"), "--model", model]
        sized = ["--latents", str(case.sizes[-1] if case.sizes else 0), "--steps", str(steps)]
        if case.kind == "attach":
            cache = ["--cache", str(folder / f"cache-{number}"), "--force"]
            runs.append(run(["attach", "--text", rows, *out, *sized, *cache]))
        else:
            runs.append(run(["latents", rows, *out]))
        plan = [case.kind, rows, "--model", model, *(sized if case.kind == "attach" else [])]
        plans.append(planned(plan, folder, probe))
    few, many = plans
    return compared(
        many, runs[1], many["total_seconds"] - few["total_seconds"], runs[1].seconds - runs[0].seconds
    )


def serving(case: Case, folder: Path, probe: bool) -> dict[str, Any]:
    """`sarm serve`: the rewards of some answers, a few requests after another."""
    make_models(case, folder)
    rows = make_rows(folder / "rows.jsonl", case.answers[1])
    model = str(folder / "model")
    command = [sys.executable, "-m", "sarm_control", "serve", "--model", model, "--port", "0"]
    process = subprocess.Popen(
        [*command, "--cache-mb", "0", "--timeout", "3600"], stderr=subprocess.PIPE, text=True
    )
    try:
        url = _address(process)
        asked = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
        _ask(url, asked[:8])
        before, start = processor_seconds(process.pid), time.perf_counter()
        for place in range(0, len(asked), 64):
            _ask(url, asked[place : place + 64])
        clock, taken = time.perf_counter() - start, processor_seconds(process.pid) - before
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found is not None
        ran = Ran(int(found[1]) / 1024, taken, clock)
    finally:
        process.terminate()
        process.wait(60)
    # a request has 64 answers, and a pass no more
    plan = planned(["serve", str(rows), "--model", model], folder, probe)
    return compared(plan, ran, plan["total_seconds"], ran.seconds)


def _address(process: "subprocess.Popen[str]") -> str:
    assert process.stderr is not None
    for line in process.stderr:
        found = re.search(r"serving on (http://127\.0\.0\.1:\d+)", line)
        if found:
            return found[1]
    raise SystemExit(f"the server did not start (exit code {process.wait()})")


def _ask(url: str, rows: Sequence[dict[str, str]]) -> None:
    body = {"prompts": [row["prompt"] for row in rows], "responses": [row["response"] for row in rows]}
    words = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/score", json.dumps(body).encode(), words)
    with urllib.request.urlopen(request, timeout=3600) as answer:
        answer.read()


def compared(plan: dict[str, Any], ran: Ran, planned_seconds: float, seconds: float) -> dict[str, Any]:
    """A plan beside what was measured."""
    memory = plan["memory"]
    return {
        "planned_peak_mib": memory["peak_mib"],
        "peak_mib": ran.peak_mib,
        "memory_error": memory["peak_mib"] / ran.peak_mib - 1,
        "planned_phase": memory["peak_phase"],
        "program_mib": memory["program_mib"],
        "planned_seconds": planned_seconds,
        "seconds": seconds,
        "time_error": planned_seconds / seconds - 1,
        "timed_by": plan["timed_by"],
        "processor_time": ALONE,
    }


def medians(repeats: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Medians of every number over the repeats, and the error of each kind that is furthest from 0."""
    names = [name for name, value in repeats[0].items() if isinstance(value, float)]
    found = {**repeats[0], **{name: statistics.median(one[name] for one in repeats) for name in names}}
    for error in ("memory_error", "time_error"):
        found[f"largest_{error}"] = max((one[error] for one in repeats), key=abs)
    return found


def in_words(one: Mapping[str, Any]) -> str:
    """What was planned beside what it was, in a line."""
    return (
        f"memory {one['planned_peak_mib']:.0f} planned, {one['peak_mib']:.0f} MiB "
        f"({100 * one['memory_error']:+.0f} %); time {one['planned_seconds']:.2f} planned, "
        f"{one['seconds']:.2f} s ({100 * one['time_error']:+.0f} %)"
    )


KINDS = {"train": training, "latents": scoring, "attach": scoring, "serve": serving}


def main() -> None:
    """All cases, and whether the bars hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=tuple(CASES), default=list(FIVE))
    parser.add_argument("--table", action="store_true", help="time by rates alone, without a probe")
    parser.add_argument("--again", action="store_true", help="also what the file holds already")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    known = options.json is not None and options.json.is_file()
    result = json.loads(options.json.read_text(encoding="utf-8")) if known else {}
    found: dict[str, Any] = result.get("cases", {})
    for name in options.cases:
        if name in found and not options.again:
            continue
        watch, repeats = Watch(), []
        for _ in range(options.repeats):
            with tempfile.TemporaryDirectory() as folder:
                repeats.append(KINDS[CASES[name].kind](CASES[name], Path(folder), not options.table))
            print(f"{name}: {in_words(repeats[-1])}", flush=True)
        one = found[name] = {**medians(repeats), "repeats": repeats, "machine": machine(watch.others())}
        print(f"{name}, medians of {len(repeats)}: {in_words(one)}", flush=True)
        result = {
            "bars": {"memory": MEMORY_BAR, "time": TIME_BAR},
            "cases": found,
            "memory_holds": all(abs(one["memory_error"]) <= MEMORY_BAR for one in found.values()),
            "time_holds": all(abs(one["time_error"]) <= TIME_BAR for one in found.values()),
        }
        if options.json:
            options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in result.items() if key != "cases"}, indent=2))


if __name__ == "__main__":
    main()
