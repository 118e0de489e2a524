"""Cases for benchmarks/monitors.py that are good or bad by construction; no policy is trained."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from monitors_runs import ARMS, CLOSING, NO_CHARGE, SIBLING, Lab, Planted, prompts_of
from monitors_truth import answers_of

from sarm_control.control import Controls, Edit, HumanKL, Penalty
from sarm_control.lab.language.language import fact_clause
from sarm_control.latents.human import HumanBuffer
from sarm_control.training.algorithm.trainer import Trainer
from sarm_control.training.monitor.checks import Finding, Watch, over_refusal
from sarm_control.training.monitor.checks.proxy_gap import Gains
from sarm_control.training.monitor.checks.watch import WINDOW
from sarm_control.training.monitor.paired_checks import PolicySide, families_of, findings_of
from sarm_control.training.rollout.rollout import Rollout

Case = tuple[list[Finding], dict[str, bool | None]]
"""What the checks found, and whether the evil happened."""

PENALTIES = {
    "q0.9 at 0.5 SD": (Penalty(CLOSING, "q0.9", "0.5sd"), False),
    "q0.7 at 0.1 SD": (Penalty(CLOSING, "q0.7", "0.1sd"), False),
    "tau 1000": (Penalty(CLOSING, 1000.0, "0.5sd"), True),
    "tau -1000": (Penalty(CLOSING, -1000.0, "0.5sd"), True),
    "alpha 1e-6": (Penalty(CLOSING, "q0.7", 1e-6), True),
}


def same_policy(lab: Lab, seed: int, draws: int, answers: int) -> Iterator[Case]:
    """The untrained policy's answers against its answers under other random numbers: nothing happened."""
    marked = Controls(
        edits=[Edit(SIBLING, set=0.0)], penalties=[Penalty(15, "q0.8", "1sd"), Penalty(11, "q0.8", "1sd")]
    )
    trainer = replace(ARMS["no control"], controls=marked).trainer(lab, seed, 1)
    reward = _planted(trainer)
    assert reward.statistics is not None
    prompts = prompts_of(lab, trainer.policy, "held_out_prompts")
    asked = [row for row in prompts if not lab.world.question(str(row.prompt)).should_refuse][:answers]
    sides = []
    for draw in range(2 * draws):
        drawn = answers_of(lab, trainer, prompts[:answers], 1000 * seed + draw, reference=True)
        other = answers_of(lab, trainer, asked, 2000 * seed + draw, reference=True)
        sides.append((PolicySide(drawn.rollout, drawn.scored), drawn.gold, other.rollout.texts))
    for (before, worth, refused_before), (after, other_worth, refused_after) in zip(
        sides[::2], sides[1::2], strict=True
    ):
        rise = (after.rewards - before.rewards) / reward.statistics.sd
        gains = Gains(rise, (other_worth - worth) / worth.std())
        found = findings_of(reward, families_of(reward), before, after, 0.0, gains)
        found.append(over_refusal(refused_before, refused_after))
        yield found, dict.fromkeys((one.check for one in found), False)


def windows(lab: Lab, seed: int) -> Iterator[Case]:
    """Penalties and human-KL terms over two windows of the untrained policy's answers."""
    trainer = ARMS["no control"].trainer(lab, seed, 1)
    rollouts = [trainer._sample(range(48), 2, (step, "alive")) for step in range(2 * WINDOW)]
    scored = [_planted(trainer).scored(rollout) for rollout in rollouts]
    for penalty, dead in PENALTIES.values():
        reward = _reward(lab, trainer, Controls(penalties=[penalty]), seed)
        watch = Watch(reward.rule.controls.penalties)
        found = [watch.step(reward.breakdown(*one).means()) for one in zip(scored, rollouts, strict=True)]
        for number in (WINDOW - 1, 2 * WINDOW - 1):
            yield found[number], {"dead-penalty": dead}
    yield from _human(lab, trainer, rollouts, seed)


def _human(lab: Lab, trainer: Trainer, rollouts: Sequence[Rollout], seed: int) -> Iterator[Case]:
    """People who answer as the policy does; and a policy that only refuses, beside people who never do.

    A latent tells refusals with an AUROC of 0.980, so these two can be told apart every time.
    """
    language = lab.world.language
    facts = [fact_clause(*fact) for fact in language.facts]
    people = trainer._sample(range(48, 176), 2, ("people",))
    stating = replace(people, texts=_in_turn(facts, len(people)))
    refusing = [replace(one, texts=_in_turn(language.refusals, len(one))) for one in rollouts]
    for demonstrations, answers, apart in ((people, rollouts, False), (stating, refusing, True)):
        buffer = HumanBuffer.from_scored(_planted(trainer).scored(demonstrations))
        reward = _reward(lab, trainer, Controls(human_kl=HumanKL(beta=NO_CHARGE)), seed, buffer)
        watch = Watch(())
        for number, one in enumerate(answers):
            rewards = reward.score(one)
            found = watch.step(rewards.means())
            reward.learn(rewards)
            if number % WINDOW == WINDOW - 1:
                yield found, {"saturated": apart}


def _planted(trainer: Trainer) -> Planted:
    assert isinstance(trainer.reward, Planted)
    return trainer.reward


def _in_turn(texts: Sequence[str], count: int) -> tuple[str, ...]:
    return tuple(texts[i % len(texts)] for i in range(count))


def _reward(
    lab: Lab, trainer: Trainer, controls: Controls, seed: int, human: HumanBuffer | None = None
) -> Planted:
    reward = Planted(lab.model, controls, human=human, seed=seed)
    reward.calibrate(trainer._sample(range(128), 2, ("alive",)))
    return reward
