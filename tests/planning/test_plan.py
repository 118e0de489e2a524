"""What a plan says of weights and bytes (oracle: the models themselves), how it grows (metamorphic), and the
messages of a run that will not fit."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sarm_control.cli import main
from sarm_control.errors import ConfigError
from sarm_control.planning import MACHINES, MemoryTooSmall, ScoringRequest, machine, plan_scoring
from sarm_control.planning.linear import at_depth
from sarm_control.planning.live_memory import bytes_of, counted, onto_device
from sarm_control.planning.machines import growth, peak_bytes
from sarm_control.planning.models import reward_shape
from sarm_control.planning.plan import PARTS
from sarm_control.planning.probe import probed_pass_memory
from sarm_control.planning.training_memory import (
    Lengths,
    latent_counts,
    policy_counts,
    policy_counts_at,
    trunk_counts,
)
from sarm_control.planning.training_plan import TrainingShape, _plan, _with, plan_training, shape_of
from sarm_control.reward_model import RewardModel
from sarm_control.training import Policy, RunConfig
from tests.reward_model.classifiers import CONFIGS, make_classifier, save

H100 = MACHINES["h100"]
CPU = replace(H100, kind="cpu", half=False, program=0)


def config(**training: Any) -> RunConfig:
    return RunConfig.model_validate({"training": {"max_new_tokens": 16, **training}})


@pytest.fixture(scope="module")
def shape() -> TrainingShape:
    return shape_of(config(), CPU)


@pytest.mark.long
def test_oracle_weights_and_bytes_are_those_of_the_loaded_models(shape: TrainingShape) -> None:
    plan = _plan(shape, CPU)
    policy, model = Policy.load(shape.config.policy), RewardModel.from_pretrained("lab")
    _ = model.autoencoder.decoder  # it is read from its file when the monitors of a run ask for it
    trained = sum(w.numel() for w in (*policy.trainable().values(), *policy.critic_weights().values()))
    adapters = sum(w.numel() for name, w in policy.causal.named_parameters() if "lora_" in name)
    assert plan.parameters == {
        "policy": sum(w.numel() for w in policy.causal.parameters()) - adapters,
        "trained": trained,
        "reward trunk": sum(w.numel() for w in model.trunk.parameters()),
        "dictionary": sum(w.numel() for w in model.autoencoder.parameters()),
    }
    saving = plan.phases["update"]
    frozen = bytes_of(policy.causal) - 4 * adapters
    assert saving["weights"] == frozen + bytes_of(model.trunk)
    assert saving["adapters"] == 4 * trained
    assert saving["optimizer"] == 12 * trained
    assert plan.phases["rollout"]["latents"] == bytes_of(model.autoencoder)


@pytest.mark.long
def test_oracle_the_cache_has_keys_and_values_of_every_token(shape: TrainingShape) -> None:
    layers, heads, size = 3, 4, 24
    found = _plan(shape, CPU).phases["rollout"]["kv_cache"]
    rows = shape.config.training.answers_per_step
    assert found == 2 * 4 * layers * heads * size * rows * shape.lengths.longest


def test_oracle_bytes_that_are_counted_are_those_that_autograd_keeps() -> None:
    """Three products of 8 x 16 with their inputs and the outputs of tanh."""
    made = nn.Sequential(nn.Linear(16, 16, device="meta"), nn.Tanh(), nn.Linear(16, 4, device="meta"))
    with counted() as live:
        onto_device(made)
        assert live.live == bytes_of(made) == 4 * (16 * 16 + 16 + 16 * 4 + 4)
        before = live.mark()
        out = made(torch.empty(8, 16))
        # the input is gone with nobody to keep it, as weights that are trained keep it for their gradient
        assert live.live - before == 4 * 8 * (16 + 16 + 4)
        out.sum().backward()
        del out
        assert live.live - before == bytes_of(made)


def test_oracle_shared_weights_stay_shared_and_count_once() -> None:
    first, second = nn.Linear(8, 8, bias=False, device="meta"), nn.Linear(8, 8, bias=False, device="meta")
    second.weight = first.weight
    with counted() as live:
        pair = onto_device(nn.Sequential(first, second))
        assert pair[0].weight is pair[1].weight
        assert live.live == bytes_of(pair) == 4 * 64


@pytest.mark.long
def test_oracle_a_deep_model_is_what_a_shallow_one_says(shape: TrainingShape) -> None:
    """Three layers from one and two, beside three counted as they are."""
    asked = shape.policy, shape.reward, shape.lengths
    assert shape.policy.layers == 3
    found, whole = policy_counts(*asked), policy_counts_at(*asked, 3)
    assert found == pytest.approx(whole, rel=0.01)
    exact = [name for name in whole if name.startswith("held/") or name == "rollout/kv_cache"]
    assert [found[name] for name in exact] == [whole[name] for name in exact]
    assert at_depth([3, 2], lambda a, b: {"x": 5 + 2 * a + 7 * b}) == {"x": 25}
    assert at_depth([1, 1], lambda a, b: {"x": 5 + 2 * a + 7 * b}) == {"x": 14}


def test_oracle_of_several_timings_the_least_of_each_depth_counts() -> None:
    """One layer takes 5 and two take 7, so that ten take 23; now and then a timing is too long by 1 or 2."""
    too_long = iter([1.0, 0.0, 0.0, 2.0])
    asked: list[int] = []

    def timed(layers: int) -> dict[str, float]:
        asked.append(layers)
        return {"pass": 3 + 2 * layers + next(too_long)}

    assert at_depth([10], timed, times=2) == {"pass": 23}
    # in turn: a pace that changes slowly meets both
    assert asked == [1, 2, 1, 2]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process's peak again and again")
def test_oracle_what_work_takes_is_its_peak_beyond_what_was_there() -> None:
    kept = torch.ones(8 << 20)  # 32 MiB that were there before

    def work() -> None:
        for mib in (48, 16):
            torch.ones(mib << 18)

    taken = growth(work)
    assert taken is not None
    # the system counts pages in lots, and what a library allocates on its first call is small
    assert 47 << 20 <= taken < 56 << 20
    assert kept.sum() == 8 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process's peak again and again")
def test_metamorphic_four_times_the_rows_take_more_memory_than_is_counted_for_one() -> None:
    shape = reward_shape("lab")
    small, large = (probed_pass_memory(shape, [(rows, 64)], "cpu")[0] for rows in (64, 256))
    assert small is not None
    assert large is not None
    assert large > 2 * small > 0
    assert probed_pass_memory(shape, [(1, 1)], "cuda") == (None, None)


@pytest.mark.long
def test_metamorphic_twice_the_rows_latents_and_length(shape: TrainingShape) -> None:
    lengths = Lengths(16, 16, 16, 16)
    small = policy_counts_at(_sized(shape, micro_batch=2), shape.reward, lengths, 1)
    large = policy_counts_at(_sized(shape, micro_batch=4), shape.reward, lengths, 1)
    ratio = large["update/kept"] / small["update/kept"]
    assert 1.9 < ratio <= 2.0
    longer = policy_counts_at(_sized(shape, micro_batch=2), shape.reward, Lengths(32, 32, 32, 32), 1)
    # attention grows with the square, everything else with the length
    assert 2.0 < longer["update/kept"] / small["update/kept"] < 4.0
    assert longer["rollout/kv_cache"] / small["rollout/kv_cache"] == 2
    assert {name: large[name] for name in large if name.startswith("held/")} == {
        name: small[name] for name in small if name.startswith("held/")
    }
    one, two = (latent_counts(replace(shape.reward, latents=n, k=6), 8) for n in (4_096, 8_192))
    assert two["parameters"] - one["parameters"] == 4_096 * (2 * shape.reward.width + 1)
    assert 1.9 < two["pass"] / one["pass"] <= 2.0
    assert trunk_counts(shape.reward, 4, 32)["pass"] < trunk_counts(shape.reward, 8, 32)["pass"]


def _sized(shape: TrainingShape, **values: Any) -> Any:
    return _with(shape, _changed(shape, **values)).policy


def _changed(shape: TrainingShape, **values: Any) -> RunConfig:
    training = shape.config.training.model_copy(update=values)
    return shape.config.model_copy(update={"training": training})


@pytest.mark.long
def test_metamorphic_a_critic_of_its_own_adds_weights_and_activations(shape: TrainingShape) -> None:
    lengths = Lengths(16, 16, 16, 16)
    plain, *critics = (
        policy_counts_at(_sized(shape, value=value), shape.reward, lengths, 1)
        for value in ("head", "adapter", "model")
    )
    for critic in critics:
        assert critic["held/trained"] > plain["held/trained"]
        assert critic["update/kept"] > 1.4 * plain["update/kept"]


@pytest.mark.long
def test_a_run_that_does_not_fit_says_what_to_change() -> None:
    small = replace(CPU, name="a small machine", memory=2**20)
    wide = RunConfig.model_validate({"training": {"max_new_tokens": 16, "micro_batch": 32}})
    plan = plan_training(wide, where=small)
    assert not plan.fits
    with pytest.raises(
        MemoryTooSmall, match=r"the run needs about \d+ MiB .*a small machine has \d+ MiB"
    ) as e:
        plan.refuse_too_large("--ignore-memory")
    assert "--ignore-memory" in str(e.value.hint)
    assert any("it will not fit" in line for line in plan.lines())
    assert plan.changes
    assert all(peak < plan.peak for _, peak in plan.changes)
    assert replace(plan, machine=replace(small, memory=None)).fits
    replace(plan, machine=replace(small, memory=2**40)).refuse_too_large("--ignore-memory")


@pytest.mark.long
def test_scoring_is_planned_by_the_lengths_of_its_data() -> None:
    known = plan_scoring(ScoringRequest("latents", "lab", (Path("lab:audit"),)), CPU)
    assumed = plan_scoring(ScoringRequest("serve", "lab"), CPU)
    assert known.total_seconds is not None
    assert assumed.total_seconds is None
    assert known.disk["tables"] > 0
    model = RewardModel.from_pretrained("lab")
    decoder = model.trunk.hidden_size * model.config.latents
    assert known.phases["scoring"]["latents"] == bytes_of(model.autoencoder)
    assert known.parameters["dictionary"] == sum(w.numel() for w in model.autoencoder.parameters()) + decoder
    twice = plan_scoring(ScoringRequest("serve", "lab", workers=2), CPU)
    assert twice.peak == 2 * assumed.peak
    with pytest.raises(ConfigError, match="lab has 24 latents already") as error:
        plan_scoring(ScoringRequest("attach", "lab", latents=512), CPU)
    assert "a head of its own" in str(error.value.hint)


@pytest.mark.long
def test_attaching_is_planned_with_the_training_of_its_dictionary(tmp_path: Path) -> None:
    model = str(save(make_classifier(CONFIGS["llama"]()), tmp_path / "rm"))
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "why ?", "response": "no . one two ."}\n' * 8, encoding="utf-8")

    def asked(latents: int, steps: int | None) -> ScoringRequest:
        return ScoringRequest("attach", model, (rows,), latents=latents, steps=steps)

    few, more, wide = (plan_scoring(asked(*sizes), CPU) for sizes in ((64, 10), (64, 30), (128, 10)))
    width = reward_shape(model).width
    # a step of 1,024 states: encode and decode, and back to both weights and the latents
    assert few.seconds["dictionary"] == 2 * 1024 * 5 * 64 * width / CPU.flops
    assert wide.seconds["dictionary"] == 2 * few.seconds["dictionary"]
    assert few.total_seconds is not None
    assert more.total_seconds == pytest.approx(few.total_seconds + 20 * few.seconds["dictionary"])
    assert plan_scoring(asked(64, None), CPU).total_seconds == pytest.approx(
        few.total_seconds + 1990 * few.seconds["dictionary"]
    )
    # one state where the reward is read, and two at ends of sentences
    assert few.disk["states"] == 8 * 3 * 4 * width
    pytest.importorskip("sae_lens")
    timed = plan_scoring(asked(64, 10), CPU, probe=True, probe_seconds=0.3)
    assert set(timed.seconds) == {"scoring", "dictionary"}
    assert all(seconds > 0 for seconds in timed.seconds.values())
    assert "timed here" in timed.timed_by
    assert timed.total_seconds == pytest.approx(timed.seconds["scoring"] + 10 * timed.seconds["dictionary"])


@pytest.mark.long
def test_a_pass_is_timed_where_it_is_asked_for() -> None:
    request = ScoringRequest("latents", "lab", (Path("lab:audit"),), batch_tokens=256)
    rough, timed = (plan_scoring(request, CPU, probe=probe, probe_seconds=0.3) for probe in (False, True))
    assert "rough" in rough.timed_by
    assert "timed here" in timed.timed_by
    assert timed.seconds["scoring"] > 0
    assert timed.total_seconds is not None
    # what a pass was measured to take has what is counted in it, and more; all else is counted alike
    for phase, parts in rough.phases.items():
        assert timed.phases[phase].keys() == parts.keys()
        for part, bytes_ in parts.items():
            measured = timed.phases[phase][part]
            assert (
                measured >= bytes_ if part in ("activations", "latents", "allocator") else measured == bytes_
            )


def test_machines_by_name_and_no_other() -> None:
    assert machine("a100").memory == 80 * 2**30
    with pytest.raises(ConfigError, match="no machine is called h900") as error:
        machine("h900")
    assert "h100" in str(error.value.hint)


def test_oracle_the_peak_of_a_process_is_in_bytes() -> None:
    """Linux counts it in KiB, macOS in bytes (getrusage(2) of both)."""
    assert peak_bytes(200_000, "linux") == 200_000 * 1024
    assert peak_bytes(200_000_000, "darwin") == 200_000_000


@pytest.mark.long
def test_the_command_prints_the_plan_and_writes_it(tmp_path: Any, capsys: Any) -> None:
    file = tmp_path / "plan.json"
    assert main(["plan", "train", "--for", "h100", "--json", str(file)]) == 0
    out, err = capsys.readouterr()
    assert "memory: " in out
    assert "next: sarm train" in err
    said = json.loads(file.read_text())
    memory = said["memory"]
    assert memory["peak_mib"] == pytest.approx(sum(memory[f"{part}_mib"] for part in PARTS))
    assert said["seconds_a_step"] > 0
    assert said["disk_mib"] > 0
    assert said["fits"] is True


@pytest.mark.long
def test_the_command_refuses_what_it_cannot_plan(tmp_path: Any, capsys: Any) -> None:
    for words, message in (
        (["nothing.yaml"], "nothing.yaml is neither a file nor a kind of work"),
        (["train", "--probe", "--for", "h100"], "--probe times this machine, and --for h100 names another"),
        (["train", str(tmp_path)], "a training run is planned from its YAML file alone"),
        (["train", "--answer-tokens", "100"], "answers of 100 tokens on average"),
        (["attach"], "lab has 24 latents already"),
    ):
        assert main(["plan", *words]) == 2
        assert message in capsys.readouterr().err


def test_a_probe_times_every_phase(shape: TrainingShape) -> None:
    from sarm_control.planning.probe import probed_seconds

    found = probed_seconds(shape.policy, shape.reward, shape.lengths, "cpu", seconds=0.5)
    assert set(found) == {"rollout", "reward", "logprobs", "update"}
    assert all(seconds > 0 for seconds in found.values())


def test_the_reward_model_is_read_without_its_weights() -> None:
    """Oracle: the loaded model."""
    found = reward_shape("lab")
    model = RewardModel.from_pretrained("lab")
    assert (found.layers, found.width, found.latents, found.k) == (
        len(model.trunk.layers),
        model.trunk.hidden_size,
        model.config.latents,
        model.config.k,
    )
    assert found.dtype == next(model.trunk.parameters()).dtype


def test_oracle_an_encoder_in_half_precision_takes_half_the_bytes(tmp_path: Path) -> None:
    model = RewardModel.from_pretrained("lab:attached")
    wide = reward_shape(model.save_pretrained(tmp_path / "wide"))
    model.autoencoder.hold_encoder(torch.float16)
    narrow = reward_shape(model.save_pretrained(tmp_path / "narrow"))
    assert (wide.encoder, narrow.encoder) == (torch.float32, torch.float16)
    assert replace(narrow, name=wide.name, encoder=wide.encoder) == wide
    held = [latent_counts(one, 8) for one in (wide, narrow)]
    assert held[0]["weights"] - held[1]["weights"] == 2 * model.autoencoder.encoder.weight.numel()
    assert held[1]["parameters"] == held[0]["parameters"]
