"""What every exchange has in common: a request id, headers, a largest body, and a line in the log."""

from __future__ import annotations

import asyncio
import logging
import uuid
from time import perf_counter
from typing import final
from urllib.parse import quote

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from demur.serve.refusals import Refusal

_log = logging.getLogger("demur.serve")

#: For pages and answers alike: nothing may be framed, guessed or kept.
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

_TOO_LARGE = Refusal(413, "body_too_large", "The body is too large.")
_TOO_SLOW = Refusal(408, "body_too_slow", "The body took too long.")


@final
class Envelope:
    """ASGI middleware; logs method, path and status, never what was asked or answered.

    Args:
        app: what answers.
        body: most bytes of a request.
        seconds: for a client to send them.
    """

    def __init__(self, app: ASGIApp, *, body: int, seconds: float) -> None:
        self._app, self._most, self._seconds = app, body, seconds

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
            async with asyncio.timeout(self._seconds):
                received = await self._body(scope, receive)
            if received is None:
                await _TOO_LARGE.response()(scope, receive, sealed)
        except TimeoutError:
            await _TOO_SLOW.response()(scope, receive, sealed)
        else:
            if received is not None:
                await self._app(scope, received, sealed)
        finally:
            spent = perf_counter() - begun
            words = (identity, scope["method"], quote(scope["path"]), status, spent)
            _log.info("%s %s %s %d %.3fs", *words)

    async def _body(self, scope: Scope, receive: Receive) -> Receive | None:
        """The whole body as one message, None where it is too large."""
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if not announced.isdigit() or int(announced) > self._most:
            return None
        parts, size, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                break
            parts.append(message.get("body", b""))
            size, more = size + len(parts[-1]), message.get("more_body", False)
            if size > self._most:
                return None
        whole: list[Message] = [
            {"type": "http.request", "body": b"".join(parts), "more_body": False}
        ]

        async def received() -> Message:
            return whole.pop() if whole else await receive()

        return received
