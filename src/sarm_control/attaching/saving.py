"""Writing an attached dictionary: its folder, the report of its fit, and on request the reward model too."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sarm_control.attaching.pipeline import Attached
from sarm_control.errors import ModelError
from sarm_control.files import atomic_folder
from sarm_control.reward_model import COPIED, find_folder, point_to_copy

REPORT = "attach.json"
_COPIED_SUFFIXES = {".safetensors", ".json", ".jinja", ".model", ".txt", ".md", ".tiktoken"}


def save_attached_model(
    attached: Attached,
    folder: Path,
    manifest: Mapping[str, Any],
    *,
    copy: bool = False,
    overwrite: bool = False,
) -> Path:
    """Writes dictionary, `attach.json` and `manifest.json` whole or not at all.

    Args:
        attached: what was attached.
        folder: to write.
        manifest: what it was made from.
        copy: also copy the reward model's files into the folder, which then needs nothing else.
        overwrite: whether a folder of that name may be replaced.

    Raises:
        OutputError: the folder exists already, or it cannot be written.
        ModelError: the reward model was built in memory.
    """
    with atomic_folder(folder, overwrite=overwrite) as temporary:
        # the temporary folder exists already; `atomic_folder` has asked whether `folder` may be replaced
        attached.model.save_pretrained(temporary, overwrite=True)
        if copy:
            _copy_model(attached.model.source, temporary)
        for name, value in ((REPORT, attached.figures), ("manifest.json", manifest)):
            text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
            (temporary / name).write_text(text + "\n", encoding="utf-8")
    return folder


def _copy_model(source: Mapping[str, Any], folder: Path) -> None:
    """The files that loading reads; code and pickles stay where they are."""
    origin = find_folder(source["model"], revision=source.get("revision"))
    target = folder / COPIED
    target.mkdir()
    for file in sorted(origin.iterdir()):
        if file.is_file() and (file.suffix in _COPIED_SUFFIXES or file.name.startswith("LICENSE")):
            shutil.copyfile(file, target / file.name)
    if not any(target.glob("*.safetensors")):
        raise ModelError(f"{source['model']} holds no safetensors to copy")
    point_to_copy(folder)
