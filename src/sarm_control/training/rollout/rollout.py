"""Sampling answers from a policy: plain sampling, the same answers for the same seed.

Every answer has a seed of its own, derived from (seed, purpose, row). A `Sampler`
(`training.rollout.sampler`) decodes. Tokens are drawn from `softmax(logits / temperature)`, whatever the
checkpoint's generation config says.

Shapes: `N` answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sarm_control.conversation import ChatTemplate
from sarm_control.data import Prompt
from sarm_control.errors import DataError, ModelError
from sarm_control.seeds import derive_seed
from sarm_control.training.config.run_config import Overlong
from sarm_control.training.policy.policy import Policy
from sarm_control.training.rollout.sampler import CachedSampler, Sampler, SampleRequest, check_samples

OURS = CachedSampler()


@dataclass(frozen=True)
class PromptRow:
    """A prompt ready for the policy.

    Args:
        prompt: the prompt as it was written.
        ids: its tokens, followed by those of the answer's header.
        where: its place, as messages name it: `prompts.jsonl:17`.
        cut: tokens that were dropped from the left of `ids`, so that an answer has room in the context.
    """

    prompt: Prompt
    ids: tuple[int, ...]
    where: str
    cut: int = 0


@dataclass(frozen=True)
class Rollout:
    """N answers of a policy.

    Args:
        prompts: [N] the prompt of each answer.
        answers: [N] generated ids, the token that ends them included where there is one; never empty.
        texts: [N] the answers as text.
        ended: [N] false where an answer hit the length limit.
        sampler_logprobs: [N] log-probability of each token as the sampler drew it; None where it equals that
            of the training pass.
    """

    prompts: tuple[PromptRow, ...]
    answers: tuple[tuple[int, ...], ...]
    texts: tuple[str, ...]
    ended: tuple[bool, ...]
    sampler_logprobs: tuple[tuple[float, ...], ...] | None = None

    def __len__(self) -> int:
        return len(self.answers)

    @property
    def lengths(self) -> list[int]:
        """[N] tokens the policy chose, the end-of-turn included."""
        return [len(answer) for answer in self.answers]


def encode_prompts(
    policy: Policy, prompts: Sequence[Prompt], where: Sequence[str], room: int
) -> list[PromptRow]:
    """Prompts as token ids, checked against the policy's context.

    Args:
        policy: whose template and context are used.
        prompts: texts or messages.
        where: the place of each, for messages.
        room: most tokens of an answer.

    Raises:
        DataError: `file:line` of a prompt that leaves no room for an answer, or that the template refuses.
    """
    return encode_for(policy.template, policy.context, prompts, where, room)


def encode_for(
    template: ChatTemplate, context: int | None, prompts: Sequence[Prompt], where: Sequence[str], room: int
) -> list[PromptRow]:
    """As `encode_prompts`, for a policy of which template and context are known alone.

    Raises:
        DataError: see `encode_prompts`.
    """
    rows = (
        encode_one(template, context, prompt, place, room)
        for prompt, place in zip(prompts, where, strict=True)
    )
    return [row for row in rows if row is not None]


def encode_one(
    template: ChatTemplate,
    context: int | None,
    prompt: Prompt,
    where: str,
    room: int,
    overlong: Overlong = "error",
) -> PromptRow | None:
    """One prompt as token ids that leave room for an answer in the policy's context.

    Args:
        template: of the policy.
        context: most tokens of prompt and answer; None without a limit.
        prompt: a text or messages.
        where: its place, for messages.
        room: most tokens of an answer.
        overlong: what is done with a prompt that leaves less room. `truncate` drops tokens from the left,
            those of a system turn included, as scoring does; begin-of-text and the header of the answer
            stay. `PromptRow.prompt` stays whole.

    Returns:
        None for a prompt that is too long, with `skip`.

    Raises:
        DataError: `where` and the reason: the template refuses the prompt, or it is too long (with
            `truncate` only where not even the header of the answer has room).
    """
    try:
        ids = tuple(template.encode_prompt(prompt))
    except ModelError as error:
        raise DataError(f"{where}: for the policy, {error}", hint=error.hint) from error
    excess = 0 if context is None else max(0, len(ids) + room - context)
    if not excess:
        return PromptRow(prompt, ids, where)
    if overlong == "skip":
        return None
    too_long = (
        f"{where}: the prompt has {len(ids)} tokens; with {room} for the answer "
        f"it is longer than the policy's context of {context}"
    )
    if overlong == "error":
        raise DataError(
            too_long,
            hint="shorten the prompt, lower training.max_new_tokens, or set data.overlong to skip or "
            "truncate",
        )
    # a begin-of-text, the header and one token of the prompt have to be left
    if len(ids) - excess < template.header_length(prompt) + 2:
        raise DataError(
            f"{too_long}, which leaves nothing of the prompt", hint="lower training.max_new_tokens"
        )
    return PromptRow(prompt, tuple(template.drop_left(ids, excess)), where, excess)


def sample_answers(
    policy: Policy,
    prompts: Sequence[PromptRow],
    *,
    answers_per_prompt: int,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    purpose: Sequence[int | str],
    seeds: Sequence[int] | None = None,
    sampler: Sampler = OURS,
) -> Rollout:
    """Samples answers; row `p * answers_per_prompt + i` is answer i to prompt p.

    Args:
        policy: the model; its adapters, dropout and generation config are left as they are.
        prompts: the prompts.
        answers_per_prompt: answers to each.
        max_new_tokens: longest answer, the end-of-turn included.
        temperature: divides the logits, > 0.
        seed: the run's seed.
        purpose: what the randomness is for, such as `(step, "rollout")`.
        seeds: one for each answer, instead of those derived from `seed`, `purpose` and the row.
        sampler: decodes the answers.

    Raises:
        TrainingError: the sampler returned something that does not answer the request.
    """
    rows = range(len(prompts) * answers_per_prompt)
    request = SampleRequest(
        prompts=tuple(row.ids for row in prompts),
        answers_per_prompt=answers_per_prompt,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seeds=tuple(seeds or (derive_seed(seed, *purpose, row) for row in rows)),
        end=policy.end_ids[0],
        other_ends=policy.end_ids[1:],
    )
    samples = sampler.sample(policy, request)
    check_samples(samples, request, type(sampler).__name__)
    # by the last token and not by the length: an answer may end by itself at the limit
    ended = tuple(answer[-1] in request.ends for answer in samples.answers)
    # the text has no end-of-turn
    bodies = (answer[:-1] if end else answer for answer, end in zip(samples.answers, ended, strict=True))
    return Rollout(
        prompts=tuple(row for row in prompts for _ in range(answers_per_prompt)),
        answers=samples.answers,
        texts=tuple(policy.template.decode_answer(answer) for answer in bodies),
        ended=ended,
        sampler_logprobs=samples.logprobs,
    )
