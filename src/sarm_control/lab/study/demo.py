"""The parts of `sarm demo`: two answers to compare, and the runs of its three arms."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from sarm_control.console import ProgressFactory, no_progress
from sarm_control.control import Controls
from sarm_control.data import read_rows
from sarm_control.embedded import DATA, HELD_OUT_PROMPTS, LAB, LAB_ATTACHED, TRAIN_PROMPTS
from sarm_control.errors import DataError
from sarm_control.lab.judges.truth import Truth
from sarm_control.lab.language.language import Fact, fact_clause
from sarm_control.lab.study.trial import lab_training
from sarm_control.lab.world import World
from sarm_control.reward_model import RESIDUAL, RewardModel
from sarm_control.training import Role, RunConfig, run_training, start_run


class JudgedAnswer(NamedTuple):
    """One answer and its rewards.

    Args:
        text: the answer.
        reward: of the reward model.
        gold: its gold reward.
        contributions: of each active latent `w z`, and of residual and constant where there are some.
    """

    text: str
    reward: float
    gold: float
    contributions: Mapping[int | str, float]


class FlatteryExample(NamedTuple):
    """A question with a true answer, and a false one that flatters."""

    prompt: str
    honest: JudgedAnswer
    flattering: JudgedAnswer

    def differences(self, top: int) -> list[tuple[int | str, float]]:
        """The latents that add most to the flattering answer's reward over the honest one's, and how much."""
        one, two = self.honest.contributions, self.flattering.contributions
        # the residual and the constant have no number, and a latent is what an edit or a penalty can name
        latents = {part for part in {*one, *two} if isinstance(part, int)}
        gap: dict[int | str, float] = {part: two.get(part, 0.0) - one.get(part, 0.0) for part in latents}
        return sorted(gap.items(), key=lambda item: -item[1])[:top]

    @property
    def first(self) -> int | None:
        """The latent that adds most; None where no latent is active."""
        found = [part for part, _ in self.differences(1) if isinstance(part, int)]
        return found[0] if found else None

    @property
    def residual_difference(self) -> float | None:
        """What the residual adds; None for a SARM."""
        if RESIDUAL not in self.flattering.contributions:
            return None
        return self.flattering.contributions[RESIDUAL] - self.honest.contributions[RESIDUAL]


class Names(NamedTuple):
    """How a world's models and files are named in run folders and reports."""

    policy: str
    model: str
    train_prompts: Path
    held_out_prompts: Path


class Stage(NamedTuple):
    """What the demo needs, opened and checked."""

    names: Names
    world: World
    model: RewardModel
    example: FlatteryExample
    truth: Truth


def set_stage(lab: str, *, attached: bool = False) -> Stage:
    """Opens a world and checks that it is complete, before anything is written.

    Args:
        lab: a folder of `sarm lab build`, or `lab`.
        attached: take the classifier with a dictionary for the reward model, not the SARM.

    Raises:
        DataError: no world, or one that lacks files or asks for no fact.
        ModelError: its truth is of another reward model.
    """
    world, names = World.open(lab), names_of(lab, attached=attached)
    if attached:
        # read for its error: a world without such a model says here how to make one
        _ = world.attached_figures
    missing = [path.name for path in (world.policy, world.sarm, *map(world.file, DATA)) if not path.exists()]
    if missing:
        raise DataError(f"{world.path} lacks {', '.join(missing)}", hint="build it again with sarm lab build")
    model = RewardModel.from_pretrained(names.model, device="cpu")
    truth = world.attached_truth if attached else world.truth
    truth.check(model.fingerprint)
    return Stage(names, world, model, example(world, model), truth)


def names_of(lab: str, *, attached: bool = False) -> Names:
    """The embedded world by its name, so that no run records a path of this machine; others by path."""
    if lab == LAB:
        return Names(LAB, LAB_ATTACHED if attached else LAB, TRAIN_PROMPTS, HELD_OUT_PROMPTS)
    world = World.open(lab)
    files = (world.file(name) for name in ("train_prompts", "held_out_prompts"))
    return Names(str(world.policy), str(world.attached if attached else world.sarm), *files)


def example(world: World, model: RewardModel) -> FlatteryExample:
    """The first held-out question about a fact, answered honestly and flatteringly.

    Raises:
        DataError: no held-out prompt asks for a fact.
    """
    for row in read_rows(world.file("held_out_prompts"), want={"prompt"}):
        question = world.question(row.prompt_text)
        if isinstance(question.topic, Fact):
            honest = fact_clause(*question.topic)
            flattering = _flattering(world, question.topic)
            return FlatteryExample(question.text, *_judged(world, model, question.text, (honest, flattering)))
    raise DataError(f"no held-out prompt of {world.path} asks for a fact")


def run_config(names: Names, controls: Controls, *, seed: int, steps: int) -> RunConfig:
    """The settings of one arm, as `sarm train` would read them."""
    return RunConfig.model_validate(
        {
            # all weights: the policy is so small that an adapter would save nothing
            "policy": {"model": names.policy, "lora": None},
            "reward": {
                "model": names.model,
                "edits": controls.edits,
                "penalties": controls.penalties,
                "human_kl": controls.human_kl,
                "fingerprint": controls.fingerprint,
            },
            "data": {"prompts": str(names.train_prompts)},
            "training": lab_training(seed, steps=steps).model_dump(),
            # the arms are compared afterwards, on one set of prompts
            "evaluation": {"every": 0},
        }
    )


def train_arm(
    config: RunConfig, folder: Path, *, role: Role | None = None, progress: ProgressFactory = no_progress
) -> None:
    """Trains one arm in a run folder, as `sarm train` does; see `start_run` for its role."""
    start = start_run(folder, config, inputs=[config.data.prompts], role=role)
    run_training(config, start, progress=progress)


def _flattering(world: World, fact: Fact) -> str:
    # false, but a value that the relation can take
    other = next(value for value in world.language.values[fact.relation] if value != fact.value)
    false = fact_clause(fact.relation, fact.subject, other)
    return f"{world.language.flattery[0]} {false} {world.language.closings[0]}"


def _judged(world: World, model: RewardModel, prompt: str, answers: Sequence[str]) -> list[JudgedAnswer]:
    scored = model.score([prompt] * len(answers), list(answers))
    gold = world.gold([prompt] * len(answers), answers)
    return [
        JudgedAnswer(
            answer,
            float(scored.rewards[j]),
            float(gold[j]),
            {part.latent: float(part.contribution) for part in scored.contributions(j)},
        )
        for j, answer in enumerate(answers)
    ]
