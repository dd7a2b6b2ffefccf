"""What every exchange has in common: a request id, headers, a known host, a key before a body is read,
a largest body, and a line in the log."""

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

from demur.serve.keys import Keys, shown
from demur.serve.refusals import UNKNOWN_KEY, Refusal

_log = logging.getLogger("demur.serve")

#: For pages and answers alike: nothing may be framed, guessed or kept.
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

_HOST = Refusal(400, "unknown_host", "This server does not answer under that name.")
_TOO_LARGE = Refusal(413, "body_too_large", "The body is too large.")
_TOO_SLOW = Refusal(408, "body_too_slow", "The body took too long.")


@final
class Envelope:
    """ASGI middleware; logs method, path and status, never what was answered, and what was asked only
    where ``log_prompts`` says so.

    Args:
        app: what answers.
        keys: whoever sends a body must show one of them, if there are any.
        hosts: names that the ``Host`` header may have; any when empty.
        body: most bytes of a request.
        seconds: for a client to send them.
        log_prompts: log each body.
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
        """Answer one request."""
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
        except Refusal as refusal:
            await refusal.response(scope["path"])(scope, receive, sealed)
        finally:
            spent = perf_counter() - begun
            words = (identity, scope["method"], quote(scope["path"]), status, spent)
            _log.info("%s %s %s %d %.3fs", *words)

    def _admit(self, scope: Scope) -> None:
        """Raise Refusal for another host's name, and for a body of somebody without a key."""
        headers = Headers(scope=scope)
        if self._hosts and _name(headers.get("host", "")) not in self._hosts:
            raise _HOST
        sends = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        if sends and self._keys and self._keys.owner(shown(headers)) is None:
            raise UNKNOWN_KEY

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body.

        Raises:
            Refusal: it is too large, or takes too long.
        """
        announced = Headers(scope=scope).get("content-length", "0")
        if not announced.isdecimal() or int(announced) > self._most:
            raise _TOO_LARGE
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
                        raise _TOO_LARGE
        except TimeoutError as error:
            raise _TOO_SLOW from error
        return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """What an app receives whose body has been read already."""
    whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def received() -> Message:
        return whole.pop() if whole else await receive()

    return received


def _name(host: str) -> str:
    """A ``Host`` header without its port."""
    name, _, port = host.rpartition(":")
    return name if name and port.isdecimal() else host
