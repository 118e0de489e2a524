"""Writing a built SARM: the checkpoint, its figures and its manifest, in one step."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sarm_control.build.pipeline import Built
from sarm_control.files import atomic_folder


def save_built(built: Built, folder: Path, manifest: Mapping[str, Any], *, overwrite: bool = False) -> Path:
    """Writes checkpoint, `build.json` and `manifest.json` whole or not at all.

    Raises:
        OutputError: the folder exists already and `overwrite` is false, or it cannot be written.
    """
    with atomic_folder(folder, overwrite=overwrite) as temporary:
        built.model.save_pretrained(temporary, overwrite=True)
        for name, value in (("build.json", built.figures), ("manifest.json", manifest)):
            text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
            (temporary / name).write_text(text + "\n", encoding="utf-8")
    return folder
