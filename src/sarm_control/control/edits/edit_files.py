"""Files of edits, made to be read by people before use.

Four forms are read, as JSON or YAML:

- what `save_edits` writes: `{"format": "sarm-edits-1", "head": ..., "edits": [{"latent": 9, "max": 2}]}`;
- a bare list of edits `[{"latent": 9, "max": 2}, ...]`;
- SARM's steering file `{"16720": ["*", 2], "5": ["+", 1]}`, where `*` multiplies z and `+` adds to z
  for every answer, whether the latent is active or not;
- the controls that `sarm discover --write-controls` writes, of which only the edits are used.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from sarm_control import bounded_json, bounded_yaml
from sarm_control.bounded_json import MISSHAPEN, BadJson, parse_json, read_bounded_text, shown
from sarm_control.bounded_yaml import yaml_of
from sarm_control.control.edits.edits import Edit, check_one_edit_each, parse_edit
from sarm_control.control.edits.specs import latent_number, unknown_key
from sarm_control.errors import ConfigError, ModelError
from sarm_control.files import write_json

FORMAT = "sarm-edits-1"
_SAVED_KEYS = ("format", "model", "head", "edits")
_CONTROLS_KEYS = ("edits", "penalties", "human_kl", "fingerprint", "reward_sd")
_HINT = 'write {"16720": ["*", 2]} or [{"latent": 16720, "max": 2}]'
_STEERING = '{"16720": ["*", 2], "5": ["+", 1]}'


class EditFile(NamedTuple):
    """The content of a file of edits.

    Args:
        edits: at most one for a latent.
        head: fingerprint of the head they are meant for; None where the file does not name one.
        left_out: controls of the file that are not edits, in words: "3 penalties", "the human-KL term".
    """

    edits: list[Edit]
    head: str | None = None
    left_out: tuple[str, ...] = ()


def load_edits(path: Path, *, fingerprint: str | None = None) -> list[Edit]:
    """The edits of a file.

    Args:
        path: JSON or YAML in one of the forms above.
        fingerprint: of the head they are to be used on; None skips the comparison.

    Raises:
        ConfigError: the file cannot be read, or holds something that is not an edit.
        ModelError: the file was made for another head.
    """
    content = read_edit_file(path)
    check_head(path, content.head, fingerprint)
    return content.edits


def check_head(path: Path, head: str | None, fingerprint: str | None) -> None:
    """Refuses edits that were made for another head.

    Raises:
        ModelError: naming both heads.
    """
    if head is not None and fingerprint is not None and head != fingerprint:
        raise ModelError(
            f"{path} was made for head {head}, this reward model has {fingerprint}",
            hint="latent numbers mean nothing on another head: run discover on this reward model",
        )


def read_edit_file(path: Path) -> EditFile:
    """The edits of a file and the head they are meant for.

    Raises:
        ConfigError: the file cannot be read, or holds something that is not an edit.
    """
    most = bounded_yaml.MOST_BYTES if _may_be_yaml(path) else bounded_json.MOST_BYTES
    return edits_in(read_bounded_text(path, most_bytes=most, error=ConfigError), path)


def edits_in(text: str, path: Path) -> EditFile:
    """The edits in the text of a file.

    Args:
        text: its content.
        path: what errors call it; by its ending YAML is read or JSON alone. Nothing is read from there.

    Raises:
        ConfigError: the text holds something that is not an edit.
    """
    content = _content(text, path)
    try:
        edit_file = _parsed(content)
        check_one_edit_each(edit_file.edits)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}", hint=error.hint) from error
    except MISSHAPEN as error:
        raise ConfigError(f"{path}: not a file of edits: {shown(error, 200)}", hint=_HINT) from error
    return edit_file


def save_edits(path: Path, edits: Sequence[Edit], *, fingerprint: str, model: str) -> None:
    """Writes edits with the head they are meant for, atomically.

    Args:
        path: the JSON file.
        edits: at most one for a latent.
        fingerprint: of the head they were tried on.
        model: its name, for the reader.

    Raises:
        ConfigError: two edits of one latent.
    """
    check_one_edit_each(edits)
    given = [{name: value for name, value in asdict(edit).items() if value is not None} for edit in edits]
    write_json(path, {"format": FORMAT, "model": model, "head": fingerprint, "edits": given})


def _may_be_yaml(path: Path) -> bool:
    return path.suffix in (".yaml", ".yml")


def _content(text: str, path: Path) -> Any:
    try:
        # most YAML files of edits are JSON too, which parses faster and reads 1e-4 as a number, not as text
        return parse_json(text)
    except BadJson as bad:
        if _may_be_yaml(path):
            return yaml_of(path, text, error=ConfigError)
        raise ConfigError(f"{path}: not JSON: {bad}") from bad


def _parsed(content: Any) -> EditFile:
    if isinstance(content, list) and all(isinstance(item, dict) for item in content):
        return EditFile(_edits(content))
    if isinstance(content, dict) and "format" in content:
        return _saved(content)
    # a steering file's keys are numbers, so any of these words makes it one of controls
    if isinstance(content, dict) and (set(content) & {"reward", *_CONTROLS_KEYS}):
        # a whole run file, or its section alone
        return _controls(content.get("reward", content))
    if isinstance(content, dict):
        return EditFile([_sarm_edit(str(latent), operation) for latent, operation in content.items()])
    raise ConfigError("neither a steering file nor a list of edits", hint=_HINT)


def _edits(items: Any) -> list[Edit]:
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ConfigError("edits is not a list of edits", hint='write [{"latent": 16720, "max": 2}]')
    return [Edit(**item) for item in items]


def _saved(content: Mapping[str, Any]) -> EditFile:
    if content["format"] != FORMAT:
        raise ConfigError(f"not a file of edits (format {shown(content['format'])}, wants {FORMAT!r})")
    for key in content:
        if key not in _SAVED_KEYS:
            raise unknown_key("edits", key, _SAVED_KEYS)
    return EditFile(_edits(content.get("edits")), _head(content, "head"))


def _controls(reward: Any) -> EditFile:
    if not isinstance(reward, dict):
        raise ConfigError("reward is not a mapping of controls")
    penalties = _listed(reward, "penalties")
    counted = f"{len(penalties)} {'penalty' if len(penalties) == 1 else 'penalties'}"
    left_out = (*([counted] if penalties else []), *(["the human-KL term"] if reward.get("human_kl") else []))
    edits = [_edit(item) for item in _listed(reward, "edits")]
    return EditFile(edits, _head(reward, "fingerprint"), left_out)


def _listed(reward: Mapping[str, Any], key: str) -> list[Any]:
    items = reward.get(key) or []
    if not isinstance(items, list):
        raise ConfigError(f"{key} is {shown(items)}, it must be a list", hint=f"write {key}: [...]")
    return items


def _head(content: Mapping[str, Any], key: str) -> str | None:
    fingerprint = content.get(key)
    if fingerprint is not None and not isinstance(fingerprint, str):
        raise ConfigError(f"{key} is {shown(fingerprint)}, it must be the fingerprint of a head")
    return fingerprint


def _edit(item: Any) -> Edit:
    """An edit of a run file: a mapping, or the command-line spelling."""
    if isinstance(item, str):
        return parse_edit(item)
    if not isinstance(item, dict):
        raise ConfigError(f"{shown(item)} is not an edit", hint='write {"latent": 16720, "max": 2}')
    return Edit(**item)


def _sarm_edit(latent: str, operation: Any) -> Edit:
    number = latent_number(latent, latent, _STEERING)
    if not (isinstance(operation, list) and len(operation) == 2 and operation[0] in ("*", "+")):
        raise ConfigError(
            f'edit of latent {number}: {shown(operation)} is not ["*", number] or ["+", number]',
            hint=f"write it like {_STEERING}",
        )
    return Edit(number, **{"scale" if operation[0] == "*" else "add": operation[1]})
