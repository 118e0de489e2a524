"""`report.html`: one offline page made from `report.json` alone."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sarm_control.bounded_json import read_json_object
from sarm_control.comparison.first_screen import arm_titles, measure, verdict_of
from sarm_control.comparison.headline import arm_title
from sarm_control.comparison.report_data import FORMAT
from sarm_control.comparison.report_figures import (
    Names,
    change_figures,
    curve_figures,
    latent_name,
    ledger_figure,
    proxy_and_gold,
)
from sarm_control.comparison.report_tables import differences_table, ledger_table, measures_table
from sarm_control.errors import DataError
from sarm_control.pages import (
    Answer,
    Block,
    Code,
    Drawing,
    Facts,
    More,
    Page,
    Panels,
    Payment,
    Prose,
    Section,
    SideBySide,
    render_page,
)
from sarm_control.statistics import counted, fixed

_TOP, _PANEL, _HERO = 12, 440, 600


def comparison_page(report: Mapping[str, Any], names: Names | None = None) -> Page:
    """The page of a comparison.

    Args:
        report: the contents of `report.json`, as `sarm compare` writes it.
        names: latent -> what it is about, in a few words.

    Raises:
        DataError: the JSON is not a comparison of this format.
    """
    if report.get("format") != FORMAT:
        raise DataError(
            f"not a comparison report of format {FORMAT}: {report.get('format', 'no format field')}",
            hint="make it again with sarm compare",
        )
    first, settings = verdict_of(report), report["settings"]
    runs = counted(len(report["arms"]), "trained policy", "trained policies")
    return Page(
        f"{report['title']}: {runs} and their base on {counted(settings['prompts'], 'held-out prompt')}",
        first.line,
        first.tone,
        first.lead,
        first.tiles,
        Drawing(proxy_and_gold(report), _hero_caption(report), _HERO),
        list(comparison_sections(report, names or {}).values()),
        _made(report),
    )


def comparison_sections(report: Mapping[str, Any], names: Names) -> dict[str, Section]:
    """The parts of the page below its first screen, by id, for other reports to take up."""
    sections = [_changed(report, names), _ledger(report, names), *_curves(report), *_answers(report, names)]
    sections.append(_how(report))
    return {section.id: section for section in sections}


def render(report: Mapping[str, Any]) -> str:
    """The whole page as HTML; see `comparison_page`."""
    return render_page(comparison_page(report))


def write_report(source: Path, target: Path) -> None:
    """Reads `report.json` and writes `report.html`."""
    from sarm_control.files import write_text

    # a report holds answers and every latent of each arm: far more than a settings file may have
    write_text(target, render(read_json_object(source, most_bytes=1 << 30)))


def _hero_caption(report: Mapping[str, Any]) -> str:
    if measure(report["arms"][0], "gold/reward"):
        return "Up is better. A policy far to the right and low is paid for what is worth nothing."
    return "No gold reward was given: the chart cannot say whether answers are better."


def _made(report: Mapping[str, Any]) -> str:
    versions = report["manifest"].get("versions", {})
    said = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"Made from report.json by sarm compare. {said}."


def _changed(report: Mapping[str, Any], names: Names) -> Section:
    settings = report["settings"]
    tables: list[Block] = [
        measures_table(arm, f"{arm_title(arm)}. Controls: {'; '.join(arm['controls']) or 'none'}.")
        for arm in report["arms"]
    ]
    if report["differences"]:
        caption = f"Paired differences between trained policies over {settings['prompts']} prompts."
        tables.append(differences_table(report["differences"], arm_titles(report), caption))
    sd = fixed(report["arms"][0]["reward_sd"], 4)
    panels = [Drawing(figure, "", _PANEL, numbers=False) for figure in change_figures(report, names)]
    note = (
        f"Intervals are 95 % over {settings['prompts']} prompts (Student's t, longer where it is skewed). "
        f"One SD is the spread of the base policy's unedited reward over these answers: {sd} reward units. "
        "Triangles are better, diamonds worse; grey circles are not told apart from no change."
    )
    return Section(
        "changed",
        "What changed, by measure",
        _one_line(report),
        [
            Panels(panels),
            Prose([note], quiet=True),
            More("In words, arm by arm", [Prose(report["headline"])]),
            More("Every measure as a table", tables),
        ],
    )


def _one_line(report: Mapping[str, Any]) -> str:
    key = "gold/reward" if measure(report["arms"][0], "gold/reward") else "reward/model"
    said = []
    for arm in report["arms"]:
        row = measure(arm, key)
        if row is not None:
            said.append(f"{arm_title(arm)} {fixed(row['change']['mean'], 2, sign=True)}")
    what = "Gold" if key == "gold/reward" else "Unedited reward"
    return f"{what} against the base policy: {', '.join(said)}."


def _ledger(report: Mapping[str, Any], names: Names) -> Section:
    blocks: list[Block] = [
        Prose(
            [
                "The head is linear, so the change of the mean unedited reward is a sum with one term a "
                "latent: its weight times the change of its mean. Nothing is left over."
            ]
        )
    ]
    for arm in report["arms"]:
        ledger = arm["ledger"]
        outside = ", with the residual of what no latent holds," if "outside" in ledger else ""
        name = arm_title(arm)
        caption = (
            f"The {min(_TOP, len(ledger['entries']))} largest of {ledger['latents']} entries (reward units). "
            # said with its size, so that a reader can see that the parts do add up
            f"All entries{outside} sum to the change of the mean unedited reward within "
            f"{abs(ledger['residual']):.0e}; every entry is in ledger.parquet."
        )
        blocks.append(
            Drawing(ledger_figure(arm, names), "Bars begin where the one above ended.", numbers=False)
        )
        blocks.append(More(f"The ledger of {name} as a table", [ledger_table(ledger, caption, top=_TOP)]))
    # of the last arm: those without controls stand first, and a reader wants the run that was controlled
    first = report["arms"][-1]["ledger"]["entries"]
    finding = ""
    if first:
        top = first[0]
        finding = (
            f"In {arm_title(report['arms'][-1])}, {latent_name(top['latent'], names)} moved the reward most: "
            f"{fixed(top['delta'], 3, sign=True)} reward units."
        )
    return Section("ledger", "The ledger: which latents paid for the change", finding, blocks)


def _curves(report: Mapping[str, Any]) -> Iterator[Section]:
    figures = curve_figures(report["arms"])
    if figures:
        panels = [Drawing(figure, "", _PANEL, numbers=False) for figure in figures]
        note = "Faint: each step. Strong: a running mean, where there are at least 15 steps."
        steps = ", ".join(f"{arm_title(arm)} {arm['steps']}" for arm in report["arms"])
        yield Section(
            "training",
            "During training",
            f"Steps done: {steps}.",
            [Panels(panels), Prose([note], quiet=True)],
        )


def _answers(report: Mapping[str, Any], names: Names) -> Iterator[Section]:
    if not report["samples"]:
        return
    controlled = {latent for arm in report["arms"] for latent in arm["controlled"]}
    titles = arm_titles(report)
    blocks: list[Block] = [
        SideBySide(
            sample["prompt"],
            f"{sample['why']}:" if sample["why"] else "",
            [_answer(one, titles, controlled, names) for one in sample["answers"]],
        )
        for sample in report["samples"]
    ]
    yield Section(
        "answers",
        "Answers side by side",
        "With the latents that added or took most (bold: controlled), and the gold where there is one.",
        [*blocks, Prose(["Prompts were drawn at random unless a line says otherwise."], quiet=True)],
    )


def _answer(one: Mapping[str, Any], titles: Mapping[str, str], controlled: set[int], names: Names) -> Answer:
    notes = [f"reward {fixed(one['reward'], 3, sign=True)}"]
    if "gold" in one:
        notes.append(f"gold {fixed(one['gold'], 2, sign=True)}")
    notes.append(counted(one["length"], "token"))
    if not one["ended"]:
        notes.append("cut at the length limit")
    payments = [
        Payment(
            latent_name(paid["latent"], names),
            paid["contribution"],
            fixed(paid["contribution"], 3, sign=True),
            paid["latent"] in controlled,
        )
        for paid in one.get("latents", ())
    ]
    # answers of the base belong to no arm
    return Answer(titles.get(one["arm"], "base policy"), one["text"], notes, payments)


def _how(report: Mapping[str, Any]) -> Section:
    settings = report["settings"]
    seen = settings["trained_on"]
    trained = (
        "not checked against the training prompts"
        if seen is None
        else f"{seen} of them trained on"
        if seen
        else "none trained on"
    )
    pairs = [
        ("Held-out prompts", f"{settings['prompts']} ({settings['prompts_file']}), {trained}"),
        ("Answers of each policy", str(settings["answers"])),
        ("Seed", f"{settings['seed']}, the same for every policy"),
        ("Longest answer", f"{settings['max_new_tokens']} tokens, temperature {settings['temperature']:g}"),
        ("Base policy", settings["base_policy"]),
        ("Reward model", f"{settings['reward_model']}, head {settings['head'][:12]}"),
    ]
    for arm in report["arms"]:
        said = "; ".join(arm["controls"]) or "no controls"
        pairs.append((arm_title(arm), f"{arm['steps']} steps, KL coefficient {arm['kl_coef']:g}, {said}"))
    manifest = json.dumps(report["manifest"], indent=1, ensure_ascii=False)
    return Section(
        "made",
        "How this was made",
        "Settings, inputs with their hashes, and versions.",
        [Facts(pairs), More("Versions and inputs", [Code(manifest)])],
    )
