"""The routes of the reward service."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI
from fastapi import Path as InPath
from starlette.responses import Response

from sarm_control import __version__
from sarm_control.engines.controlled_reward import ControlledReward
from sarm_control.sarm.reward_model import RewardModel
from sarm_control.server import compat, schemas
from sarm_control.server.problems import Refusal, described, install
from sarm_control.server.security import Guard
from sarm_control.server.settings import DEFAULTS, Settings
from sarm_control.server.state import ServerState
from sarm_control.server.views import latent_view, model_view

_ASKING = described(400, 401, 413, 421, 422, 429, 500, 503, 504)
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
    app = FastAPI(
        title="sarm-control reward server",
        version="1",
        description="Rewards of a sparse-autoencoder reward model under controls.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    install(app)
    app.include_router(_native(state))
    app.include_router(_engines(state))
    app.include_router(_operation(state))
    app.add_middleware(Guard, settings=settings, requested=state.metrics.requested)
    return app


def _native(state: ServerState) -> APIRouter:
    routes = APIRouter()

    @routes.post("/v1/score", response_model=schemas.ScoreResponse, responses=_ASKING)
    async def score(asked: schemas.ScoreRequest) -> Response:
        """Rewards with all their parts."""
        answers = await state.answer(compat.asked_conversations(asked))
        results = [compat.score_answer(answer, asked.top) for answer in answers]
        return _json({"head": state.reward.model.fingerprint, "results": results})

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
        if latent >= size:
            raise Refusal(404, f"there is no latent {latent}", f"this model has the latents 0..{size - 1}")
        return _json(latent_view(state, latent))

    return routes


def _engines(state: ServerState) -> APIRouter:
    routes = APIRouter()
    name = state.settings.model_name

    @routes.post("/get_reward", response_model=schemas.OpenRlhfResponse, responses=_ASKING)
    async def get_reward(asked: schemas.OpenRlhfRequest) -> Response:
        """For OpenRLHF."""
        answers = await state.answer(compat.openrlhf_conversations(asked))
        one = isinstance(asked.query, str) or len(asked.query) == 1
        return _json(compat.openrlhf_answer(answers, state.terms, one=one), state.owner.version)

    @routes.post("/classify", response_model=schemas.ClassifyResponse, responses=_ASKING)
    async def classify(asked: schemas.ClassifyRequest) -> Response:
        """In the form of vLLM."""
        answers = await state.answer(compat.classified(asked))
        return _json(compat.classify_answer(answers, name), answers[-1].paid.version)

    @routes.post("/v1/embeddings", response_model=schemas.EmbeddingsResponse, responses=_ASKING)
    async def embeddings(asked: schemas.EmbeddingsRequest) -> Response:
        """In the form of SGLang."""
        answers = await state.answer(compat.embedded(asked))
        return _json(compat.embeddings_answer(answers, name), answers[-1].paid.version)

    @routes.post("/rm", response_model=float, responses=_ASKING)
    async def rm(asked: schemas.SlimeRequest) -> Response:
        """For slime: a bare number."""
        (answer,) = await state.answer([compat.slime_conversation(asked)])
        return _json(answer.value, answer.paid.version)

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


def _json(content: Any, version: int | None = None) -> Response:
    """A response; numbers that are none are refused rather than written."""
    headers = None if version is None else {compat.VERSION_HEADER: str(version)}
    body = json.dumps(content, ensure_ascii=False, allow_nan=False).encode()
    return Response(body, media_type="application/json", headers=headers)
