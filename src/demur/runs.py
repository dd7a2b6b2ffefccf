"""Trace a list of prompts into a run folder that can be interrupted and resumed at any moment."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from demur.errors import DemurError, InputError, ModelError
from demur.generation import (
    Progress,
    as_prompts,
    batches,
    default_sampler,
    fingerprint,
    trace_batch,
)
from demur.models.base import LanguageModel
from demur.sampling import Sampler
from demur.store import Store, Writer, writing
from demur.store.folder import folder_at
from demur.store.manifest import Manifest
from demur.types import Fingerprint, Prompt, Record, digest


def trace_to(
    folder: str | Path,
    model: LanguageModel,
    prompts: Iterable[Prompt | str],
    *,
    sampler: Sampler | None = None,
    record: Record = Record(),  # noqa: B008 (frozen)
    batch_size: int | Literal["auto"] = 8,
    shard_rows: int = 256,
    progress: Progress | None = None,
) -> Store:
    """Trace prompts into a run folder; call it again to resume.

    Finished rows are never computed again. Batches are planned inside a window of ``shard_rows``
    prompts, whether or not some are done, so an interrupted run ends with the same bytes as one that
    was not. Memory grows with the window, not with the number of prompts.

    Args:
        folder: a path, or an fsspec URL such as ``s3://bucket/runs/x``; created if it does not exist.
        model: from ``demur.load``.
        prompts: prompts or plain texts, with ids that differ.
        sampler: the model's default when None.
        record: layers, pooling and random seed.
        batch_size: prompts generated together, ``auto`` for what fits the device; may change
            between starts. Tokens do not depend on it; states may in their last bits.
        shard_rows: prompts per window.
        progress: called with the number of traces just finished, including those of earlier starts.

    Raises:
        StoreError: the folder is locked, of other settings, full or read-only.
        InputError: no prompts, equal ids, or a prompt or setting that does not fit the model.
        ModelError, SignalError: a batch failed; its prompts are named, what is written is safe.
    """
    rows = as_prompts(prompts)
    sampler = sampler or default_sampler(model)
    mark = fingerprint(model, sampler, record)
    manifest = run_of(mark, rows, record, shard_rows=shard_rows)
    with writing(folder, manifest) as writer:
        for window in manifest.windows():
            places = manifest.places(window)
            trace_window(
                writer,
                window,
                rows[places.start : places.stop],
                model,
                sampler,
                batch_size=batch_size,
                progress=progress,
            )
    return Store.open(folder)


def run_of(
    mark: Fingerprint, prompts: Sequence[Prompt], record: Record, *, shard_rows: int
) -> Manifest:
    """The manifest of a run of these prompts.

    Raises:
        InputError: no prompts, equal ids, half a surrogate pair, or windows of no rows.
    """
    if not prompts:
        raise InputError("No prompts: the list is empty. Give at least one.")
    name, count = Counter(prompt.id for prompt in prompts).most_common(1)[0]
    if count > 1:
        raise InputError(
            f"{count} prompts have the id {name!r}. Give each an id of its own, or leave it empty "
            "and drop repeated prompts."
        )
    for prompt in prompts:
        try:
            json.dumps(prompt.as_data(), ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"Prompt {prompt.id!a} holds half a surrogate pair, which no tokenizer reads. "
                "Remove it."
            ) from error
    if shard_rows < 1:
        raise InputError(f"shard_rows is {shard_rows}; it must be at least 1.")
    return Manifest(
        fingerprint=mark,
        layers=record.layers,
        seed=record.seed,
        prompts=digest([digest(prompt.as_data()) for prompt in prompts]),
        count=len(prompts),
        shard_rows=shard_rows,
    )


def trace_window(
    writer: Writer,
    window: int,
    prompts: Sequence[Prompt],
    model: LanguageModel,
    sampler: Sampler,
    *,
    batch_size: int | Literal["auto"],
    progress: Progress | None = None,
) -> None:
    """Trace what is left of one window and seal it; the other settings are the writer's.

    ``prompts`` are all of the window's, whether or not some are done.
    """
    run = writer.manifest
    places, finished = run.places(window), writer.done(window)
    if progress and finished:
        progress(len(finished))
    if len(finished) < len(places):
        record = Record(layers=run.layers, pooling=run.fingerprint.pooling, seed=run.seed)
        for batch in batches(model, prompts, sampler, record, batch_size=batch_size):
            left = [i for i in batch if places[i] not in finished]
            if not left:
                continue
            chosen = [prompts[i] for i in left]
            with _named(chosen):
                traces = trace_batch(model, chosen, sampler=sampler, record=record)
            writer.add(window, [places[i] for i in left], traces)
            if progress:
                progress(len(left))
    writer.seal(window)


@contextmanager
def _named(prompts: Sequence[Prompt]) -> Iterator[None]:
    """Add to an error which prompts were being traced."""
    names = ", ".join(prompt.id for prompt in prompts)
    try:
        yield
    except DemurError as error:
        raise type(error)(f"{error} (In the batch of prompts {names}.)") from error
    except (RuntimeError, MemoryError) as error:
        raise ModelError(
            f"Tracing prompts {names} failed: {error or 'out of memory'}. Finished rows are kept; "
            "run again, with a smaller --batch-size if memory was short."
        ) from error


@dataclass(frozen=True)
class Run:
    """Summary of a run folder: ``written`` of its ``count`` traces exist.

    ``problem`` says what is wrong with the run; empty when nothing is.
    """

    folder: str
    model: str = ""
    sampler: str = ""
    written: int = 0
    count: int = 0
    problem: str = ""


def list_runs(folder: str | Path) -> list[Run]:
    """Every run at or below a folder or URL, by path; a damaged one says what is wrong with it.

    Complete shards are counted by their names; their content is checked when it is read.

    Raises:
        InputError: no such folder.
    """
    return [_at_a_glance(place) for place in folder_at(folder).runs()]


def _at_a_glance(place: str) -> Run:
    try:
        store = Store.open(place)
        mark = store.manifest.fingerprint
        written = len(store)
    except DemurError as error:
        return Run(place, problem=str(error))
    return Run(place, mark.model, str(mark.sampler["name"]), written, store.manifest.count)
