"""The other side of `benchmarks/ppo.py`: steps of TRL 1.12.0's PPOTrainer, set up as documented."""

import argparse
import contextlib
import copy
import resource
import sys
import tempfile
import time
import warnings

import datasets
import numpy as np
import torch
from peft import LoraConfig
from random_models import SHAPES, Shape, make_template
from transformers import LlamaForCausalLM, LlamaForSequenceClassification, TrainerCallback
from trl.experimental.ppo import PPOConfig, PPOTrainer

_WORD = 9  # the first token that is a word and no special one


class Clock(TrainerCallback):
    """When each step ended."""

    def __init__(self) -> None:
        self.ends = [time.perf_counter()]

    def on_step_end(self, *_arguments: object, **_values: object) -> None:
        """Called after every update."""
        self.ends.append(time.perf_counter())


def run(options: argparse.Namespace) -> dict[str, object]:
    """Seconds of every step but the first, and the process's peak memory.

    `options.half` leaves TRL's own defaults on: bfloat16 and gradient checkpointing.
    """
    shape, clock = SHAPES[options.shape], Clock()
    # everything a trainer prints belongs elsewhere: the caller reads our last line
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with tempfile.TemporaryDirectory() as folder:
            _trainer(shape, options, clock, folder).train()
    seconds = [b - a for a, b in zip(clock.ends[1:], clock.ends[2:], strict=False)]
    return {"seconds": seconds, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def _trainer(shape: Shape, options: argparse.Namespace, clock: Clock, folder: str) -> PPOTrainer:
    torch.manual_seed(0)
    template = make_template(shape)
    policy = LlamaForCausalLM(shape.config())
    value = LlamaForSequenceClassification(_classifier(shape, shape.layers))
    reward = LlamaForSequenceClassification(_classifier(shape, shape.source_layer))
    rng = np.random.default_rng(0)
    rows = rng.integers(_WORD, shape.vocabulary, size=(4 * options.answers, options.prompt_tokens))
    data = datasets.Dataset.from_dict({"input_ids": rows.tolist()})
    settings = PPOConfig(
        output_dir=folder,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=options.answers // 8,
        num_ppo_epochs=1,
        total_episodes=options.answers * (options.steps + 1),
        response_length=options.new_tokens,
        temperature=1.0,
        bf16=options.half,
        gradient_checkpointing=options.half,
        num_sample_generations=0,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    adapters = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    return PPOTrainer(
        args=settings,
        processing_class=template.tokenizer,
        model=policy,
        ref_model=None,
        reward_model=reward,
        value_model=value,
        train_dataset=data,
        eval_dataset=copy.copy(data),
        peft_config=adapters,
        callbacks=[clock],
    )


def _classifier(shape: Shape, layers: int) -> object:
    config = shape.config(layers)
    config.num_labels, config.pad_token_id = 1, 4
    return config
