"""Middleware for all requests.

It compares API keys in constant time before a body is read, adds an id, security headers and a line in
the log, checks the host name, and limits the size of a body.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import os
import uuid
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Annotated, final
from urllib.parse import quote

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from demur.errors import InputError
from demur.serve.host import Hosting
from demur.serve.hosted import Limits
from demur.serve.http_errors import UNKNOWN_KEY, HTTPError

_log = logging.getLogger("demur.serve")

#: Forbid framing, content sniffing and caching.
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

_TOO_LARGE = (413, "body_too_large", "The body is too large.")


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


@final
class RequestMiddleware:
    """ASGI middleware. Logs method, path and status, never an answer, and a prompt only with
    ``log_prompts``.

    Args:
        app: the application.
        keys: a request with a body needs one of them, if there are any.
        hosts: allowed names in the ``Host`` header; any when empty.
        limits: bytes of a body, and seconds for a client to send it.
        log_prompts: log bodies.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: Keys,
        hosts: Collection[str],
        limits: Limits,
        log_prompts: bool,
    ) -> None:
        self._app, self._keys, self._hosts = app, keys, hosts
        self._limits, self._log_prompts = limits, log_prompts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, identity, status = perf_counter(), uuid.uuid4().hex, 0
        scope.setdefault("state", {})["request_id"] = identity

        async def sealed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                sent = MutableHeaders(scope=message)
                sent["x-request-id"] = identity
                for name, value in HEADERS.items():
                    sent.setdefault(name, value)
            await send(message)

        try:
            headers = Headers(scope=scope)
            scope["state"]["client"] = self._client(scope, headers)
            body = await self._body(headers, receive)
            if self._log_prompts and body:
                _log.info("%s asked %r", identity, body)
            await self._app(scope, _again(body, receive), sealed)
        except HTTPError as error:
            await error.response(scope["path"])(scope, receive, sealed)
        finally:
            spent = perf_counter() - begun
            words = (identity, scope["method"], quote(scope["path"]), status, spent)
            _log.info("%s %s %s %d %.3fs", *words)

    def _client(self, scope: Scope, headers: Headers) -> str | None:
        """The owner of a key, or an address where the server has no keys; None without a valid key.

        Raises:
            HTTPError: another host name, or a body without a valid key.
        """
        if self._hosts and _name(headers.get("host", "")) not in self._hosts:
            raise HTTPError(400, "unknown_host", "The Host header names another server.")
        if not self._keys:
            return scope["client"][0] if scope.get("client") else ""
        owner = self._keys.owner(key_of(headers))
        sends = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        if sends and owner is None:
            raise HTTPError(*UNKNOWN_KEY)
        return owner

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        """Read the whole body.

        Raises:
            HTTPError: it is too large, or takes too long.
        """
        announced = headers.get("content-length", "0")
        if not announced.isdecimal() or int(announced) > self._limits.body:
            raise HTTPError(*_TOO_LARGE)
        parts, size, more = [], 0, True
        try:
            async with asyncio.timeout(self._limits.send_seconds):
                while more:
                    message = await receive()
                    if message["type"] != "http.request":
                        break
                    parts.append(message.get("body", b""))
                    size, more = size + len(parts[-1]), message.get("more_body", False)
                    if size > self._limits.body:
                        raise HTTPError(*_TOO_LARGE)
        except TimeoutError as error:
            raise HTTPError(408, "body_too_slow", "The body took too long.") from error
        return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that returns the body again."""
    whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def received() -> Message:
        return whole.pop() if whole else await receive()

    return received


def _name(host: str) -> str:
    """A ``Host`` header without its port."""
    name, _, port = host.rpartition(":")
    return name if name and port.isdecimal() else host


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
    found: str | None = request.state.client
    if found is None:
        raise HTTPError(*UNKNOWN_KEY)
    return found


Client = Annotated[str, Depends(client)]
Serving = Annotated[Hosting, Depends(hosting)]
