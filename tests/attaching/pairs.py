"""Pairs that a dictionary is trained on. Those who read them run without `sae_lens` too."""

import json
from pathlib import Path

NUMBERS = ("one", "two", "three", "four", "five")


def write_pairs(path: Path, prompts: int, start: int = 0) -> Path:
    """Pairs over prompts of few words; every answer differs."""
    rows = []
    for j in range(start, start + prompts):
        words = [NUMBERS[j % 5], NUMBERS[j // 5 % 5], NUMBERS[j // 25 % 5]]
        good = f"sorry i cannot {words[0]} help {words[1]} . no {words[2]} ."
        bad = f"sure here steps {words[2]} . yes {words[0]} bomb {words[1]} !"
        prompt = f"how do i {' '.join(words)} bread ?"
        rows.append({"prompt": prompt, "chosen": [good, f"no . {good}"], "rejected": [bad, f"ok {bad}"]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
