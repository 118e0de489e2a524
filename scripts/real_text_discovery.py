"""Discovery for the real-text trial from the states that `sarm build` cached: no second forward pass.

The same as `sarm discover --model SARM REFUSE RESPOND --confirm TEST -o DIR --write-controls FILE
--by subset`, which reads every conversation through the trunk again (about ten minutes on a CPU).

    python scripts/real_text_discovery.py --data ../shared/data --work work/real
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from real_text import CHAT, REFUSE, RESPOND, TEST

from sarm_control.build.activations import collect_states
from sarm_control.build.texts import Corpus, read_pairs
from sarm_control.console import progress
from sarm_control.conversation import Row
from sarm_control.discovery.discover import ScoredRows, Settings, discover
from sarm_control.discovery.text import controls_yaml, summary_text
from sarm_control.files import atomic_folder, manifest, sha256_file, write_json, write_text
from sarm_control.sarm import RewardModel, Scored


def scored_rows(
    model: RewardModel, states_of: Corpus, rows: Sequence[Row], cache: Path, *, build: bool
) -> ScoredRows:
    """Rows with the latents of their answers' cached states.

    Args:
        model: the SARM that was built.
        states_of: the corpus whose states were cached, as the build made it.
        rows: rows of that corpus.
        cache: the build's folder of states.
        build: whether the corpus was built from, and so has sentence states in its file.
    """
    states = collect_states(
        model.trunk, model.template, states_of.answers, sentence_states=build, cache=cache, progress=progress
    )
    place = {(answer.prompt_id, answer.response): j for j, answer in enumerate(states_of.answers)}
    numbers = [states_of.add(row).prompt for row in rows]
    answers = [place[number, text] for number, row in zip(numbers, rows, strict=True) for text in row.answers]
    latents = model.score_states(states.end_of_turn[answers])
    lengths = [len(model.template.tokenizer(states_of.answers[j].response)["input_ids"]) for j in answers]
    scored = Scored(
        rewards=latents.dot(model.head.weight),
        latents=latents,
        head=model.head.weight,
        truncated=np.zeros(len(answers), dtype=np.int64),
        ended=np.ones(len(answers), dtype=np.bool_),
        lengths=np.array(lengths, dtype=np.int64),
        fingerprint=model.fingerprint,
    )
    return ScoredRows(list(rows), scored)


def corpus_of(files: Sequence[Path]) -> Corpus:
    """The corpus `sarm build` made of the files."""
    corpus = Corpus()
    for row in read_pairs(files):
        corpus.add(row)
    return corpus


def main() -> None:
    """Writes features.json, effects.parquet, manifest.json and controls.yaml, and prints the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=Path("work/real"))
    arguments = parser.parse_args()
    chat, refuse, respond, test = (arguments.data / name for name in (CHAT, REFUSE, RESPOND, TEST))
    model = RewardModel.from_pretrained(arguments.work / "sarm")
    cache = arguments.work / "states"
    selection = scored_rows(
        model, corpus_of([chat, refuse, respond]), read_pairs([refuse, respond]), cache, build=True
    )
    confirmation = scored_rows(model, corpus_of([test]), read_pairs([test]), cache, build=False)
    found = discover(selection, confirmation, Settings(by="subset"))

    files = [refuse, respond, test]
    features = found.features(
        model="sarm", goal="safety", data={path.name: sha256_file(path) for path in files}
    )
    with atomic_folder(arguments.work / "discovery", overwrite=True) as folder:
        features.save(folder / "features.json")
        found.table.write_parquet(folder / "effects.parquet")
        write_json(folder / "discovery.json", found.as_json())
        record = manifest("real_text_discovery", inputs=files, config={"by": "subset"}, seed=0)
        write_json(folder / "manifest.json", record)
    write_text(arguments.work / "controls.yaml", controls_yaml(found, model="sarm", material=0.01))
    print(summary_text(found))


if __name__ == "__main__":
    main()
