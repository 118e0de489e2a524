"""The bench in a notebook: oracle (against the library), bad input, and drawn in a real Chromium."""

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

pytest.importorskip("anywidget", reason='the bench in a notebook wants the extra "explore"')

from sarm_control.control import Edit, edited_rewards, load_edits
from sarm_control.errors import MissingExtraError, SarmError
from sarm_control.explorer.app import STATIC
from sarm_control.reward_model import RewardModel
from tests.explorer.conftest import SCRIPT, SVG

pytestmark = pytest.mark.long

PROMPT = "what is the color of the pearl ?"
DARK = "background: #111; color: oklch(0.9 0 0)"
ANSWERS = ["it is white . feel free to ask more .", "i love how you think !"]


def test_oracle_a_bench_holds_what_the_library_scores(lab: RewardModel, tmp_path: Path) -> None:
    bench = lab.bench(PROMPT, ANSWERS, edits=["8:max=0.5", Edit(3, add=0.25)])
    scored = lab.score([PROMPT] * 2, ANSWERS)
    np.testing.assert_array_equal(bench.scored.rewards, scored.rewards)
    np.testing.assert_array_equal(bench.rewards, edited_rewards(scored, bench.edits))
    assert load_edits(bench.save(tmp_path / "e.json"), fingerprint=lab.fingerprint) == bench.edits
    bench.edits = ["15=0"]
    assert bench.edits == [Edit(15, set=0)]
    assert repr(bench) == f"Bench(lab, rewards {', '.join(f'{r:+.4f}' for r in bench.rewards)}, 15:set=0.0)"
    shown = bench._repr_mimebundle_()[0]
    assert "application/vnd.jupyter.widget-view+json" in shown


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((PROMPT, []), "0 answers were given, a bench takes 1 to 16"),
        ((PROMPT, ["a"] * 17), "17 answers were given"),
        ((PROMPT, ["a", 3]), "answer 1 is 3, it must be a text"),
        ((3, "a"), "the prompt has 3, it must be a text or a list of messages"),
        (([{"role": "user"}], "a"), "the prompt has an object of 1"),
        ((PROMPT, "a", {"edits": ["99=0"]}), "latent 99 does not exist"),
        ((PROMPT, "a", {"edits": "8 off"}), "'8 off' is not an edit"),
        ((PROMPT, "a", {"edits": ["8=0", "8=1"]}), "latent 8 has two edits"),
        ((PROMPT, "a", {"names": {99: "x"}}), "latent 99 does not exist"),
        ((PROMPT, "a", {"names": "none.json"}), "none.json: No such file"),
    ],
)
def test_what_cannot_lie_on_a_bench_is_told(lab: RewardModel, given: Any, message: str) -> None:
    prompt, answers, options = (*given, {})[:3]
    with pytest.raises(SarmError, match=message):
        lab.bench(prompt, answers, **options)


def test_a_model_without_latents_has_no_bench() -> None:
    with pytest.raises(SarmError, match="there is nothing to edit on a bench: this reward model has no dic"):
        RewardModel.from_pretrained("lab:classifier", device="cpu").bench("a", "b")


def test_without_anywidget_the_line_that_installs_it_is_said(
    lab: RewardModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "anywidget", None)
    with pytest.raises(MissingExtraError, match="a bench in a notebook needs anywidget") as told:
        lab.bench(PROMPT, ANSWERS)
    assert str(told.value.hint).startswith(
        'pip install ".[explore]" in the clone, or open a bench in a browser'
    )


class Drawn(NamedTuple):
    """A widget, and the page of a stand-in notebook that draws it."""

    bench: Any
    page: Any


@pytest.fixture
def drawn(page: Any, lab: RewardModel) -> Drawn:
    """The widget's own module, drawn as anywidget does it; its model speaks with the widget here."""
    return draw(page, lab.bench(PROMPT, [*ANSWERS], names={8: SCRIPT}))


MODEL = """async ([source, state]) => {
  const heard = {};
  const tell = (event, message) => (heard[event] ?? []).forEach(listener => listener(message));
  const model = {
    get: name => state[name],
    set: (name, value) => { state[name] = value; },
    save_changes: () => window.toKernel && toKernel("state", {_edits: state._edits}),
    on: (event, listener) => (heard[event] ??= []).push(listener),
    off: () => {},
    send: content => window.toKernel && toKernel("message", content).then(
      answers => answers.forEach(one => tell("msg:custom", one))),
  };
  window.fromKernel = (name, value) => { state[name] = value; tell("change:" + name); };
  const module = await import(URL.createObjectURL(new Blob([source], {type: "text/javascript"})));
  window.stop = await module.default.render({model, el: document.getElementById("out")});
}"""


def draw(page: Any, bench: Any, *, kernel: bool = True, theme: str = "") -> Drawn:
    def to_kernel(kind: str, content: dict[str, Any]) -> list[Any]:
        if kind == "state":
            bench.set_state(content)
            return []
        sent: list[Any] = []
        bench.send = sent.append
        bench._handle_custom_msg(content, [])
        return sent

    if kernel:
        page.expose_function("toKernel", to_kernel)
    style = "h1, button, p { color: red; font-size: 40px }"  # of a notebook, which must not reach inside
    page.set_content(f"<body style='{theme}'><style>{style}</style><h1>cell</h1><div id=out></div></body>")
    state = {name: getattr(bench, name) for name in ("_world", "_table", "_laid", "_edits")}
    page.evaluate(MODEL, [(STATIC / "widget.js").read_text(encoding="utf-8"), json.loads(json.dumps(state))])
    page.locator(".verdict").wait_for()
    return Drawn(bench, page)


def rewards(page: Any) -> list[float]:
    return [float(cell.get_attribute("data-value")) for cell in page.locator("[data-reward]").all()]


def drag(page: Any, latent: int, value: float) -> None:
    slider = page.get_by_label(f"Edit of latent {latent}: scale")
    slider.fill(str(value))
    slider.dispatch_event("change")


def until(page: Any, holds: Any) -> None:
    for _ in range(400):
        if holds():
            return
        page.wait_for_timeout(25)
    raise AssertionError("it did not come about")


def test_a_slider_gives_the_rewards_of_the_model_and_reaches_it(drawn: Drawn, lab: RewardModel) -> None:
    bench, page = drawn
    assert rewards(page) == pytest.approx(bench.scored.rewards.tolist(), abs=1e-6)
    latent = int(page.locator(".prow .c-name .id").first.inner_text())
    drag(page, latent, 0.35)
    wanted = edited_rewards(lab.score([PROMPT] * 2, ANSWERS), [Edit(latent, scale=0.35)])
    assert rewards(page) == pytest.approx(wanted.tolist(), abs=1e-6)
    page.locator(".check.right").wait_for()
    until(page, lambda: bench.edits == [Edit(latent, scale=0.35)])
    np.testing.assert_array_equal(bench.rewards, wanted)
    bench.edits = ["15=0"]
    page.evaluate("edits => fromKernel('_edits', edits)", bench._edits)
    assert page.locator(".controls code").first.inner_text() == "set=0"
    assert rewards(page) == pytest.approx(bench.rewards.tolist(), abs=1e-6)


def test_new_texts_are_scored_by_the_kernel_and_files_read_by_it(
    drawn: Drawn, lab: RewardModel, tmp_path: Path
) -> None:
    bench, page = drawn
    page.get_by_label("Answer A").fill(f"yes . {SVG}")
    page.get_by_label("Answer B").fill("")
    page.get_by_role("button", name="Score", exact=True).click()
    until(page, lambda: len(rewards(page)) == 1)
    np.testing.assert_allclose(rewards(page), lab.score(PROMPT, f"yes . {SVG}").rewards, atol=1e-6)
    np.testing.assert_allclose(bench.rewards, rewards(page), atol=1e-6)
    assert [one["text"] for one in bench._laid["answers"]] == [f"yes . {SVG}"]
    file = tmp_path / "steer.json"
    file.write_text('{"8": ["*", 0.5]}')
    page.locator("input[type=file]").set_input_files(file)
    page.get_by_text("1 edit from steer.json.").wait_for()
    until(page, lambda: bench.edits == [Edit(8, scale=0.5)])
    file.write_text('{"8": ["?", 0.5]}')
    page.locator("input[type=file]").set_input_files(file)
    page.get_by_role("alert").get_by_text("edit of latent 8").wait_for()
    assert page.evaluate("window.owned") is None
    assert page.locator("#out a").count() == 0, "there is no other page to go to"


def test_a_saved_notebook_without_a_kernel_edits_and_says_what_it_cannot(page: Any, lab: RewardModel) -> None:
    bench = lab.bench([{"role": "user", "content": PROMPT}], ANSWERS, edits=["8=0"])
    draw(page, bench, kernel=False, theme=DARK)
    assert rewards(page) == pytest.approx(bench.rewards.tolist(), abs=1e-6)
    page.get_by_text("New texts need the kernel").wait_for()
    page.get_by_text("Computed in this page, exactly").wait_for()
    assert page.locator("[data-theme=dark]").count() == 1, "as the notebook around it"
    size = page.locator(".actions button").first.evaluate("one => getComputedStyle(one).fontSize")
    assert size == "14px", "the notebook's styles stay outside"
    heading = page.locator("h1").evaluate("one => getComputedStyle(one).fontSize")
    assert heading == "40px", "and these inside"


@pytest.mark.parametrize("theme", ["", DARK], ids=["light", "dark"])
def test_axe_finds_nothing_in_the_widget(page: Any, lab: RewardModel, theme: str) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-playwright-python is missing"
    )
    page.set_viewport_size({"width": 700, "height": 900})
    draw(page, lab.bench(PROMPT, ANSWERS, edits=["8:max=0.5"]), theme=theme)
    result = axe.Axe().run(page, context={"include": [["#out"]]})
    assert [f"{one['id']}: {one['nodes'][0]['html'][:140]}" for one in result.response["violations"]] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 700
