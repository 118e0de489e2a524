"""Suggested controls from a discovery to text and files: oracle tests in a world with planted siblings."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.sparse import csr_array, hstack

from sarm_control.control.edits.edits import Edit
from sarm_control.control.penalties import Penalty
from sarm_control.discovery.discovery import Discovery, DiscoverySettings, discover
from sarm_control.discovery.evidence.examine import examine
from sarm_control.discovery.features import Feature, load_features
from sarm_control.discovery.report import controls_yaml, summary_text
from sarm_control.discovery.suggested_controls.control_effects import control_effects
from sarm_control.discovery.suggested_controls.joint_controls import joint_controls
from sarm_control.discovery.suggested_controls.suggestion import material_latents, suggested
from tests.discovery.test_discover import no_model, scored_rows
from tests.discovery.worlds import Planted, World, make_world
from tests.present import present

PLANTED = {20: Planted(0.3, 0.05, 0.4), 42: Planted(-0.02, 0.4, 0.1), 7: Planted(0.03, 0.3, 0.6)}
SIMILAR = (20, 80, 81, 82)
"""Latent 20 and its copies, which are the last latents."""


@pytest.fixture(scope="module")
def found() -> Discovery:
    return discover(scored_rows(world()), settings=DiscoverySettings(seed=1))


def world() -> World:
    made = make_world(prompts=400, planted=PLANTED)
    sides = [
        csr_array(hstack([side, *[side[:, [20]]] * 3], format="csr")) for side in (made.chosen, made.rejected)
    ]
    head = np.r_[made.head, np.full(3, made.head[20])]
    return made._replace(chosen=sides[0], rejected=sides[1], head=head)


def harms(found: Discovery) -> dict[int, Feature]:
    return {one.latent: one for one in found.lists["harms"]}


def test_siblings_say_who_carries_their_controls_and_a_file_keeps_it(
    found: Discovery, tmp_path: Path
) -> None:
    named = harms(found)
    assert named.keys() >= {*SIMILAR, 42, 7}
    carriers = {latent for latent in SIMILAR if named[latent].controls}
    assert 1 <= len(carriers) <= 2
    assert sum(len(named[latent].controls) for latent in SIMILAR) == 2
    for latent in {*SIMILAR} - carriers:
        assert named[latent].carried_by == tuple(sorted(carriers))
    assert all(named[latent].carried_by == () for latent in (*carriers, 42, 7))
    examine(found, no_model).features(model="m", goal="g", data={}).save(tmp_path / "features.json")
    assert load_features(tmp_path / "features.json", found.head).lists == found.lists


def test_a_filter_comes_before_the_doses(found: Discovery) -> None:
    """Oracle: the doses of the material latents are those of these alone, not a part of all doses."""
    named = harms(found)
    least = (abs(present(named[20].effect_sd)) + abs(present(named[7].effect_sd))) / 2
    material = material_latents(found.lists["harms"], of_sd=least)
    assert {one.latent for one in material} == {*SIMILAR}
    alone = joint_controls(found.parts.selection.latents, {one.latent: one.kind for one in material})
    with_suggestions = found.with_suggestions(of_sd=least)
    assert with_suggestions.suggested.joint == alone
    assert all(not one.controls for latent, one in harms(with_suggestions).items() if latent not in SIMILAR)
    text = controls_yaml(found, model="m", material_sd=least)
    content = yaml.safe_load(text)["reward"]
    written = [*(Penalty(**one) for one in content["penalties"]), *(Edit(**one) for one in content["edits"])]
    assert {*map(str, written)} == {*map(str, alone.controls)}
    both = suggested(with_suggestions.lists["harms"])
    assert {*map(str, (*both.penalties, *both.edits))} == {*map(str, alone.controls)}
    assert "more harm by less than" in text


def test_text_files_and_json_tell_the_effects_on_both_halves(found: Discovery) -> None:
    dose, parts = found.suggested.joint, found.parts
    honest = control_effects(parts.confirmation.latents, dose)
    assert found.suggested.confirmation == honest
    assert found.suggested.selection == control_effects(parts.selection.latents, dose)
    text = " ".join(summary_text(examine(found, no_model)).split())
    comments = controls_yaml(found, model="m")
    together, chosen = honest.together, found.suggested.selection.together
    reward = f"{together.reward_before:+.3g} before and {together.reward_after:+.3g} after"
    reward += f" (n = {together.answers};"
    for said in (text, comments):
        assert f"bad answers that have a shortcut get {reward}" in said
        assert f"correlates {together.correlation:.2f} with the unedited one, below 0.9" in said
        assert f"(selection prompts: {chosen.correlation:.2f})" in said
        assert f"fire on {100 * together.penalised:.0f} % of the good answers" in said
        assert f"Objective of the sizes, in squared SDs of the reward: {dose.objective}." in said
    assert re.search(r"cover it too", comments)
    assert comments.count("correlation on good answers") == 2 * len(dose.controls)
    content = json.loads(json.dumps(found.as_json()))["suggested_controls"]
    assert content["together"]["confirmation"] == json.loads(json.dumps(together.as_json()))
    assert content["objective"]["total"] == pytest.approx(present(dose.objective).total)
    assert content["objective"]["total"] < content["objective_without"]["total"]
    assert len(content["suggestions"]) == len(dose.suggestions)
    assert all(one["confirmation"]["answers"] > 0 for one in content["suggestions"])


def test_latents_that_most_good_answers_fire_are_said_to_have_no_clean_control() -> None:
    dense = {20: Planted(0.3, 0.6, 0.95)}
    text = summary_text(examine(discover(scored_rows(make_world(prompts=400, planted=dense))), no_model))
    said = " ".join(text.split())
    assert re.search(r"correlates -?0\.\d\d with the unedited one, below 0\.9", said)
    assert "these latents do not separate them, and no clean control of them exists." in said
