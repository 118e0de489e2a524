"""The models of the study on real text: a linear head on full-depth states, the gates, the warm start.

Shapes: `N` answers, `D` hidden size, `P` pairs.
"""

import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from real_shortcut_data import read

Floats = NDArray[np.float64]
L2 = (1.0, 10.0, 100.0, 1000.0)
"""Ridges of a linear head; cross-validation on its own pairs chooses one."""
FOLDS = 5
PAD = "<|endoftext|>"
"""SmolLM2's other end, which no chat has."""
DETECTABLE, PAID = 0.9, 1.0
"""The gates: AUROC of five latents together, and SDs of the reward."""
TOGETHER = 5


def widen_where_slow(folder: Path) -> None:
    """Saves a language model as float32 where this processor has no units for bfloat16.

    Every model that is made of it then computes in float32, which is faster there.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from sarm_control.reward_model import has_bfloat16

    if has_bfloat16(torch.device("cpu")):
        return
    print("this processor has no units for bfloat16: all models compute in float32")
    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).save_pretrained(folder)


def fit_classifier(base: Path, pairs: Path, out: Path) -> dict[str, float]:
    """A sequence classifier: all layers of `base` as they are, and a preference head on the last state.

    Args:
        base: a Llama folder.
        pairs: preference rows.
        out: the folder of the classifier.
    """
    import torch
    from transformers import AutoTokenizer, LlamaForSequenceClassification

    from sarm_control.files import atomic_folder

    if (out / "config.json").is_file():
        return dict(json.loads((out / "fit.json").read_text()))
    model = LlamaForSequenceClassification.from_pretrained(base, num_labels=1, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(base)
    # transformers reads the last token that is not padding: with the end of turn as padding, one before it
    tokenizer.pad_token = PAD
    model.config.pad_token_id = tokenizer.pad_token_id
    torch.nn.init.normal_(model.score.weight, generator=torch.Generator().manual_seed(0))
    unfitted = out.with_name(f"{out.name}.unfitted")
    model.save_pretrained(unfitted)
    tokenizer.save_pretrained(unfitted)
    chosen, rejected, prompts = pair_states(unfitted, pairs)
    l2, accuracy = best_ridge(chosen - rejected, prompts)
    weight = preference_weight(chosen - rejected, l2)
    with torch.no_grad():
        model.score.weight.copy_(torch.as_tensor(weight, dtype=torch.float32)[None])
    found = {"l2": l2, "accuracy_cross_validated": accuracy, "pairs": float(len(chosen))}
    with atomic_folder(out, overwrite=True) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        (temporary / "fit.json").write_text(json.dumps(found, indent=2) + "\n")
    return found


def pair_states(model: Path, pairs: Path) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """The states [P, D] that a classifier's head reads, of chosen and rejected answers, and [P] prompts."""
    from sarm_control.data import read_rows
    from sarm_control.latents import score_rows
    from sarm_control.reward_model import RewardModel

    rows = read_rows(pairs, want={"pair"})
    scored = score_rows(RewardModel.from_pretrained(model), rows, keep_states=True)
    assert scored.states is not None
    chosen, rejected, prompts, start = [], [], [], 0
    for number, row in enumerate(rows):
        sides = scored.states[start : start + len(row.answers)].astype(np.float64)
        for one in range(len(row.chosen)):
            for other in range(len(row.chosen), len(row.answers)):
                chosen.append(sides[one])
                rejected.append(sides[other])
                prompts.append(number)
        start += len(row.answers)
    return np.stack(chosen), np.stack(rejected), np.asarray(prompts)


def preference_weight(differences: Floats, l2: float) -> Floats:
    """[D] the head of a Bradley-Terry model on [P, D] differences of states."""
    from sarm_control.statistics import fit_logistic

    both = np.concatenate([differences, -differences])
    found = fit_logistic(both, np.repeat([True, False], len(differences)), l2=l2)
    return found.weight * found.scale


def best_ridge(differences: Floats, prompts: NDArray[np.int64]) -> tuple[float, float]:
    """The ridge with the best accuracy over folds of prompts, and that accuracy."""
    fold = prompts % FOLDS
    accuracy = {}
    for l2 in L2:
        right = [
            differences[fold == part] @ preference_weight(differences[fold != part], l2) > 0
            for part in range(FOLDS)
        ]
        accuracy[l2] = float(np.concatenate(right).mean())
    best = max(L2, key=lambda l2: (accuracy[l2], l2))
    return best, accuracy[best]


def accuracy_of(model: Path, pairs: Path) -> float:
    """The share of pairs in which the chosen answer has the larger reward."""
    from sarm_control.data import read_rows
    from sarm_control.reward_model import RewardModel

    rows, right = read_rows(pairs, want={"pair"}), []
    rm = RewardModel.from_pretrained(model)
    for row in rows:
        rewards = rm.score([row.prompt] * len(row.answers), list(row.answers)).rewards
        ends = len(row.chosen)
        right += [float(one > other) for one in rewards[:ends] for other in rewards[ends:]]
    return float(np.mean(right))


def gates(model: Path, folder: Path) -> dict[str, Any]:
    """Whether latents detect the shortcut, and what the reward model pays for it.

    Args:
        model: the reward model.
        folder: of the shortcut: `same_text.jsonl` chooses the latents, `gate.jsonl` judges them.
    """
    from sklearn.metrics import roc_auc_score

    from sarm_control.data import read_rows
    from sarm_control.latents import score_rows
    from sarm_control.reward_model import RewardModel
    from sarm_control.statistics import fit_logistic, mean_interval

    rm = RewardModel.from_pretrained(model)
    found = []
    for name in ("same_text", "gate"):
        rows = read_rows(folder / f"{name}.jsonl", want={"pair"})
        found.append(score_rows(rm, rows))
    latents = np.arange(rm.config.latents)
    choosing, judging = (one.latents.columns(latents.tolist()) for one in found)
    # rows are one answer without and one with the shortcut
    has = np.tile([False, True], len(choosing) // 2)
    areas = [roc_auc_score(has, choosing[:, latent]) for latent in latents]
    order = np.argsort(-np.asarray(areas), kind="stable")
    best, several = int(order[0]), order[:TOGETHER]
    judged = np.tile([False, True], len(judging) // 2)
    fit = fit_logistic(choosing[:, several].astype(np.float64), has, l2=1.0)
    together = float(roc_auc_score(judged, judging[:, several] @ (fit.weight * fit.scale)))
    rewards = found[1].rewards.astype(np.float64)
    without, with_it = rewards[::2], rewards[1::2]
    paid = mean_interval((with_it - without) / without.std(ddof=1))
    return {
        "latent": best,
        "detects": together,
        "latents": sorted(int(one) for one in several),
        "best_latent": float(roc_auc_score(judged, judging[:, best])),
        "paid": paid.as_json(),
        "controllable": bool(together >= DETECTABLE and paid.mean >= PAID),
    }


def warm_start(base: Path, rows: Path, out: Path, *, epochs: int = 1) -> None:
    """One epoch of LoRA on short answers; the adapters are merged into the saved policy."""
    import torch

    from sarm_control.training import Policy, PolicyConfig, encode_prompts

    config = PolicyConfig.model_validate({"model": str(base), "lora": {"rank": 16}})
    policy = Policy.load(config, seed=0, device="cpu")
    answers = read(rows)
    prompts = encode_prompts(policy, [one["prompt"] for one in answers], [str(rows)] * len(answers), 64)
    tokenizer, end = policy.template.tokenizer, policy.template.end_of_turn_id
    ids = [tokenizer(one["response"], add_special_tokens=False)["input_ids"] + [end] for one in answers]
    optimizer = torch.optim.AdamW(policy.trainable().values(), lr=1e-3, weight_decay=0.0)
    order = list(range(len(answers))) * epochs
    random.Random(0).shuffle(order)
    for start in range(0, len(order), 8):
        part = order[start : start + 8]
        with policy.precision():
            batch = policy.batch([prompts[j].ids for j in part], [ids[j] for j in part])
            loss = -policy.answer_stats(batch, 1.0).logprobs.mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.trainable().values(), 1.0)
        optimizer.step()
    policy.save(out, overwrite=True)


def rate_of(policy_folder: Path, prompts: Path, rule: str, *, longest: int) -> float:
    """The share of one sampled answer to each prompt that a rule counts."""
    from sarm_control.comparison import Sampling, answer_prompts
    from sarm_control.training import Policy, PolicyConfig, encode_prompts

    policy = Policy.load(PolicyConfig(model=str(policy_folder), lora=None), seed=0, device="cpu")
    texts = [row["prompt"] for row in read(prompts)]
    rows = encode_prompts(policy, texts, [str(prompts)] * len(texts), longest)
    answers = answer_prompts(policy, rows, Sampling(1, longest, 1.0, 0, 32)).texts
    return float(np.mean([re.search(rule, text) is not None for text in answers]))


def tiny_base(folder: Path, data: Path) -> None:
    """A language model of two layers with a tokenizer of the words of the data, in place of SmolLM2."""
    import torch
    from real_shortcut_data import bench_rows
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    counts = Counter(
        word for row in bench_rows(data) for side in ("chosen", "rejected") for word in row[side]
    )
    words = [word for word, _ in counts.most_common(400)]
    named = [
        "<unk>",
        PAD,
        "<|im_start|>",
        "<|im_end|>",
        "user",
        "assistant",
        "-",
        *["Let", "me", "know", "if", "you", "need"],
    ]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys([*named, *words]))}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<unk>",
        chat_template="{% for m in messages %}<|im_start|> {{ m['role'] }} {{ m['content'] }} <|im_end|> "
        "{% endfor %}{% if add_generation_prompt %}<|im_start|> assistant {% endif %}",
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.2,
        bos_token_id=2, eos_token_id=3, pad_token_id=3,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
