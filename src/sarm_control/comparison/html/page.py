"""`report.html`: one offline file made from `report.json` alone."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sarm_control.bounded_json import read_json_object
from sarm_control.comparison.html.figures import change_figures, curve_figures, ledger_figure
from sarm_control.comparison.html.markup import Html, element, join
from sarm_control.comparison.html.style import CSS
from sarm_control.comparison.html.tables import data, differences_table, ledger_table, measures_table
from sarm_control.comparison.report_data import FORMAT
from sarm_control.errors import DataError
from sarm_control.files import write_text

_TOP = 12


def render(report: Mapping[str, Any]) -> str:
    """The whole page.

    Args:
        report: the contents of `report.json`, as `sarm compare` writes it.

    Raises:
        DataError: the JSON is not a comparison of this format.
    """
    if report.get("format") != FORMAT:
        raise DataError(
            f"not a comparison report of format {FORMAT}: {report.get('format', 'no format field')}",
            hint="make it again with sarm compare",
        )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", report["title"]),
        element("style", Html(CSS)),
    )
    body = element("body", element("main", _sections(report)))
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def write_report(source: Path, target: Path) -> None:
    """Reads `report.json` and writes `report.html`."""
    write_text(target, render(read_json_object(source, most_bytes=1 << 30)))


def _sections(report: Mapping[str, Any]) -> list[Html]:
    arms = report["arms"]
    return [
        element("h1", report["title"]),
        element("div", [element("p", sentence) for sentence in report["headline"]], class_="headline"),
        _facts(report["settings"]),
        *_changes(report),
        *_ledgers(arms),
        *_training(arms),
        *_samples(report["samples"]),
        element("h2", "How this was made"),
        *[_made(arm) for arm in arms],
        element("h3", "Versions and inputs"),
        element("pre", json.dumps(report["manifest"], indent=1, ensure_ascii=False), tabindex="0"),
    ]


_INTERVALS = (
    "95 % over prompts: Student's t, longer where a measure is skewed; none where too few prompts differ"
)


def _facts(settings: Mapping[str, Any]) -> Html:
    pairs = [
        ("Held-out prompts", f"{settings['prompts']} ({settings['prompts_file']}){_seen(settings)}"),
        ("Answers of each policy", str(settings["answers"])),
        ("Seed", f"{settings['seed']}, the same for every policy"),
        ("Longest answer", f"{settings['max_new_tokens']} tokens, temperature {settings['temperature']:g}"),
        ("Base policy", settings["base_policy"]),
        ("Reward model", f"{settings['reward_model']}, head {settings['head'][:12]}"),
        ("Intervals", _INTERVALS),
    ]
    parts = [element("div", element("dt", name), element("dd", value)) for name, value in pairs]
    return element("dl", parts, class_="facts")


def _seen(settings: Mapping[str, Any]) -> str:
    count = settings["trained_on"]
    if count is None:
        return ", not checked against the training prompts"
    return f", {count} of them trained on" if count else ", none trained on"


def _changes(report: Mapping[str, Any]) -> list[Html]:
    arms = report["arms"]
    count = report["settings"]["prompts"]
    note = f"Means over {count} prompts with 95 % intervals over prompts; the change is paired by prompt."
    sd = arms[0]["reward_sd"]
    parts = [
        element("h2", "What changed"),
        element(
            "p",
            "One SD is the spread of the base policy's unedited reward over these answers: ",
            data(sd, 5),
            " reward units.",
            class_="note",
        ),
        change_figures(report),
    ]
    for arm in arms:
        controls = "; ".join(arm["controls"]) or "none"
        parts.append(element("h3", arm["name"]))
        parts.append(measures_table(arm, f"Controls: {controls}. {note}"))
    if report["differences"]:
        parts.append(element("h3", "Between the arms"))
        caption = f"Paired differences between trained policies over {count} prompts, 95 % intervals."
        parts.append(differences_table(report["differences"], caption))
    return parts


def _ledgers(arms: Sequence[Mapping[str, Any]]) -> list[Html]:
    parts = [
        element("h2", "The ledger"),
        element(
            "p",
            "The head is linear, so the change of the mean unedited reward is a sum with one term per "
            "latent: its weight times the change of its mean. Nothing is left over.",
        ),
    ]
    for arm in arms:
        ledger = arm["ledger"]
        shown = min(_TOP, len(ledger["entries"]))
        outside = ", with the residual of what no latent holds," if "outside" in ledger else ""
        caption = (
            f"The {shown} largest of {ledger['latents']} entries, in reward units. All entries{outside} "
            f"sum to the change of the mean unedited reward within {abs(ledger['residual']):.0e}; every "
            "entry is in ledger.parquet."
        )
        parts.append(element("h3", arm["name"]))
        if ledger["entries"]:
            parts.append(ledger_figure(ledger, name=arm["name"], top=_TOP))
        parts.append(ledger_table(ledger, caption, top=_TOP))
    return parts


def _training(arms: Sequence[Mapping[str, Any]]) -> list[Html]:
    figures = curve_figures(arms)
    return [element("h2", "During training"), figures] if figures else []


def _samples(samples: Sequence[Mapping[str, Any]]) -> list[Html]:
    if not samples:
        return []
    note = "Drawn at random from the held-out prompts, except those that say otherwise. Rewards are unedited."
    return [element("h2", "Answers side by side"), element("p", note, class_="note"), *map(_sample, samples)]


def _sample(sample: Mapping[str, Any]) -> Html:
    why = join(element("span", f"{sample['why']}: ", class_="note")) if sample["why"] else Html("")
    answers = []
    for answer in sample["answers"]:
        state = "" if answer["ended"] else ", cut at the length limit"
        title = element(
            "h4",
            f"{answer['arm']}: reward ",
            data(answer["reward"], 4, sign=True),
            f", {answer['length']} tokens{state}",
        )
        answers.append(element("div", title, element("p", answer["text"] or "(empty answer)")))
    return element(
        "div",
        element("h3", why, sample["prompt"]),
        element("div", answers, class_="answers"),
        class_="sample",
    )


def _made(arm: Mapping[str, Any]) -> Html:
    controls = "; ".join(arm["controls"]) or "no controls"
    return element(
        "p", f"{arm['name']}: {arm['steps']} steps, KL coefficient {arm['kl_coef']:g}, {controls}."
    )
