"""Add traces to a run, a batch at a time, and turn complete windows into shards."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import final

from demur.store.folder import Folder, folder_at
from demur.store.manifest import Manifest, accepted, versions
from demur.store.rows import to_table
from demur.store.shards import data_files, merged, places_of, write_rows
from demur.types import Trace

_log = logging.getLogger("demur")


@contextmanager
def writing(folder: str | Path, manifest: Manifest) -> Iterator[Writer]:
    """Begin or go on with a run; its folder is locked until the block ends.

    Args:
        folder: a path, or an fsspec URL such as ``s3://bucket/runs/x``.
        manifest: what makes the run.

    Raises:
        StoreError: another process writes it, a setting changed, the folder holds something else or
            cannot be written.
        InputError: a kind of URL that demur does not write to.
    """
    place = folder_at(folder)
    accepted(place, manifest)  # before the lock, which would leave a file in a foreign folder
    with place.locked():
        manifest = accepted(place, manifest)
        place.write("manifest.json", manifest.to_json())
        yield Writer(place, manifest)


@final
class Writer:
    """Adds rows to a run, as its files are at this moment.

    ``writing`` makes one and keeps others away. Workers that share a run make their own, each for a
    window of its own, and look at the files of no other.
    """

    def __init__(self, folder: Folder, manifest: Manifest, *, window: int | None = None) -> None:
        self.manifest = manifest
        self._folder = folder
        self._signed = False
        self._parts = data_files(folder, "parts", window=window)
        self._shards = data_files(folder, "traces", window=window)

    def sign(self, made_with: Mapping[str, str], sizes: Mapping[str, int] | None = None) -> None:
        """Put what writes rows, and the sizes D of each layer's states, into the manifest."""
        self.manifest = self.manifest.signed(made_with, sizes)
        self._folder.write("manifest.json", self.manifest.to_json())

    def done(self, window: int) -> set[int]:
        """Places of the window's prompts whose traces are safe; damaged files are removed."""
        self._keep_sound(self._shards, window)
        if window in self._shards:
            self._folder.remove(self._parts.pop(window, []))
            return set(self.manifest.places(window))
        self._keep_sound(self._parts, window)
        return places_of(self._folder.parquet(name) for name in self._parts.get(window, []))

    def add(self, window: int, places: Sequence[int], traces: Sequence[Trace]) -> None:
        """Write one batch; when this returns it is safe.

        Raises:
            StoreError: the disk is full or the folder cannot be written; nothing is lost.
        """
        if not self._signed:
            sizes = {layer: value.shape[1] for layer, value in traces[0].phi.items()}
            self.sign(versions(), sizes)
            self._signed = True
        name = write_rows(
            self._folder, "parts", window, to_table(places, traces), range(len(places))
        )
        self._parts.setdefault(window, []).append(name)

    def seal(self, window: int) -> None:
        """Turn a complete window's parts into its shard. Raises StoreError as ``add`` does."""
        if window in self._shards:
            return
        parts = self._parts.pop(window)
        table, order = merged([self._folder.parquet(name).read() for name in parts])
        assert len(order) == len(self.manifest.places(window)), "sealed before it was complete"
        self._shards[window] = [write_rows(self._folder, "traces", window, table, order)]
        self._folder.remove(parts)

    def _keep_sound(self, files: dict[int, list[str]], window: int) -> None:
        """Remove the window's damaged files, from the folder and from the list."""
        broken = [name for name in files.get(window, []) if not self._folder.is_sound(name)]
        for name in broken:
            _log.warning("%s/%s is damaged; its rows are traced again.", self._folder, name)
        self._folder.remove(broken)
        if kept := [name for name in files.pop(window, []) if name not in broken]:
            files[window] = kept
