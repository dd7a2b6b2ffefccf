"""Trace a list of prompts into a run folder that can be interrupted and resumed at any moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from demur.errors import DemurError, InputError, ModelError
from demur.models.base import LanguageModel
from demur.sampling import Sampler, find_pooling, sampler_from
from demur.store import Store, Writer, writing
from demur.store.manifest import Manifest
from demur.tracing import Progress, batches, fingerprint, record
from demur.types import Prompt, digest


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
        folder: made when it is not there.
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
    rows = _checked([p if isinstance(p, Prompt) else Prompt(p) for p in prompts])
    sampler = sampler or sampler_from(model.traits.sampler)
    pooling = find_pooling(pooling or model.traits.pooling).name
    if shard_rows < 1:
        raise InputError(f"shard_rows is {shard_rows}; it must be at least 1.")
    manifest = Manifest(
        fingerprint=fingerprint(model, sampler, pooling=pooling),
        layers=tuple(layers),
        seed=seed,
        prompts=digest([digest(asdict(prompt)) for prompt in rows]),
        count=len(rows),
        shard_rows=shard_rows,
    )
    with writing(folder, manifest) as writer:
        work = _unfinished(writer, model, rows, sampler, manifest, batch_size, progress)
        for window, places in work:
            chosen = [rows[place] for place in places]
            with _named(chosen):
                traces = record(
                    model, chosen, sampler=sampler, pooling=pooling, layers=layers, seed=seed
                )
            writer.add(window, places, traces)
            if progress:
                progress(len(places))
    return Store.open(folder)


def _unfinished(
    writer: Writer,
    model: LanguageModel,
    rows: Sequence[Prompt],
    sampler: Sampler,
    manifest: Manifest,
    batch_size: int | Literal["auto"],
    progress: Progress | None,
) -> Iterator[tuple[int, list[int]]]:
    """Window and places of each batch still to do; a window is sealed when its last is done."""
    for window in range(-(-len(rows) // manifest.shard_rows)):
        places = manifest.places(window)
        finished = writer.done(window)
        if progress and finished:
            progress(len(finished))
        if len(finished) < len(places):
            waiting = rows[places.start : places.stop]
            for batch in batches(model, waiting, sampler, batch_size=batch_size):
                left = [places[i] for i in batch if places[i] not in finished]
                if left:
                    yield window, left
        writer.seal(window)


def _checked(prompts: list[Prompt]) -> list[Prompt]:
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
            "".join(map(str, [*asdict(prompt).values()])).encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"Prompt {prompt.id!a} holds half a surrogate pair, which no tokenizer reads. "
                "Remove it."
            ) from error
    return prompts


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
    """Every run folder at or below a folder, by path; a damaged one says what is wrong with it.

    Raises:
        InputError: no such folder.
    """
    if not Path(folder).is_dir():
        raise InputError(f"No folder {str(folder)!r}. Make a run with: demur trace ... --out DIR")
    return [_at_a_glance(path.parent) for path in sorted(Path(folder).rglob("manifest.json"))]


def _at_a_glance(folder: Path) -> Run:
    try:
        store = Store.open(folder)
        mark = store.manifest.fingerprint
        written = len(store.ids())
    except DemurError as error:
        return Run(str(folder), problem=str(error))
    return Run(str(folder), mark.model, str(mark.sampler["name"]), written, store.manifest.count)
