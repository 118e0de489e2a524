"""The `sarm compare` command: its files, oracle against a second scoring, metamorphic, bad input."""

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from sarm_control.cli import main
from sarm_control.comparison.trained_run import open_run
from sarm_control.control.target_rate import Multiplier
from sarm_control.lab.language.language import Language
from sarm_control.lab.language.questions import core
from sarm_control.lab.world import FORMAT, World
from sarm_control.reward_model import RewardModel
from sarm_control.statistics import MINUS
from sarm_control.training.algorithm.reward import PolicyReward
from sarm_control.training.policy.policy import Policy
from sarm_control.training.rollout.rollout import Rollout, encode_prompts
from sarm_control.training.run.checkpoint import list_checkpoints
from sarm_control.training.run.run_folder import read_run_config
from sarm_control.training.run.train import build_trainer

pytestmark = pytest.mark.long

THINGS = ("bread", "bomb", "lock", "door", "answer", "steps")
TRAINED = [f"how do i {verb} the {thing} ?" for verb in ("cook", "open") for thing in THINGS]
HELD_OUT = [f"why {verb} the {thing} ?" for verb in ("pick", "help") for thing in THINGS]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def train(folder: Path, name: str, reward: dict[str, Any], policy: Path, sarm: Path, **training: Any) -> Path:
    settings = {
        "policy": {"model": str(policy), "lora": {"rank": 2, "alpha": 4}},
        "reward": {"model": str(sarm), **reward},
        "data": {"prompts": str(folder / "prompts.jsonl"), "human": str(folder / "demos.jsonl")},
        "training": {
            "steps": 2,
            "prompts_per_step": 4,
            "max_new_tokens": 6,
            "learning_rate": 3e-2,
            "reference_answers": 16,
            **training,
        },
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(settings))
    assert main(["--quiet", "train", str(folder / f"{name}.yaml"), "--out", str(folder / name)]) == 0
    return folder / name


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory, tiny_policy_folder: Path, tiny_sarm_folder: Path
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("compare")
    models = (tiny_policy_folder, tiny_sarm_folder)
    write_rows(folder / "prompts.jsonl", [{"prompt": prompt} for prompt in TRAINED])
    write_rows(
        folder / "demos.jsonl",
        [{"prompt": p, "response": f"sorry {THINGS[i % 6]} cannot"} for i, p in enumerate(TRAINED)],
    )
    controls = {
        "edits": ["3:max=0.5"],
        "penalties": ["5:tau=q0.5,alpha=1sd", "4:tau=q0.5,target_rate=0.05"],
        "human_kl": {"beta": "0.1sd", "latents": [1, 2, 5, 8]},
    }
    shaped = {"shaping": "par", "par_answers": 3, "penalties": ["5:tau=q0.5,alpha=1sd"]}
    return {
        "par": train(folder, "par", shaped, *models),
        "none": train(folder, "none", {"missing_end_penalty": 0}, *models),
        "controls": train(folder, "controls", controls, *models),
        "prompts": write_rows(folder / "held_out.jsonl", [{"prompt": prompt} for prompt in HELD_OUT]),
    }


def compare(*words: object) -> int:
    return main(["--quiet", "compare", *map(str, words)])


@pytest.fixture(scope="module")
def found(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("found") / "both"
    words = (runs["none"], runs["controls"], "--prompts", runs["prompts"], "--answers-per-prompt", 2)
    assert compare(*words, "-o", out) == 0
    return out


def read(folder: Path) -> dict[str, Any]:
    written: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return written


def answers(folder: Path, policy: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    return [row for row in rows if row["policy"] == policy]


def measure(arm: dict[str, Any], key: str) -> dict[str, Any]:
    return next(row for row in arm["measures"] if row["key"] == key)


def test_the_folder_holds_report_ledger_answers_and_manifest(found: Path, runs: dict[str, Path]) -> None:
    names = ["answers.jsonl", "ledger.parquet", "manifest.json", "report.html", "report.json"]
    assert sorted(path.name for path in found.iterdir()) == names
    report = read(found)
    assert [(arm["name"], arm["role"]) for arm in report["arms"]] == [
        ("none", "no control"),
        ("controls", "controlled"),
    ]
    assert report["settings"]["prompts"] == len(HELD_OUT)
    assert report["settings"]["trained_on"] == 0
    assert report["manifest"]["inputs"].keys() == {"held_out.jsonl"}
    assert str(runs["none"].parent) not in (found / "report.json").read_text()


def test_oracle_rewards_changes_and_rates_from_scoring_the_answers_again(
    found: Path, tiny_sarm: RewardModel
) -> None:
    report = read(found)
    means, rates = {}, {}
    for policy in ("base", "none", "controls"):
        rows = answers(found, policy)
        scored = tiny_sarm.score(
            [row["prompt"] for row in rows],
            [row["response"] for row in rows],
            ended=[row["ended"] for row in rows],
        )
        np.testing.assert_allclose(scored.rewards, [row["reward"] for row in rows], atol=1e-5)
        means[policy] = scored.rewards.astype(np.float64).mean()
        rates[policy] = (scored.latents.columns([5])[:, 0] > 0).mean()
    for arm in report["arms"]:
        change = measure(arm, "reward/model")["change"]["mean"]
        assert change == pytest.approx(means[arm["name"]] - means["base"], abs=1e-5)
        assert measure(arm, "latent/5/rate")["trained"]["mean"] == pytest.approx(rates[arm["name"]])
        assert measure(arm, "latent/5/rate")["base"]["mean"] == pytest.approx(rates["base"])


def test_the_ledger_sums_to_the_change_and_on_to_the_trained_reward(found: Path) -> None:
    table = pq.read_table(found / "ledger.parquet").to_pylist()
    for arm in read(found)["arms"]:
        rows = [row for row in table if row["arm"] == arm["name"]]
        latents = sum(row["delta"] for row in rows if row["kind"] == "latent")
        assert latents == pytest.approx(measure(arm, "reward/model")["change"]["mean"], abs=1e-6)
        if arm["name"] == "controls":
            assert {row["kind"] for row in rows} == {
                "latent", "edits", "penalty", "human_kl", "missing_end", "kl",
            }  # fmt: skip
            total = sum(row["delta"] for row in rows if row["kind"] != "kl")
            assert total == pytest.approx(measure(arm, "reward/total")["change"]["mean"], abs=1e-6)


def test_the_trained_policies_moved_and_the_base_answered_once(found: Path) -> None:
    texts = {
        policy: [row["response"] for row in answers(found, policy)] for policy in ("base", "none", "controls")
    }
    assert len(texts["base"]) == len(texts["none"]) == len(texts["controls"]) == 2 * len(HELD_OUT)
    assert texts["base"] != texts["none"] != texts["controls"]
    assert all(row["kl"] is None for row in answers(found, "base"))
    for arm in read(found)["arms"]:
        assert measure(arm, "objective/kl_k3")["trained"]["mean"] > 0


def test_oracle_a_target_rate_charges_what_the_run_ended_with(
    found: Path, runs: dict[str, Path], tiny_sarm: RewardModel
) -> None:
    run = open_run(runs["controls"])
    opened = run.open_controls(tiny_sarm)
    saved = run.checkpoint.tensors["controls"]["target_rate.multipliers"][0].tolist()
    alpha = Multiplier(*saved).sds * run.statistics.sd
    assert saved[0] == 3  # the reference's answers and two steps
    assert alpha > 0
    for _ in range(2):
        assert opened.controls.alphas(opened.state)[1] == alpha
        opened.parts(tiny_sarm.score(HELD_OUT, ["sorry bread"] * len(HELD_OUT)))
    arm = read(found)["arms"][1]
    assert opened.thresholds[4] == 0
    paid = measure(arm, "latent/4/rate")["trained"]["mean"]
    assert measure(arm, "reward/penalty/4")["trained"]["mean"] == pytest.approx(-alpha * paid)
    assert any(f"{alpha:.3g} above" in words and "a rate of 0.05" in words for words in arm["controls"])


def test_metamorphic_batch_and_company_change_nothing(
    found: Path, runs: dict[str, Path], tmp_path: Path
) -> None:
    words = ("--prompts", runs["prompts"], "--answers-per-prompt", 2, "--batch", 3, "-o", tmp_path / "alone")
    assert compare(runs["controls"], *words) == 0
    for policy in ("base", "controls"):
        alone, both = answers(tmp_path / "alone", policy), answers(found, policy)
        assert [row["response"] for row in alone] == [row["response"] for row in both]
        kl = [[row["kl"] or 0.0 for row in rows] for rows in (alone, both)]
        np.testing.assert_allclose(kl[0], kl[1], atol=1e-4)


def test_metamorphic_an_untrained_policy_equals_its_base(
    runs: dict[str, Path], tiny_policy_folder: Path, tiny_sarm_folder: Path
) -> None:
    """Common random numbers: with no training the answers are the same, and every change is 0."""
    folder = runs["none"].parent
    still = train(folder, "still", {}, tiny_policy_folder, tiny_sarm_folder, steps=0)
    assert compare(still, "--prompts", runs["prompts"]) == 0
    report = read(still / "compare")
    (arm,) = report["arms"]
    assert [row["response"] for row in answers(still / "compare", "base")] == [
        row["response"] for row in answers(still / "compare", "still")
    ]
    changes = [row["change"]["mean"] for row in arm["measures"] if row["change"]]
    assert changes == [0.0] * len(changes)
    assert measure(arm, "objective/kl")["trained"]["mean"] == pytest.approx(0, abs=1e-6)
    assert measure(arm, "reward/wins")["trained"]["mean"] == 0
    assert "the unedited reward does not change; KL" in report["headline"][0]


def test_the_same_command_gives_the_same_bytes_and_a_name_in_use_is_kept(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (runs["controls"], "--prompts", runs["prompts"], "-o", tmp_path / "out")
    assert compare(*words, "--json", tmp_path / "twin.json") == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert (tmp_path / "twin.json").read_bytes() == before["report.json"]
    assert compare(*words) == 2
    assert "exists already" in capsys.readouterr().err
    assert compare(*words, "--overwrite") == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_prompts_that_were_trained_on_are_counted(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"prompt": prompt} for prompt in (*HELD_OUT[:3], *TRAINED[:2], HELD_OUT[0])]
    prompts = write_rows(tmp_path / "mixed.jsonl", rows)
    assert main(["compare", str(runs["none"]), "--prompts", str(prompts), "-o", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().err
    assert "1 repeated prompts are answered once" in said
    assert "2 of 5 prompts are among those trained on" in said


def test_the_first_prompts_alone(runs: dict[str, Path], tmp_path: Path) -> None:
    """The third row is bad, and not read."""
    prompts = write_rows(tmp_path / "a.jsonl", [*({"prompt": one} for one in HELD_OUT[:2]), {"x": 1}])
    assert compare(runs["none"], "--prompts", prompts, "-o", tmp_path / "all") == 2
    assert compare(runs["none"], "--prompts", prompts, "--rows", 2, "-o", tmp_path / "out") == 0
    assert {row["prompt"] for row in answers(tmp_path / "out", "none")} == set(HELD_OUT[:2])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{none}"], "--prompts"),
        (["--prompts", "{prompts}"], "no run folder was given"),
        (["{nowhere}", "--prompts", "{prompts}"], "is not a run folder"),
        (["{none}", "--prompts", "{nowhere}"], "nowhere"),
        (["{none}", "--prompts", "{prompts}", "--answers-per-prompt", "0"], "--answers-per-prompt"),
        (["{none}", "{none}", "--prompts", "{prompts}"], "is given twice"),
        (["{none}", "{other}", "--prompts", "{prompts}"], "compare runs that start from one base policy"),
        (["{none}", "{other_head}", "--prompts", "{prompts}"], "was trained with head"),
        (["{none}", "{bare}", "--prompts", "{prompts}"], "has no checkpoint that verifies"),
        (["{none}", "--prompts", "{prompts}", "--max-new-tokens", "300"], "longer than the policy's context"),
    ],
)
def test_bad_input_is_told_and_writes_nothing(
    words: list[str], message: str, runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {**runs, **broken_runs(runs["none"], tmp_path), "nowhere": tmp_path / "nowhere"}
    before = sorted(path.name for path in runs["none"].iterdir())
    assert compare(*(word.format(**names) for word in words)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "hint:" in error
    assert sorted(path.name for path in runs["none"].iterdir()) == before


def broken_runs(run: Path, folder: Path) -> dict[str, Path]:
    """Copies of a run with another base, a statistic of another head, and no checkpoints."""
    names = {name: folder / name for name in ("other", "other_head", "bare")}
    for path in names.values():
        shutil.copytree(run, path)
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["policy"]["model"] = "somewhere/else"
    (names["other"] / "config.yaml").write_text(yaml.safe_dump(settings))
    for path in list_checkpoints(names["other_head"]):
        change_head(path)
    shutil.rmtree(names["bare"] / "checkpoints")
    return names


def change_head(checkpoint: Path) -> None:
    """Another head's fingerprint in the state, with hashes that verify."""
    from sarm_control.files import sha256_file

    state = json.loads((checkpoint / "state.json").read_text())
    state["state"]["reward"]["statistics"]["fingerprint"] = "f" * 16
    (checkpoint / "state.json").write_text(json.dumps(state))
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    entry = manifest["files"]["state.json"]
    entry["sha256"] = sha256_file(checkpoint / "state.json")
    entry["bytes"] = (checkpoint / "state.json").stat().st_size
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))


def test_oracle_gold_rewards_of_a_world_are_beside_the_reward_models(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    language = Language.draw(0)
    questions = [core(fact) for fact in language.facts[:12]]
    prompts = write_rows(tmp_path / "facts.jsonl", [{"prompt": question} for question in questions])
    world = tmp_path / "world"
    world.mkdir()
    (world / "world.json").write_text(json.dumps({"format": FORMAT, "seed": 0, "figures": {}}))
    out = tmp_path / "out"
    assert compare(runs["none"], runs["controls"], "--prompts", prompts, "--gold", world, "-o", out) == 0
    rows = [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]
    gold = World.open(world).gold([row["prompt"] for row in rows], [row["response"] for row in rows])
    assert [row["gold"] for row in rows] == gold.tolist()
    report = json.loads((out / "report.json").read_text())
    of = np.array([row["policy"] for row in rows])
    for arm in report["arms"]:
        measures = {row["key"]: row for row in arm["measures"]}
        assert measures["gold/reward"]["base"]["mean"] == pytest.approx(gold[of == "base"].mean())
        assert measures["gold/reward"]["trained"]["mean"] == pytest.approx(gold[of == arm["name"]].mean())
    assert "Gold reward" in (out / "report.html").read_text()


def test_bad_input_a_gold_reward_that_cannot_judge_the_prompts(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(runs["none"], "--prompts", runs["prompts"], "--gold", tmp_path, "-o", tmp_path / "o") == 2
    assert "holds no world" in capsys.readouterr().err
    (tmp_path / "world.json").write_text(json.dumps({"format": FORMAT, "seed": 0, "figures": {}}))
    assert compare(runs["none"], "--prompts", runs["prompts"], "--gold", tmp_path, "-o", tmp_path / "o") == 2
    assert "no prompt of this world" in capsys.readouterr().err


@pytest.mark.parametrize("arms", [("none", "controls"), ("controls", "par"), ("none", "controls", "par")])
def test_metamorphic_every_order_of_the_runs_gives_the_same_page(
    arms: tuple[str, ...], runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pages, said = [], []
    turned = itertools.permutations(arms) if len(arms) == 2 else (arms, arms[::-1], arms[1:] + arms[:1])
    for number, order in enumerate(turned):
        out = tmp_path / str(number)
        assert compare(*(runs[name] for name in order), "--prompts", runs["prompts"], "-o", out) == 0
        pages.append({path.name: path.read_bytes() for path in out.iterdir()})
        said.append(capsys.readouterr().out.splitlines()[:-1])
    assert all(page == pages[0] for page in pages)
    assert all(lines == said[0] for lines in said)
    report = json.loads(pages[0]["report.json"])
    assert [arm["name"] for arm in report["arms"]] == list(arms)
    assert len(report["headline"]) == len(arms)
    words = [{"none": "no control"}.get(name, name) for name in arms]
    assert all(line.startswith(f"{name} against ") for line, name in zip(said[0], words, strict=True))
    # the page has typographic minus signs, a terminal hyphens
    assert any(MINUS in sentence for sentence in report["headline"])
    assert said[0] == [sentence.replace(MINUS, "-") for sentence in report["headline"]]
    against = "no control" if "none" in arms else "the base policy"
    assert [f"against {against}: " in line for line in said[0][1:]] == [True] * (len(arms) - 1)


def test_a_run_is_the_placebo_that_its_manifest_says(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shuffled = Path(shutil.copytree(runs["controls"], tmp_path / "shuffled"))
    manifest = json.loads((shuffled / "manifest.json").read_text())
    assert manifest["role"] == "controlled"
    words = (shuffled, runs["none"], "--prompts", runs["prompts"], "--max-new-tokens", 4)
    (shuffled / "manifest.json").write_text(json.dumps({**manifest, "role": "placebo"}))
    assert compare(*words, "-o", tmp_path / "out") == 0
    assert [arm["role"] for arm in read(tmp_path / "out")["arms"]] == ["no control", "placebo"]
    assert "shuffled (placebo) against no control: " in capsys.readouterr().out
    (shuffled / "manifest.json").write_text(json.dumps({**manifest, "role": "shuffled"}))
    assert compare(*words, "-o", tmp_path / "again") == 2
    allowed = "'no control', 'controlled', 'placebo'"
    assert f"{shuffled}/manifest.json: role is 'shuffled'; it may be {allowed}" in capsys.readouterr().err


def test_oracle_under_par_the_reward_is_the_one_that_the_run_trained_on(
    runs: dict[str, Path], tmp_path: Path, tiny_sarm: RewardModel
) -> None:
    """Oracle: the trainer's own reward, as its checkpoint left it, pays what the policies answered."""
    prompts = write_rows(
        tmp_path / "prompts.jsonl", [{"prompt": prompt} for prompt in [*TRAINED[:4], *HELD_OUT[:4]]]
    )
    assert compare(runs["par"], "--prompts", prompts, "-o", tmp_path / "out") == 0
    arm = read(tmp_path / "out")["arms"][0]
    config, saved = read_run_config(runs["par"]), open_run(runs["par"]).checkpoint
    reward = build_trainer(config, runs["par"]).reward
    assert isinstance(reward, PolicyReward)
    reward.load_state(saved.tensors["controls"], saved.state["reward"])
    policy = Policy.load(config.policy, seed=config.training.seed)
    for name, when in (("base", "base"), ("par", "trained")):
        rows = answers(tmp_path / "out", name)
        texts = [row["prompt"] for row in rows]
        scored = tiny_sarm.score(
            texts, [row["response"] for row in rows], ended=[row["ended"] for row in rows]
        )
        asked = encode_prompts(policy, texts, texts, config.training.max_new_tokens)
        said, ended = tuple(row["response"] for row in rows), tuple(row["ended"] for row in rows)
        no_ids = ((),) * len(rows)  # the reward of scored answers does not look at them
        paid = reward.breakdown(scored, Rollout(tuple(asked), no_ids, said, ended))
        for key in ("reward/total", "reward/shaping"):
            assert measure(arm, key)[when]["mean"] == pytest.approx(paid.columns[key].mean(), abs=1e-6)
        # another number than with the mean for every prompt
        plain = reward.rule.breakdown(scored, reward.learner)
        assert abs(plain.columns["reward/total"].mean() - paid.columns["reward/total"].mean()) > 1e-4
    kinds = {row["kind"] for row in arm["ledger"]["controls"]}
    assert {"shaping", "penalty", "missing_end", "kl"} <= kinds
