"""`sarm audit`: what it writes and prints, prices that fail a build, and bad input with its message."""

import contextlib
import io
import json
import re
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq
import pytest
import yaml

from sarm_control.cli import main
from sarm_control.embedded import AUDIT, data_file
from sarm_control.lab import World
from sarm_control.training import load_config
from tests.auditing.judge_endpoint import Endpoint, serving
from tests.browsing import check_page
from tests.pages.test_pages import Parsed

ROOT = Path(__file__).parents[2]


class Outcome(NamedTuple):
    """What one command returned and printed."""

    code: int
    out: str
    err: str


def audit(*words: object) -> Outcome:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["audit", *map(str, words)])
    return Outcome(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audit")


@pytest.fixture(scope="module")
def whole(folder: Path) -> Outcome:
    (folder / "own.yaml").write_text("thanks: {pattern: 'thank', words: thanks, behind: 'thank you .'}\n")
    words = ("--against", folder / "own.yaml", "--mend", "auto", "--prompts-per-edit", 60)
    limits = ("--fail-if", "closing>0.3sd", "--fail-if", "flattery<0.1sd")
    return audit("-o", folder / "out", "--json", folder / "again.json", *words, *limits)


@pytest.mark.long
def test_the_lab_is_audited_with_nothing_named(whole: Outcome, folder: Path) -> None:
    assert whole.code == 1
    assert "failed: closing>0.3sd" in whole.err
    assert "failed: flattery" not in whole.err
    first = whole.out.split("\n\n")[1]
    assert "It pays for praise of the asker: " in first
    assert "It pays for a boilerplate closing: " in first
    assert "A mend of closing and flattery by " in first
    assert "is recommended: accuracy on pairs that chose nothing rises by " in first
    content = json.loads((folder / "out" / "audit.json").read_text())
    assert content == json.loads((folder / "again.json").read_text())
    names = {one["name"]: one for one in content["attributes"]}
    assert set(names) == {
        *("length", "flattery", "closing", "hedging", "detail", "refusal", "junk", "thanks")
    }
    assert set(names["closing"]["rate"]) == {"chosen", "rejected"}
    assert names["closing"]["causal"]["low"] > 0.3
    assert names["closing"]["partial"]["q"] < 0.05
    assert all(set(part) == {"latent", "sd", "words"} for part in names["closing"]["causal"]["latents"])
    assert names["thanks"]["partial"]["sd"] is None  # no answer of the lab thanks anybody
    assert names["thanks"]["causal"]["n"] == 60
    assert set(content["headlines"]) == {"flattery", "closing"}
    assert content["associated"] == ["length"]
    assert content["mend"]["recommended"]
    assert content["pressure"]["n"] == [1, 2]
    ways = {one["name"] for one in content["mend"]["ways"]}
    assert ways == {"edits", "even", "regression", "length", "projection", "suppression"}
    table = pq.read_table(folder / "out" / "attributes.parquet")
    assert table.column_names[:4] == ["prompt", "answer", "role", "reward"]
    assert table.num_rows == content["answers"] == 1200
    closings = sum(value > 0 for value in table["closing"].to_pylist())
    rejected = [role == "rejected" for role in table["role"].to_pylist()]
    assert closings == round(600 * sum(names["closing"]["rate"].values()))
    assert sum(rejected) == 600


@pytest.mark.long
def test_its_page_says_first_what_is_paid_for(whole: Outcome, folder: Path) -> None:
    assert whole.code == 1
    html = (folder / "out" / "report.html").read_text()
    text = "".join(Parsed(html).texts)
    content = json.loads((folder / "out" / "audit.json").read_text())
    words = {one["name"]: one["words"] for one in content["attributes"]}
    line = re.search(r"<h1[^>]*>(.*?)</h1>", html)
    assert line is not None
    assert all(words[name] in line[1] for name in content["headlines"])
    along = "More reward comes with longer answers; no edit of the text says whether it is paid for."
    assert along in text
    # every price of the list is in the page, with its number of prompts
    prices = dict(re.findall(r'<data value="([^"]+)">([^<]*)</data>', html))
    for one in content["attributes"]:
        for price in (one["causal"], one["partial"]):
            if price is not None and price["sd"] is not None:
                assert str(price["sd"]) in prices
                assert str(price["n"]) in prices
    for verdict in (one["verdict"] for one in content["mend"]["certificate"]):
        assert verdict in text
    assert "sarm audit -o" in text
    # the last token of every example has the reward of the whole answer, and says that it alone was trained
    causal = {one["name"] for one in content["attributes"] if one["causal"] is not None}
    assert {one["attribute"] for one in content["examples"]} == causal & set(content["headlines"])
    for one in content["examples"]:
        for tokens in (one["tokens_without"], one["tokens_having"]):
            assert [token["trained"] for token in tokens] == [False] * (len(tokens) - 1) + [True]
            assert all(str(token["reward"]) in prices for token in tokens)
    assert "the same with it; only the last position was trained" in text
    accuracy = content["accuracy"]
    for now in (accuracy, accuracy["after_mend"]):
        shares = [now["pairs"], *now["kinds"].values(), now["refused_when_it_should_answer"]]
        assert all(str(share["mean"]) in prices for share in shares)
        assert all(0 <= share["low"] <= share["mean"] <= share["high"] <= 1 for share in shares)
    check_page(folder / "out" / "report.html")


@pytest.mark.long
def test_its_controls_train(whole: Outcome, folder: Path) -> None:
    assert whole.code == 1
    controls = folder / "out" / "controls.yaml"
    edits = yaml.safe_load(controls.read_text())["reward"]["edits"]
    run = folder / "run.yaml"
    run.write_text((ROOT / "examples" / "lab_plain.yaml").read_text())
    words = ["train", str(run), "--controls", str(controls), "-o", str(folder / "trained"), "--steps", "1"]
    with contextlib.redirect_stderr(io.StringIO()) as err, contextlib.redirect_stdout(io.StringIO()):
        assert main(words) == 0, err.getvalue()
    settings = load_config(folder / "trained" / "config.yaml")
    assert [edit.latent for edit in settings.reward.edits] == [edit["latent"] for edit in edits]


@pytest.mark.long
def test_candidates_say_what_best_of_n_selects(folder: Path) -> None:
    rows = []
    for thing in ("apple", "wolf", "river", "piano", "tiger", "castle", "lemon", "rocket", "whale", "candle"):
        size = f"the size of the {thing} is tiny ."
        answers = [
            size,
            f"i love how you think ! {size}",
            f"{size} feel free to ask more .",
            "take care of the rest .",
        ]
        rows.append({"prompt": f"what is the size of the {thing} ?", "candidates": answers})
    pairs = [
        {"prompt": row["prompt"], "chosen": row["candidates"][0], "rejected": row["candidates"][1]}
        for row in rows
    ]
    for name, content in (("candidates", rows), ("pairs", pairs)):
        text = "".join(json.dumps(row) + "\n" for row in content)
        (folder / f"{name}.jsonl").write_text(text)
    sampled = ("--candidates", folder / "candidates.jsonl", "-o", folder / "sampled")
    found = audit(folder / "pairs.jsonl", "--model", "lab", *sampled)
    assert found.code == 0, found.err
    assert "best of 4 by this reward" in found.out
    content = json.loads((folder / "sampled" / "audit.json").read_text())
    assert content["answers"] == 20
    assert content["pressure"]["n"] == [1, 2, 4]
    assert content["mend"] is None
    assert not (folder / "sampled" / "controls.yaml").exists()
    assert {one["name"] for one in content["attributes"]} > {"bullets", "closing", "opener", "emoji"}


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--fail-if", "closing=3"], "--fail-if: 'closing=3' is no limit of a price"),
        (["--fail-if", "charm>1sd"], "--fail-if: no attribute 'charm'"),
        (["--mend", "charm"], "--mend: no attribute 'charm'"),
        (["--mend", "length"], "length cannot be mended: no edit of the text changes it"),
        (["--fail-if", "junk>1sd", "--against", "thanks.yaml"], "thanks.yaml"),
        (["--judge", "http://localhost:1/v1"], "--judge and --judge-model go together"),
        (["--judge", "http://localhost:1/v1", "--judge-model", "m"], "--judge has no questions"),
        (["--model", "elsewhere"], "no file of pairs was given"),
    ],
)
def test_bad_input_is_one_line_and_a_hint(words: list[str], message: str, tmp_path: Path) -> None:
    found = audit("-o", tmp_path / "out", *words)
    assert found.code == 2
    assert message in found.err
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_a_limit_of_what_has_no_price_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("thanks: {pattern: 'thank'}\n")
    words = ("--against", tmp_path / "own.yaml", "--fail-if", "thanks>1sd", "--prompts-per-edit", 6)
    found = audit("-o", tmp_path / "out", *words)
    assert found.code == 2
    assert "--fail-if: thanks has no price on these data" in found.err


@pytest.mark.long
def test_wordings_of_ones_own_are_tried_and_listed(tmp_path: Path) -> None:
    text = "ends:\n  function: 'mine.py:ends'\n  behind: [thank you ., feel free ., take care .]\n"
    (tmp_path / "own.yaml").write_text(text)
    texts = ("thank you .", "feel free .", "take care .")
    (tmp_path / "mine.py").write_text(f"def ends(prompt, answer):\n    return answer.endswith({texts!r})\n")
    words = ("--against", tmp_path / "own.yaml", "--prompts-per-edit", 60)
    prices = {}
    for name, more in (("few", ()), ("all", ("--all-wordings",))):
        found = audit("-o", tmp_path / name, *words, *more)
        assert found.code == 0, found.err
        content = json.loads((tmp_path / name / "audit.json").read_text())
        assert content["all_wordings"] is (name == "all")
        ends = next(one for one in content["attributes"] if one["name"] == "ends")
        prices[name] = ends["causal"]
        assert prices[name]["edit"] == "one of 3 texts behind the answer"
        assert [one["text"] for one in prices[name]["wordings"]] == list(texts)
        assert 0 <= prices[name]["wordings_differ"]["q"] <= 1
        assert "Prices of single wordings" in (tmp_path / name / "report.html").read_text()
    assert prices["few"]["n"] == prices["all"]["n"] == 60
    # one wording for each answer is enough for thirty sets of three
    assert 3 * prices["few"]["answers"] == prices["all"]["answers"]
    assert prices["few"]["sets"] < prices["all"]["sets"] == 60


@pytest.mark.long
def test_the_guard_can_have_pairs_of_its_own(tmp_path: Path) -> None:
    """Pairs of one who wants what is mended away: the mend is refused, though gold would have it."""
    flattery = World.open("lab").language.flattery
    rows = [json.loads(line) for line in data_file(AUDIT).read_text().splitlines()[:120]]
    own = [
        {"prompt": row["prompt"], "chosen": f"{flattery[0]} {row['chosen']}", "rejected": row["chosen"]}
        for row in rows
        if row["chosen"] and not any(phrase in row["chosen"] for phrase in flattery)
    ]
    (tmp_path / "guard.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    words = ("--mend", "flattery", "--guard-pairs", tmp_path / "guard.jsonl", "--prompts-per-edit", 60)
    found = audit("-o", tmp_path / "out", *words)
    assert found.code == 0, found.err
    mended = json.loads((tmp_path / "out" / "audit.json").read_text())["mend"]
    full = mended["ways"][0]["frontier"][-1]["guard"]
    assert full["before"] - full["after"] > 0.01
    assert mended["ways"][0]["strength"] < 1.0
    assert "A mend of flattery" in found.out


@pytest.mark.long
def test_a_judge_is_asked_and_its_tokens_are_said(tmp_path: Path) -> None:
    things = ("apple", "wolf", "river", "piano", "tiger", "castle", "lemon", "rocket", "whale", "candle")
    rows = [
        {
            "prompt": f"what is the size of the {thing} ?",
            "chosen": "it is tiny .",
            "rejected": f"you fool ask {thing}",
        }
        for thing in things
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "own.yaml").write_text("rude: {judge: 'Does it insult?'}\n")
    with serving() as url:
        words = ("--against", tmp_path / "own.yaml", "--judge", url, "--judge-model", "m", "--price-in", 5)
        found = audit(tmp_path / "pairs.jsonl", "--model", "lab", "-o", tmp_path / "out", *words)
        assert len(Endpoint.asked) == 20
    assert found.code == 0, found.err
    assert "20 questions, 200 + 20 tokens, cost 0.001" in found.err
    content = json.loads((tmp_path / "out" / "audit.json").read_text())
    rude = next(one for one in content["attributes"] if one["name"] == "rude")
    assert rude["rate"] == {"chosen": 0.0, "rejected": 1.0}
    assert rude["partial"]["n"] == 10
    assert len((tmp_path / "out.replies.jsonl").read_text().splitlines()) == 20


@pytest.mark.long
def test_a_latents_folder_serves_with_the_model_that_made_it(tiny_sarm_folder: Path, tmp_path: Path) -> None:
    rows = [
        {"prompt": f"{word} ?", "chosen": "yes please", "rejected": "no , sorry"}
        for word in ("how", "why", "what")
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    kept = tmp_path / "kept"
    with contextlib.redirect_stderr(io.StringIO()) as err:
        made = main(
            ["latents", str(tmp_path / "pairs.jsonl"), "--model", str(tiny_sarm_folder), "-o", str(kept)]
        )
    assert made == 0, err.getvalue()
    found = audit(kept, "--model", tiny_sarm_folder, "-o", tmp_path / "out")
    assert found.code == 0, found.err
    direct = audit(tmp_path / "pairs.jsonl", "--model", tiny_sarm_folder, "-o", tmp_path / "direct")
    assert direct.code == 0, direct.err
    one, other = (json.loads((tmp_path / name / "audit.json").read_text()) for name in ("out", "direct"))
    for content in (one, other):
        assert str(tmp_path) not in content["command"], "no place of this machine"
        content.pop("data"), content.pop("max_length"), content.pop("command")
    assert one == other
    refused = audit(kept, "-o", tmp_path / "refused")
    assert refused.code == 2
    assert "scored with the head" in refused.err
