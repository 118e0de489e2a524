"""Crash: one of two processes dies by SIGKILL; what two go on with is the uninterrupted run to the byte."""

import os
import signal
import sys
from pathlib import Path

import pytest

from sarm_control.cli import main
from tests.killing import Kill, counting_calls, differences
from tests.training.together import launch

RUN = """
policy: {{model: {policy}, lora: {{rank: 2}}}}
reward: {{model: {sarm}, penalties: ["5:tau=q0.5,alpha=0.5sd"]}}
data: {{prompts: {prompts}}}
training:
  {{prompts_per_step: 3, answers_per_prompt: 2, max_new_tokens: 6, micro_batch: 2, reference_answers: 8,
   steps: 2}}
checkpoints: {{every: 1}}
evaluation: {{every: 0}}
"""
MODULE = "tests.training.test_processes_killed"
KILLED = -signal.SIGKILL


@pytest.fixture(scope="module")
def words(
    tiny_policy_folder: Path, tiny_sarm_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, ...]:
    """The command line of a run that was done once without a kill, but for where it goes."""
    folder = tmp_path_factory.mktemp("whole")
    prompts, run = folder / "prompts.jsonl", folder / "run.yaml"
    prompts.write_text("".join(f'{{"prompt": "open the {what} ?"}}\n' for what in ("door", "lock", "bread")))
    run.write_text(RUN.format(policy=tiny_policy_folder, sarm=tiny_sarm_folder, prompts=prompts))
    ended = launch("0", "none", "0", str(run), "-o", str(folder / "run"), module=MODULE)
    assert [process.code for process in ended] == [0, 0], ended
    return (str(run), "-o", str(folder / "run"))


@pytest.mark.minutes
@pytest.mark.parametrize(("rank", "place", "at"), [(0, "tensor", 3)])
def test_a_run_goes_on_after_one_process_was_killed(
    rank: int, place: str, at: int, words: tuple[str, ...], tmp_path: Path
) -> None:
    run, whole = tmp_path / "run", Path(words[-1])
    ended = launch(str(rank), place, str(at), *words[:-1], str(run), module=MODULE)
    assert ended[rank].code == KILLED
    assert ended[1 - rank].code == 2, ended
    assert "another of the launched processes ended" in ended[1 - rank].errors
    again = launch("0", "none", "0", "-o", str(run), "--resume", module=MODULE)
    assert [process.code for process in again] == [0, 0], again
    assert differences(run, whole) == []


if __name__ == "__main__":
    rank, place, at, *rest = sys.argv[1:]
    kill = Kill(place, int(at)) if os.environ["RANK"] == rank and place != "none" else None
    with counting_calls(kill):
        sys.exit(main(["train", *rest]))
