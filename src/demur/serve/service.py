"""What the routes share: the models, API keys compared in constant time, and how to respond."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeVar, final

from fastapi import Depends, Request, Response
from fastapi.responses import JSONResponse
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from demur.errors import InputError
from demur.serve.host import Hosting
from demur.serve.http_errors import UNKNOWN_KEY, HTTPError
from demur.serve.model_engine import ModelEngine
from demur.serve.response import (
    EventStream,
    ResponseFormat,
    begun,
    chunks,
    collected,
    unless_gone,
)
from demur.serve.schema import GenerationRequest
from demur.serve.sequence import ServedSequence

T = TypeVar("T")

#: Where OpenAI's clients and LiteLLM send a key; here for the OpenAPI document.
_bearer = HTTPBearer(auto_error=False)
_header = APIKeyHeader(name="x-api-key", auto_error=False)

#: Environment variable with keys, separated by commas.
VARIABLE = "DEMUR_API_KEYS"

#: Minimum length, so that keys cannot be guessed.
SHORTEST = 16


@final
class Keys:
    """The server's keys; without any, no key is needed."""

    def __init__(self, keys: Sequence[str]) -> None:
        for place, key in enumerate(keys, 1):
            if len(key) < SHORTEST:
                raise InputError(
                    f"Key {place} has {len(key)} characters; give each at least {SHORTEST}. Make one "
                    "with: python -c 'import secrets; print(secrets.token_urlsafe())'"
                )
        self._digests = [_digest(key) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def owner(self, key: str) -> str | None:
        """A name for the owner of a valid key, else None.

        All digests are compared, so the time tells nothing about the keys.
        """
        digest = _digest(key)
        found = [hmac.compare_digest(digest, own) for own in self._digests]
        return f"key-{found.index(True)}" if any(found) else None


def key_of(headers: Mapping[str, str]) -> str:
    """The key in a request's headers, as OpenAI's clients or LiteLLM send it; empty without one."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")


def read_keys(path: Path | None) -> Keys:
    """Read keys from a file (one per line, ``#`` starts a comment) and from ``DEMUR_API_KEYS``.

    Raises:
        InputError: the file is missing or readable by others, or a key is too short.
    """
    keys = [key.strip() for key in os.environ.get(VARIABLE, "").split(",")]
    if path is not None:
        if not path.is_file():
            raise InputError(f"No key file at {path}. Create it with one key per line.")
        if path.stat().st_mode & 0o077:
            raise InputError(f"Other users can read the key file {path}. Run: chmod 600 {path}")
        keys += [line.partition("#")[0].strip() for line in path.read_text("utf-8").splitlines()]
    return Keys([key for key in keys if key])


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


async def respond(
    kind: Literal["chat", "text"],
    request: Request,
    engine: ModelEngine,
    asked: GenerationRequest,
    sequences: list[ServedSequence],
) -> Response:
    """Generate, and respond with one body, or with a stream once the first sequence has a row."""
    shape = ResponseFormat(kind, request.state.request_id, asked.model, asked.with_usage)
    headers = {}
    if engine.hosted.guard:  # whether its false-positive rate holds for the request
        calibrated = all(sequence.calibrated for sequence in sequences)
        headers["x-demur-calibrated"] = str(calibrated).lower()
    engine.submit(sequences)
    if asked.stream:
        await attended(request, engine, sequences, begun(sequences), going_on=True)
        return EventStream(chunks(sequences, shape), engine, sequences, headers)
    body = await attended(request, engine, sequences, collected(sequences, shape))
    return Response() if body is None else JSONResponse(body, headers=headers)


async def attended(
    request: Request,
    engine: ModelEngine,
    sequences: list[ServedSequence],
    work: Awaitable[T],
    *,
    going_on: bool = False,
) -> T | None:
    """The result of ``work``, None if the client disconnected; then, or after an error, cancel the
    sequences.

    Args:
        going_on: let the sequences continue after the work.
    """
    result = None
    try:
        result = await unless_gone(request.receive, work)
    finally:
        if result is None or not going_on:
            engine.cancel(sequences)
    return result


def hosting(request: Request) -> Hosting:
    """The models of the app."""
    found = request.app.state.hosting
    assert isinstance(found, Hosting)
    return found


def client(
    request: Request,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    header: Annotated[str | None, Depends(_header)],
) -> str:
    """The client: the owner of a key, or an address where the server has no keys.

    Raises:
        HTTPError: no valid key (401).
    """
    keys: Keys = request.app.state.keys
    if not keys:
        return request.client.host if request.client else ""
    owner = keys.owner(key_of(request.headers))
    if owner is None:
        raise HTTPError(*UNKNOWN_KEY)
    return owner


Client = Annotated[str, Depends(client)]
Serving = Annotated[Hosting, Depends(hosting)]
