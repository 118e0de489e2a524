"""The explorer over HTTP: its pages, and the JSON that they ask for."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, FastAPI, Query
from fastapi import Path as InPath
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sarm_control.bounded_yaml import MOST_BYTES
from sarm_control.errors import SarmError
from sarm_control.explorer.live_run import LOGS
from sarm_control.explorer.notes import LONGEST, Conflict
from sarm_control.explorer.site import Site
from sarm_control.server import Guard, Refusal, ServiceSettings, install, refusal_of

STATIC = Path(__file__).with_name("static")
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/explorer.js": ("explorer.js", "text/javascript; charset=utf-8"),
    "/explorer.css": ("explorer.css", "text/css; charset=utf-8"),
    "/LICENSES.txt": ("LICENSES.txt", "text/plain; charset=utf-8"),
}
"""Every file that is served; no path of a request is ever looked up on the disk."""

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    # the pages show the user's own texts, and their own code after an update
    "Cache-Control": "no-store",
}

# latent numbers are int32 in every array: a larger one could not even be compared
Latent = Annotated[int, InPath(ge=0, le=2**31 - 1)]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ScoreAsked(_Asked):
    """Answers to score, under edits: a few as text, or those of a row of the data."""

    prompts: Annotated[list[str], Field(max_length=16)] = []
    responses: Annotated[list[str], Field(max_length=16)] = []
    row: Annotated[int, Field(ge=0)] | None = None
    edits: Annotated[list[dict[str, Any]], Field(max_length=10_000)] = []


class ControlsAsked(_Asked):
    """A controls file to open: its name and its text."""

    name: Annotated[str, Field(max_length=200)]
    text: Annotated[str, Field(max_length=MOST_BYTES)]


class TokensAsked(_Asked):
    """One answer whose tokens to show: by its number in the data, or as text."""

    latent: Annotated[int, Field(ge=0)]
    answer: Annotated[int, Field(ge=0)] | None = None
    prompt: str | None = None
    response: str | None = None


class NoteAsked(_Asked):
    """A note to save over the version that was read."""

    text: Annotated[str, Field(max_length=LONGEST)]
    version: Annotated[int, Field(ge=0)]


def create_explorer(site: Site, settings: ServiceSettings) -> FastAPI:
    """The application that serves the pages and their JSON.

    Args:
        site: what is shown.
        settings: token, hosts and the limits of a body, as for the reward server.
    """
    # no page of documentation: FastAPI's own loads its scripts from another host
    app = _Explorer(title="sarm explore", docs_url=None, redoc_url=None, openapi_url=None)
    install(app)
    app.add_exception_handler(SarmError, _told)
    app.add_exception_handler(Conflict, _conflict)
    for routes in (_pages(), _reading(site), _asking(site, settings)):
        app.include_router(routes)
    # the guard comes first: host, token and size are checked before anything of a body is read. The files
    # of the front end are open, since it is they that ask for the token
    app.front = Guard(_SameOrigin(app.front), settings, _uncounted, is_open=lambda path: path in FILES)
    return app


class _Explorer(FastAPI):
    """FastAPI behind the guard; every response has the headers of `_HEADERS`."""

    def __init__(self, **described_by: Any) -> None:
        super().__init__(**described_by)
        self.front: ASGIApp = super().__call__

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *own]}
            await send(message)

        await self.front(scope, receive, with_headers)


class _SameOrigin:
    """Refuses what a page of another host sends: browsers name the page in `Origin`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers", ()))
        origin = headers.get(b"origin", b"").decode("latin-1")
        # `null`, which a page from a disk sends, has no host and is refused too
        if origin and urlsplit(origin).netloc.lower() != headers.get(b"host", b"").decode("latin-1").lower():
            refusal = Refusal(403, "this page is of another host", "open the explorer's own address")
            await refusal.response()(scope, receive, send)
            return
        await self.app(scope, receive, send)


def _uncounted(_route: str, _status: int, _seconds: float) -> None:
    """The explorer keeps no counters."""


async def _told(_: Any, error: Exception) -> Response:
    return refusal_of(error).response()


async def _conflict(_: Any, error: Exception) -> Response:
    assert isinstance(error, Conflict)
    return JSONResponse({"error": str(error), "current": error.current._asdict()}, status_code=409)


def _pages() -> APIRouter:
    routes = APIRouter()
    for path, (name, kind) in FILES.items():
        routes.get(path)(_file(STATIC / name, kind))
    return routes


def _file(path: Path, kind: str) -> Callable[[], Response]:
    def page() -> Response:
        """A file of the front end."""
        return FileResponse(path, media_type=kind)

    return page


def _reading(site: Site) -> APIRouter:
    routes = APIRouter(prefix="/api")

    @routes.get("/world")
    def world() -> Response:
        """What is shown."""
        return JSONResponse(site.world())

    @routes.get("/latents")
    def latents() -> Response:
        """All latents, as columns."""
        return JSONResponse(site.table())

    @routes.get("/latents/{latent}")
    def latent(latent: Latent) -> Response:
        """One latent."""
        return JSONResponse(site.latent(latent))

    @routes.get("/rows")
    def rows(
        start: Annotated[int, Query(ge=0)] = 0,
        count: Annotated[int, Query(ge=1, le=200)] = 50,
        find: Annotated[str, Query(max_length=200)] = "",
    ) -> Response:
        """Rows of the data."""
        return JSONResponse(site.rows(start, count, find))

    @routes.get("/rows/{row}")
    def row(row: Latent) -> Response:
        """One row, its answers taken apart."""
        return JSONResponse(site.row(row))

    @routes.get("/run")
    def run(
        metrics: Annotated[int, Query(ge=0)] = 0,
        samples: Annotated[int, Query(ge=0)] = 0,
        warnings: Annotated[int, Query(ge=0)] = 0,
        evaluation: Annotated[int, Query(ge=0)] = 0,
    ) -> Response:
        """What the run wrote behind these offsets."""
        found = dict(zip(LOGS, (metrics, samples, warnings, evaluation), strict=True))
        return JSONResponse(site.run(found))

    @routes.get("/notes/{latent}")
    def note(latent: Latent) -> Response:
        """The note on a latent."""
        return JSONResponse(site.note(latent))

    return routes


def _asking(site: Site, settings: ServiceSettings) -> APIRouter:
    routes = APIRouter()

    @routes.post("/v1/score")
    def score(asked: ScoreAsked) -> Response:
        """Rewards under edits, with all their parts."""
        if asked.row is not None:
            return JSONResponse(site.score_row(asked.row, asked.edits))
        if not asked.responses or len(asked.prompts) != len(asked.responses):
            counts = f"{len(asked.prompts)} prompts, {len(asked.responses)} responses"
            raise Refusal(422, counts, "one prompt for each response")
        # here and not in the type: the limit is a setting, as for the reward server
        _check_length(settings, *asked.prompts, *asked.responses)
        return JSONResponse(site.score(asked.prompts, asked.responses, asked.edits))

    @routes.post("/api/controls")
    def controls(asked: ControlsAsked) -> Response:
        """The edits of a controls file, by the library's own reader."""
        return JSONResponse(site.controls(asked.name, asked.text))

    @routes.post("/api/tokens")
    def tokens(asked: TokensAsked) -> Response:
        """A latent at every token of one answer."""
        if asked.answer is not None:
            prompt, answer = site.prompt_of(asked.answer)
        elif asked.prompt is not None and asked.response is not None:
            _check_length(settings, asked.prompt, asked.response)
            prompt, answer = asked.prompt, asked.response
        else:
            raise Refusal(422, "no answer was named", "give answer, or prompt and response")
        return JSONResponse(site.tokens(prompt, answer, asked.latent))

    @routes.put("/api/notes/{latent}")
    def save(latent: Latent, asked: NoteAsked) -> Response:
        """Saves a note."""
        return JSONResponse(site.save_note(latent, asked.text, asked.version))

    return routes


def _check_length(settings: ServiceSettings, *texts: str) -> None:
    longest = max(map(len, texts))
    if longest > settings.most_characters:
        message = f"a text of {longest} characters, at most {settings.most_characters} are taken"
        raise Refusal(413, message, "shorten it; tokens beyond the context are not read anyway")
