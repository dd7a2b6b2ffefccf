"""Traces of run folders, as they are or as a surrogate reads their texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from demur.types import Trace


def traces_in(runs: Sequence[Path], surrogate: str | None = None) -> Iterator[Trace]:
    """Traces of the runs in order; with a surrogate, its states reading their prompts and responses.

    Raises:
        StoreError: no run there, or a damaged one.
        ModelError, InputError: the surrogate cannot be loaded, or is not autoregressive.
    """
    from demur.store import Store

    traces = (trace for run in runs for trace in Store.open(run).traces())
    if surrogate is None:
        yield from traces
        return
    from demur.guard.surrogate import read_texts
    from demur.models import load

    yield from read_texts(load(surrogate), ((trace.prompt, trace.response) for trace in traces))
