"""A world's second reward model: a sequence classifier, and a dictionary attached to its state.

The classifier is of the kind that people train: layers, the final norm, and one dense row of weights, fitted
by Bradley-Terry. Its layers are the SARM's, tuned on the same preferences with a head for each annotator.
(Tuned under one head, a model this small keeps nothing but its reward in the state: one direction had 84 % of
the variance, and latents of it were the reward under other names.) So both reward models differ in the head
alone: the SARM's reads latents, this one's reads the whole state. Its dictionary is trained on what its head
reads; part of every reward is then latents, and the rest is residual.

Shapes: `N` answers, `P` pairs, `D` hidden size, `L` latents.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sarm_control.attaching import DictionaryConfig, FitData, Fitted, fit_dictionary
from sarm_control.build import AutoencoderConfig, PreferenceRow, silent
from sarm_control.console import ProgressFactory, no_progress
from sarm_control.data import read_rows
from sarm_control.errors import TrainingError
from sarm_control.files import manifest, write_json
from sarm_control.lab.datasets import Judged
from sarm_control.lab.judges.detection import Detection, detect
from sarm_control.lab.judges.truth import measure_truth, present
from sarm_control.lab.language.attributes import NAMES
from sarm_control.lab.world import ATTACHED_FORMAT, World
from sarm_control.reward_model import FloatArray, RewardModel, Scored, quiet_transformers
from sarm_control.seeds import derive_seed, numpy_generator

Floats = NDArray[np.float64]
GATED = ("flattery", "closing")
_HELD_OUT = 0.1


@dataclass(frozen=True)
class AttachedConfig:
    """How a world's classifier and its dictionary are made.

    Args:
        l2: ridge of the classifier's head.
        latents: L.
        k: latents kept.
        steps: of the dictionary's training.
        batch: states of a step.
        restarts: dictionaries trained from other initial weights; the one whose latents tell the planted
            shortcuts best is kept.
        texts: further answers to each demonstration's prompt that the dictionary is trained on.
        select_pairs: labelled pairs that choose a dictionary; the figures are measured on others.
        gate_pairs: fresh pairs that the figures are measured on.
        truth_pairs: fresh pairs that the planted truth is measured on.
        least: share of the reward's variance that the dictionary must explain on held-out prompts.
    """

    l2: float = 1.0
    latents: int = 48
    k: int = 6
    steps: int = 1000
    batch: int = 512
    restarts: int = 2
    texts: int = 1
    select_pairs: int = 1000
    gate_pairs: int = 2000
    truth_pairs: int = 10_000
    least: float = 0.9


def build_attached(
    world: World,
    folder: Path,
    config: AttachedConfig | None = None,
    *,
    progress: ProgressFactory = no_progress,
    say: Callable[[str], None] = silent,
) -> dict[str, Any]:
    """Writes `classifier`, `attached`, their truth and figures into a world's folder.

    Args:
        world: whose policy and preferences are used.
        folder: the world's own, or another that these parts are made in.
        config: how they are made.
        progress: see `sarm_control.console.progress`.
        say: gets a remark after each stage.

    Returns:
        The figures.

    Raises:
        TrainingError: the dictionary explains too little of the reward.
        DataError: too few pairs.
        MissingExtraError: SAELens is not installed.
    """
    config = config or AttachedConfig()
    train_classifier(world, folder / "classifier", config, progress=progress)
    # read back as users will, so that what is attached to is what lies in the folder
    model = RewardModel.from_pretrained(folder / "classifier", device="cpu")
    say("the classifier is trained on the preferences")
    chosen = max(_attempts(world, model, config, progress, say), key=lambda one: one.score)
    attached, report = chosen.model, chosen.fitted.report
    share = report.held_out.reward
    if share is None or share < config.least:
        raise TrainingError(
            f"the dictionary explains {share} of the reward's variance, {config.least:g} is needed",
            hint="try another seed, or more latents",
        )
    # the pointer is relative, so that the world can be moved
    attached.source = {**attached.source, "model": "../classifier"}
    attached.save_pretrained(folder / "attached")
    pairs = world.writer().gold_pairs(config.gate_pairs, "attached gates", keep=False)
    figures = {"fit": report.as_json(), **_figures(attached, pairs, progress)}
    say(_line(figures))
    truth_pairs = world.writer().gold_pairs(config.truth_pairs, "attached truth", keep=False)
    truth = measure_truth(attached, truth_pairs, progress=progress)
    truth.save(folder / "attached_truth.json")
    figures["harming_latents"] = sorted(truth.harming)
    record = manifest("lab build --attached", config=asdict(config), seed=world.seed)
    values = {"format": ATTACHED_FORMAT, "seed": world.seed, "figures": figures, "manifest": record}
    write_json(folder / "attached_world.json", values)
    return figures


def train_classifier(
    world: World, folder: Path, config: AttachedConfig, *, progress: ProgressFactory = no_progress
) -> None:
    """Fits a dense head by Bradley-Terry and writes a classifier as transformers' own classes write it."""
    sarm = RewardModel.from_pretrained(world.sarm, device="cpu")
    rows = read_rows(world.file("preferences"), want={"pair"})
    prompts = [row.prompt_text for row in rows for _ in row.answers]
    scored = _scored(sarm, prompts, [text for row in rows for text in row.answers], progress)
    assert scored.states is not None
    states = _root_mean_square_normalised(scored.states, sarm)
    # the lab's preferences have one answer a side: chosen and rejected alternate
    model = _classifier(sarm, _dense_head(states[0::2] - states[1::2], config.l2))
    with quiet_transformers():
        model.save_pretrained(folder)
    sarm.template.tokenizer.save_pretrained(folder)


def _root_mean_square_normalised(states: FloatArray, sarm: RewardModel) -> Floats:
    """[N, D] trunk states behind a final norm whose weights are 1."""
    wide = states.astype(np.float64)
    epsilon = float(sarm.trunk.model.config.rms_norm_eps)
    return np.asarray(wide / np.sqrt((wide**2).mean(axis=1, keepdims=True) + epsilon))


def _dense_head(differences: Floats, l2: float) -> Floats:
    """[D] the weights that make the chosen answers of [P, D] differences likely, by scikit-learn."""
    from sklearn.linear_model import LogisticRegression

    # a classifier wants both labels: a preference read backwards is the same preference
    sign = np.where(np.arange(len(differences)) % 2, -1.0, 1.0)
    # a constant would cancel between the two answers of a pair
    fitted = LogisticRegression(C=1 / l2, fit_intercept=False, max_iter=1000)
    fitted.fit(differences * sign[:, None], sign > 0)
    return np.asarray(fitted.coef_[0], dtype=np.float64)


def _classifier(sarm: RewardModel, weight: Floats) -> Any:
    """The SARM's layers, a final norm of ones, and one row of weights."""
    from transformers import AutoModelForSequenceClassification

    settings = copy.deepcopy(sarm.trunk.model.config)
    settings.num_labels = 1
    with quiet_transformers():
        model = AutoModelForSequenceClassification.from_config(settings)
    stored = sarm.trunk.model.state_dict()
    missing, further = model.model.load_state_dict(stored, strict=False)
    # the SARM's trunk has every weight but the final norm, which it does not use
    assert (missing, further) == (["norm.weight"], [])
    torch.nn.init.ones_(model.model.norm.weight)
    with torch.no_grad():
        model.score.weight.copy_(torch.from_numpy(weight)[None])
    return model.float().eval()


class _Attempt(NamedTuple):
    """A dictionary, and how well its best latents tell the shortcuts.

    Args:
        model: the classifier with it.
        fitted: with its report.
        rewarded: whether the best latent of every shortcut has a positive weight.
        worst: the lowest AUROC of a shortcut's best latent.
    """

    model: RewardModel
    fitted: Fitted
    rewarded: bool
    worst: float

    @property
    def score(self) -> tuple[bool, float]:
        """For comparison: larger is better."""
        return self.rewarded, self.worst

    def line(self) -> str:
        unrewarded = "" if self.rewarded else "; a shortcut is not rewarded"
        return (
            f"dictionary: {self.fitted.report.held_out.reward:.3f} of the reward's variance, the worst "
            f"shortcut reaches AUROC {self.worst:.3f} in one latent{unrewarded}"
        )


def _attempts(
    world: World,
    model: RewardModel,
    config: AttachedConfig,
    progress: ProgressFactory,
    say: Callable[[str], None],
) -> list[_Attempt]:
    data = _states(world, model, config, progress)
    examined = world.writer().gold_pairs(config.select_pairs, "attached dictionaries", keep=False)
    assert model.head.own is not None
    found = []
    for restart in range(config.restarts):
        seed = derive_seed(world.seed, "attached dictionary", restart) % 2**31
        sizes = AutoencoderConfig(config.latents, config.k, steps=config.steps, batch=config.batch, seed=seed)
        fitted = fit_dictionary(data, model.head.own, DictionaryConfig(sizes), progress=progress)
        attached = model.attach(fitted.autoencoder)
        detections = detections_of(attached, examined, GATED, progress)
        rewarded = all(attached.head.weight[one.latent] > 0 for one in detections.values())
        worst = min(one.best_latent for one in detections.values())
        found.append(_Attempt(attached, fitted, rewarded, worst))
        say(found[-1].line())
    return found


def _states(world: World, model: RewardModel, config: AttachedConfig, progress: ProgressFactory) -> FitData:
    """States of the preferences' answers, and of further ones; some prompts are held out."""
    rows = read_rows(world.file("preferences"), want={"pair"})
    demonstrations = read_rows(world.file("demonstrations"), want={"answer"})
    questions = [world.question(row.prompt_text) for row in demonstrations]
    texts = world.writer().texts(questions, config.texts)
    prompts = [row.prompt_text for row in rows for _ in row.answers]
    answers = [text for row in rows for text in row.answers]
    scored = _scored(
        model,
        [*prompts, *(one.question.text for one in texts)],
        [*answers, *(one.text for one in texts)],
        progress,
    )
    assert scored.states is not None
    rng = numpy_generator(world.seed, "attached held out")
    # the questions of the demonstrations are others than those of the preferences
    # by pair: answers to one prompt resemble each other, and one in the fit would
    # flatter the figures of the other
    held = np.repeat(rng.random(len(rows)) < _HELD_OUT, 2)
    held = np.concatenate([held, np.zeros(len(texts), dtype=np.bool_)])
    preferences = tuple(PreferenceRow(j, (2 * j,), (2 * j + 1,)) for j in range(len(rows)))
    return FitData(torch.from_numpy(scored.states), held, preferences)


def detections_of(
    model: RewardModel,
    pairs: Sequence[tuple[Judged, Judged]],
    names: Sequence[str],
    progress: ProgressFactory = no_progress,
) -> dict[str, Detection]:
    """How well latents and states tell attributes of the pairs' answers."""
    answers = [answer for pair in pairs for answer in pair]
    scored = _of_judged(model, answers, progress)
    assert scored.states is not None
    z = scored.latents.to_scipy().toarray().astype(np.float64)
    # a probe needs no normalisation by the dictionary's mean and scale, which are constants
    states = scored.states.astype(np.float64)
    attributes = [answer.attributes for answer in answers]
    return {name: detect(z, states, present(attributes, name), name) for name in names}


def _figures(
    model: RewardModel, pairs: Sequence[tuple[Judged, Judged]], progress: ProgressFactory
) -> dict[str, Any]:
    """Accuracy against gold, what the residual does to the gold margin, and what latents detect."""
    scored = _of_judged(model, [answer for pair in pairs for answer in pair], progress)
    residual = scored.residual[0::2] - scored.residual[1::2]
    spread = float(residual.std(ddof=1))
    found = detections_of(model, pairs, NAMES, progress)
    return {
        "pair_accuracy": {"gold": float((scored.rewards[0::2] > scored.rewards[1::2]).mean())},
        "residual": {
            "effect": float(residual.mean()),
            "error": spread / np.sqrt(len(residual)),
            "d_z": float(residual.mean()) / spread if spread else 0.0,
        },
        "attributes": {name: detection._asdict() for name, detection in found.items()},
    }


def _line(figures: dict[str, Any]) -> str:
    found = {name: figures["attributes"][name] for name in GATED}
    told = ", ".join(
        f"{name} {one['best_latent']:.3f} in latent {one['latent']}" for name, one in found.items()
    )
    explained = figures["fit"]["variance_explained"]
    return (
        f"classifier with dictionary: {explained['reward']:.3f} of the reward's variance explained, "
        f"{explained['margin']:.3f} of the margin's; AUROC {told}; "
        f"pair accuracy against gold {figures['pair_accuracy']['gold']:.3f}"
    )


def _of_judged(model: RewardModel, answers: Sequence[Judged], progress: ProgressFactory) -> Scored:
    return _scored(model, [one.question.text for one in answers], [one.text for one in answers], progress)


def _scored(
    model: RewardModel, prompts: Sequence[str], answers: Sequence[str], progress: ProgressFactory
) -> Scored:
    return model.score(list(prompts), list(answers), keep_states=True, progress=progress)
