"""Trace over many machines with Ray Data: one model a worker, a window of prompts at a time.

1. One worker loads the model and says what it is; the driver never loads it.
2. The driver locks the run and sends each window that is not complete to a pool of workers, which
   grows and shrinks with the cluster.
3. A worker traces its window into the store just as a run in one process does, batch by batch.

Batches are planned inside a window, so rows do not depend on who traced them: they are those of a run
in one process, byte for byte, with the same batch size, threads and kind of device. When a worker or
its machine is lost, Ray gives the window to another, as often as it takes, which goes on from the
batches that are safe. Only plain data goes between processes: prompts as JSON there, a number of rows
back.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from demur.errors import (
    DemurError,
    FingerprintError,
    InputError,
    MissingExtraError,
    ModelError,
    SignalError,
    StoreError,
)
from demur.models import load
from demur.models.base import LanguageModel
from demur.runs import run_of, sampler_with, trace_window
from demur.sampling import find_pooling, sampler_from
from demur.store import Store, Writer, writing
from demur.store.folder import folder_at
from demur.store.local import LocalFolder
from demur.store.manifest import Manifest, read_manifest
from demur.tracing import Progress, fingerprint
from demur.types import Fingerprint, Prompt


def trace_to(
    folder: str | Path,
    model: str | Path,
    prompts: Iterable[Prompt | str],
    *,
    address: str = "local",
    workers: int | None = None,
    cores: int = 1,
    options: Mapping[str, Any] | None = None,
    sampler: Mapping[str, Any] | None = None,
    pooling: str | None = None,
    layers: Sequence[str] = ("last",),
    batch_size: int | Literal["auto"] = 8,
    shard_rows: int = 256,
    seed: int = 0,
    progress: Progress | None = None,
) -> Store:
    """Trace prompts into a run on a Ray cluster; call it again to go on where it stopped.

    What is not named here is as in ``demur.runs.trace_to``.

    Args:
        folder: where every machine writes to: an object store's URL, or a folder that all share.
        model: name that every machine loads the model by.
        address: ``local`` starts Ray on this machine, ``auto`` joins the cluster that it belongs to,
            ``host:port`` or ``ray://host:port`` another. A Ray already begun is used as it is.
        workers: at most so many; None for as many as the cluster takes.
        cores: CPU cores of a worker. It has one GPU besides where ``options["device"]`` is ``cuda``.
        options: other arguments of ``demur.load``.
        sampler: settings other than the model's own.
        progress: called with the rows of each window that is complete.

    Raises:
        MissingExtraError: the extra ``ray`` is not installed.
        InputError: no prompts, equal ids, a folder that no other process sees, or a setting that does
            not fit the model.
        StoreError: the run is locked, of other settings, or a worker cannot write it.
        FingerprintError: a worker loaded another model than the first.
        ModelError, SignalError: a batch failed, or Ray did.
    """
    rows = [p if isinstance(p, Prompt) else Prompt(p) for p in prompts]
    place, chosen = _shared(folder), {"name": str(model), **(options or {})}
    share = {"num_cpus": cores, "num_gpus": int(str(chosen.get("device")).startswith("cuda"))}
    with _joined(address) as ray:
        look = ray.remote(**share)(described)
        told = ray.get(look.remote(os.getcwd(), chosen, dict(sampler or {}), pooling))
        mark = Fingerprint(**_good(told)["fingerprint"])
        manifest = run_of(mark, rows, layers=layers, seed=seed, shard_rows=shard_rows)
        with writing(place, manifest) as writer:
            waiting = list(_unfinished(writer, rows, progress))
            if waiting:
                traced = ray.data.from_items(waiting, override_num_blocks=len(waiting)).map(
                    Worker,
                    fn_constructor_args=(os.getcwd(), place, chosen, batch_size, cores),
                    compute=ray.data.ActorPoolStrategy(
                        min_size=1, max_size=workers, max_tasks_in_flight_per_actor=2
                    ),
                    **share,
                )
                for done in traced.iter_rows():
                    finished = _good(done)["rows"]
                    if progress:
                        progress(finished)
    return Store.open(place)


def described(
    cwd: str, options: Mapping[str, Any], sampler: Mapping[str, Any], pooling: str | None
) -> dict[str, Any]:
    """What the model is on a worker, as plain data, or what went wrong with it."""
    _go_to(cwd)
    try:
        model = load(**options)
        name = find_pooling(pooling or model.traits.pooling).name
        settings = sampler_with(model.traits.sampler, sampler)
        return {"fingerprint": asdict(fingerprint(model, settings, pooling=name))}
    except DemurError as error:
        return _problem(error)


class Worker:
    """One model on one machine; called with a window, it traces what is left of it."""

    def __init__(
        self,
        cwd: str,
        place: str,
        options: Mapping[str, Any],
        batch_size: int | Literal["auto"],
        cores: int,
    ) -> None:
        import torch

        _go_to(cwd)
        torch.set_num_threads(cores)
        self._place = folder_at(place)
        self._options = options
        self._batch_size = batch_size

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Trace ``window`` with its ``prompts``; gives its rows, or what went wrong."""
        prompts = [_prompt(values) for values in json.loads(row["prompts"])]
        try:
            run = self._manifest()
            sampler = sampler_from(run.fingerprint.sampler)
            fingerprint(self._model, sampler, pooling=run.fingerprint.pooling).require(
                run.fingerprint,
                what=f"The model on {socket.gethostname()} is not the run's",
                fix="Put the same checkpoint on every machine.",
            )
            trace_window(
                Writer(self._place, run),
                row["window"],
                prompts,
                self._model,
                sampler,
                batch_size=self._batch_size,
            )
        except DemurError as error:
            return _problem(error)
        return {"rows": len(prompts), "kind": "", "problem": ""}

    @cached_property
    def _model(self) -> LanguageModel:
        return load(**self._options)

    def _manifest(self) -> Manifest:
        try:
            return read_manifest(self._place)
        except StoreError as error:
            raise StoreError(
                f"{socket.gethostname()} does not see the run: {error} A cluster needs a folder that "
                "all machines share, or an object store such as --out s3://bucket/run."
            ) from error


def _unfinished(
    writer: Writer, prompts: Sequence[Prompt], progress: Progress | None
) -> Iterator[dict[str, Any]]:
    """The windows that lack rows; one that lacks only its shard gets it here."""
    for window in writer.manifest.windows():
        places = writer.manifest.places(window)
        if len(writer.done(window)) < len(places):
            chosen = [asdict(prompts[place]) for place in places]
            yield {"window": window, "prompts": json.dumps(chosen)}
            continue
        writer.seal(window)
        if progress:
            progress(len(places))


@contextmanager
def _joined(address: str) -> Iterator[Any]:
    """Ray, without a dashboard, usage reports or its workers' logs; left as it was found."""
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


def _shared(folder: str | Path) -> str:
    """The folder as other processes find it."""
    place = folder_at(folder)
    if isinstance(place, LocalFolder):
        return str(place.path.absolute())
    if str(place).startswith("memory:"):
        raise InputError(
            f"{place} is in this process alone. Give workers a folder that all machines share, or an "
            "object store such as --out s3://bucket/run."
        )
    return str(place)


def _go_to(cwd: str) -> None:
    """Where the driver is, so that relative paths mean the same."""
    if Path(cwd).is_dir():
        os.chdir(cwd)


def _prompt(values: dict[str, Any]) -> Prompt:
    """A prompt from JSON, which knows no tuples."""
    slots = {name: tuple(values[name]) for name in ("user", "response") if values[name] is not None}
    return Prompt(**{**values, **slots})


_KINDS = (InputError, ModelError, FingerprintError, StoreError, SignalError)


def _problem(error: DemurError) -> dict[str, Any]:
    return {"rows": 0, "kind": type(error).__name__, "problem": str(error)}


def _good(told: dict[str, Any]) -> dict[str, Any]:
    """What a worker gave back. Raises the error that it met."""
    if told.get("problem"):
        kind = next((kind for kind in _KINDS if kind.__name__ == told["kind"]), DemurError)
        raise kind(told["problem"])
    return told
