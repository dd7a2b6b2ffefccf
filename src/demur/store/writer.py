"""Write traces to a run in batches, and merge complete windows into shards."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import final

from demur.store.folder import Folder, folder_at
from demur.store.manifest import Manifest, accepted, versions
from demur.store.rows import data_files, merged, places_of, to_table, write_rows
from demur.types import Trace

_log = logging.getLogger("demur")


@contextmanager
def writing(folder: str | Path, manifest: Manifest) -> Iterator[Writer]:
    """Start or resume a run in a path or fsspec URL; it is locked until the block ends.

    Raises:
        StoreError: another process is writing, a setting changed, the folder is not a run or is not
            writable.
        InputError: an unsupported kind of URL.
    """
    place = folder_at(folder)
    accepted(place, manifest)  # before locking, which would leave a file in a folder that is no run
    with place.locked():
        manifest = accepted(place, manifest)
        place.write("manifest.json", manifest.to_json())
        yield Writer(place, manifest)


@final
class Writer:
    """Adds rows to a run.

    ``writing`` creates one and locks the folder. Cluster workers create their own without a lock,
    each for one window, and only look at that window's files.
    """

    def __init__(self, folder: Folder, manifest: Manifest, *, window: int | None = None) -> None:
        self.manifest = manifest
        self._folder = folder
        self._signed = False
        self._parts = data_files(folder, "parts", window=window)
        self._shards = data_files(folder, "traces", window=window)

    def sign(self, made_with: Mapping[str, str], sizes: Mapping[str, int] | None = None) -> None:
        """Record the writer's versions, and each layer's width D, in the manifest."""
        self.manifest = self.manifest.signed(made_with, sizes)
        self._folder.write("manifest.json", self.manifest.to_json())

    def done(self, window: int) -> set[int]:
        """Prompt indices of the window that are written and undamaged; removes damaged files."""
        self._keep_sound(self._shards, window)
        if window in self._shards:
            self._folder.remove(self._parts.pop(window, []))
            return set(self.manifest.places(window))
        self._keep_sound(self._parts, window)
        return places_of(self._folder.parquet(name) for name in self._parts.get(window, []))

    def add(self, window: int, places: Sequence[int], traces: Sequence[Trace]) -> None:
        """Write one batch durably.

        Raises:
            StoreError: the disk is full or the folder cannot be written; earlier batches are safe.
        """
        if not self._signed:
            sizes = {layer: value.shape[1] for layer, value in traces[0].phi.items()}
            self.sign(versions(), sizes)
            self._signed = True
        table = to_table(places, traces)
        name = write_rows(self._folder, "parts", window, table, range(len(places)))
        self._parts.setdefault(window, []).append(name)

    def seal(self, window: int) -> None:
        """Merge a complete window's parts into its shard. Raises StoreError as ``add`` does."""
        if window in self._shards:
            return
        parts = self._parts.pop(window)
        table, order = merged([self._folder.parquet(name).read() for name in parts])
        assert len(order) == len(self.manifest.places(window)), "sealed an incomplete window"
        self._shards[window] = [write_rows(self._folder, "traces", window, table, order)]
        self._folder.remove(parts)

    def _keep_sound(self, files: dict[int, list[str]], window: int) -> None:
        """Remove the window's damaged files from the folder and from the list."""
        broken = [name for name in files.get(window, []) if not self._folder.is_sound(name)]
        for name in broken:
            _log.warning("%s/%s is damaged; tracing its rows again.", self._folder, name)
        self._folder.remove(broken)
        if kept := [name for name in files.pop(window, []) if name not in broken]:
            files[window] = kept
