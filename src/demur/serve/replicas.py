"""Serve past one machine: copies of the same application behind one address, by Ray Serve.

    serve run demur.serve.replicas:application model=organism-ar guard=guard.safetensors replicas=2

A copy holds the model, the guard and an engine of its own, so an answer is that of ``demur serve``
whichever copy gives it. A copy that dies, or whose engine does, is replaced while the others answer.
Limits and ``/metrics`` are each copy's own. Another model is another application, under its own route
prefix in Ray Serve's configuration file.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, final

from pydantic import BaseModel, ConfigDict, Field

from demur.errors import InputError, MissingExtraError
from demur.models import load
from demur.serve.answer import Mode
from demur.serve.app import create_app
from demur.serve.host import host, read_guard
from demur.serve.hosted import Uncalibrated
from demur.serve.keys import VARIABLE, Keys, read_keys
from demur.serve.lifetime import GRACE, SWITCH
from demur.serve.limits import Limits
from demur.serve.metrics import Metrics

try:
    from ray import serve
except ImportError as error:
    raise MissingExtraError("Serving on a Ray cluster", "ray-serve") from error


class Settings(BaseModel):
    """What is served, and by how many.

    Attributes:
        model: name that every machine loads the model by.
        guard: file of a streaming guard that every machine sees; None answers unguarded.
        mode, hold, uncalibrated: see ``demur.serve.answer``.
        dtype, device: as ``demur.load`` takes them.
        replicas: copies.
        cores, gpus: of a copy.
        rows, queue, seconds: see ``demur.serve.limits``; of each copy.
        keys: file of API keys that every machine sees; ``DEMUR_API_KEYS`` counts too.
        keyless: serve although no key is set, to whoever reaches the address.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    guard: Path | None = None
    mode: Mode = "hold"
    hold: int = 0
    uncalibrated: Uncalibrated = "block"
    dtype: str | None = None
    device: str | None = None
    replicas: int = Field(default=1, ge=1)
    cores: float = Field(default=1, gt=0)
    gpus: float = Field(default=0, ge=0)
    rows: int = 64
    queue: int = 256
    seconds: float = 300.0
    keys: Path | None = None
    keyless: bool = False


def application(settings: Settings) -> Any:
    """The application that ``serve run``, ``serve.run`` or a configuration file deploys.

    Raises:
        InputError: no key is set, and ``keyless`` is not.
    """
    _keys(settings)
    copies = serve.deployment(
        name=f"demur-{settings.model}".replace("/", "-"),
        num_replicas=settings.replicas,
        ray_actor_options={"num_cpus": settings.cores, "num_gpus": settings.gpus},
        # An engine answers 429 by itself; Ray's own queue in front of it would only hide that.
        max_ongoing_requests=settings.rows + settings.queue + 1,
        graceful_shutdown_timeout_s=GRACE,
    )
    return copies(Copy).bind(settings)


@final
@serve.ingress()
class Copy:
    """One process that answers: a model, its guard, its engine."""

    def __init__(self, settings: Settings) -> None:
        import torch

        torch.set_num_threads(max(1, int(settings.cores)))
        sys.setswitchinterval(SWITCH)
        limits = Limits(rows=settings.rows, queue=settings.queue, seconds=settings.seconds)
        metrics = Metrics()
        self._engines = host(
            [load(settings.model, dtype=settings.dtype, device=settings.device)],
            [read_guard(settings.guard)] if settings.guard else [],
            mode=settings.mode,
            hold=settings.hold,
            uncalibrated=settings.uncalibrated,
            limits=limits,
            metrics=metrics,
        )
        self._app = create_app(self._engines, limits=limits, metrics=metrics, keys=_keys(settings))

    def __serve_build_asgi_app__(self) -> Any:
        """What Ray Serve asks a copy for."""
        return self._app

    def check_health(self) -> None:
        """Ray Serve replaces a copy whose check fails."""
        for name, engine in self._engines.items():
            if not engine.alive:
                raise RuntimeError(f"The engine of {name} has ended.")


def _keys(settings: Settings) -> Keys:
    keys = read_keys(settings.keys)
    if not keys and not settings.keyless:
        raise InputError(
            f"No key is set, and a cluster's address can be reached from other machines. Give "
            f"keys=FILE or {VARIABLE}, or keyless=true where a firewall stands before it."
        )
    return keys
