"""The routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from time import time
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import PlainTextResponse

from demur._version import __version__
from demur.serve import classify, page, rails, refusals
from demur.serve.asking import chat_jobs, text_jobs
from demur.serve.bodies import Form
from demur.serve.engine import Engine
from demur.serve.envelope import Envelope
from demur.serve.keys import Keys
from demur.serve.limits import Limits
from demur.serve.metrics import Metrics
from demur.serve.refusals import Refusal
from demur.serve.service import Client, Service, Serving, attended
from demur.serve.streams import submit
from demur.serve.wire import (
    ChatRequest,
    ClassifyRequest,
    CompletionRequest,
    ErrorBody,
    GuardrailBody,
    GuardrailRequest,
    JailbreakBody,
)

_ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorBody},
    "5XX": {"model": ErrorBody},
}
_STREAM: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}

router = APIRouter()


def create_app(
    engines: Mapping[str, Engine],
    *,
    limits: Limits,
    metrics: Metrics,
    keys: Keys | None = None,
    live: bool = False,
    hosts: Collection[str] = (),
    log_prompts: bool = False,
) -> FastAPI:
    """The application; its engines begin with it.

    Args:
        engines: from ``demur.serve.host``.
        limits: given to ``host`` too.
        metrics: given to ``host`` too.
        keys: anyone may ask when None.
        live: serve the page, which shows drafts that no guard has passed.
        hosts: names that the ``Host`` header may have, so that a page elsewhere whose name server
            points here learns nothing; any when empty.
        log_prompts: log every request's body.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        for engine in engines.values():
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
    keys = keys or Keys([])
    app.state.service = Service(engines, keys, limits, metrics)
    app.state.began = int(time())
    refusals.install(app)
    app.include_router(router)
    if live:
        app.include_router(page.router)
    app.add_middleware(
        Envelope,
        keys=keys,
        hosts=hosts,
        body=limits.body,
        seconds=limits.send_seconds,
        log_prompts=log_prompts,
    )
    return app


@router.get("/healthz", response_class=PlainTextResponse)
async def healthz(service: Serving) -> str:
    """The process answers, and every model's thread is there."""
    if any(engine.dead for engine in service.engines.values()):
        raise Refusal(503, "dead", "A model's thread has ended; restart the server.")
    return "ok"


@router.get("/readyz", response_class=PlainTextResponse)
async def readyz(service: Serving) -> str:
    """Every model takes requests."""
    if not all(engine.alive for engine in service.engines.values()):
        raise Refusal(503, "not_ready", "Not ready.")
    return "ok"


@router.get("/openapi.json", include_in_schema=False)
async def document(request: Request, client: Client) -> dict[str, Any]:
    """This interface."""
    found: dict[str, Any] = request.app.openapi()
    return found


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(service: Serving, client: Client) -> Response:
    """Figures for Prometheus."""
    return PlainTextResponse(service.metrics.text(), media_type="text/plain; version=0.0.4")


@router.get("/v1/models")
async def models(request: Request, service: Serving, client: Client) -> dict[str, Any]:
    """What is served, and which guard watches it."""
    data = [_about(engine, request) for engine in service.engines.values()]
    return {"object": "list", "data": data}


@router.get("/v1/models/{name:path}")
async def model(name: str, request: Request, service: Serving, client: Client) -> dict[str, Any]:
    """One model."""
    return _about(service.engine(name), request)


@router.post("/v1/chat/completions", responses=_STREAM)
async def chat(asked: ChatRequest, request: Request, service: Serving, client: Client) -> Response:
    """Answer a dialogue."""
    engine = service.engine(asked.model)
    form = Form("chat", request.state.request_id, asked.model, asked.with_usage)
    jobs = await chat_jobs(engine, asked, service.limits, client)
    answer = service.stream if asked.stream else service.whole
    return await answer(request, engine, jobs, form)


@router.post("/v1/completions", responses=_STREAM)
async def text(
    asked: CompletionRequest, request: Request, service: Serving, client: Client
) -> Response:
    """Go on from a text."""
    engine = service.engine(asked.model)
    form = Form("text", request.state.request_id, asked.model, asked.with_usage)
    jobs = await text_jobs(engine, asked, service.limits, client)
    answer = service.stream if asked.stream else service.whole
    return await answer(request, engine, jobs, form)


@router.post(rails.NEMO, response_model_exclude_none=True)
async def nemo(
    asked: ClassifyRequest, request: Request, service: Serving, client: Client
) -> JailbreakBody:
    """Is this prompt a jailbreak? As NeMo Guardrails asks."""
    reason = await _objection(service, request, [asked.input], client)
    return JailbreakBody(**rails.verdict(rails.NEMO, reason))


@router.post(rails.LITELLM, response_model_exclude_none=True)
async def litellm(
    asked: GuardrailRequest, request: Request, service: Serving, client: Client
) -> GuardrailBody:
    """May this request pass? As LiteLLM asks."""
    classify.require_readable(asked)
    reason = await _objection(service, request, asked.texts, client)
    return GuardrailBody(**rails.verdict(rails.LITELLM, reason))


async def _objection(service: Service, request: Request, texts: list[str], client: str) -> str:
    """Why these texts must not pass; empty where they may. A blank text asks for nothing."""
    engine = classify.judging(service.engines)
    texts = [text for text in texts if text.strip()]
    if not texts:
        return ""
    jobs = await asyncio.to_thread(classify.jobs, engine, texts, service.limits, client)
    submit(engine, jobs)
    reason = await attended(request, engine, jobs, classify.judged(jobs))
    # Where the client has gone there is no result, and nothing may read that as passed.
    return classify.UNFINISHED if reason is None else reason


def _about(engine: Engine, request: Request) -> dict[str, Any]:
    guard = engine.guard
    return {
        "id": engine.model.name,
        "object": "model",
        "created": request.app.state.began,
        "owned_by": "demur",
        "demur": {"guard": guard.name, "alpha": guard.alpha, "mode": engine.mode}
        if guard
        else None,
    }
