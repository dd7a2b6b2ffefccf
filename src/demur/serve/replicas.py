"""Serve on several machines: replicas of the application behind one address, by Ray Serve.

    serve run demur.serve.replicas:application model=organism-ar guard=guard.safetensors replicas=2

Each replica has its own model, guard and engine, so every replica answers as ``demur serve`` does.
Ray replaces a replica that dies, or whose engine does, while the others answer. Limits and ``/metrics``
are per replica. To serve another model, deploy another application under its own route prefix.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, final

from pydantic import BaseModel, ConfigDict, Field

from demur.errors import InputError, MissingExtraError
from demur.models import load
from demur.serve.app import GRACE, SWITCH, create_app
from demur.serve.host import host, read_guard
from demur.serve.hosted import GuardMode, Limits, ServeOptions, Uncalibrated
from demur.serve.middleware import VARIABLE, Keys, read_keys

try:
    from ray import serve
except ImportError as error:
    raise MissingExtraError("Serving on a Ray cluster", "ray-serve") from error


class Settings(BaseModel):
    """What to serve, and how many replicas.

    Attributes:
        model: name by which every machine loads the model.
        guard: file of a streaming guard, readable on every machine; None serves without a guard.
        mode, hold, uncalibrated: see ``demur.serve.hosted``.
        dtype, device: as ``demur.load`` takes them.
        replicas: number of replicas.
        cores, gpus: per replica.
        rows, queue, seconds: see ``demur.serve.hosted``; per replica.
        keys: file of API keys, readable on every machine; ``DEMUR_API_KEYS`` adds to it.
        keyless: serve without keys to anyone who can reach the address.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    guard: Path | None = None
    mode: GuardMode = "hold"
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
    """The application for ``serve run``, ``serve.run`` or a configuration file.

    Raises:
        InputError: no key is set, and ``keyless`` is not.
    """
    _keys(settings)
    deployment = serve.deployment(
        name=f"demur-{settings.model}".replace("/", "-"),
        num_replicas=settings.replicas,
        ray_actor_options={"num_cpus": settings.cores, "num_gpus": settings.gpus},
        # The engine responds with 429 itself; Ray's own queue in front of it would hide that.
        max_ongoing_requests=settings.rows + settings.queue + 1,
        graceful_shutdown_timeout_s=GRACE,
    )
    return deployment(Replica).bind(settings)


@final
@serve.ingress()
class Replica:
    """One process with a model, its guard and its engine."""

    def __init__(self, settings: Settings) -> None:
        import torch

        torch.set_num_threads(max(1, int(settings.cores)))
        sys.setswitchinterval(SWITCH)
        limits = Limits(**settings.model_dump(include={"rows", "queue", "seconds"}))
        how = settings.model_dump(include={"mode", "hold", "uncalibrated"})
        options = ServeOptions(**how, limits=limits)
        model = load(settings.model, dtype=settings.dtype, device=settings.device)
        guards = [read_guard(settings.guard)] if settings.guard else []
        self._hosting = host([model], guards, options)
        self._app = create_app(self._hosting, keys=_keys(settings))

    def __serve_build_asgi_app__(self) -> Any:
        """The application, for Ray Serve."""
        return self._app

    def check_health(self) -> None:
        """Ray Serve replaces a copy whose check fails."""
        for name, engine in self._hosting.engines.items():
            if not engine.alive:
                raise RuntimeError(f"The engine of {name} has ended.")


def _keys(settings: Settings) -> Keys:
    keys = read_keys(settings.keys)
    if not keys and not settings.keyless:
        raise InputError(
            f"No key is set, and other machines can reach the address of a cluster. Give keys=FILE or "
            f"{VARIABLE}, or keyless=true if a firewall protects it."
        )
    return keys
