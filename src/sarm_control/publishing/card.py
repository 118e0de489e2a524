"""The hub's README.md: what a run or a reward model is, what it was made from, and what is known of it.

Every figure is read from files of the run, of a comparison, a discovery or an evaluation; what was not
measured is a sentence that says so. Paths of the machine are left out.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sarm_control.bounded_json import parse_json, read_json_object
from sarm_control.embedded import LAB
from sarm_control.errors import DataError
from sarm_control.publishing.contents import Contents
from sarm_control.reward_model import describe
from sarm_control.training import RunConfig, dump_yaml, read_run_config

CARD = "README.md"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_WATCHED = ("reward/total", "reward/model", "objective/kl", "answers/length", "answers/ended")
_HEAVIEST, _CALLED = 10, 5
_LIMITS = """\
An edit or a penalty changes the reward exactly; what the policy does about it is an empirical matter.
Latent numbers belong to one head (see the fingerprint) and mean nothing on another. Figures hold for the
prompts they were measured on."""


class Evidence(NamedTuple):
    """What else is known.

    Args:
        comparison: the content of a comparison's report.json.
        discovery: that of a discovery's features.json.
        evaluation: that of an evaluation's results.json.
    """

    comparison: Mapping[str, Any] | None = None
    discovery: Mapping[str, Any] | None = None
    evaluation: Mapping[str, Any] | None = None


def read_evidence(
    contents: Contents,
    *,
    comparison: Path | None = None,
    discovery: Path | None = None,
    evaluation: Path | None = None,
) -> Evidence:
    """Reads the evidence that is named, and the comparison that lies in a run.

    Args:
        contents: of the run or reward model.
        comparison: folder of `sarm compare`; that in the run where None.
        discovery: folder of `sarm discover`.
        evaluation: folder of `sarm eval -o`.

    Raises:
        DataError: a folder lacks its file, or the file is damaged.
    """
    own = contents.folder / "compare"
    if comparison is None and contents.kind == "run" and (own / "report.json").is_file():
        comparison = own
    named = ((comparison, "report.json"), (discovery, "features.json"), (evaluation, "results.json"))
    return Evidence(*(None if folder is None else read_json_object(folder / name) for folder, name in named))


def card_of(
    contents: Contents, evidence: Evidence, *, name: str | None = None, license: str | None = None
) -> str:
    """The text of the card: metadata in YAML, then what is known in Markdown.

    Args:
        contents: of the run or reward model.
        evidence: see `read_evidence`.
        name: the title; the folder's where None.
        license: an identifier of the hub, such as `apache-2.0`; none is claimed where None.

    Raises:
        SarmError: a file of the run or model is damaged.
    """
    title = name or contents.folder.resolve().name
    write = _run_card if contents.kind == "run" else _model_card
    metadata, sections = write(contents, evidence, title)
    if license is not None:
        metadata["license"] = license
    return f"---\n{_yaml(metadata)}\n---\n\n" + "\n\n".join(sections) + "\n"


def _yaml(metadata: Mapping[str, Any]) -> str:
    from huggingface_hub import ModelCardData

    return str(ModelCardData(**metadata).to_yaml()).strip()


def _run_card(contents: Contents, evidence: Evidence, title: str) -> tuple[dict[str, Any], list[str]]:
    config = read_run_config(contents.folder)
    manifest = read_json_object(contents.folder / "manifest.json")
    steps = manifest.get("finished", {}).get("step", config.training.steps)
    metadata: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["sarm-control", "rlhf", config.training.algorithm],
    }
    # the hub makes links of these, so that a folder of this machine may not stand there
    bases = [config.policy.model] if _is_hub_id(config.policy.model) else []
    sets = [one for one in map(_data_set, (str(config.data.prompts), str(config.data.human or ""))) if one]
    metadata |= {"base_model": bases[0]} if bases else {}
    metadata |= {"datasets": sets} if sets else {}
    policy, reward = _called(config.policy.model), _called(config.reward.model)
    how = "with" if _controls(config) else "without"
    said = (
        f"`{policy}` after {steps} steps of {config.training.algorithm.upper()} against the reward model "
        f"`{reward}`, {how} controls on its reward. It loads in plain transformers; `adapter/` is for peft, "
        "where there is one, and `run/` holds what was measured."
    )
    sections = [
        f"# {title}",
        said,
        "## Data",
        _inputs(manifest),
        "## Controls",
        _controls_text(contents, config),
    ]
    sections += ["## Evidence", *_compared(evidence.comparison), *_warned(contents.folder)]
    sections += [*_discovered(evidence.discovery), "## Figures", _figures(contents.folder)]
    sections += ["## Commands", _commands(config), "## Limits", _LIMITS, _versions(manifest)]
    return metadata, sections


def _model_card(contents: Contents, evidence: Evidence, title: str) -> tuple[dict[str, Any], list[str]]:
    found = describe(contents.folder)
    metadata: dict[str, Any] = {
        "library_name": "sarm-control",
        "pipeline_tag": "text-classification",
        "tags": ["sarm-control", "reward-model", *(["sparse-autoencoder"] if found.latents else [])],
    }
    kept = f"{found.latents} latents" + (f", of which an answer keeps {found.k}" if found.k else "")
    what = (
        f"A reward model with {kept}" if found.latents else "A reward model with a linear head and no latents"
    )
    said = f"{what}. Head `{found.head.fingerprint}`, chat template `{found.template}`."
    record = contents.folder / "manifest.json"
    manifest = read_json_object(record) if record.is_file() else {}
    sections = [f"# {title}", said, "## Data", _inputs(manifest)]
    sections += ["## Controls", _no_controls(found.latents), "## Evidence"]
    sections += [*_discovered(evidence.discovery), *_evaluated(evidence.evaluation)]
    sections += [*_compared(evidence.comparison, ask=False), "## Figures", _heaviest(found.head.weight)]
    use = 'from sarm_control import RewardModel\n\nrm = RewardModel.from_pretrained("REPOSITORY")\n'
    use += "print(rm.score(prompt, answer).contributions(0))"
    sections += ["## Commands", _fence("python", use), "## Limits", _LIMITS, _versions(manifest)]
    return metadata, sections


def _no_controls(latents: int) -> str:
    return "None: the weights are as they were trained." + (
        " Edits and penalties of its latents go into runs that train against it." if latents else ""
    )


def _inputs(manifest: Mapping[str, Any]) -> str:
    inputs = manifest.get("inputs") or {}
    if not inputs:
        return "Not recorded: no manifest says what it was made from."
    return _table(
        ("file", "SHA-256"), ((f"`{Path(name).name}`", f"`{digest}`") for name, digest in inputs.items())
    )


def _controls(config: RunConfig) -> list[tuple[str, str]]:
    reward = config.reward
    found = [("edit", str(edit)) for edit in reward.edits]
    for penalty in reward.penalties:
        size = f"target rate {penalty.target_rate}" if penalty.alpha is None else f"alpha {penalty.alpha}"
        found.append(("penalty", f"latent {penalty.latent}: {penalty.form} above tau {penalty.tau}, {size}"))
    if reward.human_kl is not None:
        found.append(("human KL", f"beta {reward.human_kl.beta}"))
    return found


def _controls_text(contents: Contents, config: RunConfig) -> str:
    found = _controls(config)
    if not found:
        return "None."
    text = _table(("control", "setting"), found)
    reference = contents.folder / "reference.json"
    if not reference.is_file():
        return text
    known = read_json_object(reference)
    numbers = json.dumps(known.get("controls"), ensure_ascii=False)
    note = f"In numbers, for the head `{known.get('fingerprint')}`:"
    return f"{text}\n\n{note}\n\n{_fence('json', numbers)}"


def _compared(report: Mapping[str, Any] | None, *, ask: bool = True) -> list[str]:
    if report is None:
        return ["Not compared with its base: `sarm compare` was not run."] if ask else []
    try:
        settings, arms = report["settings"], report["arms"]
        parts = [
            f"Compared with its base on {settings['prompts']} prompts (`{settings['prompts_file']}`), "
            f"{settings['answers_per_prompt']} answers each, seed {settings['seed']}; "
            "intervals of 95 % over prompts.",
            *(f"- {sentence}" for sentence in report["headline"]),
        ]
        for arm in arms:
            rows = (
                (row["label"], *(_mean(row[side]) for side in ("base", "trained")), _interval(row["change"]))
                for row in arm["measures"]
            )
            head = (arm["name"], "base", "trained", "change")
            parts.append(_table(head, rows))
    # the file may be of an earlier version, or edited by hand; a card with holes would
    # be published as if it were whole
    except (KeyError, TypeError) as error:
        raise DataError(f"report.json lacks {error}", hint="make it again with sarm compare") from error
    return ["\n\n".join(parts)]


def _warned(run: Path) -> list[str]:
    path = run / "warnings.jsonl"
    rows = (
        [parse_json(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
    )
    if not rows:
        # no warning means that nothing fired only where the monitors looked
        evaluated = (run / "evaluation.jsonl").is_file()
        return ["No monitor fired." if evaluated else "No evaluation was made during the run."]
    lines = [
        f"- step {row.get('step')}: {row.get('text', row.get('check', ''))}"
        for row in rows
        if isinstance(row, dict)
    ]
    return ["Monitors that fired:\n\n" + "\n".join(lines)]


def _discovered(features: Mapping[str, Any] | None) -> list[str]:
    if features is None:
        return ["No discovery was named: which latents promote or harm a goal is not said here."]
    parts = [
        f"Discovery on the goal: {features.get('goal') or 'not recorded'}. Effects on confirmation prompts:"
    ]
    for name, items in (features.get("lists") or {}).items():
        rows = [
            (
                one["latent"],
                one["kind"],
                _plain(one["effect"]),
                _ends(one["low"], one["high"]),
                _plain(one["q"]),
            )
            for one in items[:_CALLED]
        ]
        head = (name, "kind", "effect", "95 % interval", "q")
        parts.append(_table(head, rows) if rows else f"No latent {name}.")
    return ["\n\n".join(parts)]


def _evaluated(results: Mapping[str, Any] | None) -> list[str]:
    if results is None:
        return ["No benchmark was named."]
    rows = [
        (one["name"], one["units"], *(_interval(value) for value in one["figures"].values()))
        for one in results.get("subsets", ())
    ]
    figures = next((list(one["figures"]) for one in results.get("subsets", ())), [])
    return [_table((str(results.get("benchmark")), "n", *figures), rows)]


def _figures(run: Path) -> str:
    path = run / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    if not lines:
        return "No step was done."
    first, last = parse_json(lines[0]), parse_json(lines[-1])
    # by the last row: penalties and latents have metrics of their own names, which only the run knows
    names = [*_WATCHED, *(name for name in last if name.startswith(("reward/penalty/", "latent/")))]
    rows = ((f"`{name}`", _plain(first.get(name)), _plain(last.get(name))) for name in names if name in last)
    return _table(("metric", f"step {first['step']}", f"step {last['step']}"), rows)


def _heaviest(weight: Any) -> str:
    order = sorted(range(len(weight)), key=lambda i: -abs(float(weight[i])))[:_HEAVIEST]
    if not order:
        return "It has no latents, hence no head weights to list."
    rows = ((i, _plain(float(weight[i]))) for i in order)
    note = (
        "The largest head weights. The sign of a weight alone does not say whether its latent helps or harms."
    )
    return f"{note}\n\n{_table(('latent', 'weight'), rows)}"


def _commands(config: RunConfig) -> str:
    settings = _without_paths(config.to_dict())
    # trackers and their projects are the author's own, and change nothing that is computed
    settings.pop("logging", None)
    lines = "sarm train run.yaml -o runs/NAME\nsarm compare runs/NAME --prompts held_out.jsonl"
    said = "with this `run.yaml`, every setting spelled out:"
    return f"{_fence('sh', lines)}\n\n{said}\n\n{_fence('yaml', dump_yaml(settings))}"


def _without_paths(values: Any) -> Any:
    """The settings with the last part alone of every path of the machine."""
    if isinstance(values, dict):
        return {key: _without_paths(value) for key, value in values.items()}
    if isinstance(values, list):
        return [_without_paths(value) for value in values]
    return (
        # by how it begins: a hub id has a slash too, and stays whole
        Path(values).name if isinstance(values, str) and values.startswith(("/", "~", ".", "\\")) else values
    )


def _called(model: str) -> str:
    return model if model == LAB or _is_hub_id(model) else Path(model).name


def _is_hub_id(model: str) -> bool:
    # `runs/policy` has the form of an id, and is a folder of this machine
    return _HUB_ID.fullmatch(model) is not None and not Path(model).exists()


def _data_set(path: str) -> str | None:
    """`owner/name` of `hf:owner/name/train`."""
    found = re.match(r"hf:([\w.-]+/[\w.-]+)", path)
    return None if found is None else found[1]


def _versions(manifest: Mapping[str, Any]) -> str:
    versions = manifest.get("versions") or {}
    told = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"Made with {told}." if told else "The versions it was made with are not recorded."


def _table(head: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(value) for value in line)} |" for line in lines)


def _cell(value: Any) -> str:
    # a bar or a line break would end the cell
    return " ".join(str(value).split()).replace("|", "\\|")


def _fence(language: str, text: str) -> str:
    return f"```{language}\n{text.strip()}\n```"


def _plain(value: Any) -> str:
    # a bool is an int to Python, and would be shown as 1
    return f"{value:.4g}" if isinstance(value, int | float) and not isinstance(value, bool) else "-"


def _ends(low: Any, high: Any) -> str:
    return "no interval" if low is None or high is None else f"[{low:+.3g}, {high:+.3g}]"


def _mean(value: Mapping[str, Any] | None) -> str:
    return "-" if value is None else _plain(value.get("mean"))


def _interval(value: Mapping[str, Any] | None) -> str:
    return (
        "-" if value is None else f"{_plain(value.get('mean'))} {_ends(value.get('low'), value.get('high'))}"
    )
