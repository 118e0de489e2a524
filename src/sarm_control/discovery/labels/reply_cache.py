"""Keeps replies of a language model in a file, so that no question is asked, and no token bought, twice.

Each line is one reply, under the SHA-256 of the model and the question. An interrupted run continues where it
stopped; a run with other settings asks only new questions.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from sarm_control.bounded_json import MISSHAPEN
from sarm_control.data import Reason, json_object
from sarm_control.discovery.labels.chat_endpoint import ChatEndpoint, TokenUsage
from sarm_control.errors import DataError
from sarm_control.files import written


class Replies:
    """Answers questions from a file of replies, and asks an endpoint for those that it does not hold.

    Args:
        endpoint: which is asked.
        path: the file of replies; created when it does not exist.

    Raises:
        DataError: the file is not a file of replies.
    """

    def __init__(self, endpoint: ChatEndpoint, path: Path) -> None:
        self.endpoint = endpoint
        self.path = path
        self.usage = TokenUsage()
        self._known = {line["asked"]: line for line in _lines(path)}

    def __call__(self, question: str) -> str:
        """The reply, from the file or from the endpoint; its tokens are counted in both cases."""
        # a character that no name has, so that no other model and question make the same text
        asked = hashlib.sha256(f"{self.endpoint.model}\x1f{question}".encode()).hexdigest()
        if asked not in self._known:
            self._known[asked] = self._ask(asked, question)
        line = self._known[asked]
        self.usage.add(line["usage"])
        return str(line["reply"])

    def _ask(self, asked: str, question: str) -> dict[str, Any]:
        before = replace(self.endpoint.usage)
        reply = self.endpoint.ask(question)
        spent = self.endpoint.usage
        usage = {
            "prompt_tokens": spent.prompt_tokens - before.prompt_tokens,
            "completion_tokens": spent.completion_tokens - before.completion_tokens,
        }
        line = {"asked": asked, "reply": reply, "usage": usage}
        # appended after every reply, so that an interrupted run loses at most one
        with written(self.path), self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")
        return line


def _usage(counts: Any) -> dict[str, int]:
    return {name: int(counts[name]) for name in ("prompt_tokens", "completion_tokens")}


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The replies of a file; an incomplete last line, of an interrupted run, is removed and asked again."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        with written(path):
            path.write_bytes(whole)
    for number, raw in enumerate(whole.split(b"\n")[:-1], start=1):
        try:
            line = json_object(raw)
            yield {"asked": str(line["asked"]), "reply": str(line["reply"]), "usage": _usage(line["usage"])}
        except (Reason, *MISSHAPEN):
            raise DataError(
                f"{path}:{number}: not a reply of a language model", hint="choose another output name"
            ) from None
