"""The explorer over HTTP: what it answers, and whom and what it refuses."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("fastapi", reason='the explorer wants the extra "explore"')

from sarm_control.control import Edit, edited_rewards, read_edit_file
from sarm_control.explorer import Site
from sarm_control.reward_model import RewardModel
from tests.explorer.conftest import Explored
from tests.explorer.worlds import served

TOKEN = "a-token-of-some-length"


@pytest.fixture(scope="module")
def client(explored: Explored) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=explored.url, timeout=60) as opened:
        yield opened


def test_every_answer_has_the_policy_that_runs_no_script_of_others(client: httpx.Client) -> None:
    for path in ("/", "/explorer.js", "/api/world", "/nothing"):
        policy = client.get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert client.get(path).headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path", ["/../app.py", "/%2e%2e/app.py", "/etc/passwd", "/static/index.html", "/explorer.js/../../app.py"]
)
def test_no_file_but_those_of_the_page_is_read(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 404


def test_scores_under_edits_are_those_of_the_library(client: httpx.Client, lab: RewardModel) -> None:
    prompt, answers = "what is the color of the pearl ?", ["it is white .", "your mind is truly amazing !"]
    edits = [{"latent": 8, "max": 0.5}, {"latent": 3, "add": 0.25}]
    asked = {"prompts": [prompt] * 2, "responses": answers, "edits": edits}
    given = client.post("/v1/score", json=asked).json()["results"]
    scored = lab.score([prompt] * 2, answers)
    wanted = edited_rewards(scored, [Edit(8, max=0.5), Edit(3, add=0.25)])
    assert [one["reward_model"] for one in given] == pytest.approx(scored.rewards.tolist(), abs=1e-6)
    assert [one["edited"] for one in given] == pytest.approx(wanted.tolist(), abs=1e-6)


@pytest.mark.parametrize(
    ("asked", "status", "words"),
    [
        ({}, 422, "0 prompts, 0 responses"),
        ({"prompts": ["a"], "responses": []}, 422, "1 prompts, 0 responses"),
        (
            {"prompts": ["a"], "responses": ["b"], "edits": [{"latent": 99, "max": 1}]},
            422,
            "latent 99 does not",
        ),
        ({"prompts": ["a"], "responses": ["x" * 300_000]}, 413, "a text of 300000 characters"),
        ({"row": 100_000}, 422, "there is no row 100000"),
        ({"promts": []}, 422, "promts"),
    ],
)
def test_what_cannot_be_scored_is_told_in_a_line(
    client: httpx.Client, asked: dict[str, Any], status: int, words: str
) -> None:
    answer = client.post("/v1/score", json=asked)
    assert answer.status_code == status
    assert words in answer.json()["error"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("c.yaml", "reward:\n  edits: [{latent: 3, max: 1}]\n  edits: 4", "edits is 4, it must be"),
        ("c.yaml", "edits:\n  - {latent: 99, max: 1}", "latent 99 does not exist"),
        ("c.yaml", "edits:\n  - {latent: 3, max: 1}\n  - '3=0'", "latent 3 has two edits"),
        ("c.yaml", "a: [1", "c.yaml:1: not YAML"),
        ("../../c.json", "{", "c.json: not JSON"),
        ("c.json", '{"format": "sarm-edits-1", "head": "0", "edits": []}', "made for head 0"),
        ("c.yaml", "edits: [{latent: 3, max: .nan}]", "edit: max is nan"),
        ("", "3", "the file: neither a steering file nor a list of edits"),
    ],
)
def test_a_controls_file_that_is_none_is_told_in_a_line(
    client: httpx.Client, name: str, text: str, words: str
) -> None:
    answer = client.post("/api/controls", json={"name": name, "text": text})
    assert answer.status_code == 422
    assert words in answer.json()["error"]


def test_oracle_a_controls_file_is_read_as_the_library_reads_it(client: httpx.Client, tmp_path: Path) -> None:
    text = "edits:\n  - {latent: 3, scale: 1e-1, add: -2}\n  - '8:max=1.5,min=0'\nhuman_kl: {beta: 0.1}\n"
    (tmp_path / "controls.yml").write_text(text)
    found = client.post("/api/controls", json={"name": "controls.yml", "text": text}).json()
    read = read_edit_file(tmp_path / "controls.yml")
    assert [Edit(**one) for one in found["edits"]] == read.edits
    assert found["left_out"] == list(read.left_out) == ["the human-KL term"]


def test_an_answer_of_a_hundred_megabytes_is_refused_before_it_is_read(explored: Explored) -> None:
    def body() -> Iterator[bytes]:
        yield b'{"prompts": ["a"], "responses": ["'
        for _ in range(100):
            yield b"x" * (1 << 20)
        yield b'"]}'

    answer = httpx.post(
        f"{explored.url}/v1/score", content=body(), headers={"content-type": "application/json"}, timeout=60
    )
    assert answer.status_code == 413
    assert "the body is larger than" in str(answer.json())


def test_a_page_of_another_host_may_not_ask(client: httpx.Client) -> None:
    answer = client.post("/v1/score", json={"row": 0}, headers={"origin": "https://evil.example"})
    assert answer.status_code == 403
    assert client.get("/api/world", headers={"host": "evil.example"}).status_code == 421
    assert client.post("/v1/score", content=b'{"row": 0}').status_code == 422, "a page may send it unasked"
    own = {"origin": str(client.base_url).rstrip("/")}
    assert client.post("/v1/score", json={"row": 0}, headers=own).status_code == 200


def test_a_token_is_asked_for_everything_but_the_empty_page(site: Site) -> None:
    with served(site, token=TOKEN) as url:
        assert httpx.get(f"{url}/").status_code == 200
        assert httpx.get(f"{url}/api/world").status_code == 401
        wrong = {"authorization": "Bearer another-token-of-length"}
        assert httpx.get(f"{url}/api/latents/1", headers=wrong).status_code == 401
        right = {"authorization": f"Bearer {TOKEN}"}
        assert httpx.get(f"{url}/api/latents/1", headers=right).json()["latent"] == 1


def test_a_note_over_another_version_gets_the_one_that_stands(
    client: httpx.Client, explored: Explored
) -> None:
    assert client.put("/api/notes/3", json={"text": "mine", "version": 0}).json()["version"] == 1
    again = client.put("/api/notes/3", json={"text": "theirs", "version": 0})
    assert again.status_code == 409
    assert again.json()["current"] == {"text": "mine", "version": 1}
    assert "mine" in Path(explored.notes).read_text()


def test_rows_are_searched_and_a_row_is_taken_apart(client: httpx.Client, explored: Explored) -> None:
    found = client.get("/api/rows", params={"find": "AMAZING"}).json()
    assert 0 < found["count"] < len(explored.site.sources.data.rows)
    row = client.get(f"/api/rows/{found['rows'][0]['row']}").json()
    for answer in row["answers"]:
        total = sum(z * w for z, w in zip(answer["values"], answer["weights"], strict=True))
        assert total == pytest.approx(answer["reward_model"], abs=1e-6)


def test_a_latent_that_there_is_not_is_told(client: httpx.Client) -> None:
    answer = client.get("/api/latents/24")
    assert answer.status_code == 422
    assert answer.json() == {"error": "there is no latent 24", "hint": "this model has the latents 0..23"}
