"""Two real processes on gloo learn the same discriminator from the gathered batch, to the bit."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sarm_control.control import Controls, HumanKL
from sarm_control.engines.reward.gathering import gather
from sarm_control.latents import HumanBuffer
from sarm_control.reward_model.scored import Scored
from tests.control.batches import laws_with_kl, scored_from

PROCESSES, ROWS, WIDTH = 2, 48, 8

WORKER = f"""
import sys
import numpy as np
import torch.distributed as dist
from datetime import timedelta
from tests.control.test_two_processes import PROCESSES, run

rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{{folder}}/meeting", rank=rank, world_size={PROCESSES},
                        timeout=timedelta(seconds=60))
np.savez(f"{{folder}}/rank{{rank}}.npz", **run(rank))
dist.destroy_process_group()
"""


def run(rank: int | None) -> dict[str, np.ndarray]:
    """Three steps in which a rank scores its own rows and learns from everybody's; None: all rows alone."""
    rng = np.random.default_rng(0)
    policy, human = laws_with_kl(0.8, WIDTH, rng)
    controls = Controls(human_kl=HumanKL(0.5))
    buffer = HumanBuffer(tuple(range(WIDTH)), human.draw(300, rng), "head-a")
    state = controls.start(buffer, seed=3)
    totals = []
    for _ in range(3):
        parts = [scored_from(policy.draw(ROWS, rng)) for _ in range(PROCESSES)]
        own = Scored.concatenate(parts) if rank is None else parts[rank]
        totals.append(controls.shape(own, state).total)
        state.learn(gather(own))
        # evaluation between steps, of different answers on each process, must leave no trace
        controls.shape(
            scored_from(human.draw(10 if rank is None else 10 + rank, np.random.default_rng(9))), state
        )
    return {"totals": np.stack(totals), **state.state_dict()}


@pytest.mark.long
def test_the_discriminator_is_the_same_on_every_rank(tmp_path: Path) -> None:
    code = [sys.executable, "-W", "error", "-c", WORKER]
    root = Path(__file__).parents[2]
    workers = [
        subprocess.Popen([*code, str(rank), str(tmp_path)], cwd=root, stderr=subprocess.PIPE, text=True)
        for rank in range(PROCESSES)
    ]
    complaints = [worker.communicate(timeout=120)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * PROCESSES, complaints
    ranks = [dict(np.load(tmp_path / f"rank{rank}.npz")) for rank in range(PROCESSES)]
    alone = run(None)
    for name, value in alone.items():
        if name != "totals":
            assert ranks[0][name].tobytes() == ranks[1][name].tobytes() == value.tobytes(), name
    together = np.concatenate([ranks[0]["totals"], ranks[1]["totals"]], axis=1)
    np.testing.assert_allclose(together, alone["totals"], rtol=0, atol=1e-12)


def test_one_process_gathers_itself() -> None:
    scored = scored_from(np.eye(3))
    assert gather(scored) is scored
