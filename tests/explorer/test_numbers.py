"""Oracle and metamorphic: columns, one latent and the bench against numpy on the dense latents."""

import base64
from typing import Any

import numpy as np
import pytest

from sarm_control.control import Edit, edited_rewards
from sarm_control.data import rows_of
from sarm_control.errors import ConfigError, DataError
from sarm_control.explorer import Site, Sources
from sarm_control.explorer import one_latent as one
from sarm_control.explorer.bench import edits_of, taken_apart
from sarm_control.explorer.columns import activity_columns, answer_roles, encoded, kind_column
from sarm_control.latents import ScoredRows, score_rows
from sarm_control.reward_model import RewardModel


def test_oracle_activity_is_that_of_the_dense_latents(data: ScoredRows) -> None:
    z = data.scored.latents.to_scipy().toarray().astype(np.float64)
    contributions, active = z * data.scored.head.astype(np.float64), data.scored.latents.active(range(24))
    found, who = activity_columns(data), answer_roles(data.rows)
    np.testing.assert_allclose(found["rate"], active.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found["rate_chosen"], active[who == "chosen"].mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found["spread"], contributions.std(axis=0), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found["mean"], contributions.mean(axis=0), rtol=1e-5, atol=1e-8)
    fires = active.any(axis=0)
    np.testing.assert_allclose(
        found["top"][fires], np.where(active, z, -np.inf).max(axis=0)[fires], rtol=1e-6
    )


def test_columns_keep_every_bit_on_their_way(data: ScoredRows) -> None:
    back = np.frombuffer(base64.b64decode(encoded(data.scored.head)), dtype="<f4")
    np.testing.assert_array_equal(back, data.scored.head)


def test_latents_without_a_test_are_called_so() -> None:
    kinds = kind_column({"latent": np.array([2]), "kind": np.array(["paid-for-bad"])}, 4)
    assert [kinds.of(latent) for latent in range(4)] == ["not tested"] * 2 + ["paid-for-bad", "not tested"]


def test_oracle_firing_together_is_the_correlation_of_numpy(data: ScoredRows) -> None:
    fires = data.scored.latents.active(range(24))
    varies = [latent for latent in range(24) if 0 < fires[:, latent].mean() < 1]
    found = {same.latent: same.similarity for same in one.similar_by_firing(data, 15, most=23)}
    wanted = np.corrcoef(fires[:, varies].T.astype(float))[varies.index(15)]
    for latent, phi in zip(varies, wanted, strict=True):
        if latent != 15:
            assert found[latent] == pytest.approx(phi, abs=1e-9)


def test_oracle_similar_directions_are_cosines(lab: RewardModel) -> None:
    directions = lab.autoencoder.decoder.weight.detach().numpy()
    unit = directions / np.linalg.norm(directions, axis=0)
    wanted = np.abs(unit[:, 15] @ unit)
    wanted[15] = 0
    first = one.similar_by_decoder(lab, 15)[0]
    assert first.latent == int(np.argmax(wanted))
    assert abs(first.similarity) == pytest.approx(float(wanted.max()), abs=1e-5)


def test_oracle_flips_are_those_of_a_loop_over_prompts(data: ScoredRows) -> None:
    after = edited_rewards(data.scored, [Edit(8, set=0)])
    groups: dict[str, list[tuple[str, float, float]]] = {}
    number = 0
    for row in data.rows:
        for text in row.answers:
            reward = float(data.scored.rewards[number])
            groups.setdefault(row.prompt_key, []).append((text, reward, float(after[number])))
            number += 1
    sets = [own for own in groups.values() if len({text for text, *_ in own}) > 1]
    changed = [max(own, key=lambda a: a[1])[0] != max(own, key=lambda a: a[2])[0] for own in sets]
    found = one.flips_without(data, 8)
    assert found.prompts == len(sets)
    assert found.changed is not None
    assert found.changed.mean == pytest.approx(np.mean(changed))
    assert 0 < found.changed.mean < 1


def test_contributions_of_the_histogram_are_counted_once(data: ScoredRows) -> None:
    found = one.contribution_histogram(data, 15)
    assert found is not None
    for side in found["sides"]:
        assert sum(side["counts"]) == side["active"]
    assert {side["name"] for side in found["sides"]} == {"chosen", "rejected"}


def test_a_latent_that_never_fires_has_no_histogram(data: ScoredRows) -> None:
    dead = int(np.flatnonzero(activity_columns(data)["rate"] == 0)[0])
    assert one.contribution_histogram(data, dead) is None
    assert one.activating_answers(data, dead) == {"top": [], "middle": [], "random": []}


def test_the_strongest_answers_come_first_and_no_text_comes_twice(data: ScoredRows) -> None:
    found = one.answer_json(data, one.activating_answers(data, 15)["top"], 15)
    z = [answer["z"] for answer in found]
    assert z == sorted(z, reverse=True)
    assert len({answer["text"] for answer in found}) == len(found) == one.SHOWN


def test_tokens_at_the_read_place_have_the_latent_of_the_score(site: Site, data: ScoredRows) -> None:
    number = one.activating_answers(data, 15)["top"][0]
    found = site.tokens(*site.prompt_of(number), 15)
    z = float(data.scored.latents.columns([15])[number, 0])
    assert found["values"][found["read"]] == pytest.approx(z, abs=1e-4)
    _, answer = site.prompt_of(number)
    shown = "".join(found["texts"][found["answer"] : found["read"]])
    assert " ".join(shown.split()) == " ".join(answer.split())


EDITS = [
    [],
    [{"latent": 8, "scale": 0.3}],
    [{"latent": 8, "max": 1.5}, {"latent": 15, "set": 2.0}],
    [{"latent": 5, "add": 1.25}, {"latent": 20, "min": 0.0, "add": -2.854}],
]


@pytest.mark.parametrize("given", EDITS, ids=str)
def test_parts_under_edits_sum_to_the_rewards_of_the_library(
    data: ScoredRows, given: list[dict[str, Any]]
) -> None:
    edits = edits_of(given, 24)
    for part, wanted in zip(taken_apart(data.scored, edits), edited_rewards(data.scored, edits), strict=True):
        z = dict(zip(part["latents"], part["values"], strict=True))
        for edit in edits:
            z[edit.latent] = float(edit.apply(np.array([z.get(edit.latent, 0.0)]))[0])
        total = sum(value * float(data.scored.head[latent]) for latent, value in z.items())
        assert part["edited"] == pytest.approx(wanted, abs=1e-12)
        assert total == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([{"latent": 99, "max": 1}], "latent 99 does not exist: this reward model has 24 latents"),
        ([{"latent": 1}], "edit of latent 1: no operation"),
        ([{"latent": 1, "max": 1}, {"latent": 1, "min": 0}], "latent 1 has two edits"),
        ([{"latent": 1, "times": 2}], "edit: unknown key 'times'"),
        ([{"max": 2}], "edit: "),
    ],
)
def test_edits_that_cannot_be_used_are_told(given: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        edits_of(given, 24)


def test_a_latent_or_row_that_there_is_not_is_told(site: Site) -> None:
    with pytest.raises(DataError, match="there is no latent 24"):
        site.latent(24)
    with pytest.raises(DataError, match="there is no row 9999"):
        site.row(9999)
    with pytest.raises(DataError, match="there is no answer 9999"):
        site.prompt_of(9999)


def test_a_conversation_is_scored_as_one_when_the_page_sends_its_text_back(lab: RewardModel) -> None:
    turns = ("what is bread ?", "bread is food .", "are you sure ?")
    roles = ("user", "assistant", "user")
    prompt = [{"role": role, "content": text} for role, text in zip(roles, turns, strict=True)]
    rows = rows_of([{"prompt": prompt, "chosen": "yes .", "rejected": "no ."}], want={"pair"})
    data = ScoredRows(rows, score_rows(lab, rows))
    site = Site(Sources("lab", lab.fingerprint, lab.head.weight, lab, data))
    wanted = lab.score([prompt], ["it is so ."]).rewards
    shown = site.row(0)["prompt"]
    found = site.score([shown], ["it is so ."], [])["results"][0]["reward_model"]
    assert found == pytest.approx(float(wanted[0]), abs=1e-6)
    assert lab.score([shown], ["it is so ."]).rewards[0] != wanted[0], "as one text it is another prompt"


def test_the_verdicts_are_those_of_the_kinds(site: Site) -> None:
    kinds = [site.kind.of(latent) for latent in range(24)]
    promote = kinds.count("paid-for-good") + kinds.count("charged-for-bad")
    harm = kinds.count("paid-for-bad") + kinds.count("charged-for-good")
    assert site.verdicts() == (promote, harm)
    assert promote > 0 < harm


def test_the_first_row_is_one_that_the_reward_model_ranks_wrong(site: Site) -> None:
    chosen, rejected = site.row(site.first_row())["answers"]
    assert (chosen["role"], rejected["role"]) == ("chosen", "rejected")
    assert chosen["reward_model"] < rejected["reward_model"]
