"""Chat templates that refuse a conversation, as published ones do."""

import shutil
from pathlib import Path

from sarm_control.conversation import load_tokenizer

NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
ALTERNATE = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}"
)
USER = {"role": "user", "content": "why ?"}
SYSTEM = {"role": "system", "content": "be brief ."}


def strict_copy(folder: Path, copy: Path, refusal: str) -> Path:
    """A model's folder whose chat template refuses conversations."""
    shutil.copytree(folder, copy)
    tokenizer = load_tokenizer(str(copy), local_files_only=True)
    tokenizer.chat_template = refusal + tokenizer.chat_template
    tokenizer.save_pretrained(copy)
    return copy
