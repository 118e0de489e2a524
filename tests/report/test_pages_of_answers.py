"""Pages of `sarm probe`, `rerank`, `latents`, `discover`: oracle against their JSON, and null results."""

import json
from pathlib import Path
from typing import Any

import pytest

from sarm_control.cli import main
from sarm_control.data.rows import Kind, read_rows
from sarm_control.pages import figures_of
from sarm_control.report import coverage_page, probe_page, reranking_page
from tests.browsing import check_page
from tests.pages.test_pages import Parsed

PAGES = ("probe", "rerank", "deciders", "latents", "buffer", "discover")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page and the JSON of every command, on 60 pairs of the embedded world."""
    folder = tmp_path_factory.mktemp("pages")
    kinds: dict[str, Kind] = {"audit": "pair", "human": "answer"}
    for name, kind in kinds.items():
        lines = [json.dumps(row.raw) for row in read_rows(f"lab:{name}", want={kind})[:60]]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    latents, human = str(folder / "kept"), str(folder / "human.safetensors")
    for name, words in {
        "latents": ["latents", str(folder / "audit.jsonl"), "-o", latents],
        "buffer": ["latents", str(folder / "human.jsonl"), "--as-human", "-o", human, "--latents", "1,8"],
        "probe": ["probe", latents, "--edit", "8:max=1", "--edit", "15=0"],
        "rerank": ["rerank", latents, "--edit", "8=0"],
        "deciders": ["rerank", latents, "--all-latents", "--n", "2"],
        "discover": ["discover", latents, "-o", str(folder / "found")],
    }.items():
        files = ["--html", str(folder / f"{name}.html"), "--json", str(folder / f"{name}.json")]
        assert main(["--quiet", *words, *files]) == 0
    return folder


def read(place: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((place / f"{name}.json").read_text())
    return found


def holds(html: str, *values: float) -> bool:
    return all(f'<data value="{value}">' in html for value in values)


@pytest.mark.long
@pytest.mark.parametrize("name", PAGES)
def test_anybody_can_read_the_page(place: Path, name: str) -> None:
    file = place / f"{name}.html"
    assert file.stat().st_size < 1_000_000
    text = "".join(Parsed(file.read_text()).texts)
    command = {"deciders": "rerank", "buffer": "latents"}.get(name, name)
    assert f"sarm {command} " in text
    if name in ("probe", "deciders", "latents"):
        check_page(file)


def test_oracle_a_probe_shows_what_its_json_holds(place: Path) -> None:
    found, html = read(place, "probe"), (place / "probe.html").read_text()
    sides = [side["delta"][end] for side in found["sides"].values() for end in ("mean", "low", "high")]
    assert holds(html, *sides, found["preference"]["margin_delta"]["mean"])
    assert sum(one["answers"] for one in found["changes"]) == found["answers"] == 120
    unmoved = next(one for one in found["changes"] if one["low"] == one["high"] == 0)
    moved = sum(round(side["changed"] * side["answers"]) for side in found["sides"].values())
    assert unmoved["answers"] == 120 - moved
    first = found["moved"]["falls"][0]
    assert first["delta"] == pytest.approx(first["after"] - first["before"])
    assert first["answer"] in "".join(Parsed(html).texts)


def test_oracle_a_reranking_shows_what_its_json_holds(place: Path) -> None:
    found, html = read(place, "rerank"), (place / "rerank.html").read_text()
    assert holds(html, *(one["change"]["mean"] for one in found["winners"]))
    for one in found["examples"]:
        assert one["second"]["after"] > one["first"]["after"]
        assert one["first"]["before"] >= one["second"]["before"]
    decide = read(place, "deciders")
    top = decide["latents"][0]
    assert holds((place / "deciders.html").read_text(), top["changed"]["mean"], top["weight"])
    verdict = reranking_page(decide).verdict
    assert verdict.startswith(f"Latent {top['latent']} decides most: without it")


def test_oracle_coverage_counts_the_latents_of_the_folder(place: Path) -> None:
    from sarm_control.latents import read_latents

    rows, scored = read_latents(place / "kept")
    fires = scored.latents.columns(range(24)) > 0
    seen = read(place, "latents")["seen"]
    assert (seen["answers"], seen["prompts"]) == (120, len({row.prompt_key for row in rows}))
    assert seen["never"] == int((fires.sum(axis=0) == 0).sum())
    assert sum(one["latents"] for one in seen["rates"]) == seen["latents"] == 24
    rates = fires.mean(axis=0)
    assert seen["rates"][4] == {
        "low": 0.1,
        "high": 0.5,
        "latents": int(((rates > 0.1) & (rates <= 0.5)).sum()),
    }
    spread = scored.head**2 * scored.latents.columns(range(24)).var(axis=0)
    assert [one["latent"] for one in seen["listed"][:3]] == list((-spread).argsort()[:3])
    assert seen["listed"][0]["spread"] == pytest.approx(float(spread.max() / spread.sum()), rel=1e-4)
    # two answers to each prompt: the mean over prompts is that over answers
    assert seen["listed"][0]["rate"]["mean"] == pytest.approx(rates[seen["listed"][0]["latent"]])


def test_no_effect_is_a_sentence(place: Path) -> None:
    nothing = {"mean": 0.0, "low": -0.1, "high": 0.1, "n": 60}
    probed = read(place, "probe")
    flips = {"n": 60, "gained": 1, "lost": 1, "p": 1.0}
    pairs = {**probed["preference"], "margin_delta": nothing, "accuracy_delta": nothing, "flips": flips}
    page = probe_page({**probed, "preference": pairs})
    assert page.verdict.endswith("a null result.")
    assert page.tone == "unclear"
    still = {name: {**side, "changed": 0.0} for name, side in probed["sides"].items()}
    assert probe_page({**probed, "sides": still}).verdict.startswith("No reward changes")
    ranked = read(place, "rerank")
    none = {**ranked, "changed": {**ranked["changed"], "mean": 0.0}, "examples": []}
    assert reranking_page(none).verdict == "The edits change no winner: a null result."
    assert reranking_page({**read(place, "deciders"), "latents": []}).tone == "unclear"


def test_latents_that_never_fire_are_said(place: Path) -> None:
    kept, buffer = read(place, "latents"), read(place, "buffer")
    page = coverage_page({**kept, "seen": {**kept["seen"], "never": 3}})
    assert page.verdict.startswith("21 of 24 latents fire in these answers; 3 never do")
    page = coverage_page({**buffer, "coverage": {**buffer["coverage"], "chosen_firing": 1}})
    assert page.verdict == "1 chosen latent never fires: the buffer cannot say what is usual for them."
    assert page.tone == "bad"


def test_each_figure_of_a_page_has_a_name_of_its_own(place: Path) -> None:
    for page in (probe_page(read(place, "probe")), reranking_page(read(place, "rerank"))):
        names = [figure.name for figure in figures_of(page)]
        assert len(names) == len(set(names)) >= 2


@pytest.mark.long
def test_answers_without_pairs_are_neither_better_nor_worse(tmp_path: Path) -> None:
    words = ["--edit", "8=0", "--rows", "40", "--html", str(tmp_path / "p.html")]
    assert main(["--quiet", "probe", "lab:human", *words, "--json", str(tmp_path / "p.json")]) == 0
    page = probe_page(read(tmp_path, "p"))
    assert page.verdict.startswith(("The edits lower the mean reward of these 40 answers", "The edits show"))
    assert page.tone in ("plain", "unclear")
    assert main(["probe", "lab:human", *words]) == 2
