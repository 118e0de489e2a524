"""A dictionary attached to a reward model on real text, end to end, beside a SARM of the same pairs.

SmolLM2-135M-Instruct is trained to a reward model by TRL's `RewardTrainer` on RM-Bench pairs, as people train
theirs. A dictionary is attached to it. RewardBench 2 safety rows are only scored: with the bare reward model
and with the dictionary, whose rewards must be equal to the row. A SARM is built from the same pairs. Each
stage is one command; its time and peak memory are recorded, and a stage whose output exists is not run again.

    python scripts/real_attach.py --data ../shared/data [--work work/attach] [--only train attach] [--rows 60]

Hours on a CPU, which may be spread over sessions: stop it when you like, and the same command goes on. At
most CHECKPOINT_EVERY steps of the training are lost, 512 answers of the dictionary's states, SHARD rows of
latents; `build` begins its states again. `python scripts/real_attach_tables.py` writes
docs/results/attached.md from what it left.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import real_text
from real_attach_latents import write_latents
from real_text import CHAT, REFUSE, RESPOND, TEST, Places, Stage, read, run_stage, sarm, write

STEPS, PAIRS_OF_A_STEP = 400, 4
"""Of TRL's trainer: 1,600 pairs, about half of those of RM-Bench's chat and safety rows at equal style."""
LONGEST = 512
"""Tokens of an answer in training; TRL leaves longer ones out."""
CHECKPOINT_EVERY, LOG_EVERY = 25, 10
"""Steps. A checkpoint holds weights and both of Adam's moments, 1.6 GB; the newest alone is kept."""
SHARD = 32
"""Rows, of about six answers each."""


def own_stage(name: str, places: Places) -> list[str]:
    """This script once more, for a stage that is no `sarm` command."""
    return [sys.executable, __file__, "--stage", name, "--data", str(places.data), "--work", str(places.work)]


def limited(places: Places, name: str) -> list[str]:
    """The rows that `--rows` left, of one file."""
    return [places.out(f"rows/{name}")]


def fetch(places: Places) -> list[str]:
    """The language model."""
    return real_text.fetch(places)


def train(places: Places) -> list[str]:
    """TRL's reward model."""
    return own_stage("train", places)


def attach(places: Places) -> list[str]:
    """The dictionary, beside PCA, the plain squared error and another seed."""
    rows = [places.out(f"rows/{name}") for name in (CHAT, REFUSE, RESPOND)]
    return sarm(
        *(
            "attach",
            "--model",
            places.out("rm"),
            "--pairs",
            *rows,
            "--text",
            places.out("broken_pairs.jsonl"),
        ),
        *("--eval", *limited(places, TEST), "--compare", "--seeds", "2"),
        *("--cache", places.out("states"), "-o", places.out("attached")),
    )


def build(places: Places) -> list[str]:
    """A SARM from the same rows: what sparsity costs."""
    rows = [places.out(f"rows/{name}") for name in (CHAT, REFUSE, RESPOND)]
    return sarm(
        *("build", "--base", places.out("smollm2"), "--pairs", *rows, places.out("broken_pairs.jsonl")),
        *("--eval", *limited(places, TEST), "--cache", places.out("states"), "-o", places.out("sarm")),
    )


def score(model: str) -> Callable[[Places], list[str]]:
    """RewardBench 2 safety's rewards."""

    def command(places: Places) -> list[str]:
        return sarm(
            *("score", *limited(places, TEST), "--model", places.out(model)),
            *("-o", places.out(f"scores-{model}.jsonl"), "--top", "0"),
        )

    return command


def latents(model: str, part: str) -> Callable[[Places], list[str]]:
    """Latents of rows, once for all stages that need them, shard by shard."""

    def command(places: Places) -> list[str]:
        if model == "attached":
            # the states of all texts were kept by `attach`; to compute them again takes as long as then
            return [*own_stage("latents", places), "--model", model, "--part", part]
        rows = [places.out(f"rows/{name}") for name in PARTS[part]]
        out = places.out(f"latents-{model}-{part}")
        begun = ["--resume"] if Path(out).exists() else []
        return sarm(
            *("latents", *rows, "--model", places.out(model), "--states"),
            *("--shard-size", str(SHARD), "-o", out, *begun),
        )

    return command


def discover(model: str) -> Callable[[Places], list[str]]:
    """Latents that promote or harm safety: found on RM-Bench, confirmed on RewardBench 2."""

    def command(places: Places) -> list[str]:
        found, confirm = (places.out(f"latents-{model}-{part}") for part in ("safety", "test"))
        return sarm(
            *("discover", found, "--confirm", confirm, "--model", places.out(model)),
            *("-o", places.out(f"discovery-{model}")),
        )

    return command


def steer(model: str) -> Callable[[Places], list[str]]:
    """What amplifying the promoting latents does to safety answers and to chat answers."""

    def command(places: Places) -> list[str]:
        return [*own_stage("steer", places), "--model", model]

    return command


PARTS = {"safety": (REFUSE, RESPOND), "test": (TEST,), "chat": (CHAT,)}
"""Rows whose latents are kept: what discovery finds on and confirms on, and the complement of steering."""
STAGES = {
    "fetch": Stage({"fetch": fetch}, "smollm2/tokenizer.json"),
    "train": Stage({"train": train}, "rm/config.json"),
    "attach": Stage({"attach": attach}, "attached/attach.json"),
    "build": Stage({"build": build}, "sarm/build.json"),
    "score-bare": Stage({"score-bare": score("rm")}, "scores-rm.jsonl"),
    "score-attached": Stage({"score-attached": score("attached")}, "scores-attached.jsonl"),
    **{
        f"latents-{model}-{part}": Stage(
            {f"latents-{model}-{part}": latents(model, part)}, f"latents-{model}-{part}/manifest.json"
        )
        for model in ("attached", "sarm")
        for part in PARTS
    },
    "discover-attached": Stage(
        {"discover-attached": discover("attached")}, "discovery-attached/features.json"
    ),
    "discover-sarm": Stage({"discover-sarm": discover("sarm")}, "discovery-sarm/features.json"),
    "steer-attached": Stage({"steer-attached": steer("attached")}, "steering-attached.json"),
    "steer-sarm": Stage({"steer-sarm": steer("sarm")}, "steering-sarm.json"),
}


def equal_pairs(places: Places) -> list[dict[str, Any]]:
    """Pairs of equal style, as TRL takes them, with the longer answer's characters."""
    pairs = []
    for name in (CHAT, REFUSE, RESPOND):
        for row in read(places.work / "rows" / name):
            for chosen, rejected in zip(row["chosen"], row["rejected"], strict=True):
                asked = [{"role": "user", "content": row["prompt"]}]
                answers = {"chosen": chosen, "rejected": rejected}
                sides = {
                    side: [*asked, {"role": "assistant", "content": text}] for side, text in answers.items()
                }
                pairs.append({**sides, "length": max(len(chosen), len(rejected))})
    return pairs


def whole_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end: the trainer writes its state last."""
    whole = [found.parent for found in folder.glob("checkpoint-*/trainer_state.json")]
    newest = max(whole, key=lambda found: int(found.name.rpartition("-")[2]), default=None)
    return None if newest is None else str(newest)


def time_left(begun: float, first: int, step: int, steps: int) -> str:
    """A line about a training that stands at `step`, having begun at the step `first`."""
    minutes = (time.monotonic() - begun) / max(1, step - first) * (steps - step) / 60
    return f"train: step {step} of {steps}, {minutes:.0f} min left"


def progress_lines(steps: int) -> Any:
    """What makes TRL's trainer say how far it is and how long the rest takes, now and then."""
    from transformers import TrainerCallback

    class Lines(TrainerCallback):
        begun, first = 0.0, 0

        def on_train_begin(self, args: Any, state: Any, control: Any, **_more: Any) -> None:  # noqa: ARG002
            # steps of an earlier session were not taken in this one's time
            self.begun, self.first = time.monotonic(), state.global_step

        def on_step_end(self, args: Any, state: Any, control: Any, **_more: Any) -> None:  # noqa: ARG002
            if state.global_step % LOG_EVERY == 0 or state.global_step == self.first + 1:
                print(time_left(self.begun, self.first, state.global_step, steps), flush=True)

    return Lines()


def train_reward_model(places: Places, steps: int) -> None:
    """Fits TRL's classifier to pairs of equal style, and saves it as TRL does; goes on where it stopped."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from trl import RewardConfig, RewardTrainer

    from sarm_control.reward_model import has_bfloat16

    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    base, kept = places.out("smollm2"), places.work / "trl"
    trainer = RewardTrainer(
        model=AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, dtype=torch.float32),
        args=RewardConfig(
            output_dir=str(kept),
            max_steps=steps,
            per_device_train_batch_size=PAIRS_OF_A_STEP,
            learning_rate=2e-5,
            warmup_steps=steps // 20,
            max_length=LONGEST,
            logging_steps=LOG_EVERY,
            report_to=[],
            save_strategy="steps",
            save_steps=CHECKPOINT_EVERY,
            save_total_limit=1,
            use_cpu=device.type == "cpu",
            # TRL's default is bfloat16, which processors without it only imitate, at a fraction of the speed
            bf16=has_bfloat16(device),
            # a second forward pass for memory that a model this small does not need
            gradient_checkpointing=False,
            # answers of a few tokens would be padded to others of hundreds
            train_sampling_strategy="group_by_length",
            remove_unused_columns=False,
            seed=0,
        ),
        train_dataset=Dataset.from_list(equal_pairs(places)).shuffle(seed=0),
        processing_class=AutoTokenizer.from_pretrained(base),
        callbacks=[progress_lines(steps)],
    )
    trainer.train(resume_from_checkpoint=whole_checkpoint(kept))
    write(places.work / "training.jsonl", [row for row in trainer.state.log_history if "loss" in row])
    # whole or not at all: the stage counts as done when the folder is there
    written = places.work / "rm.part"
    trainer.save_model(str(written))
    written.replace(places.work / "rm")
    shutil.rmtree(kept)


def steering(places: Places, model: str) -> dict[str, Any]:
    """Target, complement and selectivity of every promoting latent doubled, in SDs of the reward.

    Target is the mean change of safety answers' rewards, complement that of chat answers'; the latents come
    from discovery on RM-Bench, and both are measured on rows of RewardBench 2 and of chat.
    """
    import numpy as np

    from sarm_control.control import Edit, edit_delta
    from sarm_control.latents import read_latents

    found = json.loads((places.work / f"discovery-{model}" / "features.json").read_text())
    latents = [one["latent"] for one in found["lists"]["promotes"] if isinstance(one["latent"], int)]
    sets = {
        name: read_latents(places.work / f"latents-{model}-{part}").scored
        for name, part in (("target", "test"), ("complement", "chat"))
    }
    sd = float(np.concatenate([one.rewards for one in sets.values()]).std())
    edits = [Edit(latent, scale=2.0) for latent in latents]
    moved = {name: float(edit_delta(one, edits).mean()) / sd for name, one in sets.items()} if edits else {}
    selectivity = abs(moved["target"] / moved["complement"]) if moved and moved["complement"] else None
    return {"latents": len(latents), "scale": 2.0, **moved, "selectivity": selectivity}


def write_rows(places: Places, most: int | None) -> None:
    """The rows of every file, or the first of each."""
    (places.work / "rows").mkdir(parents=True, exist_ok=True)
    for name in (CHAT, REFUSE, RESPOND, TEST):
        write(places.work / "rows" / name, read(places.data / name)[:most])
    real_text.write_broken(Places(places.work / "rows", places.work))


def keep_settings(places: Places, settings: dict[str, Any]) -> None:
    """Writes them down, or compares them with those that the folder was begun with.

    Raises:
        SystemExit: they are others, and stages of both would be mixed.
    """
    file = places.work / "settings.json"
    if file.is_file() and (begun := json.loads(file.read_text())) != settings:
        raise SystemExit(f"{places.work} was begun with {begun}, not {settings}; give another --work")
    places.work.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(settings, indent=2) + "\n")


def keep_machine(places: Places) -> None:
    """Writes down on what the stages run; of several machines the last."""
    import torch

    from sarm_control.reward_model import has_bfloat16
    from sarm_control.study.provenance import processor

    cpu = torch.device("cpu")
    found = {
        **processor(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "trained_in": "bfloat16" if torch.cuda.is_available() or has_bfloat16(cpu) else "float32",
        "torch": torch.__version__,
    }
    (places.work / "machine.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Runs the stages whose output is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=Path("work/attach"))
    parser.add_argument("--only", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--rows", type=int, help="rows of each file; default all")
    parser.add_argument("--steps", type=int, default=STEPS, help="of TRL's trainer")
    parser.add_argument("--stage", choices=("train", "latents", "steer"), help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    places = Places(arguments.data, arguments.work)
    if arguments.stage == "train":
        settings = json.loads((places.work / "settings.json").read_text())
        return train_reward_model(places, settings["steps"])
    if arguments.stage == "latents":
        out = places.work / f"latents-{arguments.model}-{arguments.part}"
        return write_latents(places, arguments.model, PARTS[arguments.part], out, shard_rows=SHARD)
    if arguments.stage == "steer":
        found = steering(places, arguments.model)
        (places.work / f"steering-{arguments.model}.json").write_text(json.dumps(found, indent=2) + "\n")
        return None
    if not (arguments.data / TEST).is_file():
        raise SystemExit(
            f"{arguments.data} does not hold {TEST}; give the folder of benchmark rows with --data"
        )
    keep_settings(
        places, {"steps": arguments.steps, "rows": arguments.rows, "pairs_of_a_step": PAIRS_OF_A_STEP}
    )
    write_rows(places, arguments.rows)
    keep_machine(places)
    start = time.monotonic()
    for number, name in enumerate(arguments.only, 1):
        if (places.work / STAGES[name].output).exists():
            print(f"== {name}: {STAGES[name].output} is there already")
        else:
            run_stage(STAGES[name], places)
        print(f"== {number} of {len(arguments.only)} stages", flush=True)
    print(f"== all: {time.monotonic() - start:.0f} s")
    return None


if __name__ == "__main__":
    main()
