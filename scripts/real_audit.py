"""Audits on real text: docs/results/audit.md says what is asked, and what came out.

    python scripts/real_audit.py --data ../shared/data --work work/audit [--only planted mend ...]

Each part goes on where it was stopped. On two cores `planted` takes about a quarter of an hour, `mend` half
an hour, `beside` ten minutes, `wordings` as long as `planted`. `even`, `rule` and `attached` read the states
that `mend` keeps.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import real_audit_attached as attached
import real_audit_beside as beside
import real_audit_mend as mend
import real_audit_planted as planted
import real_audit_wordings as wordings
from real_audit_states import SharedAnswers, States

PARTS = ("planted", "mend", "beside", "wordings", "even", "rule", "attached")
LAYERS = 6
"""Decoder layers of the trunk of parts a and d."""


def cut_classifier(work: Path, layers: int) -> Path:
    """The folder of a classifier of SmolLM2's first layers, made where there is none; the head is chance."""
    from real_shortcut_models import PAD

    folder = work / f"classifier-{layers}"
    if (folder / "config.json").is_file():
        return folder
    import torch
    from transformers import AutoTokenizer, LlamaForSequenceClassification

    from sarm_control.files import atomic_folder

    base = work / "smollm2"
    model = LlamaForSequenceClassification.from_pretrained(
        base, num_labels=1, num_hidden_layers=layers, dtype=torch.float32
    )
    tokenizer = AutoTokenizer.from_pretrained(base)
    # transformers reads the last token that is not padding: with the end of turn as padding, one before it
    tokenizer.pad_token = PAD
    model.config.pad_token_id = tokenizer.pad_token_id
    torch.nn.init.normal_(model.score.weight, generator=torch.Generator().manual_seed(0))
    with atomic_folder(folder, overwrite=True) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
    return folder


def classifier(work: Path, layers: int) -> Any:
    """The same, loaded."""
    from sarm_control.reward_model import RewardModel

    return RewardModel.from_pretrained(cut_classifier(work, layers), device="cpu")


def states_folder(work: Path, layers: int) -> Path:
    """Where the states are kept that its head reads, behind the final norm."""
    return work / f"states-classifier-{layers}"


def states_of_classifier(work: Path, layers: int) -> States:
    """These states."""
    return States(states_folder(work, layers), lambda: classifier(work, layers))


def main() -> None:
    """Runs the parts that are asked for, and writes each one's figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=Path("work/audit"))
    parser.add_argument("--only", choices=PARTS, nargs="*", default=PARTS)
    parser.add_argument("--out", type=Path, help="file of figures; those of other parts in it stay")
    parser.add_argument(
        "--tiny", action="store_true", help="a model of two layers and a few prompts, to try it"
    )
    parser.add_argument("--minutes", type=float, help="after which `wordings` begins no further draw")
    given = parser.parse_args()
    until = None if given.minutes is None else time.time() + 60 * given.minutes
    given.work.mkdir(parents=True, exist_ok=True)
    _base(given.work, given.data, tiny=given.tiny)
    for name in given.only:
        found = _run(name, given, until)
        _keep(given.out or given.work / "results.json", name, found)


def _base(work: Path, data: Path, *, tiny: bool) -> None:
    """The language model, where it is not there."""
    if (work / "smollm2" / "config.json").is_file():
        return
    if tiny:
        from real_shortcut_models import tiny_base

        tiny_base(work / "smollm2", data)
        return
    from fetch_smollm2 import from_registry

    from_registry(work / "smollm2")


def _run(name: str, given: argparse.Namespace, until: float | None) -> dict[str, Any]:
    data, work, tiny = given.data, given.work, given.tiny
    layers = 2 if tiny else LAYERS
    sizes = planted.Sizes(20, 16, 8, 2, 30) if tiny else planted.Sizes()
    if name == "planted":
        return {"layers": layers, **planted.run(data, work, states_of_classifier(work, layers), sizes)}
    if name == "wordings":
        states = States(states_folder(work, layers), lambda: SharedAnswers(classifier(work, layers)))
        return {"layers": layers, **wordings.run(data, work, states, sizes, until=until)}
    if name == "beside":
        trials = planted.trials(data, states_of_classifier(work, layers), sizes)
        return beside.run(trials[beside.PLANT], cut_classifier(work, layers), work / "beside")
    places = mend.Places(data, work / "mend")
    places.work.mkdir(exist_ok=True)
    few = mend.Sizes(100, 64, 8, 20, 60, 2) if tiny else mend.Sizes()
    if name == "attached":
        found = mend.run(places, few, mend.HALVES[name], attached.classifier_of, kind="classifier-")
        return found | {"explained": attached.explained(places)}
    return mend.run(places, few, mend.HALVES[name])


def _keep(path: Path, name: str, found: dict[str, Any]) -> None:
    from sarm_control.files import write_json
    from sarm_control.study.provenance import processor

    there = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    there[name] = found | processor()
    write_json(path, there)
    print(f"{name}: {json.dumps(there[name])}", flush=True)


if __name__ == "__main__":
    main()
