"""The application and its routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from time import time
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import PlainTextResponse

from demur._version import __version__
from demur.serve import http_errors, live_page, rails
from demur.serve.host import Hosting
from demur.serve.http_errors import HTTPError
from demur.serve.middleware import RequestMiddleware
from demur.serve.model_engine import ModelEngine
from demur.serve.request import chat_sequences, text_sequences
from demur.serve.response import ResponseFormat
from demur.serve.schema import ChatRequest, CompletionRequest, ErrorBody
from demur.serve.service import Client, Keys, Service, Serving

_ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorBody},
    "5XX": {"model": ErrorBody},
}
_STREAM: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}

router = APIRouter()


def create_app(
    hosting: Hosting,
    *,
    keys: Keys | None = None,
    live: bool = False,
    hosts: Collection[str] = (),
    log_prompts: bool = False,
) -> FastAPI:
    """The application; it starts the engines.

    Args:
        hosting: from ``demur.serve.host``.
        keys: API keys; None asks for none.
        live: serve the live page, which shows drafts before the guard has passed them.
        hosts: allowed names in the ``Host`` header, against DNS rebinding; any when empty.
        log_prompts: log the body of every request.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        for engine in hosting.engines.values():
            engine.start(asyncio.get_running_loop())
        yield

    app = FastAPI(
        title="demur",
        version=__version__,
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        responses=_ERRORS,
    )
    keys, limits = keys or Keys([]), hosting.options.limits
    app.state.service = Service(hosting, keys)
    app.state.began = int(time())
    http_errors.install(app)
    app.include_router(router)
    app.include_router(rails.router)
    if live:
        app.include_router(live_page.router)
    app.add_middleware(
        RequestMiddleware,
        keys=keys,
        hosts=hosts,
        body=limits.body,
        seconds=limits.send_seconds,
        log_prompts=log_prompts,
    )
    return app


@router.get("/healthz", response_class=PlainTextResponse)
async def healthz(service: Serving) -> str:
    """Whether the process answers and every model's thread runs."""
    if any(engine.dead for engine in service.engines.values()):
        raise HTTPError(503, "dead", "A model's thread has ended; restart the server.")
    return "ok"


@router.get("/readyz", response_class=PlainTextResponse)
async def readyz(service: Serving) -> str:
    """Whether every model accepts requests."""
    if not all(engine.alive for engine in service.engines.values()):
        raise HTTPError(503, "not_ready", "Not ready.")
    return "ok"


@router.get("/openapi.json", include_in_schema=False)
async def document(request: Request, client: Client) -> dict[str, Any]:
    """The OpenAPI document."""
    found: dict[str, Any] = request.app.openapi()
    return found


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(service: Serving, client: Client) -> Response:
    """Metrics for Prometheus."""
    return PlainTextResponse(service.hosting.metrics.text(), media_type="text/plain; version=0.0.4")


@router.get("/v1/models")
async def models(request: Request, service: Serving, client: Client) -> dict[str, Any]:
    """The served models, each with its guard."""
    data = [_about(engine, request) for engine in service.engines.values()]
    return {"object": "list", "data": data}


@router.get("/v1/models/{name:path}")
async def model(name: str, request: Request, service: Serving, client: Client) -> dict[str, Any]:
    """One model."""
    return _about(service.engine(name), request)


@router.post("/v1/chat/completions", responses=_STREAM)
async def chat(asked: ChatRequest, request: Request, service: Serving, client: Client) -> Response:
    """Answer a chat."""
    engine = service.engine(asked.model)
    shape = ResponseFormat("chat", request.state.request_id, asked.model, asked.with_usage)
    sequences = await chat_sequences(engine.hosted, asked, client)
    respond = service.stream if asked.stream else service.whole
    return await respond(request, engine, sequences, shape)


@router.post("/v1/completions", responses=_STREAM)
async def text(
    asked: CompletionRequest, request: Request, service: Serving, client: Client
) -> Response:
    """Continue a text."""
    engine = service.engine(asked.model)
    shape = ResponseFormat("text", request.state.request_id, asked.model, asked.with_usage)
    sequences = await text_sequences(engine.hosted, asked, client)
    respond = service.stream if asked.stream else service.whole
    return await respond(request, engine, sequences, shape)


def _about(engine: ModelEngine, request: Request) -> dict[str, Any]:
    hosted, guard = engine.hosted, engine.hosted.guard
    about: dict[str, Any] | None = None
    if guard:
        about = {"guard": guard.name, "alpha": guard.alpha, "mode": hosted.options.mode}
        about |= {"caution": guard.few} if guard.few else {}
    return {
        "id": hosted.model.name,
        "object": "model",
        "created": request.app.state.began,
        "owned_by": "demur",
        "demur": about,
    }
