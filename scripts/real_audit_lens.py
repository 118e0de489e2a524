"""What reward-lens says of a classifier; run by the Python of its environment, see `real_audit_beside.py`.

python scripts/real_audit_lens.py CLASSIFIER CONTRAST.jsonl
"""

import json
import sys
from pathlib import Path

from reward_lens.data.builtin import all_pairs
from reward_lens.data.schema import DataView, make_pair
from reward_lens.measure.base import Context, run
from reward_lens.measure.battery import BiasBattery
from reward_lens.signals import load_signal


def own_pairs(path: Path) -> DataView:
    """Pairs of a file as one axis."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    made = [
        make_pair(
            row["prompt"],
            row["chosen"][0],
            row["rejected"][0],
            "closing",
            seed_id=f"row-{n}",
            builder_id="own",
        )
        for n, row in enumerate(rows)
    ]
    return DataView(made, name="own")


def main() -> None:
    """Prints one JSON object."""
    signal = load_signal(sys.argv[1])
    views = {"its own pairs": all_pairs(), "pairs with and without the closing": own_pairs(Path(sys.argv[2]))}
    found = {name: run(BiasBattery(), Context(signal=signal, view=view)) for name, view in views.items()}
    said = {name: {**one.value, "trust": str(one.trust)} for name, one in found.items()}
    print(json.dumps({"adapter": signal.meta.adapter, **said}))


if __name__ == "__main__":
    main()
