"""Attributes of the user's own, as a YAML file names them.

A mapping from names to one of four ways to measure:

    exclaims: {pattern: "!", unit: item, words: exclamation marks}
    rating: {column: rating, unit: doubling, style: false}
    rhymes: {function: "mine.py:rhymes", behind: ["Roses are red.", "Violets are blue."]}
    rude: {judge: "Does the answer make fun of the asker?"}

`pattern` is a regular expression, counted in the answer (with `unit: answer`, found or not). `column` is a
column of the data with one number for each answer of a row. `function` takes a prompt and an answer and
returns a number or a truth value; the file is looked for beside the YAML file, and it is run. `judge` is a
question that an endpoint replies to. `before` or `behind` is a text that gives an answer the attribute, or a
list of wordings of it, for its causal price; the matches of a pattern are also cut out.
"""

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple, get_args

from sarm_control.auditing.attributes.attribute import RESERVED, Attribute, Measure, Unit
from sarm_control.auditing.attributes.battery import BATTERY
from sarm_control.auditing.attributes.judge import Judge
from sarm_control.auditing.attributes.text_edits import (
    Contrast,
    TextEdit,
    added_before,
    added_behind,
    never,
)
from sarm_control.errors import ConfigError, DataError
from sarm_control.training import read_document

WAYS: Final = ("pattern", "column", "function", "judge")
_TEXTS = ("before", "behind")
_KEYS: dict[str, type] = {**dict.fromkeys((*WAYS, *_TEXTS, "words", "unit"), str), "style": bool}
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_EXAMPLE = 'write exclaims: {pattern: "!", unit: item}'
_LONGEST_PATTERN = 1000


class OwnAttributes(NamedTuple):
    """What a file of attributes holds.

    Args:
        attributes: in the order of the file.
        edits: the text edits of those that have some.
        files: of Python functions, which were read too.
    """

    attributes: tuple[Attribute, ...]
    edits: tuple[TextEdit, ...]
    files: tuple[Path, ...] = ()


def load_attributes(path: Path, *, judge: Judge | None = None) -> OwnAttributes:
    """Reads a file of attributes.

    Args:
        path: a YAML file, see above.
        judge: who replies to questions; without one a question is refused.

    Raises:
        ConfigError: `file:line: name: reason` for what cannot be used.
    """
    document = read_document(path)
    attributes, edits, files = [], [], []
    for name, body in document.values.items():
        where = f"{document.origin((name,))}: {name}"
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{where}: a name is made of a-z, 0-9 and _", hint=_EXAMPLE)
        if name in {one.name for one in BATTERY}:
            raise ConfigError(f"{where}: every audit has an attribute of that name", hint="give it another")
        if name in RESERVED:
            raise ConfigError(
                f"{where}: tables of answers have a column of that name", hint="give the attribute another"
            )
        if not isinstance(body, dict):
            raise ConfigError(f"{where}: not a mapping of keys", hint=_EXAMPLE)
        for key, value in body.items():
            _check_key(f"{document.origin((name, key))}: {name}: {key}", key, value)
        way = _way(where, body)
        at = f"{document.origin((name, way))}: {name}: {way}"
        one = Attribute(
            name,
            body.get("words", name.replace("_", " ")),
            _measure(at, way, body, path.parent, judge),
            body.get("unit", "answer"),
            body.get("style", True),
            body["column"] if way == "column" else None,
        )
        attributes.append(one)
        edits += _edits(one, body)
        if way == "function":
            files.append(path.parent / body["function"].rpartition(":")[0])
    return OwnAttributes(tuple(attributes), tuple(edits), tuple(dict.fromkeys(files)))


def _check_key(where: str, key: str, value: Any) -> None:
    if key not in _KEYS:
        raise ConfigError(f"{where}: unknown key", hint=f"the keys are {', '.join(_KEYS)}")
    if key in _TEXTS and isinstance(value, list):
        _check_texts(where, value)
        return
    kind = _KEYS[key]
    if not isinstance(value, kind) or value == "":
        wanted = "true or false" if kind is bool else "text"
        raise ConfigError(f"{where}: {value!r} is not {wanted}", hint="put text in quotes")
    if key == "unit" and value not in get_args(Unit):
        raise ConfigError(f"{where}: {value!r} is no unit", hint=f"units are {', '.join(get_args(Unit))}")


def _check_texts(where: str, texts: list[Any]) -> None:
    """Refuses a list of wordings that cannot be told apart or put into an answer."""
    if not texts:
        raise ConfigError(f"{where}: a list of no texts", hint="give one text or more, or leave it out")
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise ConfigError(f"{where}: {text!r} is not text", hint="put text in quotes")
    twice = next((text for text in texts if texts.count(text) > 1), None)
    if twice is not None:
        raise ConfigError(f"{where}: {twice!r} stands there twice", hint="wordings are distinct")


def _way(where: str, body: dict[str, Any]) -> str:
    given = [key for key in WAYS if key in body]
    if len(given) != 1:
        found = "none of" if not given else f"{' and '.join(given)}: one of"
        raise ConfigError(f"{where}: {found} {', '.join(WAYS)} is needed", hint=_EXAMPLE)
    if given[0] == "column" and any(key in body for key in _TEXTS):
        raise ConfigError(
            f"{where}: a column says nothing of changed answers, so before and behind cannot be used",
            hint="measure it by a pattern or a function, or leave them out",
        )
    return given[0]


def _measure(at: str, way: str, body: dict[str, Any], folder: Path, judge: Judge | None) -> Measure:
    if way == "pattern":
        return _matches(at, body)
    if way == "function":
        return _function(at, body["function"], folder)
    if way == "column":
        return _of_the_data_alone(body["column"])
    if judge is None:
        raise ConfigError(f"{at}: nobody to ask", hint="name an endpoint with --judge URL --judge-model NAME")
    if body.get("unit", "answer") != "answer":
        raise ConfigError(f"{at}: the reply is yes or no, so the unit is answer", hint="leave unit out")
    return judge.measure(body["judge"])


def _matches(at: str, body: dict[str, Any]) -> Measure:
    pattern, unit = _compiled(at, body["pattern"]), body.get("unit", "answer")
    if pattern.search("") is not None:
        raise ConfigError(f"{at}: it matches nothing at all, so every answer has it", hint="use + for *")

    def measure(prompt: str, answer: str) -> float:
        del prompt
        if unit == "answer":
            return float(pattern.search(answer) is not None)
        return float(sum(1 for _ in pattern.finditer(answer)))

    return measure


def _compiled(at: str, text: str) -> re.Pattern[str]:
    if len(text) > _LONGEST_PATTERN:
        raise ConfigError(f"{at}: longer than {_LONGEST_PATTERN} characters", hint="write a function")
    try:
        return re.compile(text)
    # `a{99999999999}` overflows and a thousand open brackets recurse: `re` calls neither an error of its
    # own
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError(
            f"{at}: {text!r} is not a regular expression: {error}",
            hint="Python's re has the rules; put it in single quotes, so that YAML leaves \\ alone",
        ) from error


def _function(at: str, text: str, folder: Path) -> Measure:
    name, _, function = text.rpartition(":")
    if not name or not function.isidentifier():
        raise ConfigError(f"{at}: {text!r} is not FILE.py:FUNCTION", hint='write function: "mine.py:rhymes"')
    path = folder / name
    spec = importlib.util.spec_from_file_location(f"sarm_attributes_{path.stem}", path)
    # a spec is made of any path that ends in .py, whether or not there is such a file
    if spec is None or spec.loader is None or not path.is_file():
        raise ConfigError(f"{at}: no Python file {path}", hint="paths are from the folder of the YAML file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's file may raise anything
        raise ConfigError(
            f"{at}: {path} cannot be run: {type(error).__name__}: {error}", hint=f"try python {path}"
        ) from error
    found = getattr(module, function, None)
    if not callable(found):
        raise ConfigError(f"{at}: {path} has no function {function}", hint="define it at the top level")
    return _as_number(found)


def _as_number(function: Callable[[str, str], Any]) -> Measure:
    def measure(prompt: str, answer: str) -> float:
        return float(function(prompt, answer))

    return measure


def _of_the_data_alone(column: str) -> Measure:
    def measure(prompt: str, answer: str) -> float:
        del prompt, answer
        raise DataError(
            f"the column {column} is known of the answers of the data alone",
            hint="measure it by a pattern or a function",
        )

    return measure


def _edits(one: Attribute, body: dict[str, Any]) -> list[TextEdit]:
    # one more raises a count whatever it was; a property only answers without it can gain
    has = one.measure if one.unit == "answer" else never
    found = []
    if "before" in body:
        found.append(added_before(one.name, _listed(body["before"]), has))
    if "behind" in body:
        found.append(added_behind(one.name, _listed(body["behind"]), has))
    if "pattern" in body:
        found.append(TextEdit(one.name, f"{one.words} cut out", _cut_out(re.compile(body["pattern"]))))
    return found


def _listed(texts: str | list[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else texts


def _cut_out(pattern: re.Pattern[str]) -> Callable[[str, str], Contrast | None]:
    def contrast(prompt: str, answer: str) -> Contrast | None:
        del prompt
        # what is cut out between two words leaves two blanks, which would be a difference of their
        # own
        text = re.sub(r"[ \t]{2,}", " ", pattern.sub("", answer)).strip()
        return (text, answer) if text and pattern.search(answer) is not None and text != answer else None

    return contrast
