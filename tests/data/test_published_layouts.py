"""Oracle: the data sets that people have most, field by field as they are published, give the plain pairs."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("datasets", reason='needs the extra "data"')

from datasets import Dataset, Features, Value

from sarm_control.cli import main
from sarm_control.data import Row, as_messages, check_rows, read_rows

Pairs = list[tuple[str, str, str]]
MADE: Pairs = [
    ("how do i bake a cake ?", "first mix the flour .", "just buy one ."),
    ("how do i open\n\nthe door ?", "turn the key .\n\nThen push .", ""),
    ("who are you ?", "a program .", "Human: no ."),
    ("und ?", "ja \N{GRINNING FACE}", " nein "),
]
REAL = Path(__file__).parents[3] / "shared" / "data" / "rm_bench_chat.jsonl"
TURNS = [{"content": Value("string"), "role": Value("string")}]


def said(role: str, text: str) -> dict[str, str]:
    return {"content": text, "role": role}


def talk(prompt: str, answer: str) -> list[dict[str, str]]:
    return [said("user", prompt), said("assistant", answer)]


def ultrafeedback(folder: Path, pairs: Pairs) -> None:
    """HuggingFaceH4/ultrafeedback_binarized, split train_prefs."""
    features = Features(
        {
            **{"prompt": Value("string"), "prompt_id": Value("string")},
            **{"chosen": TURNS, "rejected": TURNS, "messages": TURNS},
            **{"score_chosen": Value("float64"), "score_rejected": Value("float64")},
        }
    )
    rows = [
        {
            "prompt": prompt,
            "prompt_id": f"{number:064x}",
            "chosen": talk(prompt, better),
            "rejected": talk(prompt, worse),
            "messages": talk(prompt, better),
            "score_chosen": 8.5,
            "score_rejected": 3.0,
        }
        for number, (prompt, better, worse) in enumerate(pairs)
    ]
    Dataset.from_list(rows, features=features).to_parquet(folder / "train_prefs-00000-of-00001.parquet")


def skywork(folder: Path, pairs: Pairs) -> None:
    """Skywork/Skywork-Reward-Preference-80K-v0.2."""
    rows = [
        {"chosen": talk(prompt, better), "rejected": talk(prompt, worse), "source": "magpie_pro_llama3.1"}
        for prompt, better, worse in pairs
    ]
    half = len(rows) // 2
    for number, part in enumerate((rows[:half], rows[half:])):
        Dataset.from_list(part).to_parquet(folder / f"train-{number:05d}-of-00002.parquet")


def hh_rlhf(folder: Path, pairs: Pairs) -> None:
    """Anthropic/hh-rlhf, one of its folders without the test split."""
    with gzip.open(folder / "train.jsonl.gz", "wt", encoding="utf-8") as stream:
        for prompt, better, worse in pairs:
            chosen, rejected = (f"\n\nHuman: {prompt}\n\nAssistant: {text}" for text in (better, worse))
            stream.write(json.dumps({"chosen": chosen, "rejected": rejected}) + "\n")


LAYOUTS: dict[str, Callable[[Path, Pairs], None]] = {
    "UltraFeedback messages": ultrafeedback,
    "pairs of conversations": skywork,
    "HH-RLHF transcripts": hh_rlhf,
}


def pair_of(row: Row) -> tuple[str, str, str]:
    (turn,) = as_messages(row.prompt)
    (chosen,), (rejected,) = row.chosen, row.rejected
    return turn["content"], chosen, rejected


@pytest.mark.parametrize("form", LAYOUTS)
def test_oracle_published_layouts_are_the_plain_pairs(form: str, tmp_path: Path) -> None:
    LAYOUTS[form](tmp_path, MADE)
    found = read_rows(tmp_path, want={"pair"})
    assert [pair_of(row) for row in found] == MADE
    assert check_rows(tmp_path).form == f"{form}, 4 rows"


@pytest.mark.skipif(not REAL.is_file(), reason="needs ../shared/data/rm_bench_chat.jsonl")
@pytest.mark.parametrize("form", LAYOUTS)
def test_oracle_real_texts_in_published_layouts(form: str, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in REAL.read_text(encoding="utf-8").splitlines()]
    pairs = [(row["prompt"], row["chosen"][2], row["rejected"][0]) for row in rows]
    LAYOUTS[form](tmp_path, pairs)
    assert [pair_of(row) for row in read_rows(tmp_path, want={"pair"})] == pairs


def test_oracle_all_layouts_give_equal_scores_to_the_bit(tmp_path: Path) -> None:
    scores: dict[str, list[Any]] = {}
    for form, write in LAYOUTS.items():
        folder = tmp_path / form.split()[0]
        folder.mkdir()
        write(folder, MADE)
        out = tmp_path / f"{folder.name}.jsonl"
        assert main(["score", str(folder), "-o", str(out), "--quiet"]) == 0
        written = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
        scores[form] = [(row["chosen_scores"], row["rejected_scores"]) for row in written]
    first, *others = scores.values()
    assert all(one == first for one in others)
