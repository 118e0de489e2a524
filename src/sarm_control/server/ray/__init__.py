"""The same reward as a deployment on Ray Serve: several replicas, and one state of the controls for all."""

from typing import TYPE_CHECKING

from sarm_control.lazy import attributes_of

if TYPE_CHECKING:
    from sarm_control.server.ray.deployment import ask, reward_deployment
    from sarm_control.server.ray.settings import AnswerReward, AnswerToScore, RewardSettings

_HOME_OF = {
    "AnswerToScore": "settings",
    "AnswerReward": "settings",
    "RewardSettings": "settings",
    "ask": "deployment",
    "reward_deployment": "deployment",
}

_RENAMED = {
    "Answer": "AnswerToScore",
    "Paid": "AnswerReward",
}
"""Former names, for one version."""

__all__ = ["AnswerReward", "AnswerToScore", "RewardSettings", "ask", "reward_deployment"]

if not TYPE_CHECKING:
    __getattr__ = attributes_of(__name__, _HOME_OF, _RENAMED)
