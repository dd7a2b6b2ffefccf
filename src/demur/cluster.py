"""Trace on many machines with Ray Data: one model per worker, one window of prompts at a time.

1. One worker loads the model and reports its fingerprint; the driver never loads it.
2. The driver locks the run, writes its manifest and sends each incomplete window to a pool of
   workers, which grows and shrinks with the cluster.
3. A worker traces its window into the store batch by batch, as a run in one process does.

Batches are planned inside a window, so the rows do not depend on the worker: with the same batch size,
threads and kind of device they are byte for byte those of a run in one process. If a worker or its
machine is lost, Ray gives the window to another worker, which resumes after the last finished batch.
Only plain data crosses processes: prompts go in as JSON; a number of rows or an error comes back.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from demur import errors
from demur.errors import DemurError, InputError, MissingExtraError, ModelError, StoreError
from demur.generation import Progress, as_prompts, fingerprint
from demur.models import load
from demur.models.base import LanguageModel
from demur.runs import run_of, trace_window
from demur.sampling import sampler_from, sampler_with
from demur.store import Store, Writer, writing
from demur.store.folder import LocalFolder, folder_at
from demur.store.manifest import Manifest, read_manifest, versions
from demur.types import Fingerprint, Prompt, Record

__all__ = ["Worker", "joined", "trace_to"]

#: Seconds to wait for an autoscaling cluster to add a machine that is large enough.
PATIENCE = 600.0

#: Errors that keep their class on the way from a worker.
_NAMES = ("InputError", "ModelError", "FingerprintError", "StoreError", "SignalError")


def trace_to(
    folder: str | Path,
    model: str | Path,
    prompts: Iterable[Prompt | str],
    *,
    address: str = "local",
    workers: int | None = None,
    cores: int = 1,
    gpus: int | None = None,
    options: Mapping[str, Any] | None = None,
    sampler: Mapping[str, Any] | None = None,
    record: Record = Record(),  # noqa: B008 (frozen)
    batch_size: int | Literal["auto"] = 8,
    shard_rows: int = 256,
    progress: Progress | None = None,
) -> Store:
    """Trace prompts into a run on a Ray cluster; call it again to resume an interrupted run.

    Other arguments are those of ``demur.runs.trace_to``.

    Args:
        folder: run folder that every machine can write: an object store's URL or a shared folder.
        model: name or path by which every machine loads the model.
        address: ``local`` starts Ray on this machine, ``auto`` joins the cluster of this machine,
            ``host:port`` or ``ray://host:port`` another. If Ray is running already, it is used.
        workers: maximum number of workers; None for as many as the cluster has room for.
        cores: CPU cores per worker.
        gpus: GPUs per worker; None for one if ``options`` put the model on a GPU, else none.
        options: other arguments of ``demur.load``.
        sampler: settings that override the model's own.
        progress: called with the number of rows of each finished window.

    Raises:
        MissingExtraError: the extra ``ray`` is not installed.
        InputError: no prompts, duplicate ids, a folder that other processes cannot see, a setting
            that does not fit the model, or no machine is large enough for a worker.
        StoreError: the run is locked or has other settings, or a worker cannot write it or has
            other library versions.
        FingerprintError: a worker loaded a different model than the first.
        ModelError, SignalError: a batch failed, or Ray did.
    """
    rows = as_prompts(prompts)
    place, chosen = _shared(folder), {"name": str(model), **(options or {})}
    share = {"num_cpus": cores, "num_gpus": _gpus(chosen) if gpus is None else gpus}
    with joined(address) as ray:
        look = ray.remote(**share)(describe)
        asked = look.remote(os.getcwd(), chosen, dict(sampler or {}), record.pooling)
        _require_room(ray, share, patience=0 if address == "local" else PATIENCE)
        told = checked(ray.get(asked))
        mark = Fingerprint(**told["fingerprint"])
        manifest = run_of(mark, rows, record, shard_rows=shard_rows)
        with writing(place, manifest) as writer:
            waiting = list(_unfinished(writer, rows, progress))
            if waiting:
                writer.sign(told["versions"])
                traced = ray.data.from_items(waiting, override_num_blocks=len(waiting)).map(
                    Worker,
                    fn_constructor_args=(os.getcwd(), place, chosen, batch_size, cores),
                    compute=ray.data.ActorPoolStrategy(
                        min_size=1, max_size=workers, max_tasks_in_flight_per_actor=2
                    ),
                    **share,
                )
                for done in traced.iter_rows():
                    finished = checked(done)["rows"]
                    if progress:
                        progress(finished)
    return Store.open(place)


def _gpus(options: Mapping[str, Any]) -> int:
    """1 if the options put the model on a GPU: by device, device_map or quantisation; else 0."""
    device, spread = str(options.get("device") or "cpu"), options.get("device_map")
    on_cpu = device == "cpu" and spread in (None, "cpu") and not options.get("bits")
    return int(not on_cpu)


def _unfinished(
    writer: Writer, prompts: Sequence[Prompt], progress: Progress | None
) -> Iterator[dict[str, Any]]:
    """Windows with missing rows. Windows that only lack their shard are sealed here."""
    for window in writer.manifest.windows():
        places = writer.manifest.places(window)
        if len(writer.done(window)) < len(places):
            chosen = [prompts[place].as_data() for place in places]
            yield {"window": window, "prompts": json.dumps(chosen)}
            continue
        writer.seal(window)
        if progress:
            progress(len(places))


def _shared(folder: str | Path) -> str:
    """The folder's address for other processes."""
    place = folder_at(folder)
    if isinstance(place, LocalFolder):
        return str(place.path.absolute())
    if str(place).startswith("memory:"):
        raise InputError(
            f"{place} exists in this process only. Choose a folder that all machines share, or an "
            "object store such as --out s3://bucket/run."
        )
    return str(place)


@contextmanager
def joined(address: str) -> Iterator[Any]:
    """Start or join Ray at an address of ``trace_to``; shut it down afterwards if started here.

    Around several runs, this starts Ray once for all of them.

    Raises:
        MissingExtraError: the extra ``ray`` is not installed.
        InputError: there is no cluster at the address.
        ModelError: Ray failed in the block.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "error")
    # A killed driver keeps its machines reserved this long. With Ray's default of 180 s its successor
    # would have one worker for three minutes. A running driver renews every 10 s.
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
            f"Ray failed: {str(error).strip().splitlines()[-1]} Everything written so far is safe. Run "
            "the same command again, with a smaller --batch-size if a machine ran out of memory."
        ) from error
    finally:
        if mine:
            ray.shutdown()


def _require_room(ray: Any, share: Mapping[str, float], *, patience: float) -> None:
    """Wait until some machine is large enough for one worker, even if it is busy now.

    Without this Ray would wait forever and only log it. Call it after a task with the same needs has
    been submitted, so that an autoscaling cluster knows about them. ``patience``: seconds to wait for
    a machine to be added, before an InputError.
    """
    end = time.monotonic() + patience
    while True:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        machines = [(node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in nodes]
        if any(cpu >= share["num_cpus"] and gpu >= share["num_gpus"] for cpu, gpu in machines):
            return
        if time.monotonic() >= end:
            there = "; ".join(f"{cpu:g} cores and {gpu:g} GPUs" for cpu, gpu in machines)
            raise InputError(
                f"A worker needs {share['num_cpus']:g} cores and {share['num_gpus']:g} GPUs of one "
                f"machine; the cluster's have {there}. Give --cores and --gpus that fit, or the "
                "--ray address of a cluster with larger machines."
            )
        time.sleep(1)


def describe(
    cwd: str, options: Mapping[str, Any], sampler: Mapping[str, Any], pooling: str | None
) -> dict[str, Any]:
    """Fingerprint and library versions on a worker, or the error."""
    _go_to(cwd)
    try:
        model = load(**options)
        settings = sampler_with(model.traits.sampler, sampler)
        mark = fingerprint(model, settings, Record(pooling=pooling))
        return {"fingerprint": asdict(mark), "versions": versions()}
    except DemurError as error:
        return _problem(error)


class Worker:
    """One model on one machine; a call traces the missing rows of a window."""

    def __init__(
        self,
        cwd: str,
        place: str,
        options: Mapping[str, Any],
        batch_size: int | Literal["auto"],
        cores: int,
    ) -> None:
        _go_to(cwd)
        torch.set_num_threads(cores)
        self._place = folder_at(place)
        self._options = options
        self._batch_size = batch_size

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Trace ``window`` with its ``prompts``. Returns the number of rows, or the error."""
        prompts = [Prompt.from_data(values) for values in json.loads(row["prompts"])]
        try:
            run = self._manifest()
            sampler = sampler_from(run.fingerprint.sampler)
            fingerprint(self._model, sampler, Record(pooling=run.fingerprint.pooling)).require(
                run.fingerprint,
                what=f"The model on {socket.gethostname()} is not the run's",
                fix="Put the same checkpoint on every machine.",
            )
            window = row["window"]
            writer = Writer(self._place, run, window=window)
            trace_window(writer, window, prompts, self._model, sampler, batch_size=self._batch_size)
        except DemurError as error:
            return _problem(error)
        return {"rows": len(prompts), "kind": "", "problem": ""}

    @cached_property
    def _model(self) -> LanguageModel:
        return load(**self._options)

    def _manifest(self) -> Manifest:
        """The run's manifest, if it was written by the same library versions.

        Workers hold no lock. All of them write the same manifest with their first batch.
        """
        try:
            run = read_manifest(self._place)
        except StoreError as error:
            raise StoreError(
                f"{socket.gethostname()} cannot see the run: {error} A cluster needs a folder that "
                "all machines share, or an object store such as --out s3://bucket/run."
            ) from error
        if not run.is_signed(versions()):
            here = ", ".join(f"{name} {number}" for name, number in versions().items())
            raise StoreError(
                f"{socket.gethostname()} has {here}; the run was written by {run.writers[-1:]}. Rows "
                "may differ between versions: install the same versions on every machine."
            )
        return run


def checked(told: dict[str, Any]) -> dict[str, Any]:
    """Return a worker's reply, or raise the error in it."""
    if told.get("problem"):
        kind = getattr(errors, told["kind"]) if told["kind"] in _NAMES else DemurError
        raise kind(told["problem"])
    return told


def _problem(error: DemurError) -> dict[str, Any]:
    return {"rows": 0, "kind": type(error).__name__, "problem": str(error)}


def _go_to(cwd: str) -> None:
    """Change to the driver's folder, so that relative paths mean the same."""
    if Path(cwd).is_dir():
        os.chdir(cwd)
