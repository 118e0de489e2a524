"""Errors as callers get them: JSON that says what is wrong and what to do, as the command line does."""

import logging
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from sarm_control.errors import SarmError
from sarm_control.server.http.schemas import ErrorResponse

LOG = logging.getLogger("sarm_control.server")

_MEANINGS = {
    400: "The body cannot be read.",
    401: "The token is missing or wrong.",
    404: "There is no such latent.",
    408: "The body did not arrive in time.",
    413: "The request is larger than the server accepts.",
    421: "The host of the request is not this server's.",
    422: "The request cannot be used; the message names the place.",
    429: "The queue is full; `Retry-After` says when to come back.",
    500: "The reward could not be computed.",
    503: "The server is starting or stopping.",
    504: "The reward was not computed in time.",
}


class Refusal(Exception):
    """A request that is not answered with a reward.

    Args:
        status: of the response.
        message: what is wrong, one line.
        hint: what to do, one line.
        headers: of the response.
    """

    def __init__(
        self, status: int, message: str, hint: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.hint = hint
        self.headers = dict(headers or {})

    def response(self) -> Response:
        """The refusal as a JSON response."""
        content = {"error": str(self), "hint": self.hint}
        return JSONResponse(content, status_code=self.status, headers=self.headers)


def described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error responses of a route, for the OpenAPI document."""
    return {status: {"model": ErrorResponse, "description": _MEANINGS[status]} for status in statuses}


def install(app: FastAPI) -> None:
    """Registers handlers that turn every error of the app into a JSON error."""
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return error.response()


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return invalid(error.errors()).response()


_HINT = "GET /openapi.json describes what each path takes"


def invalid(errors: Sequence[Mapping[str, Any]], hint: str = _HINT) -> Refusal:
    """The refusal of a request that does not fit its schema.

    Args:
        errors: as pydantic lists them, their locations beginning with `body` or another part of the request.
        hint: where the schema is described.
    """
    others = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    # the message never repeats what was sent: it may be long, and it is the caller's
    error = max(errors, key=_depth)
    return Refusal(422, f"{_place(error['loc'])}: {_reason(error)}{others}", hint)


async def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    messages = {404: "there is no such path", 405: "this path does not take this method"}
    message = messages.get(error.status_code, str(error.detail))
    return Refusal(error.status_code, message, _HINT, error.headers).response()


def refusal_of(error: Exception) -> Refusal:
    """The refusal for an error: 422 for what the caller can put right, else `unexpected`.

    Clients ask again after 500 and give up after 422.
    """
    if isinstance(error, Refusal):
        return error
    if isinstance(error, SarmError):
        return Refusal(422, str(error), error.hint)
    return unexpected(error)


def unexpected(error: Exception) -> Refusal:
    """The refusal for an error that nobody foresaw, which is logged."""
    log_unexpected(error)
    message = f"the reward could not be computed ({type(error).__name__})"
    return Refusal(500, message, "the server's log says where")


def log_unexpected(error: Exception) -> None:
    """Logs where an error was raised, but not its message, which may hold a caller's text."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    LOG.error("%s\n%s", type(error).__name__, frames.rstrip())


def _place(location: Sequence[str | int]) -> str:
    """`responses[0]` for a location of pydantic, without its names for the members of a union."""
    if len(location) == 2 and location[0] == "body" and isinstance(location[1], int):
        return "body"
    # a field of several kinds has the kind in its location, such as `list[str]`, which no caller has sent
    parts = [part for part in location[1:] if isinstance(part, int) or not ("[" in part or part == "str")]
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return text.removeprefix(".") or "body"


def _depth(error: Mapping[str, Any]) -> tuple[int, bool]:
    """Which error says most: of a field that may be of several kinds, pydantic lists an error for each kind.

    The kind that was meant is the one that fits the furthest in.
    """
    return len(error["loc"]), not error["type"].endswith("_type")


def _reason(error: Mapping[str, Any]) -> str:
    if error["type"] == "json_invalid":
        return "not JSON"
    reason = str(error["msg"]).removeprefix("Value error, ")
    return reason[:1].lower() + reason[1:]
