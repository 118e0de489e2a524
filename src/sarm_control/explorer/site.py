"""The JSON of every page: what the server answers, and what an export writes.

All of it is read from `Sources`. Only scoring and the activations of tokens run the model, one at a time.
"""

import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from sarm_control import __version__
from sarm_control.control import Edit, edited_rewards
from sarm_control.data import Prompt, Row, prompt_text
from sarm_control.discovery import AnswerCorpus, label_from
from sarm_control.errors import ConfigError, DataError
from sarm_control.explorer import one_latent as one
from sarm_control.explorer.bench import controls_in, edits_of, finite, taken_apart
from sarm_control.explorer.columns import (
    KindColumn,
    activity_columns,
    effect_columns,
    encoded,
    kind_column,
    reward_summary,
)
from sarm_control.explorer.notes import Note
from sarm_control.explorer.sources import Sources, attributes_of
from sarm_control.explorer.tokens import token_activations
from sarm_control.reward_model import RewardModel

_NOTABLE = 48
"""Latents that get distinctive words for the table; others get them when they are opened."""
_WORDS = 3
_LISTED = (
    *("effect", "low", "high", "share_of_margin"),
    *("rate", "rate_chosen", "rate_rejected", "spread", "top"),
)
"""Columns that the table has; a latent's own page has all of them."""
_PROMOTING = ("paid-for-good", "charged-for-bad")
_HARMING = ("paid-for-bad", "charged-for-good")
_SUMMARY = 160


class Site:
    """What can be asked about the sources. Several threads may ask.

    Args:
        sources: see there.
    """

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self.columns = activity_columns(sources.data) if len(sources.data.scored) else {}
        table = {} if sources.found is None else sources.found.table
        self.kind: KindColumn = kind_column(table, sources.size)
        self.columns |= effect_columns(table, sources.size) if table else {}
        # routes are plain functions, which FastAPI runs in threads: one pass through the model at a
        # time
        self._model_lock = threading.Lock()
        self._words_lock = threading.Lock()
        self._corpus: AnswerCorpus | None = None
        self._words: dict[int, list[str]] = {}
        # at the start and for a few: the words of one latent take a pass over all answers that it fires in
        for latent in self.ranked()[:_NOTABLE]:
            self.words(latent)

    def world(self) -> dict[str, Any]:
        """What is shown, for the head of every page."""
        return dict(self._world)

    def table(self) -> dict[str, Any]:
        """All latents, as columns; see `columns.encoded`."""
        # read anew every time: another tab, or another server on the file, may have saved one
        noted = {} if self.sources.notes is None else self.sources.notes.all()
        return {
            **self._table,
            "words": {str(latent): words for latent, words in self._words.items() if words},
            "noted": sorted(latent for latent, note in noted.items() if note.text),
        }

    # what never changes is computed once: 65,536 latents are on the screen the sooner
    @cached_property
    def _world(self) -> dict[str, Any]:
        sources, scored = self.sources, self.sources.data.scored
        rm = sources.rm
        return {
            "model": sources.model,
            "about": sources.about,
            "head": sources.fingerprint,
            "latents": sources.size,
            "k": None if rm is None or not rm.config.use_topk else rm.config.k,
            "kind": scored.kind,
            "constant": float(scored.constant),
            "data": sources.data_name,
            "goal": None if sources.found is None else sources.found.goal,
            "whole": sources.found is not None and sources.found.whole,
            "summary": finite(reward_summary(scored, sources.data.rows)),
            "scores": rm is not None,
            "run": None if sources.run is None else sources.run.name,
            "audit": sources.audit is not None,
            "notes": None if sources.notes is None else str(sources.notes.path),
            "first": self.first_row(),
            "version": __version__,
        }

    @cached_property
    def _table(self) -> dict[str, Any]:
        return {
            "count": self.sources.size,
            "weight": encoded(self.sources.head),
            "columns": {name: encoded(self.columns[name]) for name in _LISTED if name in self.columns},
            "kinds": list(self.kind.names),
            "kind": encoded(self.kind.codes),
            "names": {str(latent): name._asdict() for latent, name in self.sources.names.items()},
        }

    def ranked(self) -> list[int]:
        """Latents in the order people look at them: by effect, then by how much they vary, then by weight."""
        # effects are missing without pairs, and both are without rows: the weight orders what is left
        keys = [np.abs(self.columns[name]) for name in ("effect", "spread") if name in self.columns]
        order = [int(n) for key in keys for n in np.argsort(-np.nan_to_num(key), kind="stable") if key[n] > 0]
        weight = np.abs(self.sources.head)
        return list(dict.fromkeys([*order, *np.argsort(-weight, kind="stable").tolist()]))

    def verdicts(self) -> tuple[int, int]:
        """How many latents promote what was preferred, and how many harm it."""
        kinds = [self.kind.names[int(code)] for code in self.kind.codes]
        return sum(kind in _PROMOTING for kind in kinds), sum(kind in _HARMING for kind in kinds)

    def first_row(self) -> int:
        """A row that shows what the bench is for.

        Its worse answer has the higher reward, and without the latents that harm, the better one has. Where
        there is none, a row whose worse answer has the higher reward; else 0.
        """
        rows, scored = self.sources.data.rows, self.sources.data.scored
        harming = [n for n, code in enumerate(self.kind.codes) if self.kind.names[int(code)] in _HARMING]
        mended = edited_rewards(scored, [Edit(latent, set=0.0) for latent in harming])
        start, wrong = 0, []
        for number, row in enumerate(rows):
            own = slice(start, start + len(row.answers))
            start = own.stop
            # a pair that a page can show side by side, with something to read on each side
            if len(row.chosen) == len(row.rejected) == 1 and all(text.strip() for text in row.answers):
                before, after = scored.rewards[own], mended[own]
                if before[0] < before[1]:
                    wrong.append((not after[0] > after[1], number))
        # False sorts before True: first the rows that the edits put right, the earliest of them
        return min(wrong, default=(True, 0))[1]

    def words(self, latent: int) -> list[str]:
        """Words that set apart the answers in which a latent is active; none without rows."""
        if not len(self.sources.data.scored):
            return []
        with self._words_lock:
            if latent not in self._words:
                if self._corpus is None:
                    self._corpus = AnswerCorpus(self.sources.data)
                label = label_from(self._corpus.examples(latent), latent, "", words=_WORDS)
                self._words[latent] = [word.text for word in label.words]
            return self._words[latent]

    def latent(self, latent: int) -> dict[str, Any]:
        """One latent, without its note.

        Raises:
            DataError: there is no such latent.
        """
        self._check(latent)
        sources, data = self.sources, self.sources.data
        name = sources.names.get(latent)
        numbers = {key: float(column[latent]) for key, column in self.columns.items()}
        found: dict[str, Any] = {
            "latent": latent,
            "weight": float(sources.head[latent]),
            "kind": self.kind.of(latent),
            "name": None if name is None else name._asdict(),
            "words": self.words(latent),
            "numbers": finite(numbers),
            "attributes": None if sources.audit is None else attributes_of(sources.audit, latent),
            "decoder": None if sources.rm is None else _siblings(one.similar_by_decoder(sources.rm, latent)),
            "firing": None,
        }
        if not len(data.scored):
            return found
        flips = one.flips_without(data, latent)
        shown = one.activating_answers(data, latent)
        found["firing"] = _siblings(one.similar_by_firing(data, latent))
        found["histogram"] = finite(one.contribution_histogram(data, latent))
        found["answers"] = {part: one.answer_json(data, numbers, latent) for part, numbers in shown.items()}
        found["flips"] = {
            "prompts": flips.prompts,
            "answers": flips.answers,
            "changed": None if flips.changed is None else finite(flips.changed.as_json()),
            "examples": [one.answer_json(data, flip, latent) for flip in flips.examples],
        }
        return found

    def rows(self, start: int, count: int, find: str = "") -> dict[str, Any]:
        """The rows of the data, by their prompts' beginnings; those that hold a text, where one is given."""
        wanted = find.casefold()
        rows = [
            (number, row)
            for number, row in enumerate(self.sources.data.rows)
            if not wanted or any(wanted in text.casefold() for text in (row.prompt_text, *row.answers))
        ]
        part = rows[start : start + count]
        listed = [
            {"row": n, "prompt": row.prompt_text[:_SUMMARY], "answers": len(row.answers)} for n, row in part
        ]
        return {"count": len(rows), "rows": listed}

    def row(self, number: int) -> dict[str, Any]:
        """One row with its answers taken apart; nothing is scored anew.

        Raises:
            DataError: there is no such row.
        """
        rows, own_row = self.sources.data.rows, self._row(number)
        start = sum(len(row.answers) for row in rows[:number])
        own = np.arange(start, start + len(own_row.answers))
        parts = taken_apart(self.sources.data.scored.take(own))
        texts = one.answer_json(self.sources.data, own.tolist())
        answers = [{**text, **part} for text, part in zip(texts, parts, strict=True)]
        found: dict[str, Any] = finite({"row": number, "prompt": own_row.prompt_text, "answers": answers})
        return found

    def score(
        self, prompts: Sequence[Prompt], responses: Sequence[str], edits: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        """Answers scored by the model, under edits.

        Raises:
            ConfigError: edits that cannot be used, or no model to score with.
            ModelError: a conversation that the chat template refuses.
        """
        # before the model is asked for: what cannot be used is told without waiting for another's pass
        checked = edits_of(edits, self.sources.size)
        rm = self._model()
        # a conversation sent back as one text would be templated as a single user turn, and get
        # another reward
        asked = [self._conversations.get(one, one) if isinstance(one, str) else one for one in prompts]
        with self._model_lock:
            scored = rm.score(asked, list(responses))
        return {"head": self.sources.fingerprint, "results": finite(taken_apart(scored, checked))}

    @cached_property
    def _conversations(self) -> dict[str, Prompt]:
        """Prompts of several turns by the one text as which the page shows them, and sends them back."""
        prompts = [row.prompt for row in self.sources.data.rows if not isinstance(row.prompt, str)]
        return {prompt_text(prompt): prompt for prompt in prompts}

    def score_row(self, number: int, edits: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The answers of a row scored anew, under edits; see `score`."""
        row = self._row(number)
        return self.score([row.prompt] * len(row.answers), row.answers, edits)

    def controls(self, name: str, text: str) -> dict[str, Any]:
        """The edits of a controls file; see `bench.controls_in`."""
        return controls_in(name, text, self.sources.size, self.sources.fingerprint)

    def tokens(self, prompt: Prompt, answer: str, latent: int) -> dict[str, Any]:
        """A latent at every token of a conversation.

        Raises:
            ConfigError: there is no model.
            DataError: there is no such latent.
        """
        self._check(latent)
        rm = self._model()
        with self._model_lock:
            found = token_activations(rm, prompt, answer, latent)
        return {
            "texts": list(found.texts),
            "values": finite([float(value) for value in found.values]),
            "read": found.read,
            "answer": found.answer,
        }

    def prompt_of(self, answer: int) -> tuple[Prompt, str]:
        """Prompt and text of an answer of the data.

        Raises:
            DataError: there is no such answer.
        """
        places = one.answer_places(self.sources.data)
        if not 0 <= answer < len(places):
            raise DataError(f"there is no answer {answer}", hint=f"the answers are 0..{len(places) - 1}")
        row, place = places[answer]
        return self.sources.data.rows[row].prompt, self.sources.data.rows[row].answers[place]

    def run(self, offsets: Mapping[str, int]) -> dict[str, Any]:
        """What a run wrote behind these offsets.

        Raises:
            DataError: no run was given.
        """
        run = self.sources.run
        if run is None:
            raise DataError("no run was given", hint="sarm explore --run DIR")
        return finite({**run.about(), **run.read(offsets)._asdict()})  # type: ignore[no-any-return]

    def whole_run(self) -> dict[str, Any]:
        """All that a run has written so far.

        Raises:
            DataError: no run was given.
        """
        found = self.run({})
        part = found
        while part["more"]:
            part = self.run(part["offsets"])
            for log, rows in part["rows"].items():
                found["rows"][log] += rows
        return found

    def note(self, latent: int) -> dict[str, Any]:
        """The note on a latent, empty where there is none.

        Raises:
            DataError: there is no such latent, or no file of notes.
        """
        self._check(latent)
        notes = self.sources.notes
        if notes is None:
            raise DataError("no file of notes was given", hint="sarm explore --notes FILE")
        return notes.all().get(latent, Note())._asdict()

    def save_note(self, latent: int, text: str, version: int) -> dict[str, Any]:
        """Saves a note; see `Notes.save`."""
        self.note(latent)
        assert self.sources.notes is not None
        return self.sources.notes.save(latent, text, version)._asdict()

    def _model(self) -> RewardModel:
        if self.sources.rm is None:
            raise ConfigError("nothing can be scored without the model", hint="sarm explore --model M")
        return self.sources.rm

    def _row(self, number: int) -> Row:
        rows = self.sources.data.rows
        if not 0 <= number < len(rows):
            raise DataError(f"there is no row {number}", hint=f"the data has {len(rows)} rows, from 0")
        return rows[number]

    def _check(self, latent: int) -> None:
        if not 0 <= latent < self.sources.size:
            raise DataError(
                f"there is no latent {latent}", hint=f"this model has the latents 0..{self.sources.size - 1}"
            )


def _siblings(found: Sequence[one.Sibling]) -> list[dict[str, Any]]:
    return [sibling._asdict() for sibling in found]
