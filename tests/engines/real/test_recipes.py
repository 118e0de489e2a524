"""The launch scripts of examples/cluster against the engines' own parsers (contract)."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engines.real.environments import ROOT

pytestmark = pytest.mark.engines
CLUSTER = ROOT / "examples" / "cluster"


def launched(script: str, folder: Path) -> list[str]:
    """The words behind `--` that the script hands to `ray job submit`."""
    ray = folder / "ray"
    ray.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    ray.chmod(0o755)
    path = f"{folder}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ended = subprocess.run(
        [str(CLUSTER / script)], capture_output=True, text=True, check=True, env={**os.environ, "PATH": path}
    )
    words: list[str] = json.loads(ended.stdout)
    assert words[:2] == ["job", "submit"]
    return words[words.index("--") + 1 :]


def parser_of(source: Path) -> str:
    """The statements of OpenRLHF's main that build its parser; the rest of the file needs CUDA."""
    main = next(node for node in ast.parse(source.read_text()).body if isinstance(node, ast.If))
    kept = []
    for statement in main.body:
        if "parse_args" in ast.unparse(statement):
            break
        kept.append(ast.unparse(statement))
    return "\n".join(["import argparse", "from datetime import datetime", *kept])


def test_openrlhf_knows_every_option(pythons: Callable[[str], Path], tmp_path: Path) -> None:
    words = launched("openrlhf.sh", tmp_path)
    assert words[:3] == ["python3", "-m", "openrlhf.cli.train_ppo_ray"]
    python = pythons("openrlhf")
    (source,) = (python.parents[1] / "lib").glob("*/site-packages/openrlhf/cli/train_ppo_ray.py")
    script = tmp_path / "parse.py"
    script.write_text(
        f"{parser_of(source)}\nimport json\nparser.allow_abbrev = False\n"
        "print(json.dumps(vars(parser.parse_args()), default=str))\n"
    )
    ended = subprocess.run(
        [str(python), str(script), *words[3:]], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    found = json.loads(ended.stdout)
    assert found["reward.remote_url"].endswith("engines/openrlhf.py")
    assert found["reward.clip_range"] == [-1000.0, 1000.0]
    gpus = found["actor.num_nodes"] * found["actor.num_gpus_per_node"] + found["vllm.num_engines"]
    assert gpus + 3 == 64
    samples = found["rollout.n_samples_per_prompt"] * found["rollout.batch_size"]
    assert samples % (found["actor.num_nodes"] * found["actor.num_gpus_per_node"]) == 0


def test_verl_knows_every_key(pythons: Callable[[str], Path], tmp_path: Path) -> None:
    words = launched("verl.sh", tmp_path)
    assert words[:3] == ["python3", "-m", "verl.trainer.main_ppo"]
    script = tmp_path / "compose.py"
    script.write_text(
        "import sys, json\nfrom hydra import compose, initialize_config_module\n"
        "from verl.trainer.ppo.reward import resolve_reward_manager_cls\n"
        "with initialize_config_module('verl.trainer.config', version_base=None):\n"
        "    config = compose('ppo_trainer', overrides=sys.argv[1:])\n"
        "print(json.dumps([resolve_reward_manager_cls(config).__name__, config.reward.reward_kwargs.sarm.url,"
        " config.data.return_raw_chat, config.trainer.nnodes * config.trainer.n_gpus_per_node,"
        " config.data.train_batch_size * config.actor_rollout_ref.rollout.n]))\n"
    )
    command = [str(pythons("verl")), str(script), *words[3:]]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    manager, url, chat, gpus, samples = json.loads(ended.stdout.splitlines()[-1])
    assert (manager, url, chat) == ("SarmRewardManager", "http://127.0.0.1:8000", True)
    assert gpus + 8 == 64
    assert samples % gpus == 0
