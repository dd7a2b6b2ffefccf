"""Errors in OpenAI's form.

A body has one of a few constant texts and the name of a field, nothing else from the request and no
internals of the server.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response

#: Routes of NeMo Guardrails' jailbreak classifier and LiteLLM's generic guardrail.
NEMO, LITELLM = "/classify", "/beta/litellm_basic_guardrail_api"

#: Errors that stay errors on these routes, because they do not concern the prompt.
_NOT_ABOUT_PROMPTS = (401, 404, 405)

#: OpenAI's error types by status.
_TYPES = {401: "authentication_error", 429: "rate_limit_error"}

#: Seconds after which a client should retry after 429 or 503.
RETRY_AFTER = "1"


class HTTPError(Exception):
    """An error response.

    Args:
        status: HTTP status.
        code: stable name for programs.
        message: one sentence; never contains text of the request.
        param: the field that is wrong.
    """

    def __init__(self, status: int, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param

    @property
    def body(self) -> dict[str, Any]:
        """The body in OpenAI's form."""
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
        """The response on a route; a rail's route answers that the prompt is blocked."""
        if path in (NEMO, LITELLM) and self.status not in _NOT_ABOUT_PROMPTS:
            return JSONResponse(rail_body(path, self.message))
        headers = {"Retry-After": RETRY_AFTER} if self.status in (429, 503) else {}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(self.body, self.status, headers)


# Arguments of ``HTTPError``. An exception that is raised again and again would keep the stack of every
# request that it ended.
BUSY = (429, "queue_full", "Too many requests are waiting. Retry later.")
FAILED = (500, "failed", "The server failed. See its log under this request's id.")
UNKNOWN_KEY = (401, "invalid_api_key", "A valid API key is needed.")
LATE = (503, "timeout", "The request waited too long. Retry later.")


def rail_body(path: str, reason: str) -> dict[str, Any]:
    """The body of a rail's route: blocked for a reason, or passed where the reason is empty."""
    if path == NEMO:
        return {"jailbreak": bool(reason), **({"reason": reason} if reason else {})}
    return {"action": "BLOCKED", "blocked_reason": reason} if reason else {"action": "NONE"}


def install(app: FastAPI) -> None:
    """Convert every error of the app to this form."""

    async def convert(request: Request, error: Exception) -> Response:
        found, headers = HTTPError(*FAILED), Headers()
        if isinstance(error, HTTPError):
            found = error
        elif isinstance(error, RequestValidationError):
            # Name an unsupported field first: it is what the client can change.
            found = _invalid(min(error.errors(), key=lambda e: e["type"] != "extra_forbidden"))
        elif isinstance(error, HTTPException):
            phrase, headers = HTTPStatus(error.status_code).phrase, Headers(error.headers)
            code = phrase.lower().replace(" ", "_")
            found = HTTPError(error.status_code, code, f"{phrase}.")
        response = found.response(request.scope["path"])
        response.headers.update(headers)
        return response

    for kind in (HTTPError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, convert)


def _invalid(error: Mapping[str, Any]) -> HTTPError:
    if error["type"] == "json_invalid":
        return HTTPError(400, "invalid_json", "The body is not JSON.")
    places = [str(part) for part in error["loc"][1:]]
    if error["type"] == "extra_forbidden":
        name = _shown(places[-1])
        return HTTPError(400, "unsupported_field", f"Unsupported field: {name}.", name)
    place = _shown(places[0]) if places else None
    about = "The body cannot be used." if place is None else f"Invalid field: {place}."
    if error["type"] == "value_error":
        about = f"{str(error['msg']).removeprefix('Value error, ').capitalize()}."
    return HTTPError(
        400, "missing_field" if error["type"] == "missing" else "invalid_field", about, place
    )


def _shown(name: str) -> str:
    """A field's name from the request, shortened and escaped."""
    return json.dumps(name)[1:-1][:64]
