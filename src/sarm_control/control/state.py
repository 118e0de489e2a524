"""What the controls learn during a run."""

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from sarm_control.control.discriminator import Discriminator
from sarm_control.control.penalties import Penalty
from sarm_control.control.target_rate import TargetRates
from sarm_control.reward_model import Scored


class ControlState:
    """The part of the controls that changes.

    That is the discriminator of the human-KL term, when there is one, and the charges of penalties with a
    target rate.

    `Controls.shape` reads it and never changes it. In training call `learn` once after each
    batch was shaped, with the batch gathered from all processes; in evaluation never.
    """

    def __init__(self, discriminator: Discriminator | None = None, targets: Sequence[Penalty] = ()) -> None:
        self.discriminator = discriminator
        self.rates = TargetRates(targets)

    def check_size(self, answers: int) -> None:
        """Refuses steps of more answers than the human buffer has demonstrations.

        Answers of the reference policy, given once before the first step, may be more.

        Raises:
            DataError: naming both sizes.
        """
        if self.discriminator is not None:
            self.discriminator.human.check_size(answers)

    def learn(self, scored: Scored) -> None:
        """Learns from a batch that was scored before.

        Answers of the reference policy may be given before the first step; the human-KL term and the
        target rates then have an effect from the first step on, which otherwise sees a log ratio and
        charges of exactly 0.
        """
        if self.discriminator is not None:
            self.discriminator.learn(scored)
        self.rates.learn(scored)

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Everything learnt, as arrays that safetensors can hold; empty when nothing learns."""
        learnt = {} if self.discriminator is None else self.discriminator.state_dict()
        return {**learnt, **self.rates.state_dict()}

    def load_state_dict(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Takes up what `state_dict` gave.

        Raises:
            TrainingError: the arrays are missing, or belong to another human buffer or other penalties.
        """
        if self.discriminator is not None:
            self.discriminator.load_state_dict(arrays)
        self.rates.load_state_dict(arrays)
