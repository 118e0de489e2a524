"""The bench in a notebook (Jupyter, marimo): the page's own front end, drawn by anywidget.

What is drawn and every edit are the page's own code; this side scores texts and checks edits. It is imported
only where anywidget is installed, see `in_notebooks.open_bench`.

Shapes: `N` answers.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets
from numpy.typing import NDArray

from sarm_control.control import Edit, edited_rewards, parse_edit, save_edits
from sarm_control.data import Prompt, prompt_text
from sarm_control.errors import ConfigError, SarmError
from sarm_control.explorer.bench import controls_in, edit_json, edits_of, finite, taken_apart
from sarm_control.explorer.site import Site
from sarm_control.explorer.sources import LatentName, Sources, no_rows
from sarm_control.reward_model import RewardModel, Scored

STATIC = Path(__file__).with_name("static")


class BenchWidget(anywidget.AnyWidget):
    """Answers taken apart, with sliders that edit latents; what `RewardModel.bench` gives.

    Args:
        rm: scores what is on the bench.
        prompt: of the answers.
        answers: one or more of them.
        edits: to begin with.
        names: of latents.
    """

    _esm = STATIC / "widget.js"
    _world = traitlets.Dict().tag(sync=True)
    _table = traitlets.Dict().tag(sync=True)
    _laid = traitlets.Dict().tag(sync=True)
    _edits = traitlets.List(traitlets.Dict()).tag(sync=True)

    def __init__(
        self,
        rm: RewardModel,
        prompt: Prompt,
        answers: Sequence[str],
        edits: Iterable[Edit | str] = (),
        names: Mapping[int, LatentName] | None = None,
    ) -> None:
        self.rm = rm
        self._name = Path(str(rm.source.get("model", "built in memory"))).name
        head = rm.head.weight
        site = Site(Sources(self._name, rm.fingerprint, head, rm, no_rows(rm), names=names or {}))
        first = _checked(edits, len(head))
        # scored before the widget is shown: an error is then the cell's own
        self._lay(prompt, answers)
        super().__init__(_world=site.world(), _table=site.table(), _laid=self._as_row(), _edits=first)
        self.on_msg(self._hear)

    @property
    def scored(self) -> Scored:
        """What lies on the bench, as it was scored: the answers given, or those that the page scored last."""
        return self._scored

    @property
    def edits(self) -> list[Edit]:
        """The edits as they stand; set them to edits or to their spelling, `["12:max=2"]`.

        Raises:
            ConfigError: what is set is no edit, or of a latent that there is not.
        """
        return edits_of(self._edits, len(self.rm.head.weight))

    @edits.setter
    def edits(self, edits: Iterable[Edit | str]) -> None:
        """Takes the place of all edits, in the page too."""
        self._edits = _checked(edits, len(self.rm.head.weight))

    @property
    def rewards(self) -> NDArray[np.float64]:
        """[N] the rewards of the answers under the edits."""
        return edited_rewards(self.scored, self.edits)

    def save(self, path: str | Path) -> Path:
        """Writes the edits as JSON, with the head they are of: a file that every command reads.

        Raises:
            OutputError: it cannot be written.
        """
        save_edits(Path(path), self.edits, fingerprint=self.rm.fingerprint, model=self._name)
        return Path(path)

    def __repr__(self) -> str:
        """Model, rewards and edits, for a notebook that is read without its page."""
        rewards = ", ".join(f"{reward:+.4f}" for reward in self.rewards)
        edits = " ".join(map(str, self.edits)) or "no edits"
        return f"Bench({self._name}, rewards {rewards}, {edits})"

    def _lay(self, prompt: Prompt, answers: Sequence[str]) -> None:
        self._prompt, self._answers = prompt, list(answers)
        self._scored = self.rm.score([prompt] * len(self._answers), self._answers)

    def _as_row(self) -> dict[str, Any]:
        texts = [{"text": text, "role": ""} for text in self._answers]
        parts = taken_apart(self.scored)
        answers = [{**text, **part} for text, part in zip(texts, parts, strict=True)]
        row: dict[str, Any] = finite({"row": 0, "prompt": prompt_text(self._prompt), "answers": answers})
        return row

    def _hear(self, _widget: Any, asked: Mapping[str, Any], _buffers: Any) -> None:
        """Answers the page; an error that nobody foresaw is told there too, and raised here."""
        try:
            self.send({"id": asked["id"], "value": self._answer(asked)})
        except SarmError as error:
            self.send({"id": asked["id"], "error": str(error), "hint": error.hint})
        except Exception as error:
            self.send({"id": asked["id"], "error": f"the kernel failed: {error}", "hint": None})
            raise

    def _answer(self, asked: Mapping[str, Any]) -> Any:
        size = len(self.rm.head.weight)
        if asked["ask"] == "controls":
            return controls_in(asked["name"], asked["text"], size, self.rm.fingerprint)
        if asked["ask"] == "score":
            edits = edits_of(asked["edits"], size)
            if asked.get("row") is None:
                text = asked["prompts"][0]
                # the page shows a conversation as one text; as long as that stands it is the conversation
                same = text == prompt_text(self._prompt)
                self._lay(self._prompt if same else text, asked["responses"])
                self._laid = self._as_row()
            else:
                self._lay(self._prompt, self._answers)
            return {"head": self.rm.fingerprint, "results": finite(taken_apart(self.scored, edits))}
        if asked["ask"] == "hello":
            return True
        raise ConfigError(f"the bench cannot be asked for {asked['ask']!r}", hint="run the cell again")


def _checked(edits: Iterable[Edit | str], size: int) -> list[dict[str, Any]]:
    given = [edits] if isinstance(edits, str) else edits
    found = [edit_json(parse_edit(edit) if isinstance(edit, str) else edit) for edit in given]
    edits_of(found, size)
    return found
