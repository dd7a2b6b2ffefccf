"""The server process: it listens, and on a signal lets every stream end properly."""

from __future__ import annotations

import asyncio
import socket
import sys
from ipaddress import ip_address
from time import monotonic
from typing import Any, final

import uvicorn
from fastapi import FastAPI

from demur.errors import InputError
from demur.serve.host import Hosting

#: Seconds for streams to end after a signal; unfinished ones then end as filtered.
GRACE = 10.0


#: Seconds after which Python switches threads. An engine releases the interpreter at every
#: operation of its network; with Python's default of 5 ms it would wait that long each time while
#: connections are served.
SWITCH = 2e-4


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
        """Finish or filter what runs, then close connections."""
        await asyncio.gather(*(engine.drain(self._grace) for engine in self._engines.values()))
        await super().shutdown(sockets)

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second; closes idle connections."""
        if counter % 10 == 0:
            self._close_silent(monotonic())
        return await super().on_tick(counter)

    def _close_silent(self, now: float) -> None:
        """Close connections that send no request; uvicorn waits for headers without a time limit."""
        before, self._silent = self._silent, {}
        connections: list[Any] = list(self.server_state.connections)
        for connection in connections:
            cycle = connection.cycle  # of the last request
            if cycle is None or cycle.response_complete:
                began = self._silent[connection, cycle] = before.get((connection, cycle), now)
                if now - began > self._seconds:
                    connection.transport.close()


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
