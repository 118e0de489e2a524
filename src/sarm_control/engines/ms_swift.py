"""The reward in ms-swift: a reward function that asks the server of `sarm serve`, a batch in one request.

    # plugin.py, for swift rlhf --external_plugins plugin.py --reward_funcs sarm
    from swift.rewards import orms

    from sarm_control.engines.ms_swift import SarmReward

    orms["sarm"] = SarmReward

TRL's reward function does not fit: ms-swift 4 gives it whole conversations and no prompts. The plugin is a
file of its own because ms-swift puts the plugin's folder first on `sys.path`; in this folder, `trl.py` would
hide TRL.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sarm_control.engines.server_client import ServerSettings, logged, post
from sarm_control.engines.verl import PATH, VerlAnswer, request_of, rewards_of
from sarm_control.errors import DataError


class SarmReward:
    """A reward function of ms-swift. The address of the server comes from `ServerSettings.from_environment`.

    Args:
        args: ms-swift's own arguments; not used.
    """

    def __init__(self, args: Any = None, **_: Any) -> None:
        del args
        with logged():
            self.server = ServerSettings.from_environment()

    def __call__(
        self,
        completions: Sequence[str],
        messages: Sequence[Sequence[Mapping[str, Any]]] = (),
        is_truncated: Sequence[bool] | None = None,
        **_: Any,
    ) -> list[float]:
        """The rewards of N answers.

        Args:
            completions: [N] the answers.
            messages: [N] conversations, each with its answer at the end.
            is_truncated: [N] true where an answer hit its length limit.

        Raises:
            DataError: another number of conversations than of answers, or a request that is refused.
            TrainingError: no answer before patience is over, or one that is not a finite number.
            ConfigError: a token or address that cannot be used.
        """
        if len(messages) != len(completions):
            raise DataError(f"{len(messages)} conversations came with {len(completions)} answers")
        cut = is_truncated or [False] * len(completions)
        # the last turn of a conversation is the answer itself; what comes before it is the prompt
        answers = [
            VerlAnswer([dict(turn) for turn in turns[:-1]], completion, not truncated)
            for turns, completion, truncated in zip(messages, completions, cut, strict=True)
        ]
        found = post(self.server, PATH, request_of(answers))
        with logged():
            return [reward.score for reward in rewards_of(found, len(answers), self.server)]
