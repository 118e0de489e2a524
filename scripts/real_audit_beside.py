"""Part c of docs/results/audit.md: what `sarm audit` and reward-lens 3.1 say about the same classifiers."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

from real_audit_planted import Trial, audit_pairs, heads
from real_audit_states import BATCH_TOKENS
from real_shortcut_data import write

LENS = "reward-lens[white-box]==3.1.0"
TORCH = "torch==2.13.0"
PLANT, DRAW = "closing", 0
SHARES = {"planted": 0.5, "clean": 0.0}
EDITED, CONTRASTED = 30, 60
"""Prompts that each edit of ours is tried on, and pairs with and without the closing for the other tool."""


def lens_python() -> Path:
    """The Python of reward-lens's own environment in the user's cache, made where it is not there."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "sarm-control" / "reward-lens-3.1.0"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        venv.create(folder, with_pip=True, clear=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        # torch first and alone, so that no other package's range picks another build of it
        subprocess.run([*pip, TORCH], check=True)
        subprocess.run([*pip, TORCH, LENS], check=True)
        (folder / "complete").touch()
    return python


def classifiers(trial: Trial, cut: Path, folder: Path) -> dict[str, Path]:
    """The planted and the clean classifier, saved by transformers."""
    import torch
    from transformers import AutoTokenizer, LlamaForSequenceClassification

    weights, _, _ = heads(trial, DRAW)
    model = LlamaForSequenceClassification.from_pretrained(cut, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(cut)
    for name, share in SHARES.items():
        with torch.no_grad():
            model.score.weight.copy_(torch.as_tensor(weights[share], dtype=torch.float32)[None])
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return {name: folder / name for name in SHARES}


def ours(model: Path, pairs: Path, out: Path) -> dict[str, Any]:
    """What `sarm audit` prints first, and its sure prices."""
    if not (out / "audit.json").is_file():
        command = [
            *(Path(sys.executable).with_name("sarm"), "audit", "--model", model, pairs, "-o", out),
            *("--prompts-per-edit", EDITED, "--device", "cpu", "--batch-tokens", BATCH_TOKENS),
            "--overwrite",
        ]
        done = subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True)
        (out / "said.txt").write_text(done.stdout, encoding="utf-8")
    found = json.loads((out / "audit.json").read_text(encoding="utf-8"))
    said = (out / "said.txt").read_text(encoding="utf-8").strip().splitlines()
    return {
        "first_lines": [line for line in said if line.strip()][:3],
        "headlines": found["headlines"],
        "prices": {
            one["name"]: {key: one["causal"][key] for key in ("sd", "low", "high", "q", "n")}
            for one in found["attributes"]
            if one.get("causal") and one["causal"].get("n")
        },
    }


def theirs(python: Path, model: Path, contrast: Path) -> dict[str, Any]:
    """What `BiasBattery` says, or the message with which reward-lens ends."""
    script = Path(__file__).with_name("real_audit_lens.py")
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(python), str(script), str(model), str(contrast)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1]}
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def command_line(python: Path, model: Path) -> dict[str, Any]:
    """The end of reward-lens's commands in a folder that holds a classifier."""
    said = {}
    for words in (["audit", "."], ["doctor"]):
        command = [str(python.with_name("reward-lens")), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=model)
        lines = [line for line in done.stderr.splitlines() if line.startswith(("error:", "help:"))]
        # paths of this machine say nothing
        shown = [line.replace(str(model), "CLASSIFIER") for line in lines or done.stdout.splitlines()[:12]]
        said[" ".join(words)] = {"exit_code": done.returncode, "said": shown}
    return said


def run(trial: Trial, cut: Path, work: Path) -> dict[str, Any]:
    """Both tools on both classifiers."""
    work.mkdir(parents=True, exist_ok=True)
    models = classifiers(trial, cut, work)
    pairs, contrast = work / "pairs.jsonl", work / "contrast.jsonl"
    write(pairs, audit_pairs(trial))
    both = list(zip(audit_pairs(trial, True), audit_pairs(trial, False), strict=True))[:CONTRASTED]
    write(contrast, [{**having, "rejected": without["chosen"]} for having, without in both])
    python = lens_python()
    found: dict[str, Any] = {"reward_lens": LENS, "draw": DRAW, "pairs": len(audit_pairs(trial))}
    for name, model in models.items():
        found[name] = {
            "sarm_audit": ours(model, pairs, work / f"audit-{name}"),
            "reward_lens": theirs(python, model, contrast),
        }
        print(f"beside: {name}: done", flush=True)
    return {**found, "command_line": command_line(python, models["planted"])}
