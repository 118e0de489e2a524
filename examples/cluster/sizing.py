"""How to share GPUs out among rollouts, rewards and the policy, from rates that were measured.

An answer costs each part GPU time:

    rollout  answer tokens / tokens a rollout GPU writes a second
    reward   (prompt + answer tokens) / tokens a reward GPU scores a second
    policy   (prompt + answer tokens) / tokens a policy GPU trains on a second

and all three have to keep pace with each other. The split below is the one with the most answers a
second; of splits that give as many, the one with the fewest reward GPUs.

    python examples/cluster/sizing.py --gpus 8 64 512 --reward-tokens-per-second 50000
    python examples/cluster/sizing.py --measure lab
"""

import argparse
import math
import time
from typing import NamedTuple


class Rates(NamedTuple):
    """Tokens a second of one GPU in each part."""

    rollout: float
    reward: float
    policy: float


class Lengths(NamedTuple):
    """Mean tokens of a prompt and of an answer."""

    prompt: int
    answer: int

    @property
    def both(self) -> int:
        """What the reward reads and the policy trains on."""
        return self.prompt + self.answer

    def check(self) -> None:
        """Raises a ValueError where there is nothing to write or read."""
        if self.answer < 1 or self.prompt < 0:
            raise ValueError("an answer has at least 1 token, a prompt at least 0")


class Split(NamedTuple):
    """GPUs of each part, and the answers a second that the slowest part allows."""

    rollout: int
    reward: int
    policy: int
    answers: float

    @property
    def gpus(self) -> int:
        """All of them."""
        return self.rollout + self.reward + self.policy


def answers_of(split: tuple[int, int, int], rates: Rates, lengths: Lengths) -> tuple[float, float, float]:
    """Answers a second that each part manages."""
    tokens = (lengths.answer, lengths.both, lengths.both)
    return tuple(gpus * rate / count for gpus, rate, count in zip(split, rates, tokens, strict=True))  # type: ignore[return-value]


def best_split(gpus: int, rates: Rates, lengths: Lengths, policy_unit: int = 1) -> Split:
    """The split of `gpus` with the most answers a second.

    Args:
        gpus: at least 3, as every part has one.
        rates: of one GPU in each part.
        lengths: of the conversations.
        policy_unit: the policy has a multiple of so many GPUs, such as a whole machine.

    Raises:
        ValueError: too few GPUs, a rate that is no number above 0, an answer without tokens.
    """
    if policy_unit < 1:
        raise ValueError("the policy grows by at least 1 GPU")
    if gpus < 2 + policy_unit:
        raise ValueError(f"{gpus} GPUs are too few: one rolls out, one scores, {policy_unit} train")
    if not all(0 < rate < math.inf for rate in rates):
        raise ValueError("rates have to be numbers above 0")
    lengths.check()
    best: Split | None = None
    for policy in range(policy_unit, gpus - 1, policy_unit):
        for reward in range(1, gpus - policy):
            split = (gpus - policy - reward, reward, policy)
            answers = min(answers_of(split, rates, lengths))
            if best is None or (answers, -reward) > (best.answers, -best.reward):
                best = Split(*split, answers)
    assert best is not None
    return best


def reward_gpus(rollout_tokens_per_second: float, reward_rate: float, lengths: Lengths) -> float:
    """Reward GPUs that keep pace with rollouts of so many tokens a second, as a fraction."""
    return rollout_tokens_per_second * lengths.both / lengths.answer / reward_rate


def measure(model: str, lengths: Lengths, answers: int = 64) -> float:
    """Tokens a second at which this machine scores, by the model itself, after a first pass that warms up.

    Raises:
        ValueError: answers without tokens.
    """
    lengths.check()
    from sarm_control import RewardModel

    reward_model = RewardModel.from_pretrained(model)
    prompt, answer = " the" * lengths.prompt, " the" * lengths.answer
    encoded = reward_model.template.encode(prompt, answer)
    tokens = len(encoded.input_ids) * answers
    for _ in range(2):
        started = time.perf_counter()
        reward_model.score([prompt] * answers, [answer] * answers)
        seconds = time.perf_counter() - started
    return tokens / seconds


def table(gpus: list[int], rates: Rates, lengths: Lengths, policy_unit: int) -> str:
    """Markdown: a row for each number of GPUs, with what limits it."""
    lines = [
        "| GPUs | rollout | reward | policy | answers/s | rollout tokens/s | busy: rollout, reward, policy |",
        "|---:|---:|---:|---:|---:|---:|---|",
    ]
    for count in gpus:
        split = best_split(count, rates, lengths, policy_unit if count > 2 * policy_unit else 1)
        each = answers_of(split[:3], rates, lengths)
        busy = ", ".join(f"{split.answers / one:.0%}" for one in each)
        lines.append(
            f"| {count} | {split.rollout} | {split.reward} | {split.policy} | {split.answers:.1f} "
            f"| {split.answers * lengths.answer:,.0f} | {busy} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Prints the table, or a measured rate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gpus", type=int, nargs="+", default=[8, 64, 512])
    parser.add_argument("--reward-tokens-per-second", type=float, help="of one reward GPU; see --measure")
    parser.add_argument("--rollout-tokens-per-second", type=float, default=2500.0, help="of one rollout GPU")
    parser.add_argument("--policy-tokens-per-second", type=float, default=6000.0, help="of one policy GPU")
    parser.add_argument("--prompt-tokens", type=int, default=256)
    parser.add_argument("--answer-tokens", type=int, default=512)
    parser.add_argument("--policy-unit", type=int, default=8, help="GPUs the policy grows by, once it can")
    parser.add_argument("--measure", metavar="MODEL", help="score with MODEL here and print its rate")
    given = parser.parse_args()
    lengths = Lengths(given.prompt_tokens, given.answer_tokens)
    try:
        if given.measure:
            print(f"{measure(given.measure, lengths):.0f} tokens/s")
            return
        print(sized(given, lengths))
    except ValueError as error:
        parser.error(str(error))


def sized(given: argparse.Namespace, lengths: Lengths) -> str:
    """The table of what was asked for; a ValueError where that cannot be sized."""
    if given.reward_tokens_per_second is None:
        raise ValueError("--reward-tokens-per-second is not given; --measure MODEL measures it")
    rates = Rates(
        given.rollout_tokens_per_second, given.reward_tokens_per_second, given.policy_tokens_per_second
    )
    return table(given.gpus, rates, lengths, given.policy_unit)


if __name__ == "__main__":
    main()
