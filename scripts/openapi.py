"""Writes docs/openapi.json, the description of the reward server's requests and answers.

python scripts/openapi.py
"""

import json
from pathlib import Path

from sarm_control import RewardModel
from sarm_control.engines.reward.controlled_reward import ControlledReward
from sarm_control.server.http.app import create_app

PATH = Path(__file__).resolve().parents[1] / "docs" / "openapi.json"


def document() -> str:
    """The document as it is committed; it depends on no model."""
    app = create_app(ControlledReward(RewardModel.from_pretrained("lab", device="cpu")))
    return json.dumps(app.openapi(), indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    PATH.write_text(document(), encoding="utf-8")
    print(f"wrote {PATH}")
