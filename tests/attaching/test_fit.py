"""A dictionary's fit: its figures against their definitions (oracle), what the reward term does, messages."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from sarm_control.attaching import (
    DictionaryConfig,
    FitData,
    Fitted,
    choose_dictionary_sizes,
    fit_dictionary,
    measure_fit,
    train_dictionary,
)
from sarm_control.attaching.explained import explained_interval, share
from sarm_control.attaching.training import mean_threshold, weight_of_reward
from sarm_control.build import DirectionTerm, PreferenceRow, Sparsity
from sarm_control.errors import ConfigError, DataError, ModelError, TrainingError
from sarm_control.reward_model import AttachedAutoencoder, ReadyMadeAutoencoder, StateHead
from sarm_control.reward_model import attached as attached_module
from tests.attaching.conftest import ANSWERS, WIDTH, make_config, make_head, make_states
from tests.present import present

pytest.importorskip("sae_lens", reason='training a dictionary wants the extra "build"')


def parts_of(fitted: Fitted, states: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """[N] rewards and residuals in float64, from the dictionary's own weights and the equations."""
    head, made = make_head(), fitted.autoencoder
    z = np.zeros((len(states), made.encoder.out_features))
    kept = made.encode(states)
    np.put_along_axis(z, kept.indices.numpy(), kept.values.detach().double().numpy(), axis=1)
    weights, constant = made.latent_weights(head)
    rewards = states.double().numpy() @ head.weight.astype(np.float64) + head.bias
    return rewards, rewards - z @ weights.astype(np.float64) - constant


def test_oracle_shares_have_the_interval_that_drawing_prompts_again_gives() -> None:
    """Against a plain bootstrap over prompts, where answers to a prompt share most of what is missed."""
    rng = np.random.default_rng(0)
    prompts = np.repeat(np.arange(150), 4)
    values = rng.normal(size=600)
    missed = 0.4 * np.repeat(rng.standard_t(8, size=150), 4) + 0.1 * rng.normal(size=600)
    found = explained_interval(values, missed, prompts)
    assert found.mean == pytest.approx(share(values, missed))
    grouped, lost = values.reshape(150, 4), missed.reshape(150, 4)
    drawn = []
    for _ in range(2000):
        rows = rng.integers(150, size=150)
        one = share(grouped[rows].ravel(), lost[rows].ravel())
        drawn.append(present(one))
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert found.high - found.low == pytest.approx(high - low, rel=0.2)
    assert abs(found.low - low) < 0.2 * (high - low)
    alone = explained_interval(values, missed, np.arange(600))
    assert alone.high - alone.low < 0.8 * (found.high - found.low)


def test_oracle_the_figures_are_those_of_their_definitions(fitted: Fitted, fit_data: FitData) -> None:
    held = torch.from_numpy(fit_data.held_out)
    states, found = fit_data.states[held], fitted.report.held_out
    rewards, residual = parts_of(fitted, states)
    around = np.square(rewards - rewards.mean()).sum()
    assert found.reward == pytest.approx(1 - np.square(residual).sum() / around, abs=1e-5)
    assert found.residual_sd == pytest.approx(residual.std() / rewards.std(), abs=1e-5)
    margins, missed = (
        values.reshape(-1, 2, 2)[:, 0].mean(axis=1) - values.reshape(-1, 2, 2)[:, 1].mean(axis=1)
        for values in (rewards, residual)
    )
    spread = np.square(margins - margins.mean()).sum()
    assert found.margin == pytest.approx(1 - np.square(missed).sum() / spread, abs=1e-5)
    pairs = residual.reshape(-1, 2, 2)
    right = (pairs[:, 0, :, None] > pairs[:, 1, None, :]).mean()
    assert found.residual_accuracy is not None
    assert found.residual_accuracy.mean == pytest.approx(right)
    assert (found.answers, found.prompts) == (ANSWERS // 5, ANSWERS // 20)
    rebuilt = fitted.autoencoder.reconstruct(fitted.autoencoder.encode(states)).double()
    missed_states = (states.double() - rebuilt).square().sum() / (states - states.mean(0)).square().sum()
    assert found.state == pytest.approx(1 - float(missed_states), abs=1e-4)
    for name, value in found.shares.items():
        interval = present(found.intervals[name])
        assert interval.mean == pytest.approx(value)
        assert interval.low < interval.mean < interval.high
        assert interval.n == ANSWERS // 20


def test_the_reward_term_explains_more_of_the_reward_than_the_baselines(fitted: Fitted) -> None:
    mine, report = fitted.report.held_out, fitted.report
    plain, pca = (report.baselines[kind][""] for kind in ("mean_squared_error", "pca"))
    assert mine.reward is not None
    assert mine.margin is not None
    for other in (plain, pca):
        assert other.reward is not None
        assert other.margin is not None
        assert mine.reward > other.reward
        assert mine.margin > other.margin
    assert mine.reward > 0.9
    assert present(plain.state) > present(mine.state) > 0.4


def test_oracle_pca_is_the_projection_on_leading_components(fitted: Fitted, fit_data: FitData) -> None:
    fit = fit_data.fitted_states.double()
    held = fit_data.measured.states.double()
    _, _, vectors = torch.linalg.svd(fit - fit.mean(0), full_matrices=False)
    kept = vectors[:6]
    missed = held - fit.mean(0) - (held - fit.mean(0)) @ kept.T @ kept
    share = 1 - missed.square().sum() / (held - held.mean(0)).square().sum()
    assert fitted.report.baselines["pca"][""].state == pytest.approx(float(share), abs=1e-5)


def test_oracle_the_top_latents_are_those_of_most_variance(fitted: Fitted, fit_data: FitData) -> None:
    states = fit_data.measured.states
    made, head = fitted.autoencoder, make_head()
    kept = made.encode(states)
    z = torch.zeros(len(states), 64).scatter(1, kept.indices, kept.values.detach()).double().numpy()
    contributed = z * made.latent_weights(head).weight.astype(np.float64)
    variance = contributed.var(axis=0)
    found = fitted.report.contributions
    order = np.argsort(-variance)
    assert [one.latent for one in found.top[:5]] == order[:5].tolist()
    assert found.top[0].share == pytest.approx(variance.max() / variance.sum())
    assert found.top[0].sd == pytest.approx(np.sqrt(variance.max()))
    reached = np.cumsum(np.sort(variance)[::-1]) / variance.sum()
    assert found.for_half == int((reached < 0.5).sum()) + 1
    assert found.for_most == int((reached < 0.9).sum()) + 1
    assert found.dead == pytest.approx(float(((z != 0).sum(axis=0) == 0).mean()))
    decoder = made.decoder.weight.detach().double().numpy()
    cosines = head.weight @ decoder / np.linalg.norm(decoder, axis=0) / np.linalg.norm(head.weight)
    fires = (z != 0).any(axis=0)
    assert found.most_aligned == pytest.approx(np.abs(cosines[fires]).max())


@pytest.mark.long
def test_golden_training_is_seeded_and_held_out_states_do_not_matter(
    fitted: Fitted, fit_data: FitData
) -> None:
    states = fit_data.states.clone()
    states[torch.from_numpy(fit_data.held_out)] *= 3
    again = fit_dictionary(dataclasses.replace(fit_data, states=states), make_head(), make_config())
    for (name, one), two in zip(
        fitted.autoencoder.state_dict().items(), again.autoencoder.state_dict().values(), strict=True
    ):
        assert torch.equal(one, two), name
    norms = fitted.autoencoder.decoder.weight.norm(dim=0)
    torch.testing.assert_close(norms, torch.ones(64), atol=1e-5, rtol=0)


def test_oracle_a_dictionary_beside_itself_is_stable(fitted: Fitted, fit_data: FitData) -> None:
    from sarm_control.attaching.stability import stability

    held = fit_data.measured
    same = stability(fitted.autoencoder, fitted.autoencoder, make_head(), held.states, held.rows)
    assert (same.median_cosine, same.close, same.weighted_cosine) == pytest.approx((1, 1, 1), abs=1e-5)
    assert same.effects == pytest.approx(1.0)
    found = fitted.report.stability[0]
    assert found.seeds == (0, 1)
    assert 0 < found.median_cosine < 0.999


def test_oracle_effects_sum_to_the_mean_margin_less_the_residuals(fitted: Fitted, fit_data: FitData) -> None:
    from sarm_control.attaching.explained import margins_by_prompt
    from sarm_control.attaching.stability import effects_of

    held = fit_data.measured
    rewards, residual = parts_of(fitted, held.states)
    effects = effects_of(fitted.autoencoder, make_head(), held.states, held.rows)
    whole = margins_by_prompt(rewards, held.rows).mean()
    assert effects.sum() + margins_by_prompt(residual, held.rows).mean() == pytest.approx(whole, abs=1e-5)


def test_the_trivial_dictionary_is_refused(fit_data: FitData) -> None:
    """One latent that is the reward direction, and 23 that are noise."""
    head, states = make_head(), fit_data.states
    made = AttachedAutoencoder(states.mean(0), 1.0, 24, 24)
    weight = torch.from_numpy(head.weight)
    unit = weight / weight.norm()
    with torch.no_grad():
        made.encoder.weight.zero_()
        made.decoder.weight.normal_(std=0.2, generator=torch.Generator().manual_seed(0))
        made.encoder.weight[7], made.decoder.weight[:, 7] = unit, unit
    report = measure_fit(made, head, fit_data)
    assert report.held_out.reward == pytest.approx(1.0, abs=1e-6)
    assert report.contributions.most_aligned == pytest.approx(1.0)
    assert "may be the reward under another name" in report.warnings[0]
    with pytest.raises(ModelError, match=r"latent 7 lies along the head \(cos \+1\.00\)"):
        report.check()
    report.check(force=True)


def test_a_dictionary_that_explains_little_is_refused(fit_data: FitData) -> None:
    made = AttachedAutoencoder(fit_data.states.mean(0), 1.0, 8, 2)
    with torch.no_grad():
        made.decoder.weight.zero_()
    report = measure_fit(made, make_head(), fit_data)
    assert report.held_out.reward == pytest.approx(0.0, abs=0.01)
    with pytest.raises(ModelError, match=r"explains -?0\.00\d of the reward's variance on held-out prompts"):
        report.check()
    assert not report.contributions.top


def test_the_report_reads_as_json_and_as_lines(fitted: Fitted) -> None:
    found = json.loads(json.dumps(fitted.report.as_json(), allow_nan=False))
    assert set(found["variance_explained"]) == {"state", "reward", "margin"}
    assert len(found["contributions"]["top_latents"]) == 20
    # all of `Sparsity` but the dictionary's own
    assert set(found["baselines"]) == {
        *("pca", "mean_squared_error"),
        *("batch-topk", "matryoshka", "whitened"),
    }
    assert found["curve"][0]["step"] == 1
    assert set(found["tried"]) == set(found["baselines"]) - {"pca"}
    assert found["tried"]["mean_squared_error"]["latents"] == 64
    text = "\n".join(fitted.report.lines())
    for words in (
        "plain squared error: ",
        *("PCA of equal k", "plain squared error", "k on average, nested groups"),
        *("reward SDs; it alone orders", "seeds 0 and 1"),
    ):
        assert words in text


def test_other_states_are_trained_on_where_they_are_given(fit_data: FitData, fitted: Fitted) -> None:
    others = make_states(400, seed=9)
    data = dataclasses.replace(fit_data, others=others, others_answer=np.arange(400))
    again = fit_dictionary(data, make_head(), make_config(steps=5))
    assert len(present(data.fitted_others)) == 320
    torch.testing.assert_close(again.autoencoder.mean, fitted.autoencoder.mean)


def test_rows_across_the_split_are_left_out() -> None:
    data = FitData(
        make_states(8),
        np.array([True] * 4 + [False] * 4),
        (PreferenceRow(0, (0,), (1,)), PreferenceRow(0, (2,), (5,)), PreferenceRow(1, (4,), (5,))),
    )
    assert data.measured.rows == (PreferenceRow(0, (0,), (1,)),)


def test_bad_input_is_named(fit_data: FitData) -> None:
    config, states = make_config(steps=1), make_states(32)
    with pytest.raises(ModelError, match=f"states have {WIDTH - 1} numbers, the reward model's head {WIDTH}"):
        train_dictionary(states[:, 1:], make_head(), config)
    with pytest.raises(ModelError, match="the states of 32 answers do not vary"):
        train_dictionary(states[:1].repeat(32, 1), make_head(), config)
    unit = torch.zeros(WIDTH)
    unit[0] = 1.0
    flat = states.clone()
    flat[:, 0] = 2.0
    with pytest.raises(ModelError, match="the rewards of 32 answers do not vary"):
        train_dictionary(flat, StateHead(unit.numpy()), config)
    with pytest.raises(ModelError, match="every weight of the reward model's head is 0"):
        train_dictionary(states, StateHead(np.zeros(WIDTH, dtype=np.float32)), config)
    with pytest.raises(TrainingError, match="a state is not finite"):
        train_dictionary(states / 0, make_head(), config)
    with pytest.raises(TrainingError, match="no state to train"):
        train_dictionary(states[:0], make_head(), config)
    with pytest.raises(DataError, match="some answers have to be held out"):
        dataclasses.replace(fit_data, held_out=np.ones(ANSWERS, dtype=np.bool_))
    with pytest.raises(DataError, match="2 held-out flags were given"):
        dataclasses.replace(fit_data, held_out=np.ones(2, dtype=np.bool_))
    for weight, ramp in ((-1.0, 0.5), (float("nan"), 0.5), (1.0, 2.0)):
        with pytest.raises(ConfigError, match="the weight must be at least 0"):
            DirectionTerm(torch.zeros(2), weight, ramp)


def test_sizes_follow_width_and_answers() -> None:
    found = choose_dictionary_sizes(576, 5000)
    assert (found.latents, found.k, found.warning) == (1024, 64, None)
    assert "1024 latents (5000 answers, at least 4 for each)" in found.chosen
    assert choose_dictionary_sizes(4096, 10**7).latents == 65_536
    assert choose_dictionary_sizes(4096, 10**7).k == 192
    small = choose_dictionary_sizes(32, 10)
    assert (small.latents, small.k) == (24, 3)
    assert small.warning is not None
    assert small.warning.startswith("10 answers are few for 24 latents: 4 for each would be 96")
    assert choose_dictionary_sizes(64, 100, latents=40, k=2).chosen == ()
    with pytest.raises(ConfigError, match=r"k is 9, it must be in 1\.\.8"):
        choose_dictionary_sizes(64, 100, latents=8, k=9)


def test_the_term_of_weight_0_is_the_plain_error() -> None:
    states = make_states(64)
    config = make_config(steps=3)
    one = train_dictionary(states, make_head(0), DictionaryConfig(config.autoencoder, reward_weight=0.0))
    two = train_dictionary(states, make_head(1), DictionaryConfig(config.autoencoder, reward_weight=0.0))
    assert torch.equal(one.autoencoder.encoder.weight, two.autoencoder.encoder.weight)


def loud_states(head: StateHead) -> torch.Tensor:
    """States that vary most along the head, as where layers were trained together with it."""
    draw = torch.Generator().manual_seed(3)
    direction = torch.from_numpy(head.weight / np.linalg.norm(head.weight))
    active = (torch.rand(ANSWERS, 6, generator=draw) < 0.3) * torch.rand(ANSWERS, 6, generator=draw)
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])[:, None]
    return make_states() + active @ (0.5 * torch.randn(6, WIDTH, generator=draw) + 6 * direction * signs)


def test_a_head_that_reads_what_varies_most_takes_little_of_the_state(fit_data: FitData) -> None:
    """The bars of a fit: .98 of the reward, and at most .05 of the state less than the plain error."""
    head = make_head()
    data = dataclasses.replace(fit_data, states=loud_states(head))
    mine, plain = (
        measure_fit(train_dictionary(data.fitted_states, head, config).autoencoder, head, data).held_out
        for config in (make_config(), dataclasses.replace(make_config(), reward_weight=0.0))
    )
    assert present(mine.reward) >= 0.98
    assert present(mine.reward) > present(plain.reward)
    assert present(mine.state) >= present(plain.state) - 0.05


def test_oracle_the_reward_term_is_divided_by_the_variance_of_the_heads_direction() -> None:
    head, states = make_head(), loud_states(make_head()).double()
    normalised = states - states.mean(0)
    normalised = normalised / normalised.square().mean().sqrt()
    weight = torch.from_numpy(head.weight).double()
    variance = float(((normalised @ weight) ** 2).mean() / (weight @ weight))
    assert variance > 5
    # the missed share of the reward, its error over its variance, then weighs as much as that of the state
    assert weight_of_reward(states.float(), head, 3.0) * variance == pytest.approx(1.0, rel=1e-5)
    assert weight_of_reward(states.float(), head, 6.0) * variance == pytest.approx(2.0, rel=1e-5)
    covariance = torch.cov(make_states().double().T)
    quiet = StateHead(torch.linalg.eigh(covariance)[1][:, 0].float().numpy())
    assert weight_of_reward(make_states(), quiet, 3.0) == 3.0


@pytest.mark.parametrize("sparsity", ["batch-topk", "matryoshka"])
def test_oracle_k_on_average_becomes_a_threshold_and_the_sum_stays_exact(
    fit_data: FitData, sparsity: Sparsity
) -> None:
    config = dataclasses.replace(make_config(steps=60), sparsity=sparsity)
    made = train_dictionary(fit_data.fitted_states, make_head(), config).autoencoder
    assert isinstance(made, ReadyMadeAutoencoder)
    assert made.activation == "jumprelu"
    states = fit_data.fitted_states
    before = made.pre_activations(states).detach()
    assert len(made.threshold.unique()) == 1
    above = (before > made.threshold).sum(dim=1)
    # k on average of the states it was trained on, and not of every one
    assert float(above.double().mean()) == pytest.approx(6, abs=1e-3)
    assert int(above.min()) < 6 < int(above.max())
    # an answer's latents are its own: alone and among others they are equal
    alone, among = made.encode(states[3:4]), made.encode(states[:40])
    dense = torch.zeros(41, 64)
    dense[:1].scatter_(1, alone.indices, alone.values.detach())
    dense[1:].scatter_(1, among.indices, among.values.detach())
    torch.testing.assert_close(dense[0], dense[4])
    assert torch.equal(dense[1:] != 0, before[:40] > made.threshold)
    rewards, residual = parts_of(Fitted(made, measure_fit(made, make_head(), fit_data)), states)
    missed = states.double() - made.reconstruct(made.encode(states)).detach().double()
    np.testing.assert_allclose(missed.numpy() @ make_head().weight.astype(np.float64), residual, atol=1e-4)
    assert np.square(residual).sum() < np.square(rewards - rewards.mean()).sum()


def test_oracle_the_threshold_is_the_next_largest_of_all_pre_activations() -> None:
    states = make_states(700)
    made = AttachedAutoencoder(states.mean(0), 1.0, 32, 4)
    with torch.no_grad():
        made.encoder.weight.normal_(std=0.2, generator=torch.Generator().manual_seed(0))
    before = made.pre_activations(states).detach().flatten()
    wanted = before.sort(descending=True).values[700 * 4]
    assert mean_threshold(made, states, 4) == pytest.approx(float(wanted))
    # fewer are above 0 than are wanted: all of those are active
    assert mean_threshold(made, states, 31) == 0.0


def test_one_latent_has_no_group_inside(fit_data: FitData) -> None:
    one = dataclasses.replace(make_config(latents=1, k=1, steps=2), sparsity="matryoshka")
    two = dataclasses.replace(one, sparsity="batch-topk")
    made = [
        train_dictionary(fit_data.fitted_states, make_head(), config).autoencoder for config in (one, two)
    ]
    assert torch.equal(made[0].encoder.weight, made[1].encoder.weight)


def test_a_large_encoder_is_rounded_before_its_threshold_and_figures_are_taken(
    fit_data: FitData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attached_module, "NARROWED_FROM", 64 * WIDTH)
    config = dataclasses.replace(make_config(steps=20), sparsity="batch-topk")
    fitted = fit_dictionary(fit_data, make_head(), config)
    made = fitted.autoencoder
    assert made.encoder.weight.dtype == torch.float16
    assert made.decoder.weight.dtype == torch.float32
    assert isinstance(made, ReadyMadeAutoencoder)
    assert float(made.threshold[0]) == mean_threshold(made, fit_data.fitted_states, 6)
    assert measure_fit(made, make_head(), fit_data).held_out.shares == fitted.report.held_out.shares
