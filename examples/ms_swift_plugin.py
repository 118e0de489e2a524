"""Makes the reward of `sarm serve` known to ms-swift: swift rlhf --external_plugins ms_swift_plugin.py."""

from swift.rewards import orms

from sarm_control.engines.ms_swift import SarmReward

orms["sarm"] = SarmReward
