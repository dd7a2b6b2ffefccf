"""The application, its routes, and the process, which ends every stream properly after a signal."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from ipaddress import ip_address
from time import monotonic, time
from typing import Any, final

import uvicorn
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import PlainTextResponse

from demur._version import __version__
from demur.errors import InputError
from demur.serve import http_errors, live_page, rails
from demur.serve.host import Hosting
from demur.serve.http_errors import HTTPError
from demur.serve.middleware import Client, Keys, RequestMiddleware, Serving
from demur.serve.model_engine import ModelEngine
from demur.serve.request import chat_sequences, text_sequences
from demur.serve.response import respond
from demur.serve.schema import ChatRequest, CompletionRequest, ErrorBody

_ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorBody},
    "5XX": {"model": ErrorBody},
}
_STREAM: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}

#: Seconds for streams to end after a signal; unfinished ones then end as filtered.
GRACE = 10.0

#: Seconds after which Python switches threads. An engine releases the interpreter at every
#: operation of its network; with Python's default of 5 ms it would wait that long each time while
#: connections are served.
SWITCH = 2e-4

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
    app.state.hosting, app.state.began = hosting, int(time())
    http_errors.install(app)
    app.include_router(router)
    app.include_router(rails.router)
    if live:
        app.include_router(live_page.router)
    app.add_middleware(
        RequestMiddleware,
        keys=keys or Keys([]),
        hosts=hosts,
        limits=hosting.options.limits,
        log_prompts=log_prompts,
    )
    return app


@router.get("/healthz", response_class=PlainTextResponse)
async def healthz(hosting: Serving) -> str:
    """Whether the process answers and every model's thread runs."""
    if any(engine.dead for engine in hosting.engines.values()):
        raise HTTPError(503, "dead", "A model's thread has ended; restart the server.")
    return "ok"


@router.get("/readyz", response_class=PlainTextResponse)
async def readyz(hosting: Serving) -> str:
    """Whether every model accepts requests."""
    if not all(engine.alive for engine in hosting.engines.values()):
        raise HTTPError(503, "not_ready", "Not ready.")
    return "ok"


@router.get("/openapi.json", include_in_schema=False)
async def document(request: Request, client: Client) -> dict[str, Any]:
    """The OpenAPI document."""
    found: dict[str, Any] = request.app.openapi()
    return found


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(hosting: Serving, client: Client) -> Response:
    """Metrics for Prometheus."""
    return PlainTextResponse(hosting.metrics.text(), media_type="text/plain; version=0.0.4")


@router.get("/v1/models")
async def models(request: Request, hosting: Serving, client: Client) -> dict[str, Any]:
    """The served models, each with its guard."""
    return {"object": "list", "data": [_about(e, request) for e in hosting.engines.values()]}


@router.get("/v1/models/{name:path}")
async def model(name: str, request: Request, hosting: Serving, client: Client) -> dict[str, Any]:
    """One model."""
    return _about(hosting.engine(name), request)


@router.post("/v1/chat/completions", responses=_STREAM)
async def chat(asked: ChatRequest, request: Request, hosting: Serving, client: Client) -> Response:
    """Answer a chat."""
    engine = hosting.engine(asked.model)
    sequences = await chat_sequences(engine.hosted, asked, client)
    return await respond("chat", request, engine, asked, sequences)


@router.post("/v1/completions", responses=_STREAM)
async def text(
    asked: CompletionRequest, request: Request, hosting: Serving, client: Client
) -> Response:
    """Continue a text."""
    engine = hosting.engine(asked.model)
    sequences = await text_sequences(engine.hosted, asked, client)
    return await respond("text", request, engine, asked, sequences)


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


@final
class Server(uvicorn.Server):
    """uvicorn that drains its engines before it closes connections.

    Args:
        app: from ``create_app``.
        hosting: the app's models.
        grace: seconds for streams to end after a signal.
    """

    def __init__(self, app: FastAPI, hosting: Hosting, *, grace: float = GRACE) -> None:
        limits = hosting.options.limits
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            ws="none",
            proxy_headers=False,
            timeout_graceful_shutdown=5,
            limit_concurrency=limits.connections,
        )
        super().__init__(config)
        self._engines, self._grace = hosting.engines, grace
        self._seconds = limits.send_seconds
        self._silent: dict[tuple[Any, Any], float] = {}

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal."""
        sys.setswitchinterval(SWITCH)
        super().run(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish or filter running sequences, then close connections."""
        await asyncio.gather(*(engine.drain(self._grace) for engine in self._engines.values()))
        await super().shutdown(sockets)

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second; closes idle connections."""
        if counter % 10 == 0:
            # Those that send no request: uvicorn waits for headers without a time limit.
            now, before, self._silent = monotonic(), self._silent, {}
            connections: list[Any] = list(self.server_state.connections)
            for connection in connections:
                cycle = connection.cycle  # of the last request
                if cycle is None or cycle.response_complete:
                    began = self._silent[connection, cycle] = before.get((connection, cycle), now)
                    if now - began > self._seconds:
                        connection.transport.close()
        return await super().on_tick(counter)


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to an address.

    Raises:
        InputError: the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
    except OSError as error:
        found.close()
        raise InputError(
            f"Cannot listen on {host} port {port}: {error.strerror}. Choose another --port."
        ) from error
    return found


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
