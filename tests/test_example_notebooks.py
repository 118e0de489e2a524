"""The notebooks of examples/: executed whole in a kernel of their own (golden: what they have to print)."""

import os
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

pytest.importorskip("pandas")
pytest.importorskip("anywidget")
jupytext, nbclient = pytest.importorskip("jupytext"), pytest.importorskip("nbclient")

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "notebooks"
SHOWN = {
    "read_a_reward_model": (
        "RewardModel(sarm, lab, 24 latents, k=6",
        "answer 0: reward",
        "latent ",
        "Bench(lab, rewards ",
    ),
    "from_pairs_to_a_controlled_policy": (
        "paid-for-bad",
        "Controls for the latents that harm",
        "2 steps done",
        "too few prompts to tell",
        "change_mean",
    ),
    "audit_and_mend": ("price in SDs", "recommended:", "prices are in SDs"),
}


def test_every_notebook_is_executed_here() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.py")) == sorted(SHOWN)
    listed = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(f"({name}.py)" in listed for name in SHOWN)


@pytest.mark.parametrize("name", SHOWN)
def test_a_notebook_runs_from_top_to_bottom(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(FOLDER.parents[1] / "src"), os.environ.get("PYTHONPATH", "")])
    )
    notebook = jupytext.read(FOLDER / f"{name}.py")
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    shown = "".join(
        str(output.get("text", "") or "") + "".join(map(str, output.get("data", {}).values()))
        for cell in notebook.cells
        for output in cell.get("outputs", ())
    )
    assert not [text for text in SHOWN[name] if text not in shown]
