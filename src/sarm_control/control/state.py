"""The state of the controls: what they learn during a run."""

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from sarm_control.control.discriminator import Discriminator
from sarm_control.control.penalties import Penalty
from sarm_control.control.target_rate import TargetRates
from sarm_control.reward_model import Scored


class ControlState:
    """The part of the controls that changes during a run.

    That is the discriminator of the human-KL term, when there is one, and the sizes of penalties with a
    target rate.

    `Controls.shape` reads it and never changes it. In training, call `learn` once after each batch was
    shaped, with the batch gathered from all processes. In evaluation, never call it.
    """

    def __init__(self, discriminator: Discriminator | None = None, targets: Sequence[Penalty] = ()) -> None:
        self.discriminator = discriminator
        self.rates = TargetRates(targets)

    def check_size(self, answers: int) -> None:
        """Refuses steps with more answers than the human buffer has demonstrations.

        The answers of the reference policy that are learnt once before the first step may be more.

        Raises:
            DataError: naming both sizes.
        """
        if self.discriminator is not None:
            self.discriminator.human.check_size(answers)

    def learn(self, scored: Scored) -> None:
        """Learns from a batch that was scored before.

        Answers of the reference policy may be given before the first step, so that the human-KL term and the
        target rates have an effect from the first step on. Without them the first step sees a log ratio and
        learnt penalties of exactly 0.
        """
        if self.discriminator is not None:
            self.discriminator.learn(scored)
        self.rates.learn(scored)

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Everything that was learnt, as arrays that safetensors can hold; empty when nothing learns."""
        learnt = {} if self.discriminator is None else self.discriminator.state_dict()
        return {**learnt, **self.rates.state_dict()}

    def load_state_dict(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Restores what `state_dict` returned.

        Raises:
            TrainingError: the arrays are missing, or belong to another human buffer or other penalties.
        """
        if self.discriminator is not None:
            self.discriminator.load_state_dict(arrays)
        self.rates.load_state_dict(arrays)
