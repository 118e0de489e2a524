"""A short path to an answer that goes around FastAPI.

Engines send one sample a request, so the Python time of a request limits how many a small model can serve.
FastAPI takes several times as long between body and route as everything else together. A well-formed request
therefore goes straight to the function of its route. Every other request, and every error in a body, is
handled by FastAPI, which is complete without this layer.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sarm_control.engines import LEARN_HEADER
from sarm_control.server.http.problems import Refusal

_LEARN_HEADER = LEARN_HEADER.lower().encode()


@dataclass(frozen=True)
class Route:
    """A path, the schema of what is posted to it, and the function that answers."""

    path: str
    asked: type[BaseModel]
    answer: Callable[[Any], Awaitable[Response]]


class Direct:
    """Answers plain requests to known routes itself, and passes all others to the application.

    Args:
        app: the application.
        endpoints: routes by path.
    """

    def __init__(self, app: ASGIApp, endpoints: Mapping[str, Route]) -> None:
        self.app = app
        self.endpoints = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request or passes it on; what was already read of its body is replayed."""
        endpoint = self.endpoints.get(scope.get("path", ""))
        if endpoint is None or scope["type"] != "http" or not _is_plain(scope):
            await self.app(scope, receive, send)
            return
        messages: list[Message] = []
        try:
            more = True
            while more:
                messages.append(await receive())
                more = messages[-1]["type"] == "http.request" and messages[-1].get("more_body", False)
            asked = endpoint.asked.model_validate_json(b"".join(one.get("body", b"") for one in messages))
        except HTTPException as error:
            refusal = Refusal(error.status_code, str(error.detail), headers=error.headers)
            await refusal.response()(scope, receive, send)
            return
        except ValidationError:
            await self.app(scope, _replayed(messages, receive), send)
            return
        # as FastAPI does, so that `Guard` counts the request under its route
        scope["route"] = endpoint
        try:
            response = await endpoint.answer(asked)
        except Refusal as refusal:
            response = refusal.response()
        await response(scope, receive, send)


def _is_plain(scope: Scope) -> bool:
    # its value is FastAPI's to check
    if any(name == _LEARN_HEADER for name, _ in scope["headers"]):
        return False
    kind = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    return scope["method"] == "POST" and kind.partition(b";")[0].strip().lower() == b"application/json"


def _replayed(messages: list[Message], receive: Receive) -> Receive:
    left = iter(messages)

    async def replayed() -> Message:
        message = next(left, None)
        return await receive() if message is None else message

    return replayed
