"""What all requests share: an id, security headers, the host check, the key check before a body is
read, the size limit of a body, and a line in the log.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Collection
from time import perf_counter
from typing import final
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from demur.serve.http_errors import UNKNOWN_KEY, HTTPError
from demur.serve.service import Keys, key_of

_log = logging.getLogger("demur.serve")

#: Forbid framing, content sniffing and caching.
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

_TOO_LARGE = (413, "body_too_large", "The body is too large.")


@final
class RequestMiddleware:
    """ASGI middleware. Logs method, path and status, never an answer, and a prompt only with
    ``log_prompts``.

    Args:
        app: the application.
        keys: a request with a body needs one of them, if there are any.
        hosts: allowed names in the ``Host`` header; any when empty.
        body: maximum bytes of a body.
        seconds: time limit for a client to send its body.
        log_prompts: log bodies.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: Keys,
        hosts: Collection[str],
        body: int,
        seconds: float,
        log_prompts: bool,
    ) -> None:
        self._app, self._keys, self._hosts = app, keys, hosts
        self._most, self._seconds, self._log_prompts = body, seconds, log_prompts

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
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = identity
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._admit(scope)
            body = await self._body(scope, receive)
            if self._log_prompts and body:
                _log.info("%s asked %r", identity, body)
            await self._app(scope, _again(body, receive), sealed)
        except HTTPError as error:
            await error.response(scope["path"])(scope, receive, sealed)
        finally:
            spent = perf_counter() - begun
            words = (identity, scope["method"], quote(scope["path"]), status, spent)
            _log.info("%s %s %s %d %.3fs", *words)

    def _admit(self, scope: Scope) -> None:
        """Raise HTTPError for another host name, or a body without a key."""
        headers = Headers(scope=scope)
        if self._hosts and _name(headers.get("host", "")) not in self._hosts:
            raise HTTPError(400, "unknown_host", "The Host header names another server.")
        sends = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        if sends and self._keys and self._keys.owner(key_of(headers)) is None:
            raise HTTPError(*UNKNOWN_KEY)

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """Read the whole body.

        Raises:
            HTTPError: it is too large, or takes too long.
        """
        announced = Headers(scope=scope).get("content-length", "0")
        if not announced.isdecimal() or int(announced) > self._most:
            raise HTTPError(*_TOO_LARGE)
        parts, size, more = [], 0, True
        try:
            async with asyncio.timeout(self._seconds):
                while more:
                    message = await receive()
                    if message["type"] != "http.request":
                        break
                    parts.append(message.get("body", b""))
                    size, more = size + len(parts[-1]), message.get("more_body", False)
                    if size > self._most:
                        raise HTTPError(*_TOO_LARGE)
        except TimeoutError as error:
            raise HTTPError(408, "body_too_slow", "The body took too long.") from error
        return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that gives the body again."""
    whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def received() -> Message:
        return whole.pop() if whole else await receive()

    return received


def _name(host: str) -> str:
    """A ``Host`` header without its port."""
    name, _, port = host.rpartition(":")
    return name if name and port.isdecimal() else host
