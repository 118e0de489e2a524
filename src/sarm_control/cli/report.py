"""`sarm report`: everything that is known about runs, on one page with the verdict first."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from sarm_control.cli._help import INPUT, OUTPUT
from sarm_control.cli._next import say_next
from sarm_control.cli._outputs import Overwrite, hold_output
from sarm_control.console import say

if TYPE_CHECKING:
    from sarm_control.pages import Page
    from sarm_control.report import Sources


def report(
    *inputs: Annotated[
        Path,
        Parameter(
            group=INPUT,
            help="Run folders of sarm train, and folders of sarm compare, discover, audit or eval; "
            "any number.",
        ),
    ],
    out: Annotated[
        Path, Parameter(group=OUTPUT, name=["--out", "-o"], help="Folder for report.html and report.json.")
    ],
    figures: Annotated[
        Path | None,
        Parameter(group=OUTPUT, help="Also write each chart as SVG, PDF, PNG and CSV into this folder."),
    ] = None,
    json_file: Annotated[
        Path | None, Parameter(group=OUTPUT, name="--json", help="Also write report.json to this file.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Put runs, discoveries and audits on one page, the verdict first.

    The first screen says whether it worked, against what, and at what cost. Then follow what was asked,
    what was found before training, how training went, what changed, the ledger, monitors, answers, limits
    and files. Nothing is computed anew and no model is loaded: a comparison of the runs is taken from
    RUN/compare or the folder report beside the runs, where sarm compare and sarm demo write it.
    """
    import shlex

    from sarm_control.files import atomic_folder, manifest, write_json
    from sarm_control.pages import write_page
    from sarm_control.report import make_report, read_sources
    from sarm_control.statistics import for_terminal

    sources = read_sources(inputs)
    for path in (out, figures, json_file):
        hold_output(path, overwrite=overwrite)
    command = shlex.join(["sarm", "report", *map(str, inputs), "-o", str(out)])
    record = manifest("report", inputs=_files(sources), config={}, seed=None)
    found = make_report(sources, command=command, manifest=record)
    with atomic_folder(out, overwrite=overwrite) as folder:
        write_json(folder / "report.json", found.content)
        write_page(found.page, folder / "report.html")
        write_json(folder / "manifest.json", record)
    if json_file is not None:
        write_json(json_file, found.content)
    if figures is not None:
        _write_figures(found.page, figures, overwrite=overwrite)
    print(for_terminal(found.page.verdict))
    for tile in found.page.tiles:
        print(for_terminal(f"  {tile.question} {tile.value} ({tile.interval}): {tile.detail}"))
    print(out / "report.html")
    _say_next(sources)


def _files(sources: "Sources") -> list[Path]:
    """The files that the report rests on."""
    files = [run.path / name for run in sources.runs for name in ("config.yaml", "metrics.jsonl")]
    for path, name in (
        (sources.comparison_path, "report.json"),
        *((path, "features.json") for path in sources.discoveries),
        *((path, "audit.json") for path in sources.audits),
        *((path, "results.json") for path in sources.evaluations),
    ):
        if path is not None:
            files.append(path / name if path.is_dir() else path)
    return [file for file in files if file.is_file()]


def _write_figures(page: "Page", folder: Path, *, overwrite: bool) -> None:
    from sarm_control.charts import save_figures
    from sarm_control.files import atomic_folder
    from sarm_control.pages import figures_of

    with atomic_folder(folder, overwrite=overwrite) as place:
        count = len(save_figures(figures_of(page), place))
    say(f"{count} files of figures in {folder}")


def _say_next(sources: "Sources") -> None:
    runs: list[Any] = [run.path for run in sources.runs]
    if runs and sources.comparison is None:
        say_next("compare", *runs)
    elif len(runs) > 1:
        say_next("config", "diff", *runs[:2])
    elif runs:
        say_next("config", "show", runs[0] / "config.yaml")
    elif sources.audits:
        say_next("train", "--dry-run")
    else:
        say_next("audit", "-o", "runs/audit")
