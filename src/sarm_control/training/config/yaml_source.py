"""YAML and command line settings with the place that each value came from.

Scalars follow YAML 1.2, unlike PyYAML's own: `1e-4` is a number, `yes` is text and `012` is twelve.
Anchors, tags, `${}` and several documents in one file are refused.
By hand, above PyYAML's tree of nodes, because its loader forgets where a value stood.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from sarm_control.bounded_json import read_bounded_text
from sarm_control.bounded_yaml import MOST_BYTES, BadYaml, compose_yaml
from sarm_control.errors import ConfigError

Path_ = tuple[str | int, ...]

_NULL, _TRUE, _FALSE = (
    {"", "~", "null", "Null", "NULL"},
    {"true", "True", "TRUE"},
    {"false", "False", "FALSE"},
)
_INTEGER = re.compile(r"[-+]?[0-9]{1,19}")
# the largest seed; what is longer is read as a float
_LARGEST_INTEGER = 2**63 - 1
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"([-+]?)\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_PLAIN_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "map", "seq")}


@dataclass(frozen=True)
class Document:
    """Nested settings, and where each key or list item was written.

    Args:
        values: nested dicts, lists and scalars; `None` when nothing was written.
        origins: path of keys -> `run.yaml:7` or `--set training.steps=20`.
        source: the file or flag as a whole, for keys that are missing.
    """

    values: Any
    origins: Mapping[Path_, str] = field(default_factory=dict)
    source: str = "settings"

    def origin(self, path: Path_) -> str:
        """Where `path` was written, or else its nearest enclosing key."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.origins:
                return self.origins[path[:length]]
        return self.source

    def under(self, path: Path_) -> "Document":
        """The same settings moved below the keys of `path`."""
        values = self.values
        for key in reversed(path):
            values = {str(key): values}
        origins = {path + key: origin for key, origin in self.origins.items()}
        return Document(values, origins, self.source)


def read_document(path: Path) -> Document:
    """Reads one YAML file.

    Raises:
        ConfigError: `file:line` and the reason, for a file that is missing, not UTF-8, not YAML,
            not a mapping, or that writes one key twice.
    """
    text = _text_of(path)
    document = _parse(text, str(path), numbered=True)
    if not isinstance(document.values, dict):
        raise ConfigError(f"{path}:1: expected keys such as 'policy:', found {_short(document.values)}")
    return document


def parse_setting(text: str, flag: str = "--set") -> Document:
    """`training.steps=20` as a document; the value is YAML, so `[a, b]` and `{rank: 8}` work.

    Raises:
        ConfigError: there is no `=`, or the value is not YAML.
    """
    origin = f"{flag} {text}"
    key, equals, value = text.partition("=")
    keys: Path_ = tuple(int(part) if part.isdigit() else part for part in key.strip().split("."))
    if not equals or not all(str(part) for part in keys):
        raise ConfigError(f"{origin}: expected KEY=VALUE", hint=f"{flag} training.steps=20")
    return setting(keys, _parse(value, origin, numbered=False).values, origin)


def setting(path: Path_, value: Any, origin: str) -> Document:
    """A document of one value at `path`, whose origin is `origin`."""
    nested = value
    for key in reversed(path):
        nested = {key: nested}
    origins = {path[: length + 1]: origin for length in range(len(path))}
    return Document(nested, origins, origin)


def items(path: Path_, values: list[Any], flag: str) -> Document:
    """A document of a list at `path`, each item of which came from a `flag` of its own."""
    whole = setting(path, values, flag)
    single = {(*path, index): f"{flag} {value}" for index, value in enumerate(values)}
    return Document(whole.values, {**whole.origins, **single}, flag)


def merge(base: Document, *overlays: Document) -> Document:
    """Merges documents: later ones win, maps merge, and everything else is replaced whole.

    A number as a key of an overlay (`reward.penalties.0.alpha`) changes one item of a list.

    Raises:
        ConfigError: an overlay changes a list item that is not there.
    """
    merged = base
    for overlay in overlays:
        replaced: list[Path_] = []
        values = _merged(merged.values, overlay, overlay.values, (), replaced)
        kept = {
            path: where
            for path, where in merged.origins.items()
            if not any(path[: len(gone)] == gone for gone in replaced)
        }
        # a section that both write keeps its first origin; what was replaced has the overlay's
        merged = Document(values, {**overlay.origins, **kept}, base.source)
    return merged


def _merged(base: Any, overlay: Document, new: Any, path: Path_, replaced: list[Path_]) -> Any:
    if isinstance(base, list) and isinstance(new, dict) and all(isinstance(key, int) for key in new):
        items = list(base)
        for index, value in new.items():
            if index >= len(items):
                raise ConfigError(
                    f"{overlay.source}: {dotted(path)} has {len(items)} items, not item {index}"
                )
            items[index] = _merged(items[index], overlay, value, (*path, index), replaced)
        return items
    if not (isinstance(base, dict) and isinstance(new, dict)):
        replaced.append(path)
        return new
    changed = {
        key: _merged(base.get(key), overlay, value, (*path, key), replaced) for key, value in new.items()
    }
    return {**base, **changed}


def dotted(path: Path_) -> str:
    """`reward.penalties.0.alpha`."""
    return ".".join(str(part) for part in path)


def _text_of(path: Path) -> str:
    try:
        return read_bounded_text(path, most_bytes=MOST_BYTES, error=ConfigError)
    except ConfigError as error:
        cause = error.__cause__
        if isinstance(cause, UnicodeDecodeError):
            line = cause.object[: cause.start].count(b"\n") + 1
            raise ConfigError(f"{path}:{line}: not UTF-8 text", hint="save the file as UTF-8") from cause
        if isinstance(cause, OSError):
            raise ConfigError(f"cannot read {path}: {cause.strerror}", hint="check the path") from cause
        raise


def _parse(text: str, source: str, *, numbered: bool) -> Document:
    try:
        node = compose_yaml(text)
    except BadYaml as error:
        where = f"{source}:{error.line}" if numbered and error.line is not None else source
        raise ConfigError(f"{where}: {error}") from error
    if node is None and numbered:
        raise ConfigError(f"{source}: the file is empty", hint="start from examples/minimal.yaml")
    builder = _Builder(source, numbered, {})
    return Document(None if node is None else builder.value(node, ()), builder.origins, source)


class _Builder(NamedTuple):
    """Turns YAML nodes into plain values and records where each was written."""

    source: str
    numbered: bool
    origins: dict[Path_, str]

    def where(self, node: yaml.Node) -> str:
        return f"{self.source}:{node.start_mark.line + 1}" if self.numbered else self.source

    def value(self, node: yaml.Node, path: Path_) -> Any:
        if node.tag not in _PLAIN_TAGS:
            raise ConfigError(f"{self.where(node)}: tags such as {node.tag} are not supported")
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node)
        if isinstance(node, yaml.SequenceNode):
            return [self.recorded(child, child, (*path, index)) for index, child in enumerate(node.value)]
        mapping: dict[str, Any] = {}
        for key, child in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else "?"
            here = (*path, name)
            # PyYAML would take the last one without a word
            if name in mapping:
                first = self.origins[here]
                raise ConfigError(f"{self.where(key)}: key '{name}' is written twice (first: {first})")
            mapping[name] = self.recorded(key, child, here)
        return mapping

    def recorded(self, place: yaml.Node, node: yaml.Node, path: Path_) -> Any:
        self.origins[path] = self.where(place)
        return self.value(node, path)

    def scalar(self, node: yaml.ScalarNode) -> Any:
        text: str = node.value
        # what stands in quotes is text, whatever it looks like
        if node.style is not None:
            return text
        if "${" in text:
            raise ConfigError(
                f"{self.where(node)}: {text}: '${{}}' is not replaced here",
                hint="write the value, or pass it with --set",
            )
        return plain_scalar(text)


def plain_scalar(text: str) -> Any:
    """An unquoted YAML 1.2 scalar: null, boolean, integer, float or text."""
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _INTEGER.fullmatch(text) and abs(int(text)) <= _LARGEST_INTEGER:
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if special := _SPECIAL.fullmatch(text):
        return float("nan" if special[3] else f"{special[1]}inf")
    return text


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


class _Dumper(yaml.SafeDumper):
    """Quotes text that `read_document` would read as something else, such as `1e-4` or a line break."""

    def ignore_aliases(self, data: Any) -> bool:
        """Writes a list that occurs twice out twice: `read_document` refuses anchors."""
        del data
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # unquoted only where the reader gives the same text back
    plain = isinstance(plain_scalar(text), str) and "${" not in text and text.isprintable()
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Dumper.add_representer(str, _text)


def dump_yaml(values: Mapping[str, Any]) -> str:
    """Plain values as YAML that `read_document` reads back equal."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
