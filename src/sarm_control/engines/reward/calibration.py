"""Reference statistics: the rewards and latents of a policy before another engine trains it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sarm_control.control import Controls, ReferenceStatistics
from sarm_control.engines.reward.messages import EngineText, score_rows
from sarm_control.errors import DataError
from sarm_control.reward_model import RewardModel, Scored

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class _Answer(NamedTuple):
    text: str
    ended: bool


def calibrate(
    rm: RewardModel,
    controls: Controls,
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[EngineText],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    batch: int = 32,
    seed: int = 0,
) -> ReferenceStatistics:
    """Statistics of the policy's answers before training, on which `0.5sd` and `q0.9` are measured.

    Use a few hundred prompts: from 256 answers an SD is known to about 5 %. With several processes, calibrate
    in one of them, `save` the statistics and give the file to all; give it to a resumed training too.

    Args:
        rm: the reward model.
        controls: name the latents whose quantiles are kept.
        model: the policy as training will find it; its mode and PyTorch's random state do not change.
        tokenizer: the policy's; messages go through its chat template.
        prompts: [N]; one answer is sampled for each.
        max_new_tokens: longest answer, as in training.
        temperature: divides the logits, as in training.
        batch: answers sampled together.
        seed: seed of the sampling.

    Raises:
        DataError: fewer than two prompts, answers whose rewards do not vary, or no token that ends one;
            see also `score_rows`.
    """
    import torch

    # said openly: a checkpoint's generation_config may cut the distribution, which training does not
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    was_training, parts = model.training, []
    # the fork keeps the caller's random state: a training that calibrates draws the same numbers afterwards
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model.eval()
        try:
            for start in range(0, len(prompts), batch):
                group = prompts[start : start + batch]
                answers = _answers(model, tokenizer, group, max_new_tokens, sampling)
                texts, ended = [made.text for made in answers], [made.ended for made in answers]
                parts.append(score_rows(rm, group, texts, ended))
        finally:
            model.train(was_training)
    return ReferenceStatistics.from_scored(Scored.concatenate(parts), controls.quantile_latents())


def _answers(
    model: Any, tokenizer: Any, prompts: Sequence[EngineText], most: int, sampling: dict[str, Any]
) -> list[_Answer]:
    import torch

    ids = [_prompt_ids(tokenizer, prompt) for prompt in prompts]
    width, ends = max(map(len, ids)), _ends(model, tokenizer)
    pad = ends[0] if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
    # padded on the left, because answers are written on at the right
    inputs = torch.tensor([[pad] * (width - len(row)) + row for row in ids], device=model.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids], device=model.device)
    limits = {"max_new_tokens": most, "eos_token_id": ends, "pad_token_id": pad}
    with torch.no_grad():
        made = model.generate(input_ids=inputs, attention_mask=mask, **limits, **sampling)
    return [_cut(tokenizer, row[width:], ends) for row in made.tolist()]


def _cut(tokenizer: Any, ids: list[int], ends: Sequence[int]) -> _Answer:
    # `generate` fills rows that ended early with padding, which may be the end
    # token itself: the first one counts
    stop = next((place for place, token in enumerate(ids) if token in ends), None)
    return _Answer(str(tokenizer.decode(ids[:stop], skip_special_tokens=True)), stop is not None)


def _prompt_ids(tokenizer: Any, prompt: EngineText) -> list[int]:
    if isinstance(prompt, str):
        return list(tokenizer(prompt)["input_ids"])
    turns = [dict(turn) for turn in prompt]
    return list(
        tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)["input_ids"]
    )


def _ends(model: Any, tokenizer: Any) -> list[int]:
    listed = model.generation_config.eos_token_id
    ids = [listed] if isinstance(listed, int) else list(listed or [])
    ends = [one for one in dict.fromkeys([*ids, tokenizer.eos_token_id]) if one is not None]
    if not ends:
        raise DataError(
            "neither the policy nor its tokenizer names a token that ends an answer",
            hint="set model.generation_config.eos_token_id, as training will",
        )
    return ends
