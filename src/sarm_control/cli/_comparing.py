"""What `sarm compare` and `sarm demo` write about compared runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sarm_control.cli._scoring import model_name
from sarm_control.console import say

if TYPE_CHECKING:
    from sarm_control.comparison import ComparisonResult, Sampling, TrainedRun
    from sarm_control.data import Row


def comparison_settings(
    runs: "Sequence[TrainedRun]", prompts: Path, rows: "Sequence[Row]", sampling: "Sampling"
) -> dict[str, Any]:
    """What was compared, and a word about unfinished runs and prompts that were trained on."""
    from sarm_control.comparison import trained_on

    for run in runs:
        steps = run.config.training.steps
        if run.checkpoint.step < steps:
            say(f"{run.path}: step {run.checkpoint.step} of {steps} is compared; the run is not finished")
    seen = trained_on(runs, rows)
    if seen:
        say(f"warning: {seen} of {len(rows)} prompts are among those trained on")
    # all have its base policy (`check_same_base`) and its head (`open_controls`)
    first = runs[0].config
    return {
        "prompts_file": prompts.name,
        "prompts": len(rows),
        "trained_on": seen,
        "answers": len(rows) * sampling.answers_per_prompt,
        "answers_per_prompt": sampling.answers_per_prompt,
        "max_new_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "seed": sampling.seed,
        "base_policy": model_name(first.policy.model),
        "reward_model": model_name(first.reward.model),
    }


def comparison_report(
    found: "ComparisonResult", settings: dict[str, Any], prompts: Path, dtype: str | None
) -> dict[str, Any]:
    """The content of `report.json`."""
    from sarm_control.files import manifest

    record = manifest("compare", inputs=[prompts], config={**settings, "dtype": dtype}, seed=settings["seed"])
    return {**found.comparison.report, "settings": settings, "manifest": record}


def write_comparison(
    report: dict[str, Any],
    found: "ComparisonResult",
    folder: Path,
    json_file: Path | None,
    *,
    overwrite: bool,
) -> None:
    """The report folder, and the report once more where `--json` says."""
    from sarm_control.comparison import write_ledger, write_report
    from sarm_control.files import atomic_folder, write_json, write_jsonl

    with atomic_folder(folder, overwrite=overwrite) as temporary:
        write_json(temporary / "report.json", report)
        write_report(temporary / "report.json", temporary / "report.html")
        write_ledger(temporary / "ledger.parquet", found.comparison.ledgers)
        write_jsonl(temporary / "answers.jsonl", found.answers)
        write_json(temporary / "manifest.json", report["manifest"])
    if json_file is not None:
        write_json(json_file, report)
