"""Oracle tests of the algebra of an attached dictionary, its folder, and what is refused."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sarm_control.control import Edit, apply_edits, edit_delta, edited_rewards
from sarm_control.errors import ConfigError, ModelError
from sarm_control.reward_model import (
    AttachedAutoencoder,
    RewardModel,
    StateHead,
    autoencoder,
    describe,
    latents_of,
    read_head,
    read_model_fingerprint,
)
from sarm_control.reward_model import attached as attached_module
from tests.present import present
from tests.reward_model.classifiers import CONFIGS, make_classifier, random_rows, save

LATENTS, K = 48, 6


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> RewardModel:
    """A classifier with a bias."""
    folder = tmp_path_factory.mktemp("attached") / "rm"
    return RewardModel.from_pretrained(save(make_classifier(CONFIGS["qwen3"](), bias=True), folder))


def make_dictionary(base: RewardModel, *, size: int = 32) -> AttachedAutoencoder:
    """A dictionary with random weights that centres and scales the states as the fit will."""
    states = base.score_encoded(random_rows(20, seed=5), keep_states=True).states
    assert states is not None
    torch.manual_seed(3)
    mean, scale = torch.from_numpy(states.mean(axis=0))[:size], float(states.std())
    made = AttachedAutoencoder(mean, scale, LATENTS, K)
    with torch.no_grad():
        made.pre_bias.normal_(std=0.2)
        made.latent_bias.normal_(std=0.2)
    return made


@pytest.fixture(scope="module")
def attached(base: RewardModel) -> RewardModel:
    return base.attach(make_dictionary(base))


def test_rewards_stay_the_reward_models_own_to_the_bit(base: RewardModel, attached: RewardModel) -> None:
    rows = random_rows()
    bare, found = base.score_encoded(rows), attached.score_encoded(rows)
    assert found.rewards.tobytes() == bare.rewards.tobytes()
    assert (found.kind, bare.kind, attached.config.latents) == ("attached", "classifier", LATENTS)
    assert np.diff(found.latents.indptr).tolist() == [K] * len(rows)


def test_the_parts_are_those_of_the_equations(base: RewardModel, attached: RewardModel) -> None:
    """`x = m + s (b + sum z d) + e`, `r = w . x + c`, in float64 from the parts themselves."""
    scored = attached.score_encoded(random_rows(), keep_states=True)
    made, own = attached.autoencoder, base.head.own
    assert isinstance(made, AttachedAutoencoder)
    assert own is not None
    assert scored.states is not None
    states, weight = scored.states.astype(np.float64), own.weight.astype(np.float64)
    scale, mean = float(made.scale), made.mean.double().numpy()
    decoder, offset = made.decoder.weight.detach().double().numpy(), made.pre_bias.detach().double().numpy()
    z = scored.latents.to_scipy().toarray().astype(np.float64)
    rebuilt = mean + scale * (offset + z @ decoder.T)
    errors = states - rebuilt
    np.testing.assert_allclose(scored.residual, errors @ weight, atol=1e-5)
    assert scored.constant == pytest.approx(float(weight @ (mean + scale * offset)) + own.bias)
    np.testing.assert_allclose(scored.head, scale * (weight @ decoder), rtol=1e-6)
    kept = made.encode(torch.from_numpy(scored.states))
    np.testing.assert_allclose(made.reconstruct(kept).detach().numpy(), rebuilt, atol=1e-4)
    x = torch.from_numpy(scored.states)
    np.testing.assert_allclose(made.as_states(made.normalised(x)).numpy(), scored.states, atol=1e-5)
    encoder = made.encoder.weight.detach().double().numpy()
    before = ((states - mean) / scale - offset) @ encoder.T + made.latent_bias.detach().double().numpy()
    least = np.sort(before)[:, -K]
    np.testing.assert_allclose(z, np.where(before >= least[:, None], before, 0.0), atol=1e-4)


def test_contributions_sum_to_the_reward(attached: RewardModel) -> None:
    scored = attached.score_encoded(random_rows())
    for j, reward in enumerate(scored.rewards):
        parts = scored.contributions(j)
        assert [part.latent for part in parts[-2:]] == ["residual", "constant"]
        assert len(parts) == K + 2
        assert sum(part.contribution for part in parts) == pytest.approx(float(reward), abs=1e-5)
        assert len(scored.contributions(j, top=2)) == 4


def test_edits_change_the_latents_terms_and_leave_the_rest(attached: RewardModel) -> None:
    rows = random_rows()
    scored = attached.score_encoded(rows)
    latent = int(scored.latents.row(0)[0][0])
    edits = [Edit(latent, scale=0.25)]
    moved = scored.rewards + edit_delta(scored, edits)
    np.testing.assert_allclose(edited_rewards(scored, edits), moved, atol=1e-5)
    removed = [Edit(number, set=0.0) for number in range(LATENTS)]
    rest = edited_rewards(scored, removed)
    np.testing.assert_allclose(rest, scored.residual + scored.constant, atol=1e-6)
    np.testing.assert_allclose(scored.sums(apply_edits(scored.latents, removed)), rest, atol=1e-6)
    with attached.edited(edits) as changed:
        again = changed.score_encoded(rows)
    np.testing.assert_allclose(again.rewards, moved, atol=1e-5)
    np.testing.assert_allclose(again.residual, scored.residual, atol=0)
    assert again.fingerprint != scored.fingerprint
    assert attached.score_encoded(rows).rewards.tobytes() == scored.rewards.tobytes()


def test_the_folder_is_small_and_points_to_the_reward_model(attached: RewardModel, tmp_path: Path) -> None:
    folder = attached.save_pretrained(tmp_path / "attached")
    assert sorted(file.name for file in folder.iterdir()) == ["attached.json", "dictionary.safetensors"]
    again, rows = RewardModel.from_pretrained(folder), random_rows()
    before, after = attached.score_encoded(rows), again.score_encoded(rows)
    assert after.rewards.tobytes() == before.rewards.tobytes()
    assert after.latents.values.tobytes() == before.latents.values.tobytes()
    assert after.residual.tobytes() == before.residual.tobytes()
    names = (attached.fingerprint, attached.model_fingerprint)
    assert (again.fingerprint, again.model_fingerprint) == names
    assert (read_head(folder).fingerprint, read_model_fingerprint(folder)) == names
    assert (describe(folder).latents, describe(folder).k, latents_of(folder, "it")) == (LATENTS, K, LATENTS)


def test_a_reward_model_that_changed_since_is_refused(base: RewardModel, tmp_path: Path) -> None:
    own = RewardModel.from_pretrained(base.save_pretrained(tmp_path / "rm"))
    folder = own.attach(make_dictionary(own)).save_pretrained(tmp_path / "attached")
    other = make_classifier(CONFIGS["qwen3"](), seed=1)
    save(other, tmp_path / "other")
    (tmp_path / "rm").rename(tmp_path / "gone")
    (tmp_path / "other").rename(tmp_path / "rm")
    for read in (RewardModel.from_pretrained, describe):
        with pytest.raises(ModelError, match="now: the reward model changed since") as refused:
            read(folder)
        assert refused.value.hint == "attach a dictionary to the reward model as it is now"


def test_bad_folders_are_refused_in_words(attached: RewardModel, tmp_path: Path) -> None:
    folder = attached.save_pretrained(tmp_path / "attached")
    said = json.loads((folder / "attached.json").read_text())
    for change, message in (
        ({"format": "other"}, "is of the format 'other', not sarm-attached-1"),
        ({"source": {}}, "names no reward model"),
        ({"k": "many"}, "is no whole folder of an attached dictionary"),
    ):
        (folder / "attached.json").write_text(json.dumps({**said, **change}))
        with pytest.raises(ModelError, match=message):
            RewardModel.from_pretrained(folder)
    (folder / "attached.json").write_text(json.dumps({**said, "latents": "some"}))
    with pytest.raises(ModelError, match=r"latents in attached\.json is 'some', it must be a whole number"):
        latents_of(folder, "it")
    (folder / "attached.json").write_text(json.dumps(said))
    (folder / "dictionary.safetensors").write_bytes(b"torn")
    with pytest.raises(ModelError, match="is no whole folder of an attached dictionary"):
        RewardModel.from_pretrained(folder)
    with pytest.raises(ConfigError, match="the dictionary is of one output, read at one token"):
        RewardModel.from_pretrained(folder, pooling="last_token")


def test_oracle_a_narrow_encoder_gives_the_products_of_its_numbers(
    base: RewardModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autoencoder, "BLOCK", 7 * 32)  # seven blocks, the last one not whole
    monkeypatch.setattr(attached_module, "NARROWED_FROM", LATENTS * 32)
    narrow, wide = make_dictionary(base), make_dictionary(base)
    narrow.narrow_encoder(rounding=True)
    assert narrow.encoder.weight.dtype == torch.float16
    wide.encoder.weight.data.copy_(narrow.encoder.weight)
    states = torch.from_numpy(present(base.score_encoded(random_rows(), keep_states=True).states))
    torch.testing.assert_close(narrow.pre_activations(states), wide.pre_activations(states).detach())
    before, after = (base.attach(made).score_encoded(random_rows()) for made in (wide, narrow))
    assert after.rewards.tobytes() == before.rewards.tobytes()
    np.testing.assert_allclose(after.residual, before.residual, atol=1e-5)
    for j, reward in enumerate(after.rewards):
        total = sum(part.contribution for part in after.contributions(j))
        assert total == pytest.approx(float(reward), abs=1e-5)


def test_an_encoder_is_narrowed_where_that_saves_memory_and_its_numbers_fit(
    base: RewardModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_dictionary(base)
    made.narrow_encoder(rounding=True)
    assert made.encoder.weight.dtype == torch.float32  # 6 KiB
    monkeypatch.setattr(attached_module, "NARROWED_FROM", LATENTS * 32)
    before = made.encoder.weight.detach().clone()
    made.narrow_encoder(rounding=False)
    assert made.encoder.weight.dtype == torch.float32
    assert torch.equal(made.encoder.weight, before)
    made.encoder.weight.data.copy_(before.bfloat16())
    made.encoder.weight.data[0, 0] = 1e5  # beyond float16, and no number of bfloat16
    made.narrow_encoder(rounding=False)
    assert made.encoder.weight.dtype == torch.float32
    made.narrow_encoder(rounding=True)
    assert made.encoder.weight.dtype == torch.bfloat16
    exact = make_dictionary(base)
    exact.encoder.weight.data.copy_(before.half())
    exact.narrow_encoder(rounding=False)
    assert exact.encoder.weight.dtype == torch.float16
    assert torch.equal(exact.encoder.weight.float(), before.half().float())


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_a_narrow_encoder_round_trips_to_the_bit_and_is_no_view_of_its_file(
    base: RewardModel, tmp_path: Path, kind: torch.dtype
) -> None:
    made = make_dictionary(base)
    made.hold_encoder(kind)
    model, rows = base.attach(made), random_rows()
    folder = model.save_pretrained(tmp_path / "narrow")
    wide = base.attach(make_dictionary(base)).save_pretrained(tmp_path / "wide")
    sizes = [(one / "dictionary.safetensors").stat().st_size for one in (wide, folder)]
    assert 0.9 * 2 * LATENTS * 32 < sizes[0] - sizes[1] < 1.1 * 2 * LATENTS * 32
    again = RewardModel.from_pretrained(folder)
    assert again.autoencoder.encoder.weight.dtype == kind
    assert (again.fingerprint, again.model_fingerprint) == (model.fingerprint, model.model_fingerprint)
    one, two = model.score_encoded(rows), again.score_encoded(rows)
    assert one.latents.values.tobytes() == two.latents.values.tobytes()
    assert one.residual.tobytes() == two.residual.tobytes()
    file = folder / "dictionary.safetensors"
    with file.open("r+b") as stream:
        stream.seek(-6000, 2)
        stream.write(bytes(6000))
    assert again.score_encoded(rows).latents.values.tobytes() == two.latents.values.tobytes()


def test_what_cannot_be_attached(base: RewardModel, attached: RewardModel, tiny_sarm: RewardModel) -> None:
    with pytest.raises(
        ModelError, match="the dictionary is of states of 16 numbers, the reward model's have 32"
    ):
        base.attach(make_dictionary(base, size=16))
    for model in (attached, tiny_sarm):
        with pytest.raises(ModelError, match="has a dictionary already"):
            model.attach(make_dictionary(base))
    for scale in (0.0, float("inf")):
        with pytest.raises(ModelError, match="they do not vary"):
            AttachedAutoencoder(torch.zeros(4), scale, 8, 2)


def test_a_model_in_memory_cannot_be_pointed_to(base: RewardModel, tmp_path: Path) -> None:
    memory = copy.copy(base)
    memory.source = {}
    with pytest.raises(
        ModelError, match="was built in memory, and the dictionary's folder has to point to it"
    ):
        memory.attach(make_dictionary(base)).save_pretrained(tmp_path / "attached")
    assert not (tmp_path / "attached").exists()


def test_the_head_of_a_state_is_checked() -> None:
    with pytest.raises(ModelError, match=r"head weights must be \[D\] float32"):
        StateHead(np.zeros((1, 3), dtype=np.float32))
    with pytest.raises(ModelError, match="the bias of the reward model's head is nan"):
        StateHead(np.zeros(3, dtype=np.float32), float("nan"))
    head = StateHead(np.ones(3, dtype=np.float32), 0.5)
    assert head.rewards(np.zeros((0, 3), dtype=np.float32)).shape == (0,)
