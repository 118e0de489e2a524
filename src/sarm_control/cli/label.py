"""`sarm label`: what called latents may be called."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, validators

from sarm_control.cli._help import COMPUTE, INPUT, OUTPUT, RARE_COMPUTE
from sarm_control.cli._next import beside, of_model, say_next
from sarm_control.cli._outputs import Overwrite, check_outputs
from sarm_control.cli._row_flags import AS_THEY_ARE, RowFlags
from sarm_control.cli._scoring import BatchTokens, Device, Dtype, MaxLength, Model, SkipBadRows, TemplateDate
from sarm_control.cli._sources import ModelFlags, read_scored
from sarm_control.console import progress, say
from sarm_control.errors import ConfigError

if TYPE_CHECKING:
    from sarm_control.discovery import AnswerCorpus, Feature, Label, Replies

Price = Annotated[float, Parameter(validator=validators.Number(gte=0))]


LabelWords = Annotated[
    int,
    Parameter(
        group=RARE_COMPUTE,
        validator=validators.Number(gte=1),
        help="Words and n-grams of a latent at most.",
    ),
]

Examples = Annotated[
    int,
    Parameter(
        group=RARE_COMPUTE,
        validator=validators.Number(gte=1),
        help="Top and random answers of a latent at most.",
    ),
]

LabelEndpoint = Annotated[
    str | None,
    Parameter(
        group=COMPUTE,
        help="OpenAI-compatible URL up to /v1, for names. The key comes from SARM_LABEL_API_KEY or "
        "OPENAI_API_KEY. The answers shown to it leave this machine.",
    ),
]


def label(
    features: Annotated[
        str,
        Parameter(
            group=INPUT, help="features.json of sarm discover, or a part of it: features.json#harms[:3]."
        ),
    ],
    /,
    *,
    data: Annotated[
        list[Path],
        Parameter(group=INPUT, consume_multiple=True, help="Rows with answers, or latents folders."),
    ],
    out: Annotated[Path, Parameter(group=OUTPUT, name=["--out", "-o"], help="JSON file for the labels.")],
    model: Model = None,
    words: LabelWords = 10,
    examples: Examples = 5,
    endpoint: LabelEndpoint = None,
    label_model: Annotated[
        str | None, Parameter(group=COMPUTE, help="The model that the endpoint serves.")
    ] = None,
    timeout: Annotated[
        float,
        Parameter(
            group=RARE_COMPUTE,
            validator=validators.Number(gt=0),
            help="Seconds to wait for one reply; a model on a CPU may need minutes.",
        ),
    ] = 120.0,
    price_in: Annotated[
        Price, Parameter(group=RARE_COMPUTE, help="Price of a million prompt tokens, to count the cost.")
    ] = 0.0,
    price_out: Annotated[
        Price, Parameter(group=RARE_COMPUTE, help="Price of a million completion tokens.")
    ] = 0.0,
    seed: Annotated[int, Parameter(group=RARE_COMPUTE, help="Of what is drawn.")] = 0,
    rows: RowFlags = AS_THEY_ARE,
    skip_bad_rows: SkipBadRows = None,
    batch_tokens: BatchTokens = None,
    device: Device = None,
    dtype: Dtype = None,
    max_length: MaxLength = None,
    template_date: TemplateDate = None,
    overwrite: Overwrite = False,
) -> None:
    """Say what called latents may mean: words, examples, a tested name.

    Words are those that set answers with the latent active apart from matched answers without it. With
    --endpoint a language model gives a name from half of the examples and is tested on the other half.
    Its replies are kept beside the output, so a run that was cut goes on where it stopped.
    """
    from sarm_control.discovery import AnswerCorpus, labels_text

    if (endpoint is None) != (label_model is None):
        raise ConfigError("--endpoint and --label-model go together", hint="give both, or neither")
    file = Path(features.removeprefix("@").partition("#")[0])
    check_outputs((out,), (file, *data), overwrite=overwrite)
    scoring = ModelFlags(model, device, dtype, max_length, batch_tokens, template_date)
    scoring.needs_latents = "latents cannot be labelled"
    replies = _replies(endpoint, label_model, out, timeout)
    source = read_scored(
        data,
        scoring,
        want={"answer", "pair", "candidates"},
        skip_bad_rows=skip_bad_rows,
        row_flags=rows,
        check_head=lambda _, fingerprint: _called(features, fingerprint),
    )
    called = _called(features, source.scored_rows.scored.fingerprint)
    corpus = AnswerCorpus(source.scored_rows)
    with progress("Labelling", len(called)) as advance:
        labels = []
        for one in called:
            labels.append(_label(corpus, one, replies, words=words, shown=examples, seed=seed))
            advance(1)
    scored = source.scored_rows.scored
    about = {"model": source.model, "head": scored.fingerprint, "model_fingerprint": scored.model_fingerprint}
    _write(labels, replies, out, [file, *data], about, price=(price_in, price_out), seed=seed)
    sys.stdout.write(labels_text(labels, asked=replies is not None))
    _say_next(file, called, data, model)


def _say_next(file: Path, called: "Sequence[Feature]", data: Sequence[Path], model: str | None) -> None:
    """Try the first of the labelled latents without what it pays."""
    if called:
        saved = beside(file, "edits.json")
        edit = ("--edit", f"{called[0].latent}=0", "--save-edits", saved)
        say_next("probe", *data, *of_model(model), *edit)
    else:
        say_next("rerank", *data, *of_model(model), "--all-latents")


def _called(features: str, fingerprint: str) -> "Sequence[Feature]":
    from sarm_control.discovery import load_features, select

    # read before an answer is scored too, for its errors: latents of another head have other meanings
    if "#" in features:
        return select(features, fingerprint)
    lists = load_features(features.removeprefix("@"), fingerprint).lists
    return [one for name in sorted(lists) for one in lists[name]]


def _replies(endpoint: str | None, label_model: str | None, out: Path, timeout: float) -> "Replies | None":
    if endpoint is None or label_model is None:
        return None
    from sarm_control.discovery import ChatEndpoint, Replies

    asked = ChatEndpoint(endpoint, label_model, timeout=timeout)
    return Replies(asked, out.with_name(f"{out.name}.replies.jsonl"))


def _label(
    corpus: "AnswerCorpus", one: "Feature", replies: "Replies | None", *, words: int, shown: int, seed: int
) -> "Label":
    from dataclasses import replace

    from sarm_control.discovery import label_from, name_latent

    found = corpus.examples(one.latent, seed=seed)
    # made in any case: a name is one reader's guess, and stands beside the words that were counted
    offline = label_from(found, one.latent, one.kind, words=words, shown=shown, seed=seed)
    if replies is None:
        return offline
    return replace(offline, name=name_latent(found, offline.words, replies, seed=seed))


def _write(
    labels: "Sequence[Label]",
    replies: "Replies | None",
    out: Path,
    inputs: list[Path],
    about: Mapping[str, str | None],
    *,
    price: tuple[float, float],
    seed: int,
) -> None:
    from sarm_control.files import manifest, write_json

    content: dict[str, Any] = {**about, "labels": [one.as_json() for one in labels]}
    if replies is not None:
        usage = replies.usage
        content["asked"] = {
            "model": replies.endpoint.model,
            "requests": usage.requests,
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "cost": usage.cost(*price),
        }
        say(
            f"{usage.requests} questions, {usage.prompt_tokens} + {usage.completion_tokens} tokens"
            + (f", cost {usage.cost(*price):.4g}" if any(price) else "")
        )
    record = manifest("label", inputs=inputs, config={"model": about["model"]}, seed=seed)
    write_json(out, {**content, "manifest": record})
