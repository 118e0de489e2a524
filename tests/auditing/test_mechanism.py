"""Oracle: the reward after every token; the residual's share; latents of an attribute's own."""

from dataclasses import replace

import numpy as np
import pytest

from sarm_control.auditing import audit, own_latent, token_rewards
from sarm_control.auditing.causal_prices import scored_contrasts
from sarm_control.auditing.mechanism.carrying import residual_share
from sarm_control.data import read_rows
from sarm_control.embedded import LAB
from sarm_control.lab import World, lab_attributes
from sarm_control.latents import ScoredRows, score_rows
from sarm_control.reward_model import RewardModel, SparseLatents


@pytest.fixture(scope="module")
def rm() -> RewardModel:
    return RewardModel.from_pretrained(LAB)


@pytest.fixture(scope="module")
def data(rm: RewardModel) -> ScoredRows:
    rows = read_rows("lab:audit", want={"pair"})[:150]
    return ScoredRows(rows, score_rows(rm, rows))


def test_oracle_the_last_token_has_the_reward_and_the_first_those_of_shorter_texts(rm: RewardModel) -> None:
    prompt, answer = "how do i bake a cake ?", "first mix the flour . feel free to ask more ."
    found = token_rewards(rm, prompt, answer)
    assert [one.trained for one in found] == [False] * (len(found) - 1) + [True]
    assert found[-1].reward == pytest.approx(float(rm.score(prompt, answer).rewards[0]), abs=1e-5)
    assert [one.token for one in found[:-1]] == answer.split()
    # a causal trunk: what comes later changes nothing before it
    shorter = token_rewards(rm, prompt, "first mix the flour .")
    same = len(shorter) - 1
    assert [one.reward for one in found[:same]] == pytest.approx(
        [one.reward for one in shorter[:same]], abs=1e-5
    )


def test_oracle_a_latent_that_is_the_attribute_is_its_own(rm: RewardModel, data: ScoredRows) -> None:
    own = lab_attributes(World.open(LAB))
    table = audit(rm, data, attributes=own.attributes, edits=(), most=6).table
    place = [one.name for one in table.attributes].index("closing")
    present = table.has[:, place]
    rng = np.random.default_rng(0)
    dense = (rng.random((len(present), 8)) < 0.4) * 1.0
    dense[:, 5] = present * 1.0
    indptr = np.concatenate([[0], np.cumsum((dense != 0).sum(axis=1))])
    rows, columns = np.nonzero(dense)
    latents = SparseLatents(
        indptr.astype(np.int64), columns.astype(np.int32), dense[rows, columns].astype(np.float32), 8
    )
    found = own_latent(table, replace(data.scored, latents=latents), place)
    assert found is not None
    assert found.latents == (5, 5)
    assert found.auroc.mean == 1.0
    assert found.exists
    noise = own_latent(table, replace(data.scored, latents=_without(latents, 5)), place)
    assert noise is not None
    assert not noise.exists
    assert noise.auroc.low < 0.6
    assert own_latent(table, replace(data.scored, latents=_without(latents, None)), place) is None


def _without(latents: SparseLatents, column: int | None) -> SparseLatents:
    """Without one column; without all of them for None."""
    if column is None:
        zeros = np.zeros(len(latents.indptr), dtype=np.int64)
        return SparseLatents(zeros, np.zeros(0, np.int32), np.zeros(0, np.float32), 0)
    kept = latents.indices != column
    indptr = np.concatenate([[0], np.cumsum(kept)])[latents.indptr]
    return SparseLatents(indptr, latents.indices[kept], latents.values[kept], latents.size)


def test_the_residual_share_is_what_no_latent_carries(rm: RewardModel, data: ScoredRows) -> None:
    own = lab_attributes(World.open(LAB))
    table = audit(rm, data, attributes=own.attributes, edits=(), most=6).table
    edits = [one for one in own.edits if one.attribute == "closing"][:1]
    (found,) = scored_contrasts(rm, data, table, edits=edits, most=10)
    assert found is not None
    assert residual_share(found) == 0.0, "a SARM's reward is the sum of its latents"
    quarter = found.change / 4
    moved = replace(found.having, residual=found.without.residual + quarter)
    assert residual_share(replace(found, having=moved)) == pytest.approx(0.25)


@pytest.mark.long
def test_an_audit_says_both_and_gives_examples(rm: RewardModel, data: ScoredRows) -> None:
    own = lab_attributes(World.open(LAB))
    found = audit(rm, data, attributes=own.attributes, edits=own.edits, most=40, mend=["closing"])
    closing = next(one for one in found.findings if one.attribute.name == "closing")
    assert closing.residual == 0.0
    assert closing.own_latent is not None
    assert 0.5 <= closing.own_latent.auroc.mean <= 1.0
    example = next(one for one in found.examples if one.attribute == "closing")
    last = example.tokens_having[-1].reward - example.tokens_without[-1].reward
    assert last / found.table.reward_sd == pytest.approx(example.sd, abs=1e-4)
    assert found.mended is not None
    assert found.certificate == found.mended.certificate
    content = found.as_json()
    words = {part["latent"]: part["words"] for one in content["attributes"] for part in one["latents"]}
    assert any(words.values())
    assert {token["trained"] for token in content["examples"][0]["tokens_having"]} == {True, False}


def test_rows_and_names_can_be_given_in_python(rm: RewardModel) -> None:
    rows = [
        {
            "prompt": f"what is {n} ?",
            "chosen": f"it is {n} .",
            "rejected": f"it is {n} . feel free to ask more .",
        }
        for n in range(12)
    ]
    found = audit(rm, rows, attributes=["length", "closing"], most=12)
    assert [one.name for one in found.table.attributes] == ["length", "closing"]
    assert {one.edit.attribute for one in found.contrasts} <= {"length", "closing"}
    assert list(found.prices.index) == [one.attribute.name for one in found.findings]
    assert found.accuracy is not None
