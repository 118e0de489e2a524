"""The pages in a real headless Chromium, against the library and its server."""

import json
import re
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from sarm_control.control import Edit, edited_rewards, read_edit_file, save_edits
from sarm_control.data import read_rows
from sarm_control.explorer import Site, Sources, export_site
from sarm_control.latents import ScoredRows, score_rows
from sarm_control.reward_model import RewardModel
from sarm_control.training import read_document
from tests.explorer.conftest import SCRIPT, SVG, Explored
from tests.explorer.worlds import served

pytestmark = pytest.mark.long

TOKEN = "a-token-of-some-length"
PHONE = {"width": 390, "height": 844}
PLACES = {"latents": ".table .row", "latent/8": ".answers", "bench": ".verdict", "run": "main"}


def shown(page: Any) -> list[int]:
    """The latents of the rows that are in the page, top to bottom."""
    rows = page.locator(".table .row")
    places = rows.evaluate_all(
        "all => all.map(row => [Number(row.dataset.place), row.querySelector('.id').textContent])"
    )
    return [int(latent) for _, latent in sorted(places)]


def opened(page: Any, url: str, place: str = "latents") -> Any:
    page.goto(f"{url}/#/{place}")
    page.locator("header .brand").wait_for()
    return page


def score(page: Any, prompt: str, *answers: str) -> None:
    page.locator(".verdict").wait_for()
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.get_by_label("Answer A").fill(answers[0])
    page.get_by_label("Answer B").fill(answers[1] if len(answers) > 1 else "")
    page.get_by_role("button", name="Score", exact=True).click()
    page.get_by_role("button", name="Score", exact=True, disabled=True).wait_for()


def rewards(page: Any) -> list[float]:
    """The rewards that the page computed, with all their digits."""
    return [float(cell.get_attribute("data-value")) for cell in page.locator("[data-reward]").all()]


def drag(page: Any, latent: int, value: float, kind: str = "scale") -> None:
    """Moves a slider and lets it go."""
    slider = page.get_by_label(f"Edit of latent {latent}: {kind}")
    slider.fill(str(value))
    slider.dispatch_event("change")


def test_latents_are_searched_by_number_name_and_word(page: Any, explored: Explored) -> None:
    opened(page, explored.url)
    search = page.get_by_label("Search latents")
    search.fill("15")
    assert shown(page) == [15]
    search.fill("closing sent")
    assert shown(page) == [8]
    word = explored.site.words(18)[0]
    search.fill(word)
    assert 18 in shown(page)
    search.fill("nothing has this name")
    page.get_by_text("No latent matches").wait_for()
    assert page.locator(".count").inner_text() == "0 of 24"


def test_latents_are_sorted_by_each_column(page: Any, explored: Explored) -> None:
    opened(page, explored.url)
    head, columns = explored.site.sources.head, explored.site.columns
    effect = np.abs(columns["effect"])
    assert shown(page)[0] == int(np.nanargmax(effect))
    for name, keys in (
        ("weight", np.abs(head)),
        ("active in", columns["rate"]),
        ("spread", columns["spread"]),
    ):
        page.get_by_role("columnheader", name=re.compile(name)).get_by_role("button").click()
        assert shown(page)[0] == int(np.argmax(keys)), name
        assert (
            page.get_by_role("columnheader", name=re.compile(name)).get_attribute("aria-sort") == "descending"
        )
    page.get_by_role("columnheader", name=re.compile("spread")).get_by_role("button").click()
    assert columns["spread"][shown(page)[0]] == columns["spread"].min()


def test_filters_keep_what_they_say(page: Any, explored: Explored) -> None:
    opened(page, explored.url)
    kind, rate = explored.site.kind, explored.site.columns["rate"]
    for value, kept in (
        ("harms", lambda n: kind.of(n) in ("paid-for-bad", "charged-for-good")),
        ("dead", lambda n: rate[n] == 0),
        ("not tested", lambda n: kind.of(n) == "not tested"),
    ):
        page.locator(".filter select").select_option(value)
        assert sorted(shown(page)) == [n for n in range(24) if kept(n)], value


def test_rows_are_walked_and_opened_by_keys(page: Any, explored: Explored) -> None:
    opened(page, explored.url)
    first, second = shown(page)[:2]
    page.locator(".table").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.getAttribute('href')") == f"#/latent/{second}"
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name=f"Latent {first}").wait_for()


def test_a_latent_shows_its_answers_token_by_token(page: Any, explored: Explored) -> None:
    opened(page, explored.url, "latent/8")
    page.get_by_role("button", name="token by token").first.click()
    read = page.locator(".tokens .read")
    read.wait_for()
    z = explored.site.latent(8)["answers"]["top"][0]["z"]
    assert read.get_attribute("title").startswith(f"z {z:.2f}"[:5])
    page.get_by_role("button", name="at random").click()
    assert page.locator(".answers li").count() == 8


def test_sliders_give_the_rewards_of_the_server_for_every_kind_of_edit(page: Any, explored: Explored) -> None:
    """Every operation alone and a combination, with a latent that is not active moved off 0."""
    opened(page, explored.url, "bench")
    prompt, answers = (
        "what is the color of the pearl ?",
        ["it is white . feel free to ask more .", "i love how you think !"],
    )
    score(page, prompt, *answers)
    latents = explored.site.score([prompt] * 2, answers, [])["results"][0]["latents"]
    edits: list[dict[str, float]] = [{"latent": latents[0], "scale": 0.35}]
    drag(page, latents[0], 0.35)
    for latent, kind, value in zip(
        latents[1:5], ("max", "min", "set", "add"), (0.5, 1.5, 0.25, -0.75), strict=True
    ):
        page.get_by_label(f"Kind of edit of latent {latent}").select_option(kind)
        page.get_by_label(f"Edit of latent {latent}: {kind}").wait_for()
        amount = page.get_by_label(f"Amount of the edit of latent {latent}")
        amount.fill(str(value))
        amount.dispatch_event("change")
        edits.append({"latent": latent, kind: value})
    inactive = next(n for n in range(24) if n not in latents)
    page.get_by_label("Write an edit").fill(f"{inactive}:add=1.5,max=1.25")
    page.get_by_role("button", name="Add", exact=True).click()
    edits.append({"latent": inactive, "add": 1.5, "max": 1.25})
    given = httpx.post(
        f"{explored.url}/v1/score",
        json={"prompts": [prompt] * 2, "responses": answers, "edits": edits},
        timeout=60,
    )
    assert rewards(page) == pytest.approx([one["edited"] for one in given.json()["results"]], abs=1e-6)
    drag(page, latents[0], 0.7)
    page.locator(".check.right").wait_for()


def test_metamorphic_an_undone_edit_leaves_the_reward_as_it_was(page: Any, explored: Explored) -> None:
    opened(page, explored.url, "bench")
    page.locator(".verdict").wait_for()
    before = rewards(page)
    latent = int(page.locator(".prow .c-name .id").first.inner_text())
    drag(page, latent, 0.1)
    assert rewards(page) != before
    page.get_by_role("button", name=f"Undo the edit of latent {latent}").click()
    assert rewards(page) == before


def test_controls_built_by_clicking_are_read_by_the_library(
    page: Any, explored: Explored, data: ScoredRows, lab: RewardModel, tmp_path: Path
) -> None:
    opened(page, explored.url, "latent/15")
    page.get_by_role("button", name="Switch it off").click()
    page.get_by_role("link", name="See the edit on the bench").click()
    for text in ("8:max=1.5", "3:*0.0000001", "20:min=0,add=-2.854"):
        page.get_by_label("Write an edit").fill(text)
        page.get_by_role("button", name="Add", exact=True).click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download controls.yaml").click()
    file = tmp_path / "controls.yaml"
    download.value.save_as(file)
    read = read_edit_file(file)
    assert read.head == lab.fingerprint
    wanted = {"3:scale=1e-07", "8:max=1.5", "15:set=0.0", "20:min=0.0,add=-2.854"}
    assert {str(edit) for edit in read.edits} == wanted
    assert read_document(file).values["reward"]["fingerprint"] == lab.fingerprint
    assert not np.array_equal(edited_rewards(data.scored, read.edits), data.scored.rewards)


def open_file(page: Any, file: Path) -> None:
    page.locator("input[type=file]").set_input_files(file)


def built(page: Any) -> list[str]:
    """The edits that are listed, as `latent:operations`."""
    listed = page.locator(".controls li")
    found: list[str] = listed.evaluate_all(
        "all => all.map(one => ['.id', 'code'].map(part => one.querySelector(part).textContent).join(':'))"
    )
    return found


@pytest.mark.parametrize("place", ["server", "export"])
def test_a_downloaded_file_opened_again_gives_the_same_bench(
    page: Any, explored: Explored, exported: Path, tmp_path: Path, place: str
) -> None:
    """Metamorphic: clicked, downloaded, undone, opened; read by the library, or by an export alone."""
    page.goto(f"{explored.url if place == 'server' else exported.as_uri()}#/bench")
    page.locator(".verdict").wait_for()
    for text in ("8:max=1.5", "3:*0.0000001", "20:min=0,add=-2.854", "15=-3e21"):
        page.get_by_label("Write an edit").fill(text)
        page.get_by_role("button", name="Add", exact=True).click()
    before, paid = built(page), rewards(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download controls.yaml").click()
    file = tmp_path / "controls.yaml"
    download.value.save_as(file)
    page.get_by_role("button", name="Undo all").click()
    assert built(page) == []
    assert rewards(page) != paid
    open_file(page, file)
    page.get_by_text("4 edits from controls.yaml.").wait_for()
    assert sorted(built(page)) == sorted(before)
    assert rewards(page) == paid


def test_files_that_the_library_wrote_are_opened_and_say_what_is_left_out(
    page: Any, explored: Explored, lab: RewardModel, tmp_path: Path
) -> None:
    opened(page, explored.url, "bench")
    save_edits(tmp_path / "edits.json", [Edit(7, min=0.5)], fingerprint=lab.fingerprint, model="lab")
    open_file(page, tmp_path / "edits.json")
    page.get_by_text("1 edit from edits.json.").wait_for()
    controls = tmp_path / "controls.yaml"
    controls.write_text(
        f'reward:\n  fingerprint: "{lab.fingerprint}"\n  edits: ["8:*0.5", {{latent: 3, max: 2}}]\n'
        "  penalties:\n    - {latent: 15, tau: q0.9, alpha: 0.5sd}\n"
    )
    open_file(page, controls)
    page.get_by_text("2 edits from controls.yaml, in place of the 1 before. It also has 1 penalty").wait_for()
    assert built(page) == ["8:scale=0.5", "3:max=2"]


def test_files_that_are_none_are_told_and_change_nothing(
    page: Any, explored: Explored, exported: Path, tmp_path: Path
) -> None:
    files: dict[str, tuple[str | bytes, str]] = {
        "another.json": (
            '{"format": "sarm-edits-1", "head": "0", "edits": [{"latent": 3, "max": 1}]}',
            "head 0",
        ),
        "large.yaml": ("# " + "x" * (1 << 20), "large.yaml has 1.1 MB"),
        "binary.yaml": (b"\xff\xfe\x00", "binary.yaml is not text"),
        "beyond.json": ('[{"latent": 99, "max": 1}]', "atent 99"),
        "text.json": ("not a file", "text.json"),
        SVG.replace("/", "") + ".yaml": ("edits: 3", "<svg onload"),
    }
    for url in (explored.url, exported.as_uri()):
        page.goto(f"{url}#/bench")
        page.get_by_label("Write an edit").fill("8:max=1.5")
        page.get_by_role("button", name="Add", exact=True).click()
        for name, (content, words) in files.items():
            file = tmp_path / name
            file.write_bytes(content if isinstance(content, bytes) else content.encode())
            open_file(page, file)
            page.locator(".controls [role=alert]", has_text=words).wait_for()
        assert built(page) == ["8:max=1.5"]
    open_file(page, _controls_of_a_person(tmp_path))
    page.get_by_text("line 2 cannot be read here — Without sarm explore behind it").wait_for()
    assert page.evaluate("window.owned") is None


def _controls_of_a_person(folder: Path) -> Path:
    path = folder / "mine.yaml"
    path.write_text("reward:\n  edits: ['8:*0.5']\n")
    return path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("99:max=1", "there is no latent 99"),
        ("3:max=x", "x is no number"),
        ("3:min=2,max=1", "the floor is above"),
    ],
)
def test_an_edit_that_is_none_is_told(page: Any, explored: Explored, text: str, words: str) -> None:
    opened(page, explored.url, "bench")
    page.get_by_label("Write an edit").fill(text)
    page.get_by_role("button", name="Add", exact=True).click()
    assert words in page.get_by_role("alert").inner_text()


def test_payloads_in_answers_prompts_and_names_are_shown_as_text(page: Any, explored: Explored) -> None:
    opened(page, explored.url)
    page.get_by_label("Search latents").fill("<script>")
    assert shown(page) == [15]
    assert SCRIPT in page.locator(".row .name").inner_text()
    page.goto(f"{explored.url}/#/latent/15")
    page.locator(".answers").wait_for()
    page.goto(f"{explored.url}/#/bench")
    page.get_by_role("button", name=re.compile("Open a row")).click()
    page.get_by_label("Search rows").fill("<svg")
    page.locator(".picker li button", has_text="<svg").click()
    page.locator(".picker").wait_for(state="detached")
    prompt = page.get_by_label("Prompt", exact=True)
    end = time.monotonic() + 20
    while SVG not in prompt.input_value() and time.monotonic() < end:
        page.wait_for_timeout(50)
    assert SVG in prompt.input_value()
    score(page, SVG, SCRIPT, SVG)
    page.locator(".verdict").wait_for()
    assert page.evaluate("window.owned") is None
    assert page.locator("main img, main script").count() == 0


def test_a_long_text_is_refused_in_the_page(page: Any, explored: Explored) -> None:
    opened(page, explored.url, "bench")
    typed = "field.value = 'x'.repeat(300000); field.dispatchEvent(new Event('input', {bubbles: true}))"
    page.get_by_label("Answer A").evaluate(f"field => {{ {typed} }}")
    page.get_by_text("300,000 characters: at most 200,000 are scored").wait_for()
    assert page.get_by_role("button", name="Score", exact=True).is_disabled()


def test_a_run_is_followed_while_it_is_written(page: Any, explored: Explored) -> None:
    opened(page, explored.url, "run")
    page.get_by_text("No step is done yet").wait_for()
    row = {
        "step": 1,
        "reward/total": 0.25,
        "reward/model": 0.5,
        "reward/penalty/15": -0.25,
        "objective/kl": 0.1,
    }
    sample = {"step": 1, "prompt": "a ?", "response": SCRIPT, "reward/model": 0.5, "reward/total": 0.5}
    with (explored.run / "metrics.jsonl").open("w") as stream:
        stream.write(json.dumps(row) + "\n" + json.dumps({**row, "step": 2}) + "\n" + '{"step": 3, "rewa')
    (explored.run / "samples.jsonl").write_text(json.dumps(sample) + "\n")
    page.locator(".progress", has_text="step 2").wait_for()
    page.locator(".samples .text").get_by_text(SCRIPT).wait_for()
    warning = {"step": 3, "check": "dead-penalty", "latent": 15, "text": "the penalty is dead"}
    (explored.run / "warnings.jsonl").write_text(json.dumps(warning) + "\n")
    with (explored.run / "metrics.jsonl").open("a") as stream:
        stream.write('rd/total": 0.75}\n')
    page.locator(".fired").get_by_text("the penalty is dead").wait_for()
    page.locator(".progress", has_text="step 3").wait_for()


def test_two_tabs_that_write_one_note_see_each_other(page: Any, explored: Explored) -> None:
    other = page.context.new_page()
    for tab in (page, other):
        opened(tab, explored.url, "latent/9")
        tab.get_by_label("Note on latent 9").wait_for()
        tab.wait_for_load_state("networkidle")
    page.get_by_label("Note on latent 9").fill("what I saw")
    page.get_by_role("button", name="Save note").click()
    page.get_by_text("saved", exact=True).wait_for()
    other.get_by_label("Note on latent 9").fill("what they saw")
    other.get_by_role("button", name="Save note").click()
    other.get_by_text("This note was saved elsewhere").wait_for()
    assert other.get_by_role("alert").get_by_text("what I saw").is_visible()
    other.get_by_role("button", name="keep mine").click()
    other.get_by_text("saved", exact=True).wait_for()
    assert json.loads(explored.notes.read_text())["notes"]["9"] == {"text": "what they saw", "version": 2}


def test_a_stopped_server_is_told_and_the_page_goes_on_when_it_is_back(page: Any, site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with ExitStack() as first:
        url = first.enter_context(served(site, port=port))
        opened(page, url, "bench")
        page.locator(".verdict").wait_for()
    before = rewards(page)
    latent = int(page.locator(".prow .c-name .id").first.inner_text())
    drag(page, latent, 0.5)
    page.get_by_text("The server has stopped.").wait_for()
    assert rewards(page) != before, "edits are algebra in the page"
    with served(site, port=port):
        page.get_by_text("The server has stopped.").wait_for(state="detached")
        drag(page, latent, 0.25)
        page.locator(".check.right").wait_for()


def test_a_token_is_asked_for_and_one_in_the_address_is_taken(page: Any, site: Site) -> None:
    with served(site, token=TOKEN) as url:
        page.goto(f"{url}/")
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Open").click()
        page.locator(".table .row").first.wait_for()
        other = page.context.new_page()
        other.goto(f"{url}/#token={TOKEN}")
        other.locator(".table .row").first.wait_for()
        assert TOKEN not in other.url


@pytest.fixture(scope="module")
def exported(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of an export."""
    folder = tmp_path_factory.mktemp("exported") / "site"
    written = export_site(site, folder, latents=3, rows=12)
    assert (written.latents, written.rows) == (3, 12)
    return folder / "index.html"


def test_an_export_works_from_the_disk_without_any_server(page: Any, site: Site, exported: Path) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(exported.as_uri())
    page.locator(".table .row").first.wait_for()
    assert page.locator(".count").inner_text() == "24 latents"
    page.locator(".table .row a").first.click()
    page.locator(".answers").wait_for()
    page.goto(f"{exported.as_uri()}#/bench")
    page.get_by_role("button", name=re.compile("Open a row")).click()
    page.locator(".picker li button").nth(7).click()
    page.locator(".verdict").wait_for()
    page.get_by_label("Write an edit").fill("8:max=0.5,add=0.25")
    page.get_by_role("button", name="Add", exact=True).click()
    edited = site.score_row(7, [{"latent": 8, "max": 0.5, "add": 0.25}])["results"]
    assert rewards(page) == pytest.approx([one["edited"] for one in edited], abs=1e-6)
    assert page.evaluate("window.owned") is None
    assert asked
    assert all(url.startswith(("file:", "data:", "blob:")) for url in asked)


def parts(page: Any, answer: int) -> list[float]:
    """Every bar of an answer, the residual and the constant among them."""
    cells = page.locator(f"[data-part='{answer}']")
    values: list[float] = cells.evaluate_all("all => all.map(one => Number(one.dataset.value))")
    return values


def test_bars_of_an_attached_model_have_its_residual_and_sum_to_its_rewards(page: Any) -> None:
    """Oracle: the dictionary's contributions, residual and constant against the model's own rewards."""
    rm = RewardModel.from_pretrained("lab:attached", device="cpu")
    rows = list(read_rows(Path("lab:audit"), want={"pair"})[:6])
    data = ScoredRows(rows, score_rows(rm, rows))
    head = rm.head.weight
    site = Site(Sources("lab:attached", rm.fingerprint, head, rm, data, "lab:audit"))
    row = site.first_row()
    with served(site) as url:
        opened(page, url, "bench")
        for name in ("residual", "constant"):
            page.get_by_role("row", name=re.compile(f"^{name} ")).wait_for()
        own = data.scored.take(np.array([2 * row, 2 * row + 1]))
        assert rewards(page) == pytest.approx(own.rewards.tolist(), abs=1e-6)
        assert [sum(parts(page, n)) for n in range(2)] == pytest.approx(own.rewards.tolist(), abs=1e-6)
        assert set(own.residual.tolist()) <= set(parts(page, 0) + parts(page, 1))
        latent = int(page.locator(".prow .c-name .id").first.inner_text())
        drag(page, latent, 0.25)
        page.locator(".check.right").wait_for()
        wanted = edited_rewards(own, [Edit(latent, scale=0.25)])
        assert not np.array_equal(wanted, own.rewards)
        assert rewards(page) == pytest.approx(wanted.tolist(), abs=1e-6)
        assert [sum(parts(page, n)) for n in range(2)] == pytest.approx(wanted.tolist(), abs=1e-6)
        assert set(own.residual.tolist()) <= set(parts(page, 0) + parts(page, 1)), "edits leave it alone"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_any_page(browser: Any, explored: Explored, scheme: str) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-playwright-python is missing"
    )
    context = browser.new_context(
        color_scheme=scheme, viewport=PHONE if scheme == "dark" else None, bypass_csp=True
    )
    page = context.new_page()
    found = []
    for place, there in PLACES.items():
        opened(page, explored.url, place)
        page.locator(there).first.wait_for()
        if place == "bench":
            page.get_by_label("Write an edit").fill("8:max=0.5")
            page.get_by_role("button", name="Add", exact=True).click()
        result = axe.Axe().run(page)
        found += [
            f"{place}: {one['id']}: {one['nodes'][0]['html'][:140]}" for one in result.response["violations"]
        ]
    context.close()
    assert not found


def test_no_page_is_wider_than_a_phone(browser: Any, explored: Explored) -> None:
    context = browser.new_context(viewport=PHONE)
    page = context.new_page()
    for place, there in (
        ("latents", ".table .row"),
        ("latent/8", ".answers"),
        ("bench", ".verdict"),
        ("run", "main"),
    ):
        opened(page, explored.url, place)
        page.locator(there).first.wait_for()
        time.sleep(0.1)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], place
    context.close()
