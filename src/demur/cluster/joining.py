"""Ray, begun or joined, and whether a worker fits on one of its machines."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from demur.errors import InputError, MissingExtraError, ModelError

#: Seconds that a cluster which grows by itself has to bring a machine that is large enough.
PATIENCE = 600.0


@contextmanager
def joined(address: str) -> Iterator[Any]:
    """Ray, without a dashboard, usage reports or its workers' logs; left as it was found.

    Around several runs it begins Ray once for all of them.

    Args:
        address: as ``demur.cluster.trace_to`` takes it.

    Raises:
        MissingExtraError: the extra ``ray`` is not installed.
        InputError: no cluster at the address.
        ModelError: Ray gave up what was asked of it in the block.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "error")
    # Machines stay reserved so long for a driver that was killed; Ray's own 180 keeps its successor
    # on one worker for three minutes. A driver that lives renews every 10.
    os.environ.setdefault("RAY_DATA_AUTOSCALING_REQUEST_EXPIRE_TIME_S", "30")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtraError("--ray", "ray") from error
    mine = not ray.is_initialized()
    if mine:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address == "local":
            quiet["include_dashboard"] = False
        try:
            ray.init(address=address, **quiet)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InputError(
                f"No Ray cluster at {address!r}: {error}. Use --ray local, or --ray auto on a machine "
                "of the cluster."
            ) from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    try:
        yield ray
    except ray.exceptions.RayError as error:
        raise ModelError(
            f"Ray gave the run up: {str(error).strip().splitlines()[-1]} What is written is safe; "
            "run again, with a smaller --batch-size if a machine was out of memory."
        ) from error
    finally:
        if mine:
            ray.shutdown()


def require_room(ray: Any, share: Mapping[str, float], *, patience: float) -> None:
    """Wait until some machine is large enough for one worker, however busy it is.

    Ray itself waits for ever, and says so only in a log. What a worker needs must have been asked of
    Ray before, so that a cluster that grows by itself knows of it.

    Args:
        share: ``num_cpus`` and ``num_gpus`` of a worker.
        patience: seconds to wait for a machine to be added.

    Raises:
        InputError: there is none.
    """
    end = time.monotonic() + patience
    while not any(_holds(machine, share) for machine in _machines(ray)):
        if time.monotonic() >= end:
            there = "; ".join(
                f"{machine.get('CPU', 0):g} cores and {machine.get('GPU', 0):g} GPUs"
                for machine in _machines(ray)
            )
            raise InputError(
                f"A worker needs {share['num_cpus']:g} cores and {share['num_gpus']:g} GPUs of one "
                f"machine; the cluster's have {there}. Give --cores and --gpus that fit, or the "
                "--ray address of a cluster with larger machines."
            )
        time.sleep(1)


def _machines(ray: Any) -> list[Mapping[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _holds(machine: Mapping[str, float], share: Mapping[str, float]) -> bool:
    cores, gpus = machine.get("CPU", 0.0), machine.get("GPU", 0.0)
    return cores >= share["num_cpus"] and gpus >= share["num_gpus"]
