"""Turns settings into a `RunConfig`, and pydantic's errors into lines that a user can act on."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sarm_control.errors import ConfigError
from sarm_control.training.config.feature_edits import with_listed_edits
from sarm_control.training.config.run_config import RunConfig
from sarm_control.training.config.yaml_source import (
    Document,
    Path_,
    dotted,
    merge,
    read_document,
)

_UNKNOWN = {"extra_forbidden", "unexpected_keyword_argument"}
_MISSING = {"missing", "missing_argument"}
_SECTIONS = {"model_type", "model_attributes_type", "dataclass_type", "dict_type"}
_BOUNDS = (("exclusiveMinimum", ">"), ("minimum", ">="), ("exclusiveMaximum", "<"), ("maximum", "<="))
_FLAGS = {"data.prompts": "--prompts prompts.jsonl"}
_KINDS = {
    "int_": "is not an integer",
    "float_": "is not a number",
    "bool_": "is not true or false",
    "string_type": "is not text; put it in quotes",
    "string_too_short": "is empty",
    "finite_": "is not a finite number",
    "tuple_": "is not a list",
    "list_": "is not a list",
    "path_": "is not a path",
}


def load_config(path: Path | None, overrides: Sequence[Document] = ()) -> RunConfig:
    """Reads a YAML file, applies the overrides and validates the result.

    Raises:
        ConfigError: one line for each mistake, with the file and line or the flag it came from.
    """
    base = read_document(path) if path is not None else Document({}, {}, "settings")
    return validate(merge(base, *overrides))


def validate(document: Document) -> RunConfig:
    """Checks every key, type and bound, and spells listed edits out.

    Raises:
        ConfigError: one line for each mistake.
    """
    document = with_listed_edits(document)
    try:
        return RunConfig.model_validate(document.values)
    except ValidationError as error:
        raise _config_error(error, document) from error


def _config_error(error: ValidationError, document: Document) -> ConfigError:
    # keys and bounds are read off the schema, so that messages always say those that are checked
    schema = RunConfig.model_json_schema()
    grouped: dict[Path_, list[Mapping[str, Any]]] = {}
    for item in error.errors(include_url=False):
        # one union gives an error for each of its branches: they are told as one mistake
        path = _real_path(schema, item["loc"], keep_last=item["type"] in _UNKNOWN)
        grouped.setdefault(path, []).append(item)
    # errors are reported in the order in which the settings were written
    order = {origin: position for position, origin in enumerate(dict.fromkeys(document.origins.values()))}
    places = sorted(grouped, key=lambda path: order.get(document.origin(path), -1))
    described = [_describe(schema, document, path, grouped[path]) for path in places]
    hint = next((hint for _, hint in described if hint), "see every key with: sarm config schema")
    return ConfigError("\n".join(line for line, _ in described), hint=hint)


def _describe(
    schema: Any, document: Document, path: Path_, items: Sequence[Mapping[str, Any]]
) -> tuple[str, str | None]:
    item = items[0]
    if item["type"] in _UNKNOWN:
        return _unknown(schema, document, path)
    path = (*path, *_inner_keys(item))
    if item["type"] in _MISSING:
        return f"{document.origin(path)}: missing key '{dotted(path)}'", _missing_hint(path)
    if any(other["type"] in _SECTIONS for other in items):
        keys = ", ".join(_keys(schema, path))
        return f"{document.origin(path)}: {dotted(path)}: {_shown(item)} is not a set of keys ({keys})", None
    if item["type"] == "disagreement":
        return f"{document.origin(path)}: {item['msg']}", None
    reasons = "; ".join(dict.fromkeys(_reason(schema, path, other) for other in items))
    return f"{document.origin(path)}: {dotted(path)}: {reasons}", _cause_hint(item)


def _unknown(schema: Any, document: Document, path: Path_) -> tuple[str, str]:
    keys = _keys(schema, path[:-1])
    # the name may be right and its section wrong, which is a better guess than a similar name in this section
    elsewhere = [dotted(other) for other in every_key() if other[-1] == path[-1]]
    guess = elsewhere or difflib.get_close_matches(str(path[-1]), keys, n=1, cutoff=0.5)
    suggestion = f"; did you mean '{guess[0]}'?" if guess else ""
    section = f"keys of {dotted(path[:-1])}" if path[:-1] else "sections"
    return f"{document.origin(path)}: unknown key '{path[-1]}'{suggestion}", f"{section}: {', '.join(keys)}"


def _missing_hint(path: Path_) -> str:
    key = dotted(path)
    return f"add it to the file, or pass {_FLAGS.get(key, f'--set {key}=...')}"


def _inner_keys(item: Mapping[str, Any]) -> Iterator[str]:
    context = item.get("ctx", {})
    if item["type"] in ("disagreement", "missing"):
        yield from (context[name] for name in ("key", "inner") if name in context)


def _cause_hint(item: Mapping[str, Any]) -> str | None:
    hint = getattr(item.get("ctx", {}).get("error"), "hint", None)
    return hint if isinstance(hint, str) else None


def _reason(schema: Any, path: Path_, item: Mapping[str, Any]) -> str:
    kind, context = item["type"], item.get("ctx", {})
    allowed = _allowed(schema, path)
    if kind in ("value_error", "assertion_error"):
        return f"{context['error']}"
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        return f"{_shown(item)} is out of range; {allowed}"
    if kind == "literal_error":
        return f"{_shown(item)} is not {context['expected']}"
    for prefix, text in _KINDS.items():
        if kind.startswith(prefix):
            return f"{_shown(item)} {text}" + (f"; {allowed}" if allowed else "")
    return f"{_shown(item)}: {item['msg']}"


def _shown(item: Mapping[str, Any]) -> str:
    value = item["input"]
    if value is None:
        return "null (no value)"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _allowed(schema: Any, path: Path_) -> str:
    for node in _nodes(schema, path):
        limits = [f"{sign} {node[name]:g}" for name, sign in _BOUNDS if name in node]
        if limits:
            return "allowed: " + " and ".join(limits)
    return ""


def _keys(schema: Any, path: Path_) -> list[str]:
    return list(dict.fromkeys(key for node in _nodes(schema, path) for key in node.get("properties", {})))


def every_key() -> list[Path_]:
    """The path of every key without list items, as `sarm config show` prints them."""
    schema = RunConfig.model_json_schema()
    paths: list[Path_] = []

    def visit(path: Path_) -> None:
        for key in _keys(schema, path):
            paths.append((*path, key))
            visit((*path, key))

    visit(())
    return paths


def _nodes(schema: Any, path: Path_) -> list[Any]:
    """The schemas that `path` can mean, with references followed and unions opened."""
    nodes = _opened(schema, schema)
    for part in path:
        nodes = [child for node in nodes for child in _opened(schema, _step(node, part))]
    return nodes


def _step(node: Any, part: str | int) -> Any:
    return node.get("items") if isinstance(part, int) else node.get("properties", {}).get(part)


def _opened(schema: Any, node: Any) -> list[Any]:
    if not isinstance(node, dict):
        return []
    if "$ref" in node:
        return _opened(schema, schema["$defs"][node["$ref"].rpartition("/")[2]])
    if "anyOf" in node:
        return [opened for choice in node["anyOf"] for opened in _opened(schema, choice)]
    return [node]


def _real_path(schema: Any, location: Sequence[Any], *, keep_last: bool) -> Path_:
    """An error's location without the names that pydantic gives to the branches of a union."""
    path: Path_ = ()
    for position, part in enumerate(location):
        last = keep_last and position == len(location) - 1
        if last or _nodes(schema, (*path, part)):
            path = (*path, part)
    return path
