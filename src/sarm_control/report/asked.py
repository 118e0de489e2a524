"""What was asked of the runs: their configuration in words."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from sarm_control.embedded import LAB
from sarm_control.pages import Block, Code, Facts, More, Section, Table, TableRow, text_cell
from sarm_control.report.names import named
from sarm_control.report.sources import Run
from sarm_control.statistics import counted


def asked_section(runs: Sequence[Run], names: Mapping[int, str]) -> Section:
    """Policy, reward model, controls with the latents' names, and the settings of each run side by side."""
    settings = [_settings(run, names) for run in runs]
    terms = list(settings[0])
    common = [
        (term, settings[0][term] or "none") for term in terms if len({one[term] for one in settings}) == 1
    ]
    # apart, because a reader of several runs looks for what was varied, and most settings are alike
    differing = [term for term in terms if term not in dict(common)]
    blocks: list[Block] = [Facts(common)]
    if differing:
        rows = [TableRow(term, [text_cell(one[term] or "none") for one in settings]) for term in differing]
        caption = "What differs between the runs; everything above is common to them."
        blocks.append(Table(caption, ("Setting", *(run.title for run in runs)), rows))
    texts = [f"# {run.name}\n{(run.path / 'config.yaml').read_text(encoding='utf-8')}" for run in runs]
    blocks.append(More("The whole configuration of each run", [Code("\n".join(texts))]))
    steps = ", ".join(dict.fromkeys(counted(run.config.training.steps, "step") for run in runs))
    finding = f"{counted(len(runs), 'run')} of {steps} by {runs[0].config.training.algorithm.upper()}."
    return Section("asked", "What was asked", finding, blocks)


def _settings(run: Run, names: Mapping[int, str]) -> dict[str, str]:
    config = run.config
    training, reward, human = config.training, config.reward, config.reward.human_kl
    lost = reward.missing_end_penalty
    return {
        "Role": run.role,
        "Policy": _model(config.policy.model),
        "Reward model": _model(reward.model),
        "Edits": "; ".join(_edit(edit, names) for edit in reward.edits),
        "Penalties": "; ".join(_penalty(one, names) for one in reward.penalties),
        "Penalties on patterns": "; ".join(f"{one} loses {alpha}" for one, alpha in reward.patterns.items()),
        "Human-KL term": "none" if human is None else f"beta {human.beta}, {human.mode}",
        "Shaping": reward.shaping,
        "Answers that did not end": f"lose {lost}" if lost else "no penalty",
        "Algorithm": training.algorithm,
        "Steps": str(training.steps),
        "Prompts": str(config.data.prompts),
        "A step": f"{training.prompts_per_step} prompts, {training.answers_per_prompt} answers to each, "
        f"at most {training.max_new_tokens} tokens, temperature {training.temperature:g}",
        "Learning rate": f"{training.learning_rate:g}, of the values {training.value_learning_rate:g}",
        "KL coefficient": f"{training.kl_coef:g}"
        + ("" if training.kl_target is None else f", moved towards {training.kl_target:g} nats"),
        "Clip range": f"{training.clip:g}",
        "Seed": str(training.seed),
    }


def _model(name: Any) -> str:
    return "lab, the embedded world" if str(name) == LAB else str(name)


def _edit(edit: Any, names: Mapping[int, str]) -> str:
    values = ((one.name, getattr(edit, one.name)) for one in fields(edit) if one.name != "latent")
    given = [f"{key} {value:g}" for key, value in values if value is not None]
    return f"{named(edit.latent, names)}: {', '.join(given)}"


def _penalty(one: Any, names: Mapping[int, str]) -> str:
    size = f"alpha {one.alpha}"
    if one.target_rate is not None:
        size = f"a learnt size, for the latent to fire in {100 * one.target_rate:g} % of answers,"
    return f"{named(one.latent, names)}: {size} above tau {one.tau} ({one.form})"
