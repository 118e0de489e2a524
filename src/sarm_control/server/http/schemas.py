"""Schemas of requests and responses; the OpenAPI document is made from them.

Names that end in `Given` are parts of responses.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

_MOST_CONTRIBUTIONS = 1000


def _whole_characters(text: str) -> str:
    try:
        # JSON may hold half of a pair as an escape (`\ud83d`), which no tokenizer can encode
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("holds half a character (a surrogate without its pair)") from None
    return text


Text = Annotated[str, AfterValidator(_whole_characters)]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)


class _FromEngine(BaseModel):
    """A request of an engine: it has fields that are not used here, and new ones with every release."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, use_attribute_docstrings=True)


class _Given(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class ChatMessage(_FromEngine):
    """One turn of a conversation."""

    role: Annotated[Text, Field(min_length=1, max_length=64)]
    """`user`, `assistant`, `system`, or another role that the chat template knows."""
    content: Text
    """Its text."""


Messages = Annotated[list[ChatMessage], Field(min_length=1)]


class ScoreRequest(_Asked):
    """Conversations to score: `prompts` with `responses`, or `messages`."""

    prompts: list[Text | Messages] | None = None
    """One for each response: the text of a user, or the turns before the answer."""
    responses: list[Text] | None = None
    """The answers; an empty string is allowed."""
    messages: list[Messages] | None = None
    """Whole conversations instead of prompts and responses; the last turn of each is an assistant's."""
    ended: list[bool] | None = None
    """False for each answer that was cut at a length limit; without it all answers ended."""
    top: Annotated[int, Field(ge=0, le=_MOST_CONTRIBUTIONS)] = 0
    """How many contributions to return for each answer, the largest first."""
    learn: bool = True
    """False for an evaluation: the human-KL term and target rates then learn nothing from these answers."""

    @model_validator(mode="after")
    def _check(self) -> "ScoreRequest":
        apart = self.prompts is not None or self.responses is not None
        if apart == (self.messages is not None):
            raise ValueError("give prompts and responses, or messages")
        if apart and (self.prompts is None or self.responses is None):
            raise ValueError("prompts and responses go together")
        if len(self.prompts or ()) != len(self.responses or ()):
            raise ValueError(f"{len(self.prompts or ())} prompts, {len(self.responses or ())} responses")
        count = len(self.responses or self.messages or ())
        if not count:
            raise ValueError("no conversation was given")
        if self.ended is not None and len(self.ended) != count:
            raise ValueError(f"{len(self.ended)} ended flags for {count} conversations")
        for number, turns in enumerate(self.messages or ()):
            if turns[-1].role != "assistant" or len(turns) < 2:
                raise ValueError(f"messages[{number}] does not end with an assistant's turn after another")
        return self


class ContributionGiven(_Given):
    """What one latent adds to the reward: `contribution = weight * value`.

    Or `residual` or `constant`: what a reward model with a head of its own gives beside its latents.
    """

    latent: int | Literal["residual", "constant"]
    value: float
    weight: float
    contribution: float


class ScoreGiven(_Given):
    """The reward of one conversation; every part is in reward units."""

    score: float
    """The number to train on: the total, or the standardised total."""
    total: float
    """Edited reward minus penalties, human-KL term and the penalty for a missing end, plus `shaping`."""
    reward_model: float
    """The model's own reward."""
    edited: float
    """The reward under the edits."""
    penalties: dict[str, float]
    """The penalty of each penalised latent, by its number, and of the residual, by that name; >= 0."""
    human_kl: float
    """The penalty of the human-KL term; may be negative."""
    missing_end: float
    """The penalty for a missing end; >= 0."""
    shaping: float | None = None
    """What bounding the total adds to it, negative where it lowers it; only under `shaping: par`."""
    ended: bool
    """False where the answer had no end of turn."""
    truncated: Annotated[int, Field(ge=0)]
    """Tokens dropped from the left to fit the context."""
    tokens: Annotated[int, Field(ge=1)]
    """Tokens that were scored."""
    human_kl_version: Annotated[int, Field(ge=0)]
    """The version of the controls behind this reward: how many updates they had learnt from, including those
    in the state file."""
    contributions: list[ContributionGiven] | None = None
    """The largest, when asked for."""


class ScoreResponse(_Given):
    """Rewards in the order of the request."""

    head: str
    """Fingerprint of the head; latent numbers belong to it."""
    results: list[ScoreGiven]


class HumanKlGiven(_Given):
    """What the human-KL term and target rates have learnt."""

    version: int
    """How many updates the controls have learnt from, including those in the state file."""
    learns: bool
    """Whether the controls learn from further answers."""
    state: str | None
    """Identifies what was learnt, also after a restart; null when nothing learns."""
    metrics: dict[str, float]
    """Metrics of the last update, over its answers; see docs/human-kl.md."""


class ModelResponse(_Given):
    """What is served."""

    model: str
    kind: Literal["sarm", "classifier", "attached"] = "sarm"
    """A SARM, a reward model with a head of its own, or such a one with a dictionary attached."""
    pooling: str = "end_of_turn"
    """The token that is read, see `--pooling`."""
    head: str
    latents: int
    """0 without a dictionary."""
    k: int | None
    """Latents kept for an answer; null with TopK off."""
    context: int | None
    """The most tokens of a conversation."""
    dtype: str
    """Type of the trunk's weights."""
    devices: list[str]
    standardize: bool
    controls: dict[str, Any]
    """Edits, penalties and human-KL term; every amount is a number."""
    missing_end: float
    """Penalty for an answer without an end, in reward units."""
    shaping: Literal["none", "par"]
    """How totals are bounded; see docs/training.md."""
    terms: list[str]
    """Names of the parts of a reward, as engines log them."""
    human_kl: HumanKlGiven
    version: str
    """Of sarm-control."""


class LatentResponse(_Given):
    """One latent of the head that is served."""

    latent: int
    head: str
    weight: float
    """Reward per unit of the latent."""
    edits: list[dict[str, Any]]
    penalties: list[dict[str, Any]]
    in_human_kl: bool
    answers: int
    """Answers that got a reward since the server started."""
    active: int
    """In how many of these the latent was above 0."""


class ErrorResponse(_Given):
    """An error: what is wrong, and what to do."""

    error: str
    hint: str | None = None


class Health(_Given):
    """A server that answers."""

    status: Literal["ok", "starting", "stopping"]


class OpenRlhfRequest(_FromEngine):
    """What OpenRLHF posts to `--reward.remote_url`."""

    query: Text | Annotated[list[Text], Field(min_length=1)]
    """Prompt and answer as the policy saw them, decoded with special tokens."""
    prompts: Text | list[Text] | None = None
    """The prompts alone; they show where answers begin."""


class OpenRlhfResponse(_Given):
    """A number for one query, a list for several."""

    rewards: float | list[float]
    scores: float | list[float]
    extra_logs: dict[str, float | list[float]]


class ClassifyRequest(_FromEngine):
    """vLLM's `/classify`."""

    input: Text | Annotated[list[Text], Field(min_length=1)]
    """Conversations in the chat template, as text."""
    activation: bool | None = None
    """Rewards are returned without an activation: true is refused."""
    use_activation: bool | None = None
    """The newer name of `activation`."""


class ClassGiven(_Given):
    """One conversation: `probs` holds its reward, the only number."""

    index: int
    label: str
    probs: list[float]
    num_classes: int


class Usage(_Given):
    """Tokens of all conversations."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int = 0


class ClassifyResponse(_Given):
    """vLLM's answer."""

    id: str
    object: str
    created: int
    model: str
    data: list[ClassGiven]
    usage: Usage


class EmbeddingsRequest(_FromEngine):
    """SGLang's `/v1/embeddings`, which reward models use too."""

    input: Text | Annotated[list[Text], Field(min_length=1)]
    """Conversations in the chat template, as text."""


class EmbeddingGiven(_Given):
    """One conversation: `embedding` holds its reward, the only number."""

    object: str
    embedding: list[float]
    index: int


class EmbeddingsResponse(_Given):
    """SGLang's answer."""

    object: str
    data: list[EmbeddingGiven]
    model: str
    usage: Usage


class SlimeRequest(_FromEngine):
    """What slime posts with `--rm-type remote_rm`."""

    prompt: Text | Messages
    """A templated or plain text, or the turns before the answer."""
    response: Text
    """The answer as generated; it ended if an end of turn follows it."""
