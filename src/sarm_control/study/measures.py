"""What a cell's policies answered to the held-out prompts, measured; one row for each answer.

Shapes: `N` answers, `P` prompts.
"""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarm_control.comparison import Gold, Sampling, answer_prompts, kl_to_base, open_run, unique_prompts
from sarm_control.console import ProgressFactory, no_progress
from sarm_control.data import Line, json_object, read_lines, read_rows
from sarm_control.errors import OutputError
from sarm_control.files import manifest, sha256_file, write_jsonl
from sarm_control.lab import World
from sarm_control.locks import locked
from sarm_control.reward_model import RewardModel
from sarm_control.study.cells import digest
from sarm_control.study.provenance import commit, processor
from sarm_control.study.study_config import StudyConfig, WorldSpec
from sarm_control.training import Policy, RunConfig, encode_prompts, refuses

Floats = NDArray[np.float64]

START, END = "start", "end"
RATE, REWARD, KL = "rate", "reward", "kl"
GOLD, JUDGE, STRIPPED = "gold", "judge", "stripped_reward"
RESIDUAL = "residual"
"""Of a reward model with a dictionary attached: what its own head pays for what no latent holds."""
IN_SDS = (REWARD, GOLD, JUDGE, STRIPPED, RESIDUAL)
"""Measures whose unit says nothing by itself: tables give them in SDs of the starting policy's answers. The
residual is a part of the reward and is given in the reward's."""
LABELS = {
    RATE: "share by the rule",
    GOLD: "gold",
    JUDGE: "judge of stripped text",
    STRIPPED: "reward of stripped text",
    REWARD: "reward",
    RESIDUAL: "residual",
    KL: "KL",
    "refuses": "refusals",
    "words": "words",
    "distinct_2": "different word pairs",
    "ended": "ended by itself",
    "length": "tokens",
}
"""Measures by name, in the order of the tables."""
BEING_WRITTEN = "is being written by another process"
"""In the message of an error that a lock gives; whoever reads it may wait."""
_BATCH = 64
_POLL = 0.5


class Measuring:
    """Asks the policies of one world and seed the held-out prompts, and measures the answers.

    All policies have the random numbers of the run's seed, so that all arms of a seed are paired. The reward
    model and the judge are loaded once.

    Args:
        study: the study.
        world: of the run.
        config: settings of a run.
        limit: read only so many prompts.
        progress: shows the answering.
    """

    def __init__(
        self,
        study: StudyConfig,
        world: str,
        config: RunConfig,
        *,
        limit: int | None = None,
        progress: ProgressFactory = no_progress,
    ) -> None:
        self.spec, self.config, self.progress = study.worlds[world], config, progress
        # equal prompts would count twice as if they were independent
        self.rows = unique_prompts(read_rows(study.prompts_of(world), want={"prompt"}, limit=limit))
        training = config.training
        self.sampling = Sampling(
            study.answers_per_prompt, training.max_new_tokens, training.temperature, training.seed, _BATCH
        )

    @cached_property
    def model(self) -> RewardModel:
        """The reward model that the run is trained on."""
        date = self.config.data.template_date
        return RewardModel.from_pretrained(self.config.reward.model, template_date=date)

    @cached_property
    def judge(self) -> RewardModel | None:
        """The other reward model, of worlds that have one."""
        return None if self.spec.judge is None else RewardModel.from_pretrained(self.spec.judge)

    @cached_property
    def gold(self) -> Gold | None:
        """The gold reward, of worlds of the lab."""
        return None if self.spec.lab is None else World.open(self.spec.lab).gold

    def of_run(self, run: Path, name: str) -> list[dict[str, Any]]:
        """The answers of a run's newest checkpoint, with every measure.

        Args:
            run: its folder.
            name: of the policy, such as `end`.

        Returns:
            Rows with `policy`, `prompt` (its number, 0..P-1), `response` and the measures.
        """
        return self._answers(open_run(run).load_policy(), name, reference=False)

    def of_start(self, folder: Path) -> list[dict[str, Any]]:
        """The same of the policy from which all arms of a seed start; read where it was measured before.

        Args:
            folder: of such files, one for each digest of all that decides what the answers are. A second
                process that wants the same answers waits for the first.
        """
        path = self.start_file(folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        while not path.is_file():
            try:
                with locked(path):
                    # it may have been written between the look and the lock
                    if not path.is_file():
                        write_jsonl(path, self._start())
            except OutputError as error:
                if BEING_WRITTEN not in str(error):
                    raise
                time.sleep(_POLL)
        return read_rows_of(path)

    def start_file(self, folder: Path) -> Path:
        """Where the measured answers of the starting policy are kept."""
        return folder / f"seed-{self.sampling.seed}-{digest(self._decides_start())}.jsonl"

    def _start(self) -> list[dict[str, Any]]:
        date = self.config.data.template_date
        seed = self.config.training.seed
        policy = Policy.load(self.config.policy, seed=seed, template_date=date)
        return self._answers(policy, START, reference=True)

    def _answers(self, policy: Policy, name: str, *, reference: bool) -> list[dict[str, Any]]:
        # the same numbers in every cell of a world: arms are compared prompt by prompt
        asked = encode_prompts(
            policy,
            [row.prompt for row in self.rows],
            [row.where for row in self.rows],
            self.sampling.max_new_tokens,
        )
        rollout = answer_prompts(
            policy, asked, self.sampling, reference=reference, label=f"{name} answers", progress=self.progress
        )
        numbers = [j // self.sampling.answers_per_prompt for j in range(len(rollout))]
        prompts, responses = [self.rows[p].prompt_text for p in numbers], list(rollout.texts)
        scored = self.model.score([row.prompt for row in rollout.prompts], responses, ended=rollout.ended)
        columns: dict[str, Sequence[Any]] = {REWARD: scored.rewards.tolist()}
        if scored.kind == "attached":
            columns[RESIDUAL] = scored.residual.tolist()
        if self.gold is not None:
            columns[GOLD] = np.asarray(self.gold(prompts, responses)).tolist()
        columns |= {"length": list(rollout.lengths), "ended": [bool(one) for one in scored.ended]}
        # the starting policy is its own base: its KL is 0, and computing it would cost another forward pass
        if not reference:
            columns[KL] = kl_to_base(policy, rollout, self.sampling).k1.tolist()
        columns |= further_columns(self.spec, self.model, self.judge, prompts, responses)
        return [
            {
                "policy": name,
                "prompt": numbers[j],
                "response": responses[j],
                **{key: values[j] for key, values in columns.items()},
            }
            for j in range(len(rollout))
        ]

    def _decides_start(self) -> dict[str, Any]:
        """All that decides what the starting policy answers and what is measured of it."""
        config = self.config
        models = (config.policy.model, config.reward.model, self.spec.judge, self.spec.lab)
        return {
            "prompts": [repr(row.prompt) for row in self.rows],
            "sampling": asdict(self.sampling),
            "policy": config.policy.model_dump(mode="json"),
            "template_date": str(config.data.template_date),
            "world": self.spec.model_dump(mode="json", include={"rule", "strip", "judge", "lab"}),
            "models": {str(one): _files(Path(str(one))) for one in models if one is not None},
            "reward": config.reward.model,
            "versions": manifest("study", config={})["versions"],
            # with the processor: sums differ in their last bits from one to the next, and
            # a sampled token may then differ
            "commit": commit(),
            **processor(),
        }


def _files(folder: Path) -> dict[str, str]:
    """The digest of every file of a model's folder; none of a model that is called by a name."""
    return {
        str(path.relative_to(folder)): sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def further_columns(
    spec: WorldSpec,
    model: RewardModel,
    judge: RewardModel | None,
    prompts: Sequence[str],
    responses: Sequence[str],
) -> dict[str, list[float]]:
    """Measures of texts alone, and rewards of the texts without the shortcut.

    Args:
        spec: the world, with its rule and its replacements.
        model: the reward model.
        judge: the other one; None where the world has none.
        prompts: [N] texts.
        responses: [N] texts.
    """
    columns: dict[str, list[float]] = {
        "refuses": [float(refuses(text)) for text in responses],
        "words": [float(len(text.split())) for text in responses],
        "distinct_2": [distinct_pairs(text) for text in responses],
    }
    if spec.rule is not None:
        rule = re.compile(spec.rule)
        columns[RATE] = [float(rule.search(text) is not None) for text in responses]
    stripped = [strip(text, spec.strip) for text in responses]
    if spec.strip:
        # what the trained model pays without the shortcut: whether the rest of the answer got worse
        columns[STRIPPED] = [float(value) for value in model.score(list(prompts), stripped).rewards]
    # it sees texts without the shortcut: it may like the shortcut as much as the reward model does
    if judge is not None:
        columns[JUDGE] = [float(value) for value in judge.score(list(prompts), stripped).rewards]
    return columns


def strip(text: str, replacements: Sequence[tuple[str, str]]) -> str:
    """An answer without the shortcut: each pattern replaced in turn."""
    for pattern, new in replacements:
        text = re.sub(pattern, new, text)
    return text.strip()


def distinct_pairs(text: str) -> float:
    """The share of different ones among the pairs of neighbouring words; 1 for fewer than three words."""
    words = text.split()
    pairs = list(pairwise(words))
    return len(set(pairs)) / len(pairs) if len(pairs) > 1 else 1.0


class CellAnswers:
    """The measures of a cell, one number for each prompt.

    Args:
        rows: of `measured_answers`.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.rows = rows
        self.prompts = 1 + max(int(row["prompt"]) for row in rows)

    @property
    def names(self) -> list[str]:
        """The measures, in the order of `LABELS`."""
        return [name for name in LABELS if any(name in row for row in self.rows)]

    def by_prompt(self, name: str, policy: str) -> Floats | None:
        """[P] means over the answers to each prompt; None where the policy has no such measure."""
        rows = [row for row in self.rows if row["policy"] == policy and name in row]
        if not rows:
            return None
        places = [int(row["prompt"]) for row in rows]
        # a prompt's answers are averaged first: they resemble each other, and intervals are over prompts
        sums = np.bincount(places, weights=[float(row[name]) for row in rows], minlength=self.prompts)
        return np.asarray(sums / np.bincount(places, minlength=self.prompts))

    def sd_at_start(self, name: str) -> float:
        """The SD over the starting policy's answers; 0 where there are fewer than two."""
        values = [float(row[name]) for row in self.rows if row["policy"] == START and name in row]
        return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0

    def means(self) -> dict[str, dict[str, float | None]]:
        """Every measure at the start and at the end."""
        found: dict[str, dict[str, float | None]] = {}
        for name in self.names:
            sides = {policy: self.by_prompt(name, policy) for policy in (START, END)}
            found[name] = {
                policy: None if values is None else float(values.mean()) for policy, values in sides.items()
            }
        return found


def read_answers(path: Path) -> CellAnswers:
    """The measured answers of a cell."""
    return CellAnswers(read_rows_of(path))


def read_rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of measured answers."""
    return [_row(line) for line in read_lines(path)]


def _row(line: Line) -> dict[str, Any]:
    return json_object(line.data)
