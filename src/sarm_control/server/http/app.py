"""The routes of the reward service."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Header
from fastapi import Path as InPath
from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from sarm_control import __version__
from sarm_control.engines import ControlledReward
from sarm_control.reward_model import ATTACH, RewardModel
from sarm_control.server.http import schemas
from sarm_control.server.http.engine_formats import FORMATS, ServedModel, json_response, may_learn
from sarm_control.server.http.fast_path import Direct, Route
from sarm_control.server.http.problems import Refusal, described, install
from sarm_control.server.http.security import Guard
from sarm_control.server.http.views import latent_view, model_view
from sarm_control.server.scoring.state import ServerState
from sarm_control.server.settings import DEFAULTS, ServiceSettings

Learn = Annotated[
    bool,
    Header(description="false for an evaluation: the controls then learn nothing from these answers."),
]
_REWARD_ERRORS = described(400, 401, 408, 413, 421, 422, 429, 500, 503, 504)
_VIEW_ERRORS = described(401, 413, 421)


def create_app(
    reward: ControlledReward, settings: ServiceSettings = DEFAULTS, *, replicas: Sequence[RewardModel] = ()
) -> FastAPI:
    """The application that serves one controlled reward.

    Args:
        reward: the model and its controls.
        settings: limits and switches.
        replicas: the same model on further devices, a worker each.

    Raises:
        ConfigError: controls that a server cannot hold: human_kl in batch mode, or a term that has learnt
            nothing and may not learn.
        ModelError: a replica with another head.
    """
    state = ServerState(reward, settings, replicas)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await state.start()
        yield
        await state.stop()

    # FastAPI's documentation pages load scripts from other hosts, so they are left out
    app = _Fronted(
        title="sarm-control reward server",
        version="1",
        description="Rewards of a sparse-autoencoder reward model under controls.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    install(app)
    endpoints = _endpoints(state)
    for routes in (_reward_routes(endpoints), _view_routes(state), _health_routes(state)):
        app.include_router(routes)
    app.front = Guard(Direct(app.front, endpoints), settings, state.metrics.requested)
    return app


class _Fronted(FastAPI):
    """FastAPI behind outer layers of our own, which cost a short request less time than FastAPI's own do."""

    def __init__(self, **described_by: Any) -> None:
        super().__init__(**described_by)
        self.front: ASGIApp = super().__call__

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.front(scope, receive, send)


def _endpoints(state: ServerState) -> dict[str, Route]:
    """The routes that give rewards, by path."""
    served = ServedModel(state.settings.model_name, state.reward.model.fingerprint, state.terms)

    async def reply(path: str, asked: BaseModel, learn: bool) -> Response:
        form = FORMATS[path]
        answers = await state.answer(form.conversations(asked), learn=may_learn(asked, learn))
        return json_response(form.response(answers, asked, served), answers)

    # One function a path: FastAPI reads its request schema and its description from them.
    async def score(asked: schemas.ScoreRequest, x_sarm_learn: Learn = True) -> Response:
        """Rewards with all their parts."""
        return await reply("/v1/score", asked, x_sarm_learn)

    async def get_reward(asked: schemas.OpenRlhfRequest, x_sarm_learn: Learn = True) -> Response:
        """For OpenRLHF."""
        return await reply("/get_reward", asked, x_sarm_learn)

    async def classify(asked: schemas.ClassifyRequest, x_sarm_learn: Learn = True) -> Response:
        """In the form of vLLM."""
        return await reply("/classify", asked, x_sarm_learn)

    async def embeddings(asked: schemas.EmbeddingsRequest, x_sarm_learn: Learn = True) -> Response:
        """In the form of SGLang."""
        return await reply("/v1/embeddings", asked, x_sarm_learn)

    async def rm(asked: schemas.SlimeRequest, x_sarm_learn: Learn = True) -> Response:
        """For slime: a bare number."""
        return await reply("/rm", asked, x_sarm_learn)

    answering: dict[str, Callable[[Any], Awaitable[Response]]] = {
        "/v1/score": score,
        "/get_reward": get_reward,
        "/classify": classify,
        "/v1/embeddings": embeddings,
        "/rm": rm,
    }
    return {path: Route(path, FORMATS[path].request, answer) for path, answer in answering.items()}


_RESPONSES: dict[str, Any] = {
    "/v1/score": schemas.ScoreResponse,
    "/get_reward": schemas.OpenRlhfResponse,
    "/classify": schemas.ClassifyResponse,
    "/v1/embeddings": schemas.EmbeddingsResponse,
    "/rm": float,
}


def _reward_routes(endpoints: Mapping[str, Route]) -> APIRouter:
    routes = APIRouter()
    for path, endpoint in endpoints.items():
        routes.post(path, response_model=_RESPONSES[path], responses=_REWARD_ERRORS)(endpoint.answer)
    return routes


def _view_routes(state: ServerState) -> APIRouter:
    routes = APIRouter()

    @routes.get("/v1/model", response_model=schemas.ModelResponse, responses=_VIEW_ERRORS)
    async def model() -> Response:
        """What is served, under which controls."""
        return json_response(model_view(state, __version__))

    @routes.get(
        "/v1/latents/{latent}",
        response_model=schemas.LatentResponse,
        responses={**_VIEW_ERRORS, **described(404, 422)},
    )
    async def latents(latent: Annotated[int, InPath(ge=0, le=2**31 - 1)]) -> Response:
        """One latent: its weight, the controls on it, and how often it fired."""
        size = state.reward.model.config.latents
        if not size:
            raise Refusal(404, "this reward model has no dictionary, so it has no latents", ATTACH)
        if latent >= size:
            raise Refusal(404, f"there is no latent {latent}", f"this model has the latents 0..{size - 1}")
        return json_response(latent_view(state, latent))

    return routes


def _health_routes(state: ServerState) -> APIRouter:
    routes = APIRouter()

    @routes.get("/healthz", response_model=schemas.Health, responses=described(413, 421))
    async def healthz() -> Response:
        """Whether the process answers."""
        return json_response({"status": "ok"})

    @routes.get("/readyz", response_model=schemas.Health, responses=described(413, 421, 503))
    async def readyz() -> Response:
        """Whether rewards are given."""
        if not state.batcher.alive:
            raise Refusal(503, "the server is starting or stopping", "wait, or ask another one")
        return json_response({"status": "ok"})

    @routes.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}, "description": "Counters"}, **_VIEW_ERRORS},
    )
    async def metrics() -> Response:
        """Counters, as Prometheus reads them."""
        return Response(state.metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return routes
