"""From a causal language model and texts to a SARM, stage by stage.

The prompts are split once. The autoencoder, the regularisation, and the heads whose held-out figures are
reported use only the fitting prompts. The head that is kept is then fitted again on all prompts with the
regularisation chosen before. Evaluation rows are used for nothing but their figures.

Shapes: `N` answers, `D` hidden size, `L` latents.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from sarm_control.build.autoencoder import AutoencoderConfig, train_autoencoder
from sarm_control.build.head.heads import FittedHeads, HeadSplit, Validation, fit_heads, head_json
from sarm_control.build.head.quality import explained_variance, firing_rates, head_figures
from sarm_control.build.states.activations import BATCH_TOKENS, AnswerStates, collect_states
from sarm_control.build.states.material import Material, gather
from sarm_control.build.states.source import TrunkSource
from sarm_control.build.states.texts import ConversationCorpus
from sarm_control.build.tune import BATCH_TOKENS as TUNE_BATCH_TOKENS
from sarm_control.build.tune import TuneConfig, Tuned, tune_after, tune_before
from sarm_control.console import ProgressFactory, no_progress
from sarm_control.data import Row
from sarm_control.errors import ConfigError, DataError
from sarm_control.extras import import_extra
from sarm_control.reward_model import Autoencoder, RewardModel


@dataclass(frozen=True)
class BuildConfig:
    """The settings of `build_sarm`.

    Args:
        autoencoder: sizes and schedule; None keeps the autoencoder of an existing SARM.
        sentence_states: train the autoencoder on sentence ends too.
        holdout: share of the prompts kept out of every fit, in (0, 1).
        folds: parts of the cross-validation that chooses the head's regularisation.
        tune_trunk: epochs of tuning the trunk first; 0 for none.
        tune_after: epochs of tuning trunk and head through the frozen autoencoder; 0 for none.
        tune: "lora" or "full".
        tune_rows: preference rows of a step of tuning.
        tune_learning_rate: of the trunk; None is the default of `tune`.
        tune_head_learning_rate: of the heads that the trunk is tuned under; the slower they grow, the further
            apart the states must move.
        annotator: field of the preference rows that names who labelled them: the trunk is then tuned under
            one head for each annotator. None for a single head.
        batch_tokens: rows times longest row of a forward batch; None is the default.
        seed: of everything random, but for the folds, which are the same for every seed.
    """

    autoencoder: AutoencoderConfig | None
    sentence_states: bool = True
    holdout: float = 0.15
    folds: int = 5
    tune_trunk: int = 0
    tune_after: int = 0
    tune: Literal["lora", "full"] = "lora"
    tune_rows: int = 8
    tune_learning_rate: float | None = None
    tune_head_learning_rate: float = 1e-3
    annotator: str | None = None
    batch_tokens: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses shares and counts that cannot work."""
        if not 0 < self.holdout < 1:
            raise ConfigError(f"the held-out share is {self.holdout}, it must be between 0 and 1")
        if self.tune_trunk < 0 or self.tune_after < 0:
            raise ConfigError("epochs of tuning cannot be negative")
        if self.tune_trunk and self.autoencoder is None:
            raise ConfigError(
                "tuning the trunk first would leave the existing autoencoder behind",
                hint="use --tune-after, or build a new one with --base",
            )
        if self.annotator is not None and not self.tune_trunk:
            raise ConfigError("annotators matter only to tuning the trunk first", hint="add --tune-trunk 1")


@dataclass(frozen=True)
class Inputs:
    """Rows to build from and rows to evaluate on, already read.

    Args:
        texts: rows with answers, for the autoencoder.
        pairs: preference rows, for the head (their answers are texts as well).
        evaluation: preference rows of other files, by name.
        validation: preference rows that choose the head's regularisation; cross-validation does without them.
    """

    texts: Sequence[Row]
    pairs: Sequence[Row]
    evaluation: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    validation: Sequence[Row] = ()


_NO_EMPTY_ANSWER = (
    "warning: no preference row has an empty answer; a reward model that has never seen one may reward it"
)


def silent(text: str) -> None:
    """Drops a remark."""
    del text


@dataclass(frozen=True)
class Built:
    """The SARM and the figures of its building, ready for JSON."""

    model: RewardModel
    figures: dict[str, Any]


@dataclass(frozen=True)
class Tools:
    """The folder where states are cached, and how progress and remarks are shown."""

    cache: Path | None = None
    progress: ProgressFactory = no_progress
    say: Callable[[str], None] = silent


def check_build(inputs: Inputs, config: BuildConfig, tools: Tools | None = None) -> Material:
    """Everything that can be wrong with rows and packages, before any model is loaded.

    Args:
        inputs: what to build from.
        config: how.
        tools: for remarks.

    Returns:
        the answers and preferences, split, for `build_sarm`.

    Raises:
        DataError: too few prompts to hold some out (see `material.gather`); a preference row without its
            annotator; validation or evaluation rows of prompts that would have been seen.
        MissingExtraError: a package of an extra is needed and absent.
    """
    say = (tools or Tools()).say
    material = gather(
        inputs.texts, inputs.pairs, holdout=config.holdout, seed=config.seed, annotator=config.annotator
    )
    _check_validation(inputs, material)
    for name, rows in inputs.evaluation.items():
        shared = _check_evaluation(name, rows, material)
        if shared:
            say(f"{name}: {len(shared)} prompts are built from and left out of its figures")
    if config.autoencoder is not None:
        import_extra("sae_lens", "build", needed="training an autoencoder needs sae_lens")
    if config.tune == "lora" and (config.tune_trunk or config.tune_after):
        import_extra("peft", "rl", needed="tuning a trunk with LoRA needs peft")
    return material


def _check_validation(inputs: Inputs, material: Material) -> None:
    """No prompt may be validated and evaluated on, and some have to be new."""
    if not inputs.validation:
        return
    evaluated = {row.prompt_key for rows in inputs.evaluation.values() for row in rows}
    both = sum(row.prompt_key in evaluated for row in inputs.validation)
    if both:
        raise DataError(
            f"{both} validation rows have prompts of an evaluation file: figures there would be chosen on it",
            hint="drop them from the validation file",
        )
    shared = material.corpus.shared_with(inputs.validation)
    if all(row.prompt_key in shared for row in inputs.validation):
        raise DataError("every validation prompt was used for building", hint="validate on other prompts")


def _check_evaluation(name: str, rows: Sequence[Row], material: Material) -> set[str]:
    """The prompts of an evaluation file that are built from; some others have to be there."""
    shared = material.corpus.shared_with(rows)
    if all(row.prompt_key in shared for row in rows):
        raise DataError(f"{name}: every prompt was used for building", hint="evaluate on other prompts")
    return shared


def build_sarm(
    parts: TrunkSource,
    inputs: Inputs,
    config: BuildConfig,
    tools: Tools | None = None,
    *,
    material: Material | None = None,
) -> Built:
    """Builds a SARM; the trunk in `parts` is changed when it is tuned.

    Args:
        parts: trunk, chat template, and for an existing SARM its autoencoder and head.
        inputs: rows to build from and to evaluate on.
        config: the settings.
        tools: cache, progress and remarks.
        material: what `check_build` gave of the same inputs; made here when None.

    Raises:
        DataError: see `check_build`; an autoencoder that explains nothing of the states held out.
        TrainingError: a loss that is not finite.
        MissingExtraError: a package of an extra is needed and absent.
    """
    tools = tools or Tools()
    material = material or check_build(inputs, config, tools)
    figures: dict[str, Any] = {"texts": material.figures()}
    tools.say(material.line())
    if material.rows and all(answer.response.strip() for answer in material.corpus.answers):
        tools.say(_NO_EMPTY_ANSWER)
    # before the states are collected, since tuning changes them
    if config.tune_trunk:
        tuned = _tune_first(parts, material, config, tools)
        figures["tune_trunk"] = {**_tuned_json(tuned, config), **_annotators_json(tuned, material)}
    states = _states(parts, material.corpus, config, tools, sentences=config.autoencoder is not None)
    figures["texts"]["truncated"] = states.truncated
    figures["texts"]["sentence_states"] = len(states.sentences)
    autoencoder = parts.autoencoder
    if config.autoencoder is not None or autoencoder is None:
        autoencoder, figures["autoencoder"] = _train(states, material, config, tools, parts.trunk.device)
    model = parts.reward_model(autoencoder)
    quality = _quality(autoencoder, states, material, tools)
    if config.autoencoder is not None:
        _check_explained(quality["explained_variance_held_out"], int((~material.held_out_answers).sum()))
    figures.setdefault("autoencoder", {}).update(quality)
    heads: FittedHeads | None = None
    if material.rows:
        split = HeadSplit(material.held_out, config.folds)
        validation = _validation(parts, inputs, material, config, tools)
        heads = fit_heads(model, states.end_of_turn, material.rows, split, validation)
        figures["head"] = head_json(heads)
        _say_heads(heads, tools)
        model = model.with_head(heads.sparse.kept)
    if config.tune_after:
        # from the head that was fitted without the held-out prompts
        start = model if heads is None else model.with_head(heads.sparse.fitted)
        model, figures["tune_after"] = _tune_last(start, material, config, tools)
    if inputs.evaluation:
        figures["evaluation"] = _evaluate(model, heads, inputs, material, config, tools)
    figures["head_fingerprint"] = model.fingerprint
    return Built(model, figures)


def _validation(
    parts: TrunkSource, inputs: Inputs, material: Material, config: BuildConfig, tools: Tools
) -> Validation | None:
    """States of the validation rows whose prompts nothing is built from; `check_build` saw that some are."""
    if not inputs.validation:
        return None
    shared = material.corpus.shared_with(inputs.validation)
    corpus = ConversationCorpus()
    rows = [corpus.add(row) for row in inputs.validation if row.prompt_key not in shared]
    tools.say(f"{len(rows)} preference rows choose the regularisation; {len(shared)} prompts left out")
    return Validation(_states(parts, corpus, config, tools, sentences=False).end_of_turn, rows)


def _states(
    parts: TrunkSource, corpus: ConversationCorpus, config: BuildConfig, tools: Tools, *, sentences: bool
) -> AnswerStates:
    found = collect_states(
        parts.trunk,
        parts.template,
        corpus.answers,
        sentence_states=sentences and config.sentence_states,
        cache=tools.cache,
        progress=tools.progress,
        batch_tokens=config.batch_tokens or BATCH_TOKENS,
    )
    tools.say(
        f"{len(found.end_of_turn)} end-of-turn and {len(found.sentences)} sentence-end states of "
        f"{found.end_of_turn.shape[1]} dimensions; {found.truncated} conversations truncated"
    )
    return found


def _train(
    states: AnswerStates, material: Material, config: BuildConfig, tools: Tools, device: torch.device
) -> tuple[Autoencoder, dict[str, Any]]:
    if config.autoencoder is None:
        raise ConfigError("no autoencoder to keep and none to train", hint="give --base, --latents and --k")
    fitted = ~material.held_out_answers
    trained = train_autoencoder(
        states.end_of_turn[torch.from_numpy(fitted)],
        states.sentences[torch.from_numpy(fitted[states.sentence_answer])],
        config.autoencoder,
        device=device,
        progress=tools.progress,
    )
    for point in trained.curve[:: max(1, len(trained.curve) // 5)]:
        tools.say(f"autoencoder step {point.step}: mean squared error {point.mean_squared_error:.4f}")
    return trained.autoencoder, {
        **asdict(config.autoencoder),
        "curve": [asdict(point) for point in trained.curve],
    }


def _quality(
    autoencoder: Autoencoder, states: AnswerStates, material: Material, tools: Tools
) -> dict[str, Any]:
    held_out = torch.from_numpy(material.held_out_answers)
    end_of_turn = states.end_of_turn
    rates = firing_rates(autoencoder, end_of_turn)
    latents = len(rates)
    found = {
        "explained_variance_held_out": explained_variance(autoencoder, end_of_turn[held_out]),
        "explained_variance_fit": explained_variance(autoencoder, end_of_turn[~held_out]),
        "latents": latents,
        "dead_latents": int((rates == 0).sum()),
        "always_active_latents": int((rates > 0.99).sum()),
    }
    tools.say(
        f"explained variance of end-of-turn states: {_shown(found['explained_variance_held_out'])} held out, "
        f"{_shown(found['explained_variance_fit'])} fitted; "
        f"{found['dead_latents']} of {latents} latents never fire there"
    )
    return found


def _check_explained(held_out: float | None, fitted: int) -> None:
    """Refuses an autoencoder that reconstructs unseen states worse than their mean does."""
    if held_out is None:
        raise DataError(
            "the states of the held-out answers are all equal: their explained variance is undefined",
            hint="give answers that differ",
        )
    if held_out <= 0:
        raise DataError(
            f"the autoencoder explains {held_out:.3f} of the variance of the held-out states: no better than "
            f"their mean, from {fitted} answers",
            hint="give more answers in --text (several for each of --latents), or more --steps",
        )


def _shown(share: float | None) -> str:
    return "undefined" if share is None else f"{share:.3f}"


def _say_heads(heads: FittedHeads, tools: Tools) -> None:
    for name, head in (("sparse", heads.sparse), ("dense", heads.dense)):
        tools.say(f"{name} head, held-out prompts: {head.held_out.line()}; l2 {head.regularisation.l2:.3g}")


def _tune_config(epochs: int, config: BuildConfig) -> TuneConfig:
    return TuneConfig(
        epochs=epochs,
        mode=config.tune,
        rows=config.tune_rows,
        learning_rate=config.tune_learning_rate,
        head_learning_rate=config.tune_head_learning_rate,
        # gradients need more memory than states, so the option can only make these batches smaller
        batch_tokens=min(config.batch_tokens or TUNE_BATCH_TOKENS, TUNE_BATCH_TOKENS),
        seed=config.seed,
    )


def _tune_first(parts: TrunkSource, material: Material, config: BuildConfig, tools: Tools) -> Tuned:
    tuned = tune_before(
        parts.trunk,
        parts.template,
        material.corpus.answers,
        material.fit_rows,
        _tune_config(config.tune_trunk, config),
        progress=tools.progress,
    )
    tools.say(_tuned_line("trunk", tuned))
    return tuned


def _tune_last(
    model: RewardModel, material: Material, config: BuildConfig, tools: Tools
) -> tuple[RewardModel, dict[str, Any]]:
    """Tunes on the fitting prompts, from a head fitted on them alone, so that held-out figures are valid."""
    tuned, weight = tune_after(
        model.trunk,
        model.autoencoder,
        model.head.weight,
        model.template,
        material.corpus.answers,
        material.fit_rows,
        _tune_config(config.tune_after, config),
        progress=tools.progress,
    )
    tools.say(_tuned_line("trunk and head", tuned))
    model = model.with_head(weight)
    # states of the tuned trunk: its fingerprint is in the cache's key, so none of before is taken
    scores = model.score_states(
        _states(TrunkSource.of(model), material.corpus, config, tools, sentences=False).end_of_turn
    ).dot(weight)
    judged = head_figures(scores, [row for row in material.rows if material.held_out[row.prompt]])
    tools.say(f"tuned head, held-out prompts: {judged.line()}")
    return model, {**_tuned_json(tuned, config), "held_out": judged.as_json()}


def _tuned_line(what: str, tuned: Tuned) -> str:
    return f"tuned {what}: loss by epoch {', '.join(f'{loss:.3f}' for loss in tuned.losses)} (chance 0.693)"


def _tuned_json(tuned: Tuned, config: BuildConfig) -> dict[str, Any]:
    return {"mode": config.tune, "losses": list(tuned.losses)}


def _annotators_json(tuned: Tuned, material: Material) -> dict[str, Any]:
    if not material.annotators:
        return {}
    losses = {material.annotators[number]: loss for number, loss in tuned.annotators.items()}
    return {"annotators": len(material.annotators), "annotator_losses": losses}


def _evaluate(
    model: RewardModel,
    heads: FittedHeads | None,
    inputs: Inputs,
    material: Material,
    config: BuildConfig,
    tools: Tools,
) -> dict[str, Any]:
    found = {}
    for name, rows in inputs.evaluation.items():
        shared = _check_evaluation(name, rows, material)
        corpus = ConversationCorpus()
        added = [(row.prompt_key, corpus.add(row)) for row in rows]
        fresh = [row for key, row in added if key not in shared]
        # All rows, so that the cached states serve whatever a SARM was built from.
        states = _states(TrunkSource.of(model), corpus, config, tools, sentences=False).end_of_turn
        sparse = head_figures(model.score_states(states).dot(model.head.weight), fresh)
        found[name] = {"shared_prompts_left_out": len(shared), "sparse": sparse.as_json()}
        tools.say(f"{name}, sparse head: {sparse.line()}")
        # the dense head was fitted on states of the trunk before it was tuned: on these it would mean nothing
        if heads is not None and not config.tune_after:
            dense = head_figures(heads.dense_scores(states), fresh)
            found[name]["dense"] = dense.as_json()
            tools.say(f"{name}, dense head: {dense.line()}")
    return found
