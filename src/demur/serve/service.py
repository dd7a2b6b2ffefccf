"""What the routes share: who may ask, which engine answers, and that nobody is answered in vain."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Annotated, TypeVar, final

from fastapi import Depends, Request, Response
from fastapi.responses import JSONResponse
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from demur.serve.bodies import Form
from demur.serve.engine import Engine
from demur.serve.job import Job
from demur.serve.keys import Keys, shown
from demur.serve.limits import Limits
from demur.serve.metrics import Metrics
from demur.serve.refusals import UNKNOWN_KEY, Refusal
from demur.serve.streams import EventStream, begun, chunks, collected, submit, unless_gone

T = TypeVar("T")

#: As OpenAI's clients show a key, and as LiteLLM does; here for the OpenAPI document.
_bearer = HTTPBearer(auto_error=False)
_header = APIKeyHeader(name="x-api-key", auto_error=False)


@final
@dataclass(frozen=True)
class Service:
    """What is served.

    Attributes:
        engines: by model name.
        keys: who may ask.
        limits: the engines' own.
        metrics: the engines' own.
    """

    engines: Mapping[str, Engine]
    keys: Keys
    limits: Limits
    metrics: Metrics

    def engine(self, model: str) -> Engine:
        """The engine of a model.

        Raises:
            Refusal: it is not served (404).
        """
        if model not in self.engines:
            raise Refusal(404, "model_not_found", "This model is not served.", "model")
        return self.engines[model]

    async def whole(
        self, request: Request, engine: Engine, jobs: list[Job], form: Form
    ) -> Response:
        """Generate and answer as one body."""
        submit(engine, jobs)
        body = await attended(request, engine, jobs, collected(jobs, form))
        headers = _coverage(engine, jobs)
        return Response() if body is None else JSONResponse(body, headers=headers)

    async def stream(
        self, request: Request, engine: Engine, jobs: list[Job], form: Form
    ) -> Response:
        """Generate and answer as a stream, once the first answer has a row."""
        submit(engine, jobs)
        await attended(request, engine, jobs, begun(jobs), going_on=True)
        parts, seconds = chunks(jobs, form), self.limits.send_seconds
        headers = _coverage(engine, jobs)
        return EventStream(parts, engine=engine, jobs=jobs, send_seconds=seconds, headers=headers)


async def attended(
    request: Request,
    engine: Engine,
    jobs: list[Job],
    work: Awaitable[T],
    *,
    going_on: bool = False,
) -> T | None:
    """The result of ``work``, None where the client went away; then, or after an error, the jobs end.

    Args:
        going_on: the jobs outlive the work.
    """
    result = None
    try:
        result = await unless_gone(request.receive, work)
    finally:
        if result is None or not going_on:
            engine.cancel(jobs)
    return result


def _coverage(engine: Engine, jobs: list[Job]) -> dict[str, str]:
    """Says before the first word whether the guard's false-positive rate holds for the request."""
    if engine.guard is None:
        return {}
    return {"x-demur-calibrated": str(all(job.calibrated for job in jobs)).lower()}


def service(request: Request) -> Service:
    """The service of the app that was asked."""
    found = request.app.state.service
    assert isinstance(found, Service)
    return found


def client(
    request: Request,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    header: Annotated[str | None, Depends(_header)],
) -> str:
    """Who asks: the holder of a key, or an address where no keys are asked for.

    Raises:
        Refusal: no key that is ours (401).
    """
    keys = service(request).keys
    if not keys:
        return request.client.host if request.client else ""
    owner = keys.owner(shown(request.headers))
    if owner is None:
        raise UNKNOWN_KEY
    return owner


Client = Annotated[str, Depends(client)]
Serving = Annotated[Service, Depends(service)]
