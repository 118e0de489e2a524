"""Part g of docs/results/audit.md: the mend of style on classifiers with a dictionary attached.

Shapes: `N` answers, `D` hidden size.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from real_audit_mend import HEADS, FromStates, Places, Sizes, keys_of, style_weight, written_half
from real_audit_states import BATCH_TOKENS, States
from real_shortcut_data import Row

if TYPE_CHECKING:
    from sarm_control.reward_model import RewardModel

POOLING = "end_of_turn"
"""Where the SARMs of part b are read, whose states are kept."""
AGREE, LOOKED_AT = 1e-4, 8
"""SDs by which rewards from kept states may differ from the loaded model's, on so many answers."""


def classifier_of(places: Places, half: str, rows: list[Row], name: str, sizes: Sizes) -> FromStates:
    """The classifier of a half's rows with one of the heads, and the dictionary that `sarm attach` makes.

    Raises:
        SystemExit: rewards from kept states are not those of the loaded model.
    """
    from real_audit import cut_classifier

    from sarm_control.reward_model import RewardModel

    cut = cut_classifier(places.work.parent, sizes.layer)
    # its norm is what the states of the SARMs' trunk lack
    bare = RewardModel.from_pretrained(cut, device="cpu", pooling=POOLING)
    states = States(places.work / "states", lambda: before_norm(cut))
    folder, attached = places.work / f"classifier-{half}-{name}", places.work / f"attached-{half}-{name}"
    if not (attached / "attach.json").is_file():
        read = FromStates(bare, states, bare.head).read_states(keys_of(rows))
        write_classifier(cut, folder, style_weight(read.astype(np.float64), rows, name))
        attach(places, folder, written_half(places, half, rows), attached, sizes)
    rm = RewardModel.from_pretrained(attached, device="cpu")
    found = FromStates(rm, states, rm.head)
    check(rm, found, rows)
    return found


def before_norm(cut: Path) -> "RewardModel":
    """The classifier without its final norm, so that it gives the states of a SARM; rewards mean nothing."""
    from sarm_control.reward_model import RewardModel

    found = RewardModel.from_pretrained(cut, device="cpu", pooling=POOLING)
    found.trunk.final_norm = None
    return found


def write_classifier(cut: Path, folder: Path, weight: NDArray[np.float32]) -> None:
    """A classifier like `cut` with the head `weight` [D]."""
    import torch
    from transformers import AutoTokenizer, LlamaForSequenceClassification

    from sarm_control.files import atomic_folder

    model = LlamaForSequenceClassification.from_pretrained(cut, dtype=torch.float32)
    with torch.no_grad():
        model.score.weight.copy_(torch.from_numpy(weight)[None])
    with atomic_folder(folder, overwrite=True) as temporary:
        model.save_pretrained(temporary)
        AutoTokenizer.from_pretrained(cut).save_pretrained(temporary)


def attach(places: Places, model: Path, pairs: Path, out: Path, sizes: Sizes) -> None:
    """The dictionary, by the command that users give."""
    command = [
        *(Path(sys.executable).with_name("sarm"), "attach", "--model", model, "--pairs", pairs),
        *("--latents", sizes.latents, "--k", sizes.k, "--steps", sizes.steps, "--pooling", POOLING),
        *("--dtype", "float32", "--device", "cpu", "--batch-tokens", BATCH_TOKENS),
        *("--cache", places.work / "attach-states", "-o", out, "--overwrite"),
        # a trial's dictionary is hardly trained
        *(() if sizes.rows is None else ("--force",)),
    ]
    subprocess.run([str(word) for word in command], check=True)


def explained(places: Places) -> dict[str, dict[str, float | None]]:
    """How much of the variance of state, reward and margin each dictionary explains on held-out prompts."""
    return {
        f"built on {half}, {name}": json.loads(
            (places.work / f"attached-{half}-{name}" / "attach.json").read_text(encoding="utf-8")
        )["variance_explained"]
        for half in ("A", "B")
        for name in HEADS
    }


def check(rm: "RewardModel", found: FromStates, rows: list[Row]) -> None:
    """Rewards and residuals from kept states beside those of the model itself."""
    keys = keys_of(rows)[:LOOKED_AT]
    kept, own = (one.score(*zip(*keys, strict=True)) for one in (found, rm))
    sd = float(own.rewards.std())
    apart = max(
        float(np.abs(kept.rewards - own.rewards).max()), float(np.abs(kept.residual - own.residual).max())
    )
    if not apart <= AGREE * sd:
        raise SystemExit(f"rewards from kept states differ by {apart / sd:.1e} SD from the model's")
