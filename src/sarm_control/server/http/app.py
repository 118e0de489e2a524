"""The routes of the reward service."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Header
from fastapi import Path as InPath
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from sarm_control import __version__
from sarm_control.engines import ControlledReward
from sarm_control.reward_model import ATTACH, RewardModel
from sarm_control.server.http import engine_formats as compat
from sarm_control.server.http import schemas
from sarm_control.server.http.fast_path import Direct, Endpoint
from sarm_control.server.http.problems import Refusal, described, install
from sarm_control.server.http.security import Guard
from sarm_control.server.http.views import latent_view, model_view
from sarm_control.server.scoring.scorer import Answered
from sarm_control.server.scoring.state import ServerState
from sarm_control.server.settings import DEFAULTS, Settings

Learn = Annotated[
    bool,
    Header(description="false for an evaluation: the controls then learn nothing from these answers."),
]
_ASKING = described(400, 401, 408, 413, 421, 422, 429, 500, 503, 504)
_LOOKING = described(401, 413, 421)


def create_app(
    reward: ControlledReward, settings: Settings = DEFAULTS, *, replicas: Sequence[RewardModel] = ()
) -> FastAPI:
    """A server of one controlled reward.

    Args:
        reward: the model and its controls.
        settings: limits and switches.
        replicas: the same model on further devices, a worker each.

    Raises:
        ConfigError: controls a server cannot hold: human_kl in batch mode, or one that has learnt
            nothing and may not learn.
        ModelError: a replica with another head.
    """
    state = ServerState(reward, settings, replicas)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await state.start()
        yield
        await state.stop()

    # the pages of the usual documentation load scripts from elsewhere
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
    for routes in (_asking(endpoints), _looking(state), _operation(state)):
        app.include_router(routes)
    app.front = Guard(Direct(app.front, endpoints), settings, state.metrics.requested)
    return app


class _Fronted(FastAPI):
    """FastAPI behind layers of ours: its own outer ones cost a short request more than all of ours."""

    def __init__(self, **described_by: Any) -> None:
        super().__init__(**described_by)
        self.front: ASGIApp = super().__call__

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.front(scope, receive, send)


def _endpoints(state: ServerState) -> dict[str, Endpoint]:
    """What rewards are asked for with, by path."""
    name, terms = state.settings.model_name, state.terms

    async def score(asked: schemas.ScoreRequest, x_sarm_learn: Learn = True) -> Response:
        """Rewards with all their parts."""
        learn = asked.learn and x_sarm_learn
        answers = await state.answer(compat.asked_conversations(asked), learn=learn)
        results = [compat.score_answer(answer, asked.top) for answer in answers]
        return _json({"head": state.reward.model.fingerprint, "results": results}, answers)

    async def get_reward(asked: schemas.OpenRlhfRequest, x_sarm_learn: Learn = True) -> Response:
        """For OpenRLHF."""
        answers = await state.answer(compat.openrlhf_conversations(asked), learn=x_sarm_learn)
        return _json(compat.openrlhf_answer(answers, terms, one=len(answers) == 1), answers)

    async def classify(asked: schemas.ClassifyRequest, x_sarm_learn: Learn = True) -> Response:
        """In the form of vLLM."""
        answers = await state.answer(compat.classified(asked), learn=x_sarm_learn)
        return _json(compat.classify_answer(answers, name), answers)

    async def embeddings(asked: schemas.EmbeddingsRequest, x_sarm_learn: Learn = True) -> Response:
        """In the form of SGLang."""
        answers = await state.answer(compat.embedded(asked), learn=x_sarm_learn)
        return _json(compat.embeddings_answer(answers, name), answers)

    async def rm(asked: schemas.SlimeRequest, x_sarm_learn: Learn = True) -> Response:
        """For slime: a bare number."""
        answers = await state.answer([compat.slime_conversation(asked)], learn=x_sarm_learn)
        return _json(answers[0].value, answers)

    endpoints = (
        Endpoint("/v1/score", schemas.ScoreRequest, score),
        Endpoint("/get_reward", schemas.OpenRlhfRequest, get_reward),
        Endpoint("/classify", schemas.ClassifyRequest, classify),
        Endpoint("/v1/embeddings", schemas.EmbeddingsRequest, embeddings),
        Endpoint("/rm", schemas.SlimeRequest, rm),
    )
    return {endpoint.path: endpoint for endpoint in endpoints}


_RESPONSES: dict[str, Any] = {
    "/v1/score": schemas.ScoreResponse,
    "/get_reward": schemas.OpenRlhfResponse,
    "/classify": schemas.ClassifyResponse,
    "/v1/embeddings": schemas.EmbeddingsResponse,
    "/rm": float,
}


def _asking(endpoints: Mapping[str, Endpoint]) -> APIRouter:
    routes = APIRouter()
    for path, endpoint in endpoints.items():
        routes.post(path, response_model=_RESPONSES[path], responses=_ASKING)(endpoint.answer)
    return routes


def _looking(state: ServerState) -> APIRouter:
    routes = APIRouter()

    @routes.get("/v1/model", response_model=schemas.ModelResponse, responses=_LOOKING)
    async def model() -> Response:
        """What is served, under which controls."""
        return _json(model_view(state, __version__))

    @routes.get(
        "/v1/latents/{latent}",
        response_model=schemas.LatentResponse,
        responses={**_LOOKING, **described(404, 422)},
    )
    async def latents(latent: Annotated[int, InPath(ge=0, le=2**31 - 1)]) -> Response:
        """One latent: its weight, the controls on it, how often it fired."""
        size = state.reward.model.config.latents
        if not size:
            raise Refusal(404, "this reward model has no dictionary, so it has no latents", ATTACH)
        if latent >= size:
            raise Refusal(404, f"there is no latent {latent}", f"this model has the latents 0..{size - 1}")
        return _json(latent_view(state, latent))

    return routes


def _operation(state: ServerState) -> APIRouter:
    routes = APIRouter()

    @routes.get("/healthz", response_model=schemas.Health, responses=described(413, 421))
    async def healthz() -> Response:
        """Whether the process answers."""
        return _json({"status": "ok"})

    @routes.get("/readyz", response_model=schemas.Health, responses=described(413, 421, 503))
    async def readyz() -> Response:
        """Whether rewards are given."""
        if not state.batcher.alive:
            raise Refusal(503, "the server is starting or stopping", "wait, or ask another one")
        return _json({"status": "ok"})

    @routes.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}, "description": "Counters"}, **_LOOKING},
    )
    async def metrics() -> Response:
        """Counters, as Prometheus reads them."""
        return Response(state.metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return routes


def _json(content: Any, answers: Sequence[Answered] = ()) -> Response:
    """A response; numbers that are none are refused rather than written."""
    headers = {compat.VERSION_HEADER: compat.versions(answers)} if answers else None
    body = json.dumps(content, ensure_ascii=False, allow_nan=False).encode()
    return Response(body, media_type="application/json", headers=headers)
