"""From a reward model and rows to the reward model with a dictionary attached, and the report of its fit.

Shapes: `N` answers, `D` hidden size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from sarm_control.attaching.contributions import named
from sarm_control.attaching.fit import FitData, StateSet, fit_dictionary, measure_fit
from sarm_control.attaching.report import FitReport
from sarm_control.attaching.sizes import DictionarySizes, choose_dictionary_sizes
from sarm_control.attaching.states import PooledStates, collect_pooled_states
from sarm_control.attaching.training import RAMP, REWARD_WEIGHT, DictionaryConfig
from sarm_control.build import (
    AutoencoderConfig,
    ConversationCorpus,
    Inputs,
    Material,
    Sparsity,
    Tools,
    gather,
    read_pairs,
    read_texts,
)
from sarm_control.console import progress as bar
from sarm_control.console import say
from sarm_control.data import Source, prompt_key
from sarm_control.discovery import AnswerCorpus
from sarm_control.errors import ConfigError, DataError, ModelError
from sarm_control.extras import import_extra
from sarm_control.reward_model import AttachedAutoencoder, LinearHead, RewardModel, StateHead


@dataclass(frozen=True)
class AttachConfig:
    """The settings of `attach_dictionary`.

    Args:
        latents: L; None chooses by width and answers.
        k: latents kept for each state; None likewise.
        steps: of the training.
        batch: states of a step.
        learning_rate: of Adam.
        pooled_share: share of a batch that is states where the reward is read.
        reward_weight: of the loss term for the reward, see `DictionaryConfig`.
        ramp: share of the steps over which it rises.
        sparsity: which latents are kept: k of every state (`topk`), k on average (`batch-topk`), or the
            latter with nested groups of latents (`matryoshka`).
        whitening: how far directions of the state are made to vary alike for the training, in [0, 1].
        others: also train on states at the ends of sentences and of earlier turns.
        holdout: share of prompts kept out of the training.
        compare: also train on the plain squared error, with each other sparsity, and whitened, for the table.
        seeds: dictionaries trained, from `seed` on; the first is attached.
        force: attach a dictionary that explains too little, or is the reward direction.
        batch_tokens: rows times longest row of a forward batch; None is the default.
        seed: of everything random.
    """

    latents: int | None = None
    k: int | None = None
    steps: int = 2000
    batch: int = 1024
    learning_rate: float = 1e-3
    pooled_share: float = 0.5
    reward_weight: float = REWARD_WEIGHT
    ramp: float = RAMP
    sparsity: Sparsity = "topk"
    whitening: float = 0.0
    others: bool = True
    holdout: float = 0.15
    compare: bool = False
    seeds: int = 1
    force: bool = False
    batch_tokens: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses what cannot work, before any file is read."""
        if not 0 < self.holdout < 1:
            raise ConfigError(f"the held-out share is {self.holdout}, it must be between 0 and 1")
        if self.seeds < 1:
            raise ConfigError(f"{self.seeds} seeds: at least 1 dictionary is needed")
        if not 0 < self.pooled_share <= 1:
            raise ConfigError(f"the share of pooled states is {self.pooled_share}, it must be in (0, 1]")
        if self.sparsity not in get_args(Sparsity):
            raise ConfigError(
                f"the sparsity {self.sparsity!r} is not known", hint=f"one of {', '.join(get_args(Sparsity))}"
            )
        if not 0 <= self.whitening <= 1:
            raise ConfigError(f"the whitening is {self.whitening}, it must be in [0, 1]")
        # sizes that are chosen later are stood in for by ones that pass: the other settings are checked
        self.dictionary(DictionarySizes(self.latents or self.k or 1, self.k or 1))

    def dictionary(self, sizes: DictionarySizes) -> DictionaryConfig:
        """These for a dictionary of chosen sizes.

        Raises:
            ConfigError: more latents are to be kept than there are, or steps, batch or weight cannot be.
        """
        autoencoder = AutoencoderConfig(
            sizes.latents,
            sizes.k,
            steps=self.steps,
            batch=self.batch,
            learning_rate=self.learning_rate,
            end_of_turn_share=self.pooled_share,
            seed=self.seed,
        )
        return DictionaryConfig(autoencoder, self.reward_weight, self.ramp, self.sparsity, self.whitening)


@dataclass(frozen=True)
class Attached:
    """The reward model with its dictionary, and how much of its rewards that explains.

    Args:
        model: its unedited rewards are those of before, to the bit.
        report: of the fit.
        figures: what it was made from, ready for JSON; the report's figures among it.
    """

    model: RewardModel
    report: FitReport
    figures: dict[str, Any] = field(default_factory=dict)


def attach(
    model: RewardModel | str,
    texts: Sequence[Source] = (),
    pairs: Sequence[Source] = (),
    *,
    evaluate: Mapping[str, Sequence[Source]] | None = None,
    dictionary: AttachedAutoencoder | None = None,
    config: AttachConfig | None = None,
    cache: Path | None = None,
    quiet: bool = False,
) -> Attached:
    """Attaches a dictionary to a reward model with a linear head.

    Args:
        model: a classifier, or its folder or hub id.
        texts: files or tables of rows with answers; see `sarm_control.data.read_rows`.
        pairs: preference rows; their answers are texts too.
        evaluate: preference rows of other benchmarks, by name, for figures alone.
        dictionary: a ready-made one, see `read_dictionary`; default: one is trained.
        config: the settings.
        cache: folder for states, so that a second call does not run the model; default: none are kept.
        quiet: say nothing.

    Returns:
        The reward model with the dictionary, and the report of its fit on held-out prompts.

    Raises:
        ModelError: the model has latents already or no linear head, or the dictionary explains less than half
            of the reward's variance.
        DataError: a bad row, or too few prompts to hold some out.
        MissingExtraError: SAELens is not installed.
    """
    loaded = model if isinstance(model, RewardModel) else RewardModel.from_pretrained(model)
    inputs = Inputs(
        read_texts(list(texts)),
        read_pairs(list(pairs)),
        {name: read_pairs(list(files)) for name, files in (evaluate or {}).items()},
    )
    tools = Tools(cache=cache) if quiet else Tools(cache=cache, progress=bar, say=say)
    return attach_dictionary(loaded, inputs, config or AttachConfig(), tools, dictionary=dictionary)


def check_attach(inputs: Inputs, config: AttachConfig, *, trained: bool = True) -> Material:
    """Everything that can be wrong with rows and packages, before any model is loaded.

    Args:
        inputs: texts, pairs, and rows for figures alone.
        config: the settings.
        trained: whether a dictionary is to be trained.

    Returns:
        the answers and preferences, split by prompt.

    Raises:
        DataError: no rows, too few prompts to hold some out, or evaluation rows of fitted prompts alone.
        MissingExtraError: SAELens is not installed.
    """
    if not inputs.texts and not inputs.pairs:
        raise DataError(
            "a dictionary needs rows with answers", hint="add --text texts.jsonl, or --pairs pairs.jsonl"
        )
    material = gather(inputs.texts, inputs.pairs, holdout=config.holdout, seed=config.seed)
    for name, rows in inputs.evaluation.items():
        shared = material.corpus.shared_with(rows)
        if all(row.prompt_key in shared for row in rows):
            raise DataError(
                f"{name}: every prompt is among those that are fitted on", hint="evaluate on other prompts"
            )
    if trained:
        import_extra("sae_lens", "build", needed="training a dictionary needs sae_lens")
    return material


def refuse_latents(head: LinearHead, name: str = "this reward model") -> StateHead:
    """The head that a dictionary is for, of a reward model that has none.

    Args:
        head: of the reward model.
        name: what to call it in errors.

    Raises:
        ModelError: a SARM, or a model that has a dictionary.
    """
    if head.own is None:
        raise ModelError(
            f"{name} is a SARM: it has latents already", hint="use it as it is, with sarm discover"
        )
    if len(head.weight):
        raise ModelError(
            f"{name} has a dictionary attached already", hint="attach another to the reward model itself"
        )
    return head.own


def attach_dictionary(
    model: RewardModel,
    inputs: Inputs,
    config: AttachConfig,
    tools: Tools | None = None,
    *,
    material: Material | None = None,
    dictionary: AttachedAutoencoder | None = None,
) -> Attached:
    """As `attach`, for rows that were read.

    Args:
        model: a classifier.
        inputs: texts, pairs, and rows for figures alone.
        config: the settings.
        tools: cache, progress and remarks.
        material: what `check_attach` gave of the same inputs; made here when None.
        dictionary: a ready-made one; default: one is trained.

    Raises:
        ModelError, DataError, MissingExtraError: see `attach`.
    """
    tools, head = tools or Tools(), refuse_latents(model.head)
    material = material or check_attach(inputs, config, trained=dictionary is None)
    if dictionary is not None:
        dictionary.latent_weights(head)  # refuses another width before anything is run
    tools.say(material.line())
    sizes = None if dictionary is not None else sized(len(head.weight), material, config, tools)
    # a dictionary of states before the norm reads states that the bare model does not give
    reading = model if dictionary is None else model.attach(dictionary)
    read = _read(reading, inputs, material, config, tools, others=dictionary is None)
    data = read.data
    figures: dict[str, Any] = {
        "texts": {**material.figures(), "truncated": read.truncated, "other_states": len(data.others_answer)}
    }
    if sizes is None:
        assert dictionary is not None
        made, report = dictionary, measure_fit(dictionary, head, data)
    else:
        how = config.dictionary(sizes)
        fitted = fit_dictionary(
            data,
            head,
            how,
            compare=config.compare,
            seeds=config.seeds,
            device=model.device,
            progress=tools.progress,
        )
        made, report = fitted.autoencoder, fitted.report
        figures |= {"sparsity": config.sparsity, "whitening": config.whitening}
    attached = model.attach(made)
    corpus = _corpus(material, read, attached)
    words = named(report.contributions, corpus, seed=config.seed, progress=tools.progress)
    report = replace(report, contributions=words)
    for line in report.lines():
        tools.say(line)
    # after all figures were said, by which a refusal can be understood
    report.check(force=config.force)
    figures = {**report.as_json(), **figures, "latents": made.encoder.out_features}
    return Attached(attached, report, figures)


def sized(width: int, material: Material, config: AttachConfig, tools: Tools) -> DictionarySizes:
    """The sizes of the dictionary; says what was chosen.

    Args:
        width: D.
        material: whose fitted answers count.
        config: sizes that were given.
        tools: for remarks.

    Raises:
        ConfigError: more latents are to be kept than there are.
    """
    answers = int((~material.held_out_answers).sum())
    sizes = choose_dictionary_sizes(width, answers, latents=config.latents, k=config.k)
    if sizes.chosen:
        tools.say(f"chosen: {', '.join(sizes.chosen)}")
    if sizes.warning is not None:
        tools.say(f"warning: {sizes.warning}")
    return sizes


class _Read(NamedTuple):
    """States and what else was seen of the answers: how many lost tokens, and the tokens of each."""

    data: FitData
    truncated: int
    lengths: NDArray[np.int64]


def _corpus(material: Material, read: _Read, attached: RewardModel) -> AnswerCorpus:
    """Every answer with its latents, held out or not: words describe a latent and measure no fit."""
    answers = material.corpus.answers
    return AnswerCorpus.of_distinct(
        [prompt_key(one.prompt) for one in answers],
        [one.response for one in answers],
        read.lengths,
        attached.score_states(read.data.states),
    )


def _read(
    model: RewardModel,
    inputs: Inputs,
    material: Material,
    config: AttachConfig,
    tools: Tools,
    *,
    others: bool,
) -> _Read:
    def states(corpus: ConversationCorpus, *, also: bool) -> PooledStates:
        more = {} if config.batch_tokens is None else {"batch_tokens": config.batch_tokens}
        return collect_pooled_states(
            model, corpus.answers, others=also, cache=tools.cache, progress=tools.progress, **more
        )

    own = states(material.corpus, also=others and config.others)
    tools.say(
        f"{len(own.pooled)} states of {own.pooled.shape[1]} numbers where the reward is read, "
        f"{len(own.others)} at ends of sentences and turns; {own.truncated} conversations truncated"
    )
    evaluation = {}
    for name, rows in inputs.evaluation.items():
        shared, corpus = material.corpus.shared_with(rows), ConversationCorpus()
        fresh = tuple(corpus.add(row) for row in rows if row.prompt_key not in shared)
        if shared:
            tools.say(f"{name}: {len(shared)} prompts are among those above and left out of its figures")
        evaluation[name] = StateSet(states(corpus, also=False).pooled, fresh)
    held_out = np.asarray(material.held_out_answers, dtype=np.bool_)
    data = FitData(own.pooled, held_out, material.rows, None, evaluation=evaluation)
    if len(own.others):
        data = replace(data, others=own.others, others_answer=own.others_answer)
    return _Read(data, own.truncated, own.lengths)
