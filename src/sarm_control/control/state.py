"""What the controls learn during a run."""

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from sarm_control.control.discriminator import Discriminator
from sarm_control.sarm.scored import Scored


class ControlState:
    """The part of the controls that changes: the discriminator of the human-KL term, when there is one.

    `Controls.shape` reads it and never changes it. In training call `learn` once after each
    batch was shaped, with the batch gathered from all processes; in evaluation never.
    """

    def __init__(self, discriminator: Discriminator | None = None) -> None:
        self.discriminator = discriminator

    def learn(self, scored: Scored) -> None:
        """Learns from a batch that was scored before.

        Answers of the reference policy may be given before the first step; the human-KL term then
        has an effect from the first step on, which otherwise sees a log ratio of exactly 0.
        """
        if self.discriminator is not None:
            self.discriminator.learn(scored)

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Everything learnt, as arrays that safetensors can hold; empty when nothing learns."""
        return {} if self.discriminator is None else self.discriminator.state_dict()

    def load_state_dict(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Takes up what `state_dict` gave.

        Raises:
            TrainingError: the arrays are missing or belong to another human buffer.
        """
        if self.discriminator is not None:
            self.discriminator.load_state_dict(arrays)
