"""Mends: the programme against other choices (oracle), caps and scalings, the guard, and bad input."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from sarm_control.auditing.attribute_audit import audit
from sarm_control.auditing.attributes.attribute import Attribute
from sarm_control.auditing.attributes.text_edits import TextEdit, added_behind, put_behind
from sarm_control.auditing.mending.guard import Guard, guard, pair_credit
from sarm_control.auditing.mending.latent_edits import LatentMend, Observed
from sarm_control.auditing.mending.mend import Mend, Outcome, Point
from sarm_control.auditing.mending.mended_rewards import Measured, by_length, by_projection
from sarm_control.auditing.mending.programme import MendProblem, Removed, least_removal, value
from sarm_control.auditing.mending.proposal import mend, mendable
from sarm_control.auditing.result import Audit
from sarm_control.auditing.text import audit_text, controls_text
from sarm_control.control import Edit, edited_rewards, read_edit_file
from sarm_control.data import Kind, Row
from sarm_control.embedded import LAB
from sarm_control.errors import ConfigError, DataError
from sarm_control.latents import ScoredRows, score_rows
from sarm_control.report import audit_page
from sarm_control.reward_model import RewardModel
from sarm_control.statistics import Flips, Interval
from tests.present import present

PRAISE = "i love how you think !"
THINGS = ("apple", "wolf", "river", "piano", "tiger", "castle", "lemon", "rocket", "whale", "candle")


def problem(seed: int, slopes: int = 0, m: int = 6) -> MendProblem:
    rng = np.random.default_rng(seed)
    return MendProblem(
        rng.normal(1.0, 0.2, 3),
        rng.normal(0.3, 0.3, (3, m)),
        rng.normal(size=(40, m)),
        rng.normal(size=(2, m)),
        rng.normal(0.5, 0.2, slopes),
        rng.normal(0.2, 0.3, (slopes, m)),
    )


def of_shares(one: MendProblem, x: np.ndarray) -> Removed:
    return Removed(one.carried @ x, one.clean @ x, one.kept @ x, one.in_slope @ x)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("strength", [0.3, 1.0])
@pytest.mark.parametrize("slopes", [0, 2])
def test_no_other_shares_within_the_bounds_are_better(seed: int, strength: float, slopes: int) -> None:
    one = problem(seed, slopes)
    x = least_removal(one, strength)
    least = value(one, of_shares(one, x), strength)
    assert ((x >= 0) & (x <= 1)).all()
    rng = np.random.default_rng(seed + 100)
    near = np.clip(x + rng.normal(scale=0.05, size=(500, 6)), 0, 1)
    for other in (*rng.random((500, 6)), *near):
        assert value(one, of_shares(one, other), strength) >= least - 1e-12


def test_a_price_that_one_latent_carries_alone_is_taken_there() -> None:
    none = np.zeros((0, 3))
    one = MendProblem(
        np.array([1.0]), np.array([[1.0, 0.0, 0.0]]), np.eye(3)[1:] * 2, none, np.zeros(0), none
    )
    assert least_removal(one, 1.0) == pytest.approx([1.0, 0.0, 0.0], abs=1e-9)
    assert least_removal(one, 0.5) == pytest.approx([0.5, 0.0, 0.0], abs=1e-9)
    empty = np.zeros((0, 0))
    nobody = one._replace(carried=np.zeros((1, 0)), clean=empty, kept=empty, in_slope=empty)
    assert least_removal(nobody, 1.0).shape == (0,)


@pytest.fixture(scope="module")
def rm() -> RewardModel:
    return RewardModel.from_pretrained(LAB, device="cpu")


def rows_of(kind: Kind, times: int = 5) -> list[Row]:
    found = []
    for number, thing in enumerate(THINGS * times):
        question = f"what is the size of the {thing} ? " + ("thank you . " * (number // 10))
        one, two = (
            f"the size of the {thing} is tiny .",
            f"the size of the {thing} is tiny . take care of the rest .",
        )
        sides = {"chosen": (one,), "rejected": (two,)} if kind == "pair" else {"candidates": (one, two)}
        found.append(Row(Path("made.jsonl"), number + 1, {}, kind, question, **sides))
    return found


def scored(rm: RewardModel, kind: Kind, times: int = 5) -> ScoredRows:
    rows = rows_of(kind, times)
    return ScoredRows(rows, score_rows(rm, rows))


def has(_: str, answer: str) -> float:
    return float(PRAISE in answer)


ATTRIBUTES = (
    Attribute("praise", "praise", has),
    Attribute("words", "words", lambda _, answer: float(len(answer.split())), "doubling"),
)
EDITS = (TextEdit("praise", "praise behind the answer", put_behind(PRAISE, has)),)


@pytest.fixture(scope="module")
def found(rm: RewardModel) -> tuple[Audit, ScoredRows]:
    data = scored(rm, "pair")
    return audit(rm, data, attributes=ATTRIBUTES, edits=EDITS), data


def test_a_cap_takes_what_the_scaling_takes_and_is_kept_where_it_changes_less(
    found: tuple[Audit, ScoredRows],
) -> None:
    audited, data = found
    (contrast,) = audited.contrasts
    made = LatentMend([contrast], [], data.scored, audited.table.prompt, audited.table.reward_sd)
    scalings = least_removal(made._problem, 1.0)
    caps = [(latent, made._cap(latent, 0.4)) for latent in made.latents]
    assert any(cap is not None for _, cap in caps)
    for latent, cap in caps:
        wanted = made._taken(contrast, [Edit(latent, scale=0.6)])
        if cap is not None:
            assert made._taken(contrast, [cap]) == pytest.approx(wanted, rel=0.02)
        else:  # nothing to take, or no value of the latent is large enough for a cap to take it
            weight = data.scored.head[latent]
            assert wanted <= 0 or weight < 0 or made._taken(contrast, [Edit(latent, max=0.0)]) < wanted
    chosen = made.edits(1.0)
    shares = [
        Edit(i, scale=round(1 - float(x), 3))
        for i, x in zip(made.latents, scalings, strict=True)
        if x >= 0.02
    ]
    assert made.value(chosen, 1.0) <= made.value(shares, 1.0) + 1e-9
    # the value of scalings is what the programme said of them
    assert made.value(shares, 1.0) == pytest.approx(
        value(made._problem, of_shares(made._problem, scalings), 1.0), abs=0.02
    )


def test_half_a_strength_takes_half_of_the_mean_price(found: tuple[Audit, ScoredRows]) -> None:
    audited, data = found
    (contrast,) = audited.contrasts
    made = LatentMend([contrast], [], data.scored, audited.table.prompt, audited.table.reward_sd)
    price = float(contrast.weights @ contrast.change) / audited.table.reward_sd
    taken = [made._taken(contrast, made.edits(strength)) for strength in (0.25, 0.5)]
    assert taken == pytest.approx([0.25 * price, 0.5 * price], rel=0.1)


CLOSING = "take care of the rest ."


def closes(_: str, answer: str) -> float:
    return float(CLOSING in answer)


@pytest.fixture(scope="module")
def observed(rm: RewardModel) -> tuple[Audit, ScoredRows]:
    """Every rejected answer has a closing, which is paid for; the edit of the text adds something else."""
    data = scored(rm, "pair", times=15)
    return (
        audit(
            rm,
            data,
            attributes=(Attribute("closing", "a closing", closes),),
            edits=(TextEdit("closing", "praise behind the answer", put_behind(PRAISE, closes)),),
        ),
        data,
    )


def test_the_slopes_of_a_reward_are_those_of_a_fit_to_each_attribute_by_itself(
    observed: tuple[Audit, ScoredRows],
) -> None:
    audited, data = observed
    rng = np.random.default_rng(0)
    attributes = rng.normal(size=(len(data.scored.rewards), 2))
    prompt = audited.table.prompt
    one = Observed.of(data.scored, prompt, attributes)
    within = [v - (np.bincount(prompt, v) / np.bincount(prompt))[prompt] for v in attributes.T]
    rewards = data.scored.rewards.astype(float)
    # the least-squares slope on x is x y / x x; for one SD of x that is x y / (N SD(x))
    wanted = [np.polyfit(x, rewards, 1)[0] * x.std() for x in within]
    assert (one.weights.T @ rewards).tolist() == pytest.approx(wanted, rel=1e-4, abs=1e-6)
    same = Observed.of(data.scored, prompt, np.ones((len(rewards), 1)))
    assert not same.weights.any()  # what differs within no prompt has no slope


def test_what_latents_carry_of_a_slope_adds_up_to_it_and_edits_take_it_away(
    observed: tuple[Audit, ScoredRows],
) -> None:
    audited, data = observed
    (contrast,) = audited.contrasts
    table = audited.table
    seen = Observed.of(data.scored, table.prompt, table.regressors)
    made = LatentMend([contrast], [], data.scored, table.prompt, table.reward_sd, seen)
    slope = seen.weights.T @ data.scored.rewards.astype(float) / table.reward_sd
    assert slope[0] > 0.1
    assert made._latent_slopes().sum(axis=1) == pytest.approx(slope, abs=1e-4)
    edits = made.edits(1.0)
    after = edited_rewards(data.scored, edits)
    assert abs(seen.weights.T @ after / table.reward_sd) < 0.3 * slope
    prices_alone = LatentMend([contrast], [], data.scored, table.prompt, table.reward_sd)
    assert prices_alone._latent_slopes().shape == (0, len(data.scored.head))


def test_edits_that_make_it_even_over_answers_are_taken_where_pairs_say_so(
    observed: tuple[Audit, ScoredRows], found: tuple[Audit, ScoredRows]
) -> None:
    made = mend(*observed, ["closing"])
    assert made.outcome.name == "even"
    assert {one.name for one in made.others} >= {"edits", "length", "projection", "suppression"}
    point = present(made.outcome.chosen)
    (slope,) = point.slopes
    assert abs(slope.after) < 0.5 * slope.before
    assert present(point.guard).change.low > 0.01
    said = audit_text(observed[0], made)
    assert (
        f"closing, over answers as they are: {slope.before:+.2f} SD before, {slope.after:+.2f} after" in said
    )
    assert made.as_json()["ways"][0]["frontier"][-1]["slopes"][0]["attribute"] == "closing"
    # where the price of the text is what is wrong, the set that knows prices alone is enough
    assert mend(*found, ["praise"], guard_points=100).outcome.name == "edits"


def test_the_projected_head_does_not_see_the_attributes_direction(found: tuple[Audit, ScoredRows]) -> None:
    (contrast,) = found[0].contrasts
    reward = by_projection([contrast]).at(1.0)
    none = np.zeros((len(contrast.prompt), 0))
    change = reward(Measured(contrast.having, none)) - reward(Measured(contrast.without, none))
    assert float(contrast.weights @ change) == pytest.approx(0.0, abs=1e-5)
    half = by_projection([contrast]).at(0.5)
    left = half(Measured(contrast.having, none)) - half(Measured(contrast.without, none))
    assert float(contrast.weights @ left) == pytest.approx(
        0.5 * float(contrast.weights @ contrast.change), rel=1e-4
    )


def test_after_a_length_penalty_the_reward_is_even_in_length(found: tuple[Audit, ScoredRows]) -> None:
    audited, data = found
    prompt = audited.table.prompt
    after = by_length(data.scored, prompt).at(1.0)(Measured(data.scored, np.zeros((len(prompt), 0))))
    x = np.log2(np.maximum(data.scored.lengths, 1.0))
    x, y = (v - (np.bincount(prompt, v) / np.bincount(prompt))[prompt] for v in (x, after))
    assert abs(x @ y) < 1e-6 * max(1.0, float(x @ x))


def test_an_edit_of_several_wordings_is_mended_on_halves_of_its_sets(rm: RewardModel) -> None:
    phrases = (PRAISE, "feel free to ask more .", "thank you .")
    one = Attribute("added", "added", lambda _, answer: float(any(text in answer for text in phrases)))
    data = scored(rm, "pair")
    audited = audit(rm, data, attributes=(one,), edits=(added_behind("added", phrases, one.measure),))
    (contrast,) = audited.contrasts
    assert contrast.wording is not None
    assert len(np.unique(contrast.wording)) == 3
    mended = mend(audited, data, ["added"], guard_points=100)
    assert mended.certificate == ()
    assert any("every attribute of the audit is mended" in one for one in mended.missing)
    for point in mended.outcome.frontier:
        (left,) = point.left
        assert left.edit == "one of 3 texts behind the answer"
        assert np.isfinite(left.after.sd)
        assert left.after.n == 25
        assert 5 <= left.after.sets <= 25


def test_the_guard_counts_prompts_that_turn(found: tuple[Audit, ScoredRows]) -> None:
    data = found[1]
    before = data.scored.rewards.astype(float)
    right = [before[2 * i] > before[2 * i + 1] for i in range(50)]
    turned = before.copy()
    turned[0:10] = -turned[0:10]  # the first five pairs
    wrong = [turned[2 * i] > turned[2 * i + 1] for i in range(50)]
    seen = guard(pair_credit(data, before), pair_credit(data, turned))
    assert (seen.before, seen.after) == (np.mean(right), np.mean(wrong))
    assert seen.flips.gained == sum(b and not a for a, b in zip(right, wrong, strict=True))
    assert seen.flips.lost == sum(a and not b for a, b in zip(right, wrong, strict=True))
    assert seen.cost == pytest.approx(100 * (np.mean(right) - np.mean(wrong)))


def test_controls_are_read_back_as_the_edits(found: tuple[Audit, ScoredRows], tmp_path: Path) -> None:
    audited, data = found
    mended = mend(audited, data, ["praise"], guard_points=100)
    text = controls_text(mended, model="lab")
    (tmp_path / "controls.yaml").write_text(text)
    read = read_edit_file(tmp_path / "controls.yaml")
    assert tuple(read.edits) == mended.edits
    assert read.head == data.scored.fingerprint
    assert set(yaml.safe_load(text)["reward"]) == {"fingerprint", "edits", "penalties"}
    rewards = edited_rewards(data.scored, read.edits)
    assert not np.allclose(rewards, data.scored.rewards)


@pytest.mark.long
def test_without_pairs_nothing_is_recommended(rm: RewardModel) -> None:
    data = scored(rm, "candidates")
    audited = audit(rm, data, attributes=ATTRIBUTES, edits=EDITS)
    mended = mend(audited, data, ["praise"])
    assert not mended.recommended
    assert "there are no pairs" in mended.why
    assert any(one.startswith("Guard: no pairs") for one in mended.missing)
    with_pairs = mend(audited, data, ["praise"], guard_data=scored(rm, "pair"))
    point = with_pairs.outcome.frontier[0]
    assert point.guard is not None
    assert point.guard.flips.n == 25  # the half of the guard's prompts that chose no strength
    said = audit_text(audited, mended)
    assert "is not recommended: there are no pairs, so nobody knows what it costs" in said
    about = {"model": "lab", "head": data.scored.fingerprint, "data": ["made.jsonl"], "certificate": []}
    page = audit_page({**audited.as_json(), **about, "mend": mended.as_json()})
    assert "Not recommended: there are no pairs, so nobody knows what it costs." in [
        one.finding for one in page.sections
    ]
    with pytest.raises(DataError, match="no pairs, so no guard"):
        pair_credit(data, data.scored.rewards.astype(float))


def outcome(words: str, change: tuple[float, float, float] | None) -> Outcome:
    """A way at its only strength, with the mean and ends of its change of accuracy."""
    judged = (
        None if change is None else Guard(0.5, 0.5 + change[0], Interval(*change, 90), Flips(90, 9, 8, 1.0))
    )
    return Outcome(words, words, 1.0, (Point(1.0, (), judged),))


@pytest.mark.parametrize(
    ("ours", "others", "better"),
    [
        # the largest of those whose whole interval lies above the edits' change
        (
            0.02,
            [(0.03, 0.025, 0.05), (0.06, 0.03, 0.09)],
            "by +6.0 points [+3.0, +9.0] with way 1,",
        ),
        (
            0.02,
            [(0.06, 0.019, 0.09), (0.03, 0.021, 0.05)],
            "by +3.0 points [+2.1, +5.0] with way 1,",
        ),
        (0.02, [(0.06, 0.02, 0.09)], None),
        (-0.05, [None, (-0.01, -0.04, 0.02)], "by -1.0 points [-4.0, +2.0] with way 1,"),
        (None, [(0.06, 0.03, 0.09)], None),
    ],
)
def test_another_way_that_is_clearly_better_is_named(
    found: tuple[Audit, ScoredRows],
    ours: float | None,
    others: list[tuple[float, float, float] | None],
    better: str | None,
) -> None:
    own = outcome("edits", None if ours is None else (ours, ours - 0.01, ours + 0.01))
    ways = tuple(outcome(f"way {number}", one) for number, one in enumerate(others))
    made = Mend(("praise",), (), own, ways, True, "it costs 0.3 points", (), (), "head", 1.0)
    assert made.as_json()["better"] == made.better
    if better is None:
        assert made.better is None
        return
    assert made.better is not None
    assert better in made.better
    assert f"by {100 * present(ours):+.1f} with these edits: look at that way first." in made.better
    about = {"model": "lab", "head": "head", "data": ["made.jsonl"], "certificate": []}
    page = audit_page({**found[0].as_json(), **about, "mend": {**made.as_json(), "ways": []}})
    (said,) = [one.finding for one in page.sections if one.id == "mend"]
    assert said == f"Recommended: it costs 0.3 points. {made.better}"


@pytest.mark.parametrize(
    ("targets", "message", "hint"),
    [
        ([], "nothing to mend", "name attributes"),
        (["charm"], "'charm' is no attribute of this audit", "it has praise, words"),
        (["words"], "words cannot be mended: no edit of the text changes it in 20 prompts", "are praise"),
    ],
)
def test_what_cannot_be_mended_is_refused(
    found: tuple[Audit, ScoredRows], targets: list[str], message: str, hint: str
) -> None:
    assert mendable(found[0]) == ("praise",)
    with pytest.raises(ConfigError, match=message) as caught:
        mend(*found, targets)
    assert hint in str(caught.value.hint)


@pytest.mark.long
def test_with_answers_of_a_policy_the_certificate_is_of_those(rm: RewardModel) -> None:
    data, sampled = scored(rm, "pair"), scored(rm, "candidates")
    audited = audit(rm, data, candidates=sampled, attributes=ATTRIBUTES, edits=EDITS)
    assert audited.pressure is not None
    assert audited.pressure.prompts == 50
    mended = mend(audited, data, ["praise"], guard_points=100)
    assert [(one.name, one.n, one.prompts) for one in mended.certificate] == [("words", 2, 50)]
    own = mend(audit(rm, data, attributes=ATTRIBUTES, edits=EDITS), data, ["praise"], guard_points=100)
    assert [one.prompts for one in own.certificate] == [25]  # the half that chose nothing
    assert own.edits == mended.edits


def test_two_attributes_of_one_name_are_refused(rm: RewardModel) -> None:
    with pytest.raises(ConfigError, match="two attributes are called praise"):
        audit(rm, scored(rm, "pair"), attributes=(ATTRIBUTES[0], *ATTRIBUTES), edits=())


@pytest.mark.parametrize("name", ["prompt", "answer", "role", "reward"])
def test_an_attribute_cannot_be_called_as_a_column_of_answers(rm: RewardModel, name: str) -> None:
    """Its numbers would stand where the rewards are expected, in tables and in the curves of best-of-N."""
    one = Attribute(name, "words", ATTRIBUTES[1].measure, "doubling")
    with pytest.raises(ConfigError, match=f"an attribute cannot be called {name}"):
        audit(rm, scored(rm, "pair"), attributes=(one,), edits=())


def test_some_prompts_of_a_table_are_numbered_anew(found: tuple[Audit, ScoredRows]) -> None:
    table = found[0].table
    kept = np.arange(50) % 3 == 1
    part = table.of_prompts(kept)
    assert part.prompts == tuple(text for text, keep in zip(table.prompts, kept, strict=True) if keep)
    assert [part.prompts[n] for n in part.prompt] == [table.prompts[n] for n in table.prompt if kept[n]]
    assert part.answers == tuple(a for a, n in zip(table.answers, table.prompt, strict=True) if kept[n])
    assert part.rewards.tolist() == table.rewards[kept[table.prompt]].tolist()
