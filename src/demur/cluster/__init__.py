"""Trace over many machines with Ray Data: one model a worker, a window of prompts at a time.

1. One worker loads the model and says what it is; the driver never loads it.
2. The driver locks the run, signs its manifest and sends each window that is not complete to a pool of
   workers, which grows and shrinks with the cluster.
3. A worker traces its window into the store just as a run in one process does, batch by batch.

Batches are planned inside a window, so rows do not depend on who traced them: they are those of a run
in one process, byte for byte, with the same batch size, threads and kind of device. When a worker or
its machine is lost, Ray gives the window to another, as often as it takes, which goes on from the
batches that are safe.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from demur.cluster.joining import PATIENCE, joined, require_room
from demur.cluster.worker import Worker, described, good
from demur.errors import InputError
from demur.generation import Progress
from demur.runs import run_of
from demur.store import Store, Writer, writing
from demur.store.folder import folder_at
from demur.store.local import LocalFolder
from demur.types import Fingerprint, Prompt, Record

__all__ = ["Worker", "joined", "trace_to"]


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
    """Trace prompts into a run on a Ray cluster; call it again to go on where it stopped.

    What is not named here is as in ``demur.runs.trace_to``.

    Args:
        folder: where every machine writes to: an object store's URL, or a folder that all share.
        model: name that every machine loads the model by.
        address: ``local`` starts Ray on this machine, ``auto`` joins the cluster that it belongs to,
            ``host:port`` or ``ray://host:port`` another. A Ray already begun is used as it is.
        workers: at most so many; None for as many as the cluster takes.
        cores: CPU cores of a worker.
        gpus: GPUs of a worker; None for one where ``options`` put the model on any, else none.
        options: other arguments of ``demur.load``.
        sampler: settings other than the model's own.
        progress: called with the rows of each window that is complete.

    Raises:
        MissingExtraError: the extra ``ray`` is not installed.
        InputError: no prompts, equal ids, a folder that no other process sees, a setting that does
            not fit the model, or a worker that fits on no machine.
        StoreError: the run is locked, of other settings, or a worker cannot write it or has other
            versions of what writes it.
        FingerprintError: a worker loaded another model than the first.
        ModelError, SignalError: a batch failed, or Ray did.
    """
    rows = [p if isinstance(p, Prompt) else Prompt(p) for p in prompts]
    place, chosen = _shared(folder), {"name": str(model), **(options or {})}
    share = {"num_cpus": cores, "num_gpus": _gpus(chosen) if gpus is None else gpus}
    with joined(address) as ray:
        look = ray.remote(**share)(described)
        asked = look.remote(os.getcwd(), chosen, dict(sampler or {}), record.pooling)
        require_room(ray, share, patience=0 if address == "local" else PATIENCE)
        told = good(ray.get(asked))
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
                    finished = good(done)["rows"]
                    if progress:
                        progress(finished)
    return Store.open(place)


def _gpus(options: Mapping[str, Any]) -> int:
    """One where the model goes on a GPU: by its device, spread by accelerate, or in fewer bits."""
    device, spread = str(options.get("device") or "cpu"), options.get("device_map")
    on_cpu = device == "cpu" and spread in (None, "cpu") and not options.get("bits")
    return int(not on_cpu)


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
