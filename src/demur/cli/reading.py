"""Traces of run folders, as they are or as a surrogate reads their texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from demur.cli import console
from demur.errors import InputError

if TYPE_CHECKING:
    from demur.types import Trace


def traces_in(runs: Sequence[Path], surrogate: str | None = None) -> Iterator[Trace]:
    """Traces of the runs in order; with a surrogate, its states reading their prompts and responses.

    Raises:
        StoreError: no run there, or a damaged one.
        ModelError, InputError: the surrogate cannot be loaded, or is not autoregressive.
    """
    yield from _as_read(_stored(runs), surrogate)


def labelled_traces(
    runs: Sequence[Path],
    harmful: Sequence[Path],
    harmless: Sequence[Path],
    labels: str | None,
    surrogate: str | None,
) -> Iterator[Trace]:
    """Traces of the runs with their own labels or those of a file, then of runs that are one class.

    Raises:
        InputError: no run at all, or labels that fit none of the runs.
        StoreError, ModelError: as for ``traces_in``.
    """
    if not (runs or harmful or harmless):
        raise InputError(
            "No runs. Give run folders with labels, or --harmless RUN and --harmful RUN."
        )
    if labels and not runs:
        raise InputError("--labels labels the runs given without an option. Give at least one.")
    yield from _as_read(_labelled(runs, harmful, harmless, labels), surrogate)


def _labelled(
    runs: Sequence[Path], harmful: Sequence[Path], harmless: Sequence[Path], labels: str | None
) -> Iterator[Trace]:
    from demur.prompts import read_labels, with_labels

    own = _stored(runs)
    if labels:
        known = read_labels(labels)
        console.note(str(known.summary))
        own = with_labels(own, known)
    yield from own
    yield from with_labels(_stored(harmless), "harmless")
    yield from with_labels(_stored(harmful), "harmful")


def _stored(runs: Sequence[Path]) -> Iterator[Trace]:
    from demur.store import Store

    return (trace for run in runs for trace in Store.open(run).traces())


def _as_read(traces: Iterator[Trace], surrogate: str | None) -> Iterator[Trace]:
    """The traces, or those of a surrogate that reads their prompts and responses."""
    if surrogate is None:
        yield from traces
        return
    from demur.guard.surrogate import read_texts
    from demur.models import load

    yield from read_texts(load(surrogate), ((trace.prompt, trace.response) for trace in traces))
