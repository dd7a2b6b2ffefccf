"""Trace a list of prompts into a run folder that can be interrupted and resumed at any moment."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from demur.errors import DemurError, InputError, ModelError
from demur.models.base import LanguageModel
from demur.sampling import Sampler, find_pooling, sampler_from
from demur.store import Store, Writer, writing
from demur.store.folder import folder_at
from demur.store.manifest import Manifest
from demur.tracing import Progress, batches, fingerprint, record
from demur.types import Fingerprint, Prompt, digest


def trace_to(
    folder: str | Path,
    model: LanguageModel,
    prompts: Iterable[Prompt | str],
    *,
    sampler: Sampler | None = None,
    pooling: str | None = None,
    layers: Sequence[str] = ("last",),
    batch_size: int | Literal["auto"] = 8,
    shard_rows: int = 256,
    seed: int = 0,
    progress: Progress | None = None,
) -> Store:
    """Trace prompts into a run folder; call it again to go on where it stopped.

    Finished rows are never computed again. Batches are planned inside a window of ``shard_rows``
    prompts, whether or not some are done, so an interrupted run ends with the same bytes as one that
    was not. Memory grows with the window, not with the number of prompts.

    Args:
        folder: a path, or an fsspec URL such as ``s3://bucket/runs/x``; made when it is not there.
        model: from ``demur.load``.
        prompts: prompts or plain texts, with ids that differ.
        sampler: the model's default when None.
        pooling: the model's default when None; see ``demur.sampling.pooling``.
        layers: ``last``, ``first``, ``middle`` or numbers of decoder blocks.
        batch_size: prompts generated together, ``auto`` for what the device takes; may change
            between starts. Tokens do not depend on it; states may in their last bits.
        shard_rows: prompts of a window.
        seed: of temperature and random remasking.
        progress: called with the number of traces just finished, those found finished included.

    Raises:
        StoreError: the folder is locked, of other settings, full or read-only.
        InputError: no prompts, equal ids, or a prompt or setting that does not fit the model.
        ModelError, SignalError: a batch failed; its prompts are named, what is written is safe.
    """
    rows = [p if isinstance(p, Prompt) else Prompt(p) for p in prompts]
    sampler = sampler or sampler_from(model.traits.sampler)
    pooling = find_pooling(pooling or model.traits.pooling).name
    manifest = run_of(
        fingerprint(model, sampler, pooling=pooling),
        rows,
        layers=layers,
        seed=seed,
        shard_rows=shard_rows,
    )
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


def sampler_with(default: Mapping[str, Any], given: Mapping[str, Any]) -> Sampler:
    """The default sampler with the settings given; another sampler with its own defaults.

    Where the default is one block, another length is one block too.

    Raises:
        InputError: an unknown sampler or setting.
    """
    if given.get("name", default["name"]) != default["name"]:
        return sampler_from(given)
    settings = {**default, **given}
    one_block = default.get("block_length", 0) == default.get("gen_length")
    if one_block and "gen_length" in given and "block_length" not in given:
        settings["block_length"] = given["gen_length"]
    return sampler_from(settings)


def run_of(
    mark: Fingerprint,
    prompts: Sequence[Prompt],
    *,
    layers: Sequence[str],
    seed: int,
    shard_rows: int,
) -> Manifest:
    """What makes the run of these prompts.

    Raises:
        InputError: no prompts, equal ids, half a surrogate pair, or windows of no rows.
    """
    _check(prompts)
    if shard_rows < 1:
        raise InputError(f"shard_rows is {shard_rows}; it must be at least 1.")
    return Manifest(
        fingerprint=mark,
        layers=tuple(layers),
        seed=seed,
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

    Args:
        prompts: all of the window's, whether or not some are done.
    """
    run = writer.manifest
    places, finished = run.places(window), writer.done(window)
    if progress and finished:
        progress(len(finished))
    if len(finished) < len(places):
        pooling = run.fingerprint.pooling
        for batch in batches(
            model, prompts, sampler, batch_size=batch_size, layers=run.layers, pooling=pooling
        ):
            left = [i for i in batch if places[i] not in finished]
            if not left:
                continue
            chosen = [prompts[i] for i in left]
            with _named(chosen):
                traces = record(
                    model,
                    chosen,
                    sampler=sampler,
                    pooling=pooling,
                    layers=run.layers,
                    seed=run.seed,
                )
            writer.add(window, [places[i] for i in left], traces)
            if progress:
                progress(len(left))
    writer.seal(window)


def _check(prompts: Sequence[Prompt]) -> None:
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


@contextmanager
def _named(prompts: Sequence[Prompt]) -> Iterator[None]:
    """Say in an error which prompts were being traced."""
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
    """A run folder at a glance.

    Attributes:
        folder: where it is.
        model: what was traced.
        sampler: name of the sampler.
        written: traces written so far.
        count: prompts of the run.
        problem: what is wrong with it, empty when nothing is.
    """

    folder: str
    model: str = ""
    sampler: str = ""
    written: int = 0
    count: int = 0
    problem: str = ""


def list_runs(folder: str | Path) -> list[Run]:
    """Every run at or below a folder or URL, by path; a damaged one says what is wrong with it.

    Complete shards are counted by their names; what is in them is checked when it is read.

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
