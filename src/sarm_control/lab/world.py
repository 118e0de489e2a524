"""A world on disk: its models, its files, and the gold reward of any answer in its language."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarm_control.bounded_json import read_json, read_json_object
from sarm_control.data import read_rows
from sarm_control.embedded import DATA, LAB, world_folder
from sarm_control.errors import DataError
from sarm_control.lab.datasets import Writer
from sarm_control.lab.judges.gold import gold_reward
from sarm_control.lab.judges.truth import Truth
from sarm_control.lab.language.attributes import Attributes, Reader
from sarm_control.lab.language.language import Language
from sarm_control.lab.language.questions import Question, Questions

FORMAT = "sarm-lab-1"
ATTACHED_FORMAT = "sarm-lab-attached-1"
LONGEST_ANSWER = 24
"""Tokens, the end-of-turn included."""


@dataclass(frozen=True)
class World:
    """A folder written by `sarm lab build`.

    Args:
        path: the folder.
        seed: of the world.
        figures: what the builder measured.
    """

    path: Path
    seed: int
    figures: dict[str, Any]

    @classmethod
    def open(cls, folder: Path | str) -> "World":
        """The world in a folder; the text `lab` is the world inside the package.

        Raises:
            DataError: the folder holds no world, one of another version, or a damaged description of one.
            ModelError: `lab`, and the installation lacks its files.
        """
        folder = world_folder() if folder == LAB else Path(folder)
        values = _description(folder / "world.json")
        return cls(folder, values["seed"], values["figures"])

    @property
    def policy(self) -> Path:
        """The untrained policy."""
        return self.path / "policy"

    @property
    def sarm(self) -> Path:
        """The reward model."""
        return self.path / "sarm"

    @property
    def attached(self) -> Path:
        """The second reward model, a classifier with a dictionary; not every world has one."""
        return self.path / "attached"

    @cached_property
    def attached_truth(self) -> Truth:
        """The planted truth of the second reward model's latents."""
        return Truth.load(self.path / "attached_truth.json")

    @cached_property
    def attached_figures(self) -> dict[str, Any]:
        """What the builder measured of the second reward model.

        Raises:
            DataError: there is none.
        """
        if not self.attached.is_dir():
            raise DataError(
                f"{self.path} has no reward model with an attached dictionary",
                hint="make a world that has one: sarm lab build --attached -o FOLDER",
            )
        found: dict[str, Any] = read_json_object(self.path / "attached_world.json")["figures"]
        return found

    def file(self, name: str) -> Path:
        """One of the world's JSON Lines files, such as `audit`."""
        return self.path / f"{name}.jsonl"

    @cached_property
    def language(self) -> Language:
        """The words and what is true."""
        # drawn again and not stored: the seed decides every word, so that two
        # accounts of a world cannot differ
        return Language.draw(self.seed)

    @cached_property
    def truth(self) -> Truth:
        """The planted truth: every latent's true effect."""
        return Truth.load(self.path / "truth.json")

    @cached_property
    def _reader(self) -> Reader:
        return Reader(self.language)

    @cached_property
    def _questions(self) -> Questions:
        return Questions(self.language)

    def writer(self) -> Writer:
        """A writer of questions and answers of this world."""
        return Writer(self.language, self.seed)

    def fresh_writer(self) -> Writer:
        """The same, but it draws no question of this world's files."""
        rows = [row for name in DATA for row in read_rows(self.file(name), want={"prompt"})]
        return Writer(self.language, self.seed, used=(row.prompt_text for row in rows))

    def question(self, prompt: str) -> Question:
        """What a prompt asks.

        Raises:
            DataError: the prompt is not of this world.
        """
        question = self._questions.read(prompt)
        if question is None:
            raise DataError(f"no prompt of this world: {prompt[:80]!r}")
        return question

    def attributes(self, prompt: str, response: str) -> Attributes:
        """The attributes of an answer.

        Raises:
            DataError: the prompt is not of this world.
        """
        return self._reader.read(self.question(prompt), response)

    def gold(self, prompts: Sequence[str], responses: Sequence[str]) -> NDArray[np.float64]:
        """[N] gold rewards.

        Raises:
            DataError: a prompt is not of this world.
        """
        return np.array([self._gold(*row) for row in zip(prompts, responses, strict=True)], dtype=np.float64)

    def _gold(self, prompt: str, response: str) -> float:
        question = self.question(prompt)
        return gold_reward(question, self._reader.read(question, response))


def _description(path: Path) -> dict[str, Any]:
    """The content of `world.json`, with the keys and types that `World.open` needs."""
    again = "build it again with sarm lab build"
    try:
        values = read_json(path)
    except DataError as error:
        raise DataError(
            f"{path.parent} holds no world", hint="make one with sarm lab build -o FOLDER"
        ) from error
    if not isinstance(values, dict):
        raise DataError(f"{path} is no description of a world: it is no JSON object", hint=again)
    if values.get("format") != FORMAT:
        raise DataError(
            f"{path.parent} is a world of format {values.get('format')}, this version reads {FORMAT}",
            hint=again,
        )
    for name, kind, words in (("seed", int, "a whole number"), ("figures", dict, "an object")):
        if name not in values:
            raise DataError(f"{path} is no description of a world: it lacks {name}", hint=again)
        # a JSON `true` is an int in Python
        if not isinstance(values[name], kind) or isinstance(values[name], bool):
            raise DataError(f"{path} is no description of a world: {name} is not {words}", hint=again)
    return values
