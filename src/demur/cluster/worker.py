"""The code that runs on the cluster's machines.

Only plain data crosses processes: prompts go in as JSON; a number of rows or an error comes back.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from demur import errors
from demur.errors import DemurError, StoreError
from demur.generation import fingerprint
from demur.models import load
from demur.models.base import LanguageModel
from demur.runs import trace_window
from demur.sampling import sampler_from, sampler_with
from demur.store import Writer
from demur.store.folder import folder_at
from demur.store.manifest import Manifest, read_manifest, versions
from demur.types import Prompt, Record

_NAMES = ("InputError", "ModelError", "FingerprintError", "StoreError", "SignalError")


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
            writer, window = Writer(self._place, run, window=row["window"]), row["window"]
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
