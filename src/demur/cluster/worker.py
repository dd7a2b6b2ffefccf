"""What runs on the cluster's machines. Only plain data goes between processes: prompts as JSON there,
a number of rows back, or the error that was met.
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

from demur.errors import (
    DemurError,
    FingerprintError,
    InputError,
    ModelError,
    SignalError,
    StoreError,
)
from demur.generation import fingerprint
from demur.models import load
from demur.models.base import LanguageModel
from demur.runs import trace_window
from demur.sampling import sampler_from, sampler_with
from demur.store import Writer
from demur.store.folder import folder_at
from demur.store.manifest import Manifest, read_manifest, versions
from demur.types import Prompt, Record

_KINDS = (InputError, ModelError, FingerprintError, StoreError, SignalError)


def described(
    cwd: str, options: Mapping[str, Any], sampler: Mapping[str, Any], pooling: str | None
) -> dict[str, Any]:
    """What the model and the libraries are on a worker, or what went wrong with them."""
    _go_to(cwd)
    try:
        model = load(**options)
        settings = sampler_with(model.traits.sampler, sampler)
        mark = fingerprint(model, settings, Record(pooling=pooling))
        return {"fingerprint": asdict(mark), "versions": versions()}
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
            fingerprint(self._model, sampler, Record(pooling=run.fingerprint.pooling)).require(
                run.fingerprint,
                what=f"The model on {socket.gethostname()} is not the run's",
                fix="Put the same checkpoint on every machine.",
            )
            trace_window(
                Writer(self._place, run, window=row["window"]),
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
        """The run's, signed by libraries that are this worker's too.

        Workers hold no lock. They write the manifest with the first batch, and lose nothing of each
        other's because all of them write the same.
        """
        try:
            run = read_manifest(self._place)
        except StoreError as error:
            raise StoreError(
                f"{socket.gethostname()} does not see the run: {error} A cluster needs a folder that "
                "all machines share, or an object store such as --out s3://bucket/run."
            ) from error
        if not run.is_signed(versions()):
            here = ", ".join(f"{name} {number}" for name, number in versions().items())
            raise StoreError(
                f"{socket.gethostname()} has {here}; the run is written by {run.writers[-1:]}. Rows "
                "may differ between versions: install the same ones on every machine."
            )
        return run


def good(told: dict[str, Any]) -> dict[str, Any]:
    """What a worker gave back. Raises the error that it met."""
    if told.get("problem"):
        kind = next((kind for kind in _KINDS if kind.__name__ == told["kind"]), DemurError)
        raise kind(told["problem"])
    return told


def _problem(error: DemurError) -> dict[str, Any]:
    return {"rows": 0, "kind": type(error).__name__, "problem": str(error)}


def _go_to(cwd: str) -> None:
    """Where the driver is, so that relative paths mean the same."""
    if Path(cwd).is_dir():
        os.chdir(cwd)


def _prompt(values: dict[str, Any]) -> Prompt:
    """A prompt from JSON, which knows no tuples."""
    slots = {name: tuple(values[name]) for name in ("user", "response") if values[name] is not None}
    return Prompt(**{**values, **slots})
