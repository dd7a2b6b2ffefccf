"""A server's life: it listens, and on a signal lets every stream come to its end."""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping
from ipaddress import ip_address
from typing import final

import uvicorn
from fastapi import FastAPI

from demur.errors import InputError
from demur.serve.engine import Engine

#: Seconds that streams have to end by themselves after a signal; what is left ends as filtered.
GRACE = 10.0


#: Seconds after which Python's threads take turns. An engine gives way at every operation of its
#: network; with Python's own 5 ms it would wait that long for each turn while connections are served.
SWITCH = 2e-4


@final
class Server(uvicorn.Server):
    """uvicorn, with engines that are drained before connections are closed."""

    def __init__(
        self, app: FastAPI, engines: Mapping[str, Engine], *, grace: float = GRACE
    ) -> None:
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            ws="none",
            proxy_headers=False,
            timeout_graceful_shutdown=5,
        )
        super().__init__(config)
        self._engines, self._grace = engines, grace

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal comes."""
        sys.setswitchinterval(SWITCH)
        super().run(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish or filter what runs, then close."""
        for engine in self._engines.values():
            await engine.drain(self._grace)
        await super().shutdown(sockets)


def listen(host: str, port: int) -> socket.socket:
    """A socket on an address.

    Raises:
        InputError: it cannot be had.
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
