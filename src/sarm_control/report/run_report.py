"""The report of runs: what was asked, found, trained, changed, and what is not known."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from sarm_control.charts import Figure, slug
from sarm_control.comparison import arm_titles, comparison_page, comparison_sections, run_names
from sarm_control.pages import Block, Code, Drawing, More, Page, Prose, Section, figures_of, with_suffix
from sarm_control.report.asked import asked_section
from sarm_control.report.latent_map import map_section, training_maps
from sarm_control.report.length import length_section
from sarm_control.report.names import latent_names
from sarm_control.report.of_audits import audit_page, audit_section
from sarm_control.report.of_discoveries import discovery_page, discovery_section
from sarm_control.report.of_evaluations import evaluation_page, evaluation_section
from sarm_control.report.sources import Sources
from sarm_control.report.training_sections import monitor_section, training_section
from sarm_control.statistics import counted

FORMAT = "sarm-report-1"


class Report(NamedTuple):
    """A report: the page, and its content for programs (`report.json`)."""

    page: Page
    content: dict[str, Any]


def make_report(sources: Sources, *, command: str, manifest: Mapping[str, Any]) -> Report:
    """The page and the JSON of everything that was given.

    Args:
        sources: what was read.
        command: how the report was made.
        manifest: inputs and versions.
    """
    names = latent_names(sources)
    first = _first_screen(sources, names)
    sections = [*_sections(sources, names), *_missing(sources), _files(sources, command, manifest)]
    # without the chart at first: counted in, it would be listed a second time, under
    # another name than its twin in a part
    page = first._replace(hero=None, sections=sections, made=f"Made by: {command}")
    # after the sections: only then it is known under which name the chart stands there
    page = page._replace(hero=first.hero and _named_as_below(first.hero, figures_of(page)))
    return Report(page, _content(page, sources, manifest))


def _named_as_below(hero: Drawing, figures: Sequence[Figure]) -> Drawing:
    """The chart of the first screen under the name that it has in its part, where it stands again."""
    own = hero.figure
    twins = (one.name for one in figures if (one.title, one.rows) == (own.title, own.rows))
    return hero._replace(figure=replace(own, name=next(twins, own.name)))


def _first_screen(sources: Sources, names: Mapping[int, str]) -> Page:
    """Of the comparison if there is one; else of the runs; else of the first audit, discovery, evaluation."""
    if sources.comparison is not None:
        # it alone says whether training and controls worked, which is what a reader of a report wants first
        return comparison_page(sources.comparison, names)
    if sources.runs:
        return _of_runs(sources)
    if sources.audits:
        return audit_page(next(iter(sources.audits.values())))
    if sources.discoveries:
        return discovery_page(next(iter(sources.discoveries.values())), names)
    return evaluation_page(next(iter(sources.evaluations.values())))


def _of_runs(sources: Sources) -> Page:
    """Runs that nothing has compared: what they were paid for, and no word on whether it worked."""
    training = training_section(sources.runs, {})
    return Page(
        f"Report of {counted(len(sources.runs), 'run')}",
        "Whether it worked is not known yet: these runs were not compared with their base.",
        "unclear",
        [training.finding] if training else [],
        (),
        None,
        (),
    )


def _sections(sources: Sources, names: Mapping[int, str]) -> Iterator[Section]:
    """In the order of the work: asked, found, trained, changed."""
    if sources.runs:
        yield asked_section(sources.runs, names)
    yield from _named([(path, audit_section(path, audit)) for path, audit in sources.audits.items()])
    yield from _named(
        [(path, discovery_section(path, found, names)) for path, found in sources.discoveries.items()]
    )
    if sources.discoveries:
        # one map: those of several discoveries would be the same places in other colours
        first = next(iter(sources.discoveries.values()))
        yield map_section(first, _models(first, sources), names)
    trained = training_section(sources.runs, names)
    if trained is not None:
        yield trained
    moved = training_maps(sources.runs, next(iter(sources.discoveries.values()), None), names)
    if moved is not None:
        yield moved
    compared = {} if sources.comparison is None else comparison_sections(sources.comparison, names)
    # the comparison is cut in three: its changes belong after training, its examples and settings to the end
    for id_ in ("changed", "ledger"):
        if id_ in compared:
            yield compared[id_]
    monitors = monitor_section(sources.runs)
    if monitors is not None:
        yield monitors
    yield from _named(
        [(path, evaluation_section(path, found, names)) for path, found in sources.evaluations.items()]
    )
    if "answers" in compared:
        yield compared["answers"]
    titles = {} if sources.comparison is None else arm_titles(sources.comparison)
    length = length_section(sources.comparison_path, titles)
    if length is not None:
        yield length
    if "made" in compared:
        yield compared["made"]._replace(title="How the policies were compared")


def _models(found: Mapping[str, Any], sources: Sources) -> list[str]:
    """Where a discovery's reward model may lie: what it says, and the reward models of the runs."""
    return list(dict.fromkeys([str(found["model"]), *(str(run.config.reward.model) for run in sources.runs)]))


def _named(parts: Sequence[tuple[Path, Section]]) -> Iterator[Section]:
    """Parts of one kind, with ids by their order, and figures by the folders they are of."""
    # files of one kind have one name: their folders tell them apart
    folders = [path if path.is_dir() else path.parent for path, _ in parts]
    names = run_names(folders) if folders else []
    for number, (name, (_, section)) in enumerate(zip(names, parts, strict=True), start=1):
        # the first keeps the plain id, so that a link to it holds when another file is added to the report
        own = section if number == 1 else section._replace(id=f"{section.id}-{number}")
        yield with_suffix(own, slug(name))


def _missing(sources: Sources) -> Iterator[Section]:
    """What is not known, and the command that would tell."""
    said = []
    runs = " ".join(str(run.path) for run in sources.runs) or "RUN"
    if sources.comparison is None:
        said.append(f"Whether training or a control worked: sarm compare {runs} --prompts held_out.jsonl")
    elif not any(row["key"] == "gold/reward" for row in sources.comparison["arms"][0]["measures"]):
        said.append(f"Whether answers are better by a gold reward: sarm compare {runs} --gold WORLD")
    if not sources.discoveries:
        said.append("Which latents harm, by pairs: sarm discover pairs.jsonl -o runs/discovery")
    if not sources.audits:
        said.append("What the reward model pays for in text: sarm audit pairs.jsonl -o runs/audit")
    seeds = {run.config.training.seed for run in sources.runs}
    # runs of one seed differ by chance too, by an amount that nothing in this report shows
    if len(seeds) == 1:
        said.append("How much differs from seed to seed: runs of further seeds (--seed 1), given with these")
    if not sources.evaluations:
        said.append("Benchmarks and steering before and after: sarm eval --benchmark NAME for each model")
    limits = [
        "Intervals are over prompts of one run each: they do not cover what another seed would have learnt.",
        "The ledger is exact for the unedited reward; why a latent fires more is not in it.",
    ]
    known = "What this report cannot say, and what would tell."
    yield Section("limits", "Limits", known, [Prose(limits), Prose(["Not measured:", *said])])


def _files(sources: Sources, command: str, manifest: Mapping[str, Any]) -> Section:
    paths = [run.path for run in sources.runs]
    paths += [
        path
        for path in (
            sources.comparison_path,
            *sources.discoveries,
            *sources.audits,
            *sources.evaluations,
        )
        if path is not None
    ]
    listed = "\n".join(f"{path}\n" + "\n".join(f"  {name}" for name in _names_in(path)) for path in paths)
    blocks: list[Block] = [Code(command), More("Files that were read, and those beside them", [Code(listed)])]
    versions = json.dumps(dict(manifest), indent=1, ensure_ascii=False)
    blocks.append(More("Versions and inputs", [Code(versions)]))
    return Section("files", "Files, command and versions", "How to make this again.", blocks)


def _names_in(path: Path) -> list[str]:
    folder = path if path.is_dir() else path.parent
    return sorted(child.name + ("/" if child.is_dir() else "") for child in folder.iterdir())


def _content(page: Page, sources: Sources, manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "title": page.kind,
        "verdict": {"line": page.verdict, "meaning": page.tone, "lead": list(page.lead)},
        "numbers": [tile._asdict() for tile in page.tiles],
        # findings and figures without the text of the page: a program reads numbers, and
        # the page beside it has the rest
        "sections": [{"id": one.id, "title": one.title, "finding": one.finding} for one in page.sections],
        "figures": {
            figure.name: {"title": figure.title, "rows": [dict(row) for row in figure.rows]}
            for figure in figures_of(page)
        },
        "runs": [
            {
                "name": run.name,
                "folder": str(run.path),
                "role": run.role,
                "steps": len(run.metrics),
                "last": dict(run.metrics[-1]) if run.metrics else None,
                "warnings": [dict(one) for one in run.warnings],
                "config": run.config.model_dump(mode="json"),
            }
            for run in sources.runs
        ],
        "comparison": sources.comparison,
        "manifest": dict(manifest),
    }
