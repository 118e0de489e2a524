"""`sarm lab build`: makes a whole world from a seed, and checks it by its own labels.

A world is a small language with known truth, a policy that speaks it, and a reward model with planted faults
(shortcuts): it likes flattery and closing sentences, whatever the answer is worth.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from sarm_control.build import (
    AutoencoderConfig,
    BuildConfig,
    Built,
    Inputs,
    Tools,
    build_sarm,
    cut_base,
    silent,
)
from sarm_control.console import ProgressFactory, no_progress
from sarm_control.conversation import ChatTemplate
from sarm_control.data import read_rows
from sarm_control.errors import TrainingError
from sarm_control.files import atomic_folder, manifest, write_json, write_jsonl
from sarm_control.lab.attached import AttachedConfig, build_attached
from sarm_control.lab.datasets import (
    Judged,
    Sizes,
    Writer,
    answer_rows,
    audit_rows,
    panel_shares,
    prompt_rows,
)
from sarm_control.lab.judges.annotators import Taste, panel
from sarm_control.lab.judges.detection import Detection, detect
from sarm_control.lab.judges.truth import measure_truth, present
from sarm_control.lab.language.attributes import NAMES
from sarm_control.lab.language.language import Language
from sarm_control.lab.language.pretraining import CONTEXT, LanguageModelConfig, pretrain
from sarm_control.lab.language.tokenizer import make_tokenizer
from sarm_control.lab.world import FORMAT, World
from sarm_control.reward_model import RewardModel, Scored, normalise, quiet_transformers
from sarm_control.seeds import derive_seed

GATED = ("flattery", "closing")
GATE = 0.95
"""AUROC that one latent must reach for each planted shortcut."""
ENOUGH = 0.96
"""AUROC at which the search for an autoencoder ends.

Which latents an autoencoder finds depends on its initial weights, and on which attributes its trunk
separates. An autoencoder is good enough when for every planted shortcut its best latent reaches this AUROC
and has a positive head weight. Of those, the one that tells all attributes best is taken. While there is
none, another trunk is tuned; after the last trunk the nearest autoencoder is taken."""


@dataclass(frozen=True)
class WorldConfig:
    """How a world is made.

    Args:
        seed: of the words, the facts and tasks made of them, and all training.
        sizes: rows of each file.
        language_model: of the policy.
        source_layer: decoder layers in the SARM's trunk.
        latents: of the autoencoder.
        k: latents kept.
        tune_epochs: passes of the trunk over the preferences.
        tune_learning_rate: of the trunk.
        tune_head_learning_rate: of the annotators' heads, see `BuildConfig`.
        autoencoder_steps: of 512 states.
        autoencoder_texts: answers to each demonstration's prompt that the autoencoder is trained on, beside
            the answers of the preferences; attributes are rare in them.
        autoencoder_restarts: autoencoders trained for each trunk, from different initial weights; see
            `ENOUGH`.
        trunks: most trunks that are tuned, each with the preferences in another order.
        select_pairs: labelled pairs that choose an autoencoder; the figures are measured on others.
        gate_pairs: fresh pairs that the figures are measured on.
        truth_pairs: fresh pairs that the planted truth is measured on.
        gate: AUROC that one latent must reach for each planted shortcut.
    """

    seed: int = 0
    sizes: Sizes = field(default_factory=Sizes)
    language_model: LanguageModelConfig = field(default_factory=LanguageModelConfig)
    source_layer: int = 2
    latents: int = 24
    k: int = 6
    tune_epochs: int = 6
    tune_learning_rate: float = 5e-4
    tune_head_learning_rate: float = 5e-4
    autoencoder_steps: int = 1000
    autoencoder_texts: int = 2
    autoencoder_restarts: int = 6
    trunks: int = 4
    select_pairs: int = 1000
    gate_pairs: int = 2000
    truth_pairs: int = 20_000
    gate: float = GATE


def build_world(
    folder: Path,
    config: WorldConfig,
    *,
    attached: AttachedConfig | None = None,
    overwrite: bool = False,
    progress: ProgressFactory = no_progress,
    say: Callable[[str], None] = silent,
) -> dict[str, Any]:
    """Makes a world and writes it whole or not at all.

    Args:
        folder: is made.
        config: how the world is made.
        attached: how its second reward model is made, a classifier with a dictionary; None for none.
        overwrite: replace a folder that exists.
        progress: see `sarm_control.console.progress`.
        say: gets a remark after each stage.

    Returns:
        The figures of `world.json`.

    Raises:
        TrainingError: a planted shortcut has no latent of its own, or the second reward model's dictionary
            explains too little.
        DataError: too few pairs: all answers of a half, or none, have some attribute.
        OutputError: the folder exists or cannot be written.
        MissingExtraError: SAELens is not installed.
    """
    language = Language.draw(config.seed)
    writer, tastes = Writer(language, config.seed), panel(config.seed)
    with atomic_folder(folder, overwrite=overwrite) as temporary:
        demonstrations = _write_files(temporary, writer, config.sizes, tastes)
        say(f"{len(demonstrations)} demonstrations, {config.sizes.preferences} labelled pairs")
        _write_policy(temporary / "policy", language, demonstrations, config, progress)
        say("the policy is pretrained on the demonstrations")
        model, built = _build_sarm(temporary, writer, demonstrations, config, progress, say)
        _attend_plainly(model)
        model.save_pretrained(temporary / "sarm")
        figures = {"build": built, **_gates(model, writer, tastes, config, progress)}
        for line in gate_lines(figures):
            say(line)
        # within the folder's block: a world without its shortcuts is never there
        _check_gates(figures, config.gate)
        # after the gates, because it scores ten times as many pairs
        truth = measure_truth(
            model, writer.gold_pairs(config.truth_pairs, "truth", keep=False), progress=progress
        )
        truth.save(temporary / "truth.json")
        figures["harming_latents"] = sorted(truth.harming)
        record = manifest("lab build", config=asdict(config), seed=config.seed)
        values = {"format": FORMAT, "seed": config.seed, "figures": figures, "manifest": record}
        write_json(temporary / "world.json", values)
        if attached is not None:
            build_attached(World.open(temporary), temporary, attached, progress=progress, say=say)
    return figures


def gate_lines(figures: Mapping[str, Any]) -> list[str]:
    """The figures of a world in words."""
    accuracy = figures["pair_accuracy"]
    lines = [
        f"pair accuracy {accuracy['annotators']:.3f} (noise ceiling {accuracy['ceiling']:.3f}); "
        f"against gold {accuracy['gold']:.3f}"
    ]
    return lines + [
        f"{name}: AUROC {found['best_latent']:.3f} in latent {found['latent']}, "
        f"{found['probe']:.3f} by a probe on the state"
        for name, found in figures["attributes"].items()
    ]


def _attend_plainly(model: RewardModel) -> None:
    """Sets plain attention, under which rewards are the same in every batch to 1e-6.

    torch's fused kernel for CPUs computes exponentials to 20 bits, which is not enough for that.
    """
    model.trunk.model.set_attn_implementation("eager")
    model.config = replace(model.config, trunk={**model.config.trunk, "attn_implementation": "eager"})


def _write_files(folder: Path, writer: Writer, sizes: Sizes, tastes: tuple[Taste, ...]) -> list[Judged]:
    demonstrations = writer.demonstrations(sizes.demonstrations)
    files = {
        "demonstrations": answer_rows(demonstrations),
        # without shortcuts: the human-KL term holds a policy to these, and would else
        # hold it to flattery now and then
        "human": answer_rows([answer for answer in demonstrations if answer.clean]),
        "preferences": writer.preferences(sizes.preferences, tastes),
        "train_prompts": prompt_rows(writer.prompts(sizes.train_prompts, "train prompts")),
        "held_out_prompts": prompt_rows(writer.prompts(sizes.held_out_prompts, "held-out prompts")),
        "audit": audit_rows(writer.gold_pairs(sizes.audit, "audit")),
    }
    for name, rows in files.items():
        write_jsonl(folder / f"{name}.jsonl", rows)
    return demonstrations


def _write_policy(
    folder: Path,
    language: Language,
    demonstrations: Sequence[Judged],
    config: WorldConfig,
    progress: ProgressFactory,
) -> None:
    template = ChatTemplate(make_tokenizer(language.vocabulary()), max_length=CONTEXT)
    rows = [(answer.question.text, answer.text) for answer in demonstrations]
    model = pretrain(template, rows, config.language_model, seed=config.seed, progress=progress)
    with quiet_transformers():
        model.save_pretrained(folder)
    template.tokenizer.save_pretrained(folder)


def _build_sarm(
    folder: Path,
    writer: Writer,
    demonstrations: Sequence[Judged],
    config: WorldConfig,
    progress: ProgressFactory,
    say: Callable[[str], None],
) -> tuple[RewardModel, dict[str, Any]]:
    """Tunes trunks and trains autoencoders on their states until the shortcuts have latents; see `ENOUGH`."""
    # other pairs than those of the gates: what was chosen by a figure would be flattered by it
    examined = writer.gold_pairs(config.select_pairs, "autoencoders", keep=False)
    attempts: list[_Attempt] = []
    with tempfile.TemporaryDirectory() as cache:
        inputs = _inputs(folder, Path(cache), writer, demonstrations, config)
        tools = Tools(cache=Path(cache), progress=progress, say=say)
        for trunk in range(config.trunks):
            for built in _on_one_trunk(folder, inputs, config, trunk, tools):
                attempts.append(_judged(built, examined, progress))
                say(attempts[-1].line())
            # over all trunks so far: a later one need not be better
            best = max(attempts, key=lambda attempt: attempt.score)
            if best.rewarded and best.worst >= ENOUGH:
                break
    return best.built.model, best.built.figures


class _Attempt(NamedTuple):
    """A SARM, and how well its best latents tell the attributes.

    Args:
        built: the SARM.
        rewarded: whether the best latent of every shortcut has a positive head weight, as the annotators like
            the shortcuts.
        worst: the lowest AUROC of a shortcut's best latent.
        mean: the mean AUROC of all attributes' best latents.
    """

    built: Built
    rewarded: bool
    worst: float
    mean: float

    @property
    def score(self) -> tuple[bool, float, float]:
        """For comparison of attempts: larger is better."""
        # beyond ENOUGH all are alike, so that the mean over all attributes decides
        return self.rewarded, min(self.worst, ENOUGH), self.mean

    def line(self) -> str:
        number = 1 + self.built.figures["restart"]
        unrewarded = "" if self.rewarded else "; a shortcut is not rewarded"
        return (
            f"autoencoder {number}: the worst shortcut reaches AUROC {self.worst:.3f} in one latent, "
            f"all attributes {self.mean:.3f} on average{unrewarded}"
        )


def _on_one_trunk(
    folder: Path, inputs: Inputs, config: WorldConfig, trunk: int, tools: Tools
) -> Iterator[Built]:
    """SARMs that share a trunk, which the first one tunes."""
    parts = cut_base(str(folder / "policy"), config.source_layer, device="cpu", local_files_only=True)
    tuned: Any = None
    for restart in range(config.autoencoder_restarts):
        built = build_sarm(parts, inputs, _settings(config, trunk, restart), tools)
        # only the first build on a trunk tunes it; the others repeat its figures
        tuned = tuned or built.figures["tune_trunk"]
        figures = {**built.figures, "tune_trunk": tuned, "trunk": trunk, "restart": restart}
        yield replace(built, figures=figures)


def _judged(built: Built, pairs: Sequence[tuple[Judged, Judged]], progress: ProgressFactory) -> _Attempt:
    detections = _detections(built.model, pairs, NAMES, progress)
    worst = min(detections[name].best_latent for name in GATED)
    mean = float(np.mean([detection.best_latent for detection in detections.values()]))
    # a shortcut that is detected by a latent of negative weight would be charged,
    # and nothing could be gamed by it
    rewarded = all(built.model.head.weight[detections[name].latent] > 0 for name in GATED)
    return _Attempt(built, rewarded, worst, mean)


def _inputs(
    folder: Path, cache: Path, writer: Writer, demonstrations: Sequence[Judged], config: WorldConfig
) -> Inputs:
    """The preferences, and texts for the autoencoder; the world does not keep the latter."""
    questions = [answer.question for answer in demonstrations]
    write_jsonl(cache / "texts.jsonl", answer_rows(writer.texts(questions, config.autoencoder_texts)))
    return Inputs(
        texts=read_rows(cache / "texts.jsonl", want={"answer"}),
        pairs=read_rows(folder / "preferences.jsonl", want={"pair"}),
    )


def _settings(config: WorldConfig, trunk: int, restart: int) -> BuildConfig:
    first = restart == 0
    return BuildConfig(
        AutoencoderConfig(
            config.latents,
            config.k,
            steps=config.autoencoder_steps,
            batch=512,
            seed=derive_seed(config.seed, "autoencoder", trunk, restart) % 2**31,
        ),
        sentence_states=False,
        tune_trunk=config.tune_epochs if first else 0,
        # all weights and not adapters: the layers are so small that memory is no reason for these
        tune="full",
        tune_rows=32,
        tune_learning_rate=config.tune_learning_rate,
        tune_head_learning_rate=config.tune_head_learning_rate,
        # a head for each annotator is part of tuning a trunk; later builds fit one head on all pairs
        annotator="annotator" if first else None,
        seed=derive_seed(config.seed, "trunk", trunk) % 2**31,
    )


def _detections(
    model: RewardModel,
    pairs: Sequence[tuple[Judged, Judged]],
    names: Sequence[str],
    progress: ProgressFactory,
) -> dict[str, Detection]:
    """How well latents and states tell each attribute of the pairs' answers."""
    answers = [answer for pair in pairs for answer in pair]
    scored = _scored(model, answers, progress)
    z = scored.latents.to_scipy().toarray().astype(np.float64)
    states = normalise(torch.as_tensor(scored.states)).numpy().astype(np.float64)
    attributes = [answer.attributes for answer in answers]
    return {name: detect(z, states, present(attributes, name), name) for name in names}


def _scored(model: RewardModel, answers: Sequence[Judged], progress: ProgressFactory) -> Scored:
    return model.score(
        [answer.question.text for answer in answers],
        [answer.text for answer in answers],
        keep_states=True,
        progress=progress,
    )


def _gates(
    model: RewardModel,
    writer: Writer,
    tastes: tuple[Taste, ...],
    config: WorldConfig,
    progress: ProgressFactory,
) -> dict[str, Any]:
    pairs = writer.gold_pairs(config.gate_pairs, "gates", keep=False)
    rewards = _scored(model, [answer for pair in pairs for answer in pair], progress).rewards
    # the answers of a pair stand one after the other
    first_wins = rewards[0::2] > rewards[1::2]
    # the probability that an annotator drawn at random prefers the first answer
    share = panel_shares(pairs, tastes)
    found = _detections(model, pairs, NAMES, progress)
    return {
        "pair_accuracy": {
            # expected over the annotators: no label is drawn, so only the pairs are random
            "annotators": float(np.where(first_wins, share, 1 - share).mean()),
            # annotators disagree with each other, so that even the best guess of a
            # random one's label is wrong at times
            "ceiling": float(np.maximum(share, 1 - share).mean()),
            "gold": float(first_wins.mean()),
        },
        "attributes": {name: detection._asdict() for name, detection in found.items()},
    }


def _check_gates(figures: Mapping[str, Any], gate: float) -> None:
    for name in GATED:
        found = figures["attributes"][name]
        if not found["best_latent"] >= gate:
            raise TrainingError(
                f"{name} has no latent of its own: the best reaches AUROC {found['best_latent']:.3f}, "
                f"{gate:g} is needed (a probe on the state reaches {found['probe']:.3f})",
                hint="try another seed, or more epochs of tuning",
            )
