"""Errors as OpenAI's clients read them. A body is one of a few constants and the name of a field; it
holds nothing of the request and nothing of the server's inside.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response

from demur.serve import rails

#: Kind of error by status, where OpenAI has a name for it.
_TYPES = {401: "authentication_error", 429: "rate_limit_error"}

#: Seconds after which a client that was told 429 or 503 should come back.
RETRY_AFTER = "1"


class Refusal(Exception):
    """A request that is not served.

    Args:
        status: HTTP status.
        code: a stable name for programs.
        message: one sentence; never built from the request's text.
        param: field of the body that is to blame.
    """

    def __init__(self, status: int, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param

    @property
    def body(self) -> dict[str, Any]:
        """The error in OpenAI's form."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {
            "error": {
                "message": self.message,
                "type": _TYPES.get(self.status, kind),
                "param": self.param,
                "code": self.code,
            }
        }

    def response(self, path: str) -> JSONResponse:
        """The error as an answer on a route; on a rail's it is a blocked prompt."""
        if rails.blocks(path, self.status):
            return JSONResponse(rails.verdict(path, self.message))
        headers = {"Retry-After": RETRY_AFTER} if self.status in (429, 503) else {}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(self.body, self.status, headers)


BUSY = Refusal(429, "queue_full", "Too many requests are waiting. Come back later.")
FAILED = Refusal(500, "failed", "The server failed. Its log tells more under this request's id.")
UNKNOWN_KEY = Refusal(401, "invalid_api_key", "A valid API key is needed.")
LATE = Refusal(503, "timeout", "The request waited too long. Come back later.")


def install(app: FastAPI) -> None:
    """Make every error of the app one of ours."""

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refusal)
        return error.response(request.scope["path"])

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        found = error.errors()
        # What is not served is named first: it is what the client can change.
        unknown = [each for each in found if each["type"] == "extra_forbidden"]
        return _invalid((unknown or found)[0]).response(request.scope["path"])

    async def unknown(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        phrase = HTTPStatus(error.status_code).phrase
        code = phrase.lower().replace(" ", "_")
        refusal = Refusal(error.status_code, code, f"{phrase}.")
        response = refusal.response(request.scope["path"])
        response.headers.update(dict(error.headers or {}))
        return response

    async def failed(request: Request, error: Exception) -> Response:
        return FAILED.response(request.scope["path"])

    app.add_exception_handler(Refusal, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, unknown)
    app.add_exception_handler(Exception, failed)


def _invalid(error: Mapping[str, Any]) -> Refusal:
    if error["type"] == "json_invalid":
        return Refusal(400, "invalid_json", "The body is not JSON.")
    places = [str(part) for part in error["loc"][1:]]
    if error["type"] == "extra_forbidden":
        name = _shown(places[-1])
        return Refusal(400, "unsupported_field", f"Unsupported field: {name}.", name)
    place = _shown(places[0]) if places else None
    about = "The body cannot be used." if place is None else f"Invalid field: {place}."
    if error["type"] == "value_error":
        about = f"{str(error['msg']).removeprefix('Value error, ').capitalize()}."
    return Refusal(
        400, "missing_field" if error["type"] == "missing" else "invalid_field", about, place
    )


def _shown(name: str) -> str:
    """A field's name, short and in plain characters, since the request chose it."""
    return json.dumps(name)[1:-1][:64]
