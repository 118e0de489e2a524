"""The ledger of a run: property (hypothesis: the entries sum to the change), oracle by hand, the file."""

import resource
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sarm_control.control import Controls, Edit, Penalty
from sarm_control.control.training_reward import RewardBreakdown, RewardRule
from sarm_control.errors import OutputError, TrainingError
from sarm_control.reward_model.scored import Scored
from sarm_control.reward_model.sparse import SparseLatents
from sarm_control.training.monitor.ledger_file import (
    Entry,
    append_ledger,
    cut_ledger,
    ledger_entries,
    most_rewarded,
)
from tests.control.batches import attached_from

SIZE = 6
CONTROLS = Controls(
    edits=[Edit(1, max=0.5), Edit(4, scale=-2.0)],
    penalties=[
        Penalty(2, 0.3, 0.7),
        Penalty(2, 0.3, 0.2, form="hinge"),
        Penalty(0, 0.0, 1.5, form="sigmoid"),
    ],
)


def scored(rows: np.ndarray, head: np.ndarray, ended: np.ndarray) -> Scored:
    dense = np.asarray(rows, dtype=np.float32)
    latents = SparseLatents.from_rows([(np.flatnonzero(z), z[np.flatnonzero(z)]) for z in dense], SIZE)
    zeros = np.zeros(len(dense), dtype=np.int64)
    return Scored(latents.dot(head), latents, head, zeros, ended, zeros, "head")


@st.composite
def comparisons(draw: st.DrawFn) -> tuple[RewardBreakdown, RewardBreakdown]:
    """Two policies' answers under edits, penalties, the charge on a missing end, and perhaps PAR."""
    count = draw(st.integers(1, 8))
    seed, scale = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([0.01, 1.0, 1e4]))
    rng = np.random.default_rng(seed)
    head = (scale * rng.normal(size=SIZE)).astype(np.float32)
    par_sd = draw(st.sampled_from([None, 0.7]))
    rule = RewardRule(CONTROLS, missing_end=0.25, mean=0.1, scale=2.0, par_sd=par_sd)
    sides = []
    for _ in range(2):
        z = np.where(rng.random((count, SIZE)) < 0.5, rng.normal(size=(count, SIZE)), 0.0)
        sides.append(rule.breakdown(scored(z, head, rng.random(count) < 0.5)))
    return sides[0], sides[1]


@pytest.mark.long
@given(comparisons())
def test_property_the_entries_sum_to_the_change_of_the_mean_total(
    case: tuple[RewardBreakdown, RewardBreakdown],
) -> None:
    before, after = case
    entries = ledger_entries(before, after)
    change = after.columns["reward/total"].mean() - before.columns["reward/total"].mean()
    assert sum(entry.change for entry in entries) == pytest.approx(change, abs=1e-6)
    for side, rewards in (("before", before), ("after", after)):
        of_side = sum(getattr(entry, side) for entry in entries)
        assert of_side == pytest.approx(rewards.columns["reward/total"].mean(), abs=1e-6)


columns = st.lists(st.floats(-1e3, 1e3), min_size=5, max_size=5)


@pytest.mark.long
@given(st.lists(columns, min_size=4, max_size=4), st.lists(columns, min_size=4, max_size=4))
def test_property_whatever_the_parts_are_they_are_rows(
    first: list[list[float]], last: list[list[float]]
) -> None:
    """Also of a human-KL term, and of a reward function of one's own."""
    names = ("reward/model", "reward/human_kl", "reward/penalty/3", "reward/own")
    head = np.ones(SIZE, dtype=np.float32)
    sides = []
    for side in (first, last):
        parts = {name: np.array(values) for name, values in zip(names, side, strict=True)}
        latents = np.zeros((5, SIZE))
        latents[:, 2] = parts["reward/model"]
        total = {"reward/total": np.sum(list(parts.values()), axis=0)}
        sides.append(
            RewardBreakdown(total["reward/total"], parts | total, {}, scored(latents, head, np.ones(5, bool)))
        )
    entries = ledger_entries(*sides)
    assert [entry.term for entry in entries if entry.term != "latent"] == [
        "human_kl",
        "penalty",
        "own",
        "rounding",
    ]
    change = sides[1].columns["reward/total"].mean() - sides[0].columns["reward/total"].mean()
    assert sum(entry.change for entry in entries) == pytest.approx(change, abs=1e-6)


def test_oracle_by_hand() -> None:
    head = np.array([1.0, 0.0, -2.0, 0.0, 0.0, 0.5], dtype=np.float32)
    rule = RewardRule(Controls(penalties=[Penalty(2, 0.0, 0.25)]), missing_end=1.0)
    all_ended = np.array([True, True])
    before = rule.breakdown(scored(np.array([[1, 0, 0, 0, 0, 0], [3, 0, 0, 0, 0, 2]]), head, all_ended))
    after = rule.breakdown(scored(np.array([[4, 0, 0, 0, 0, 0], [4, 0, 1, 0, 0, 0]]), head, ~all_ended))
    entries = {(entry.term, entry.latent): entry for entry in ledger_entries(before, after)}
    first = entries["latent", 0]
    assert (first.weight, first.rate_before, first.rate_after) == (1.0, 1.0, 1.0)
    assert (first.before, first.after, first.change) == (2.0, 4.0, 2.0)
    assert entries["latent", 2].change == -1.0
    assert entries["latent", 5].change == -0.5
    assert entries["penalty", 2].change == -0.125
    assert entries["missing_end", None].change == -1.0
    assert entries["rounding", None].change == 0.0
    assert [entry.latent for entry in most_rewarded(ledger_entries(before, after))] == [0]


def test_oracle_the_residual_has_an_entry_of_its_own_and_its_penalty_too() -> None:
    head = np.array([1.0, -2.0, 0.5])
    penalty = Penalty("residual", tau=0.0, alpha=0.5, form="hinge")
    rule = RewardRule(Controls(penalties=[penalty]))
    first = attached_from(np.array([[1, 0, 0], [0, 1, 0]]), np.array([0.0, 1.0]), head=head, constant=4.0)
    last = attached_from(np.array([[2, 0, 0], [0, 0, 2]]), np.array([2.0, 4.0]), head=head, constant=4.0)
    entries = {
        (entry.term, entry.latent): entry for entry in ledger_entries(*map(rule.breakdown, (first, last)))
    }
    residual = entries["residual", None]
    assert (residual.before, residual.after, residual.change) == (0.5, 3.0, 2.5)
    constant = entries["constant", None]
    assert (constant.before, constant.after, constant.change) == (4.0, 4.0, 0.0)
    # half of what is above 0: 0 and 0.5 before, 1 and 2 after
    assert entries["residual_penalty", None].change == pytest.approx(-1.25)
    assert entries["rounding", None].change == pytest.approx(0.0, abs=1e-6)
    change = rule.breakdown(last).columns["reward/total"].mean()
    change -= rule.breakdown(first).columns["reward/total"].mean()
    assert sum(entry.change for entry in entries.values()) == pytest.approx(change, abs=1e-6)


def ledger(seed: int) -> list[Entry]:
    rng = np.random.default_rng(seed)
    head, rule = rng.normal(size=SIZE).astype(np.float32), RewardRule(CONTROLS)
    sides = [rule.breakdown(scored(rng.normal(size=(4, SIZE)), head, np.ones(4, bool))) for _ in range(2)]
    return ledger_entries(*sides)


def test_a_run_that_goes_back_writes_the_same_bytes(tmp_path: Path) -> None:
    whole, resumed = tmp_path / "whole.parquet", tmp_path / "resumed.parquet"
    for step in (2, 4, 6):
        append_ledger(whole, step, ledger(step))
    for step in (2, 4, 6):
        append_ledger(resumed, step, ledger(step if step == 2 else 99))
    cut_ledger(resumed, 3)
    assert set(pq.read_table(resumed)["step"].to_pylist()) == {2}
    for step in (4, 6):
        append_ledger(resumed, step, ledger(step))
    assert resumed.read_bytes() == whole.read_bytes()
    append_ledger(resumed, 6, ledger(6))
    assert resumed.read_bytes() == whole.read_bytes()


def test_nothing_is_left_of_a_ledger_cut_back_to_the_beginning(tmp_path: Path) -> None:
    path = tmp_path / "ledger.parquet"
    cut_ledger(path, 0)
    append_ledger(path, 2, ledger(0))
    cut_ledger(path, 0)
    assert not list(tmp_path.iterdir())


def test_a_ledger_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ledger.parquet"
    append_ledger(path, 2, ledger(0))
    whole = path.read_bytes()
    for content in (b"", b"no ledger at all", whole[:-9], b"PAR1" + bytes(40) + b"PAR1"):
        path.write_bytes(content)
        with pytest.raises(
            TrainingError, match=r"ledger\.parquet is not readable: it is cut short"
        ) as caught:
            cut_ledger(path, 2)
        assert f"move it away (mv {path} {path}.bad)" in str(caught.value.hint)
        assert path.read_bytes() == content


def test_a_ledger_that_may_not_grow_is_named_and_stays(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk: both fail in the middle of a write."""
    path = tmp_path / "ledger.parquet"
    append_ledger(path, 2, ledger(0))
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (256, hard))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*ledger\.parquet: File too large"):
            append_ledger(path, 4, ledger(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [file.name for file in tmp_path.iterdir()] == ["ledger.parquet"]
    assert path.read_bytes() == before


def test_a_ledger_without_latents_is_refused() -> None:
    column = {"reward/total": np.zeros(1)}
    with pytest.raises(ValueError, match="needs the latents"):
        ledger_entries(RewardBreakdown(np.zeros(1), column), RewardBreakdown(np.zeros(1), column))
