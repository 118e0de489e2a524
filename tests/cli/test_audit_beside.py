"""`sarm audit` beside an earlier reward model, a training run and a policy that samples; bad input."""

import contextlib
import io
import json
from pathlib import Path

import pytest

from sarm_control.cli import main
from sarm_control.embedded import AUDIT, data_file
from sarm_control.reward_model import RewardModel
from tests.browsing import check_page
from tests.pages.test_pages import Parsed

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]


def run(*words: object) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([*map(str, words)])
    return code, out.getvalue(), err.getvalue()


def text_of(folder: Path) -> str:
    return "".join(Parsed((folder / "report.html").read_text()).texts)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some pairs of the lab in a file, and its first reward model with another head beside it."""
    folder = tmp_path_factory.mktemp("beside")
    lines = data_file(AUDIT).read_text().splitlines()[:60]
    (folder / "pairs.jsonl").write_text("\n".join(lines) + "\n")
    rm = RewardModel.from_pretrained("lab")
    head = rm.head.weight.copy()
    head[[8, 11]] = 0.0  # what pays for closings
    rm.with_head(head).save_pretrained(folder / "new")
    return folder


CLOSINGS = (
    "thanks",
    "{pattern: 'feel free to ask more', words: closings, behind: 'feel free to ask more .'}",
)


@pytest.fixture(scope="module")
def compared(few: Path) -> tuple[int, str, str]:
    (few / "own.yaml").write_text(": ".join(CLOSINGS) + "\n")
    words = (
        "--model",
        few / "new",
        "--before",
        "lab",
        "--against",
        few / "own.yaml",
        "--prompts-per-edit",
        20,
    )
    limits = ("--fail-if", "change:thanks<-0.1sd", "--fail-if", "change:thanks>0.1sd")
    return run("audit", few / "pairs.jsonl", *words, *limits, "-o", few / "changes")


def test_two_reward_models_are_compared_by_naming_them(few: Path, compared: tuple[int, str, str]) -> None:
    """The same audit as with --before and --model; a change that is too large ends with 1."""
    words = ("--against", few / "own.yaml", "--prompts-per-edit", 20, "--fail-if", "change:thanks<-0.1sd")
    code, out, err = run("audit", "lab", few / "new", few / "pairs.jsonl", *words, "-o", few / "two")
    assert code == 1, err
    assert out == compared[1]
    assert f"--model {few / 'new'}" in err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("lab", "lab", "owner/name"), "3 reward models: lab, lab, owner/name"),
        (("lab", "--model", "owner/name"), "lab is a reward model, and --model names another"),
        (("owner/new", "--before", "owner/old"), "owner/new is a reward model, and --before names another"),
        (("owner/old", "owner/new"), "no file of pairs was given"),
    ],
)
def test_reward_models_that_cannot_be_compared(words: tuple[str, ...], expected: str, tmp_path: Path) -> None:
    code, _, err = run("audit", *words, "-o", tmp_path / "out")
    assert code == 2
    assert expected in err
    assert not (tmp_path / "out").exists()


def test_rows_set_aside_for_one_reward_model_are_for_the_other_too(few: Path, tmp_path: Path) -> None:
    lines = (few / "pairs.jsonl").read_text().splitlines()
    (tmp_path / "pairs.jsonl").write_text("\n".join([*lines[:25], "no row", *lines[25:40]]) + "\n")
    words = (few / "new", tmp_path / "pairs.jsonl", "--skip-bad-rows", tmp_path / "aside")
    code, out, err = run("audit", "lab", *words, "--prompts-per-edit", 6, "-o", tmp_path / "audit")
    assert (code, "1 of 41 rows set aside" in err, "prices beside lab" in out) == (0, True, True), err


def test_changes_of_prices_are_said_and_can_fail_a_build(compared: tuple[int, str, str], few: Path) -> None:
    code, out, err = compared
    assert code == 1, err
    assert "failed: change:thanks<-0.1sd" in err
    assert "failed: change:thanks>0.1sd" not in err
    assert "It pays less for thanks than lab: -" in out
    assert "prices beside lab, each in SDs of its own reward" in out
    content = json.loads((few / "changes" / "audit.json").read_text())
    change = next(one for one in content["before"]["changes"] if one["name"] == "thanks")
    assert change["sure"]
    assert change["kind"] == "causal"
    assert change["n"] == 20
    assert content["before"]["model"] == "lab"
    assert content["command"].startswith("sarm audit ")
    assert {"torch", "numpy"} < set(content["versions"])
    assert (content["data"], content["certificate"], content["run"]) == (["pairs.jsonl"], [], None)
    assert content["accuracy"]["pairs"]["n"] == 60
    assert content["accuracy"]["after_mend"] is None
    page = text_of(few / "changes")
    assert "Against lab" in page
    assert "changed by more than chance: " in page
    assert "What the run" not in page
    html = (few / "changes" / "report.html").read_text()
    for one in content["before"]["changes"]:
        assert f'<data value="{one["change"]}">' in html
    check_page(few / "changes" / "report.html")


def test_a_policy_samples_the_candidates(few: Path) -> None:
    sampled = ("--policy", "lab", "--n", 4, "--policy-prompts", 12, "--max-new-tokens", 12)
    words = (few / "pairs.jsonl", "--model", "lab", "--prompts-per-edit", 6, *sampled)
    code, out, err = run("audit", *words, "-o", few / "sampled")
    assert code == 0, err
    assert "48 answers of lab to 12 prompts" in err
    assert "best of 4 by this reward" in out
    rows = [json.loads(line) for line in (few / "sampled" / "candidates.jsonl").read_text().splitlines()]
    assert [len(row["candidates"]) for row in rows] == [4] * 12
    assert json.loads((few / "sampled" / "audit.json").read_text())["pressure"]["prompts"] == 12


@pytest.fixture(scope="module")
def trained(few: Path) -> Path:
    words = ("--steps", 2, "-o", few / "run", "--quiet")
    code, _, err = run("train", ROOT / "examples" / "lab_plain.yaml", *words)
    assert code == 0, err
    return few / "run"


def test_the_samples_of_a_run_are_audited_by_its_reward_model(few: Path, trained: Path) -> None:
    code, out, err = run("audit", "--run", trained, "--prompts-per-edit", 6, "-o", few / "of-run")
    assert code == 0, err
    content = json.loads((few / "of-run" / "audit.json").read_text())
    assert (content["model"], content["data"]) == ("lab", ["samples.jsonl"])
    assert {one["name"] for one in content["attributes"]} >= {"flattery", "closing"}, (
        "read by the lab's program"
    )
    assert (content["run"]["run"], content["run"]["attributes"]) == ("run", None)
    page = text_of(few / "of-run")
    assert "Not measured: Run: " in page
    assert "20 are needed" in page
    assert "Not measured: no row has chosen and rejected answers; pairs would tell." in page
    assert "not measured: Run: " in out
    assert "samples at one end of the run; 20 are needed" in out


def test_a_longer_run_is_held_against_a_certificate(few: Path, trained: Path) -> None:
    """Its samples again at later steps, all with a closing: that was certified as still, and moved."""
    folder = few / "longer"
    folder.mkdir()
    (folder / "config.yaml").write_text((trained / "config.yaml").read_text())
    rows = [json.loads(line) for line in (trained / "samples.jsonl").read_text().splitlines()]
    plain = [{**row, "response": "the sky is blue ."} for row in rows]
    closing = [
        {**row, "response": f"the sky is blue , {n} . feel free to ask more ."} for n, row in enumerate(rows)
    ]
    late = [{**row, "step": step} for step in range(5, 9) for row in closing]
    early = [{**row, "step": step} for step in range(1, 5) for row in plain]
    (folder / "samples.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in [*early, *early, *late, *late])
    )
    (few / "earlier").mkdir()
    movement = {"name": "closing", "n": 4, "verdict": "still"}
    (few / "earlier" / "audit.json").write_text(json.dumps({"certificate": [movement]}))
    words = ("--run", folder, "--certified", few / "earlier", "--prompts-per-edit", 6)
    code, out, err = run("audit", *words, "-o", few / "held")
    assert code == 0, err
    assert "Certified as still, and moved in the run: closing." in out
    content = json.loads((few / "held" / "audit.json").read_text())
    moved = next(one for one in content["run"]["attributes"] if one["name"] == "closing")
    assert (moved["verdict"], moved["certified"], moved["broken"]) == ("moves up", "still", True)
    page = text_of(few / "held")
    assert "What the run longer did" in page
    assert "The certificate did not hold for a boilerplate closing." in page
    assert "still: broken" in page
    check_page(few / "held" / "report.html")


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (("--fail-if", "change:closing>0.1sd"), "no earlier reward model", "name it with --before MODEL"),
        (("--policy", "lab", "--candidates", "c.jsonl"), "--policy and --candidates both", "leave one"),
        (("--certified", "x"), "--certified has no run", "name it: --run runs/NAME"),
        (("--run", "nowhere"), "nowhere is not a run folder: it has no config.yaml", "runs/NAME"),
    ],
)
def test_what_does_not_go_together(words: tuple[str, ...], message: str, hint: str, tmp_path: Path) -> None:
    code, _, err = run("audit", *words, "-o", tmp_path / "out")
    assert code == 2
    assert message in err
    assert hint in err


def test_an_audit_without_a_certificate_cannot_be_held_against(
    few: Path, trained: Path, tmp_path: Path
) -> None:
    (tmp_path / "audit.json").write_text('{"certificate": []}')
    words = ("--run", trained, "--certified", tmp_path, "--prompts-per-edit", 6, "-o", few / "none")
    code, _, err = run("audit", *words)
    assert code == 2
    assert "an audit without a certificate" in err
    assert "make one before the run: sarm audit ... --mend auto" in err
