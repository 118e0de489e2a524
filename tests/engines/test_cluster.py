"""examples/cluster: the arithmetic of its sizes, its tables and its deployment file (property, golden)."""

import importlib
import importlib.util
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sarm_control.server import ray
from sarm_control.server.ray.settings import RewardSettings
from tests.outside import load

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "examples" / "cluster"
SIZING = CLUSTER / "sizing.py"


sizing = load(SIZING)
rate = st.floats(100, 1e6)
rates = st.builds(sizing.Rates, rate, rate, rate)
lengths = st.builds(sizing.Lengths, st.integers(1, 4000), st.integers(1, 4000))


@given(st.integers(3, 40), rates, lengths)
def test_all_gpus_are_used_and_no_other_split_gives_more(gpus: int, speed: Any, size: Any) -> None:
    split = sizing.best_split(gpus, speed, size)
    assert split.gpus == gpus
    assert min(split[:3]) >= 1
    cost = size.answer / speed.rollout + size.both / speed.reward + size.both / speed.policy
    assert split.answers <= gpus / cost * (1 + 1e-9)  # what a perfect division would give
    for others in ((1, 1, gpus - 2), (1, gpus - 2, 1), (gpus - 2, 1, 1)):
        assert split.answers >= min(sizing.answers_of(others, speed, size))


@given(st.integers(3, 40), rates, lengths)
def test_a_faster_reward_never_costs_answers(gpus: int, speed: Any, size: Any) -> None:
    faster = speed._replace(reward=speed.reward * 2)
    assert sizing.best_split(gpus, faster, size).answers >= sizing.best_split(gpus, speed, size).answers


@given(st.integers(20, 40), rates, lengths)
def test_the_reward_keeps_pace_with_the_rollouts(gpus: int, speed: Any, size: Any) -> None:
    split = sizing.best_split(gpus, speed, size)
    tokens = split.answers * size.answer
    assert sizing.reward_gpus(tokens, speed.reward, size) <= split.reward * (1 + 1e-9)


def test_the_example_in_words() -> None:
    """92,500 rollout tokens a second, 768 tokens read for 512 written, 50,000 scored a second."""
    assert sizing.reward_gpus(92_500, 50_000, sizing.Lengths(256, 512)) == pytest.approx(2.775)


@pytest.mark.parametrize("speed", [20_000, 50_000, 100_000])
def test_the_tables_are_what_the_script_prints(speed: int) -> None:
    done = subprocess.run(
        [sys.executable, str(SIZING), "--reward-tokens-per-second", str(speed)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"Assumed `s = {speed:,}`:\n\n{done.stdout}" in (CLUSTER / "README.md").read_text()


def test_the_rate_of_a_model_is_measured() -> None:
    assert sizing.measure("lab", sizing.Lengths(20, 20), answers=8) > 100


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--reward-tokens-per-second is not given; --measure MODEL measures it"),
        (["--reward-tokens-per-second", "0"], "rates have to be numbers above 0"),
        (["--reward-tokens-per-second", "nan"], "rates have to be numbers above 0"),
        (["--reward-tokens-per-second", "9", "--answer-tokens", "0"], "an answer has at least 1 token"),
        (["--measure", "lab", "--answer-tokens", "0"], "an answer has at least 1 token"),
        (["--reward-tokens-per-second", "9", "--gpus", "2"], "2 GPUs are too few"),
    ],
)
def test_what_cannot_be_sized_says_so(words: list[str], said: str) -> None:
    ended = subprocess.run([sys.executable, str(SIZING), *words], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert said in ended.stderr


def test_the_deployment_file_names_what_exists() -> None:
    (application,) = yaml.safe_load((CLUSTER / "reward.yaml").read_text())["applications"]
    module, _, name = application["import_path"].partition(":")
    assert (module, getattr(ray, name)) == (ray.__name__, ray.reward_deployment)
    settings = RewardSettings(**application["args"])
    assert settings.replicas * settings.gpus == 3


def test_the_recipes_share_out_what_the_formula_says() -> None:
    """OpenRLHF has GPUs for each part, verl rolls out and trains on the same; both ask the same replicas."""
    (application,) = yaml.safe_load((CLUSTER / "reward.yaml").read_text())["applications"]
    replicas = application["args"]["replicas"] * application["args"]["gpus"]
    split = sizing.best_split(64, sizing.Rates(2500, 50_000, 6000), sizing.Lengths(256, 512), 8)
    openrlhf, verl = ((CLUSTER / name).read_text() for name in ("openrlhf.sh", "verl.sh"))
    assert f'"${{ROLLOUTS:-{split.rollout}}}"' in openrlhf
    assert f'"${{POLICY_NODES:-{split.policy // 8}}}"' in openrlhf
    assert split.reward == replicas

    colocated, scored = 512 / 2500 + 768 / 6000, 768 / 50_000
    (nodes,) = re.findall(r"NODES:-(\d+)", verl)
    assert math.ceil(8 * int(nodes) * scored / colocated) == replicas
    assert f"{nodes} machines that roll out and train in turn, and {replicas} GPUs for rewards" in verl
    readme = " ".join((CLUSTER / "README.md").read_text().split())
    assert f"{colocated:.4f} : {scored:.4f}, or {colocated / scored:.1f} : 1" in readme
    assert (
        f"56 / {colocated / scored:.1f} = {56 * scored / colocated:.1f}, so the {replicas} replicas" in readme
    )


def test_the_sizes_of_a_sarm_are_those_of_its_shape() -> None:
    """Llama 3.1 8B cut at layer 16, 65,536 latents."""
    hidden, inner, keys, vocabulary, latents = 4096, 14_336, 1024, 128_256, 65_536
    layers = 16 * (2 * hidden * hidden + 2 * hidden * keys + 3 * hidden * inner)
    trunk, autoencoder = layers + vocabulary * hidden, 2 * latents * hidden
    assert (trunk + autoencoder) / 1e9 == pytest.approx(4.55, abs=0.005)  # what the checkpoint holds
    readme = " ".join((CLUSTER / "README.md").read_text().split())
    assert f"16 * {layers / 16e6:.1f}e6 + {vocabulary * hidden / 1e6:.0f}e6" in readme
    assert f"{trunk / 1e9:.2f}e9 * 2 = {trunk * 2 / 1e9:.1f} GB" in readme
    assert f"= {autoencoder * 4 / 1e9:.1f} GB | {(trunk * 2 + autoencoder * 4) / 1e9:.1f} GB" in readme
    assert f"2 * {layers / 1e9:.2f}e9 = {2 * layers / 1e9:.1f} GFLOP" in readme
    assert f"score {round(400e12 / (2 * layers), -3):,.0f} tokens a second" in readme


def test_the_readme_names_files_that_exist() -> None:
    named = set(re.findall(r"(?:examples/cluster|benchmarks)/[\w.]+", (CLUSTER / "README.md").read_text()))
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_former_place_of_the_deployment_still_gives_it_with_a_warning() -> None:
    former = importlib.import_module("sarm_control.engines.ray")
    with pytest.warns(DeprecationWarning, match=r"is sarm_control\.server\.ray\.reward_deployment now"):
        assert former.reward_deployment is ray.reward_deployment
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = former.no_such_name
