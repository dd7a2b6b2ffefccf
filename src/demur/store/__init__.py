"""A run folder: traces in Parquet, written so that nothing is lost and nothing is doubled.

    manifest.json                   what made the run; a changed setting is refused
    traces/000000-<hash>.parquet    a window of prompts in prompt order, one row a trace
    parts/000001-<hash>.parquet     finished batches of the window being worked on
    .lock                           who is writing

Every file is written under a temporary name, flushed and renamed. When a window is complete its parts
become one shard and are removed; a shard's bytes depend on its rows alone, however often the run was
interrupted. The columns are in ``demur.store.rows``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from demur.errors import InputError, StoreError
from demur.files import write_atomically
from demur.store.manifest import Manifest, accepted, read_manifest
from demur.store.rows import to_table, to_traces
from demur.store.shards import data_files, in_order, is_sound, locked, remove, write_rows
from demur.types import Trace

_log = logging.getLogger("demur")


@final
class Store:
    """Read a run folder, finished or not, also while it is being written."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self._sound: set[str] = set()

    @classmethod
    def open(cls, folder: str | Path) -> Store:
        """Open the run in a folder.

        Raises:
            StoreError: no run there, its manifest is damaged, or it is of a newer format.
        """
        return cls(Path(folder), read_manifest(Path(folder)))

    def __len__(self) -> int:
        """Traces written so far."""
        parts, shards = self._files()
        whole = sum(len(self.manifest.places(window)) for window in shards)
        loose = [path for window in parts.keys() - shards for path in parts[window]]
        try:
            return whole + sum(int(self._file(path).metadata.num_rows) for path in loose)
        except FileNotFoundError:  # merged since by a run under way
            return len(self)

    def ids(self) -> list[str]:
        """Ids of the traces written so far, in prompt order."""
        return [name for table in self._tables(["id"], {}) for name in table["id"].to_pylist()]

    def traces(self, *, where: Mapping[str, str | int] | None = None) -> Iterator[Trace]:
        """Traces in prompt order, a few in memory at a time.

        Args:
            where: column -> the value it must have, such as ``{"label": "harmless"}``.

        Raises:
            StoreError: a file is damaged; the message names it.
            InputError: no such column, or it holds no such values.
        """
        for table in self._tables(None, where or {}):
            yield from to_traces(table, self.manifest.fingerprint)

    def read(self, *, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows in prompt order; every column when None.

        Raises:
            StoreError: a file is damaged (named), or nothing has been written yet.
            InputError: no such column.
        """
        tables = list(self._tables(columns, {}))
        if not tables:
            raise StoreError(f"{self.folder} holds no rows yet. Run the command that makes it.")
        return pa.concat_tables(tables)

    def _tables(
        self, columns: Sequence[str] | None, where: Mapping[str, str | int]
    ) -> Iterator[pa.Table]:
        parts, shards = self._files()
        for window in sorted(parts.keys() | shards):
            if window not in shards:
                try:
                    table = _sorted([self._file(path) for path in parts[window]])
                except FileNotFoundError:  # merged since by a run under way
                    shards = self._files()[1]
                else:
                    _require_columns(table.schema, [*(columns or ()), *where])
                    yield _select(table, columns, where)
                    continue
            yield from _groups(self._file(shards[window][0]), columns, where)

    def _file(self, path: Path) -> pq.ParquetFile:
        if path.name not in self._sound:
            if not is_sound(path):
                raise StoreError(
                    f"{path} is damaged: its content does not match the hash in its name. Run the "
                    f"command that made {self.folder} again; it redoes only what is damaged."
                )
            self._sound.add(path.name)
        return pq.ParquetFile(path)

    def _files(self) -> tuple[dict[int, list[Path]], dict[int, list[Path]]]:
        # Parts first: a window merged between the two listings is seen twice, never missed.
        return data_files(self.folder / "parts"), data_files(self.folder / "traces")


@final
class Writer:
    """Adds rows to a run folder that this process holds; made by ``writing``."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._folder = folder
        self._manifest = manifest
        self._signed = False
        self._parts = data_files(folder / "parts")
        self._shards = data_files(folder / "traces")

    def done(self, window: int) -> set[int]:
        """Places of the window's prompts whose traces are safe; damaged files are removed."""
        _keep_sound(self._shards, window)
        if window in self._shards:
            remove(self._parts.pop(window, []))
            return set(self._manifest.places(window))
        _keep_sound(self._parts, window)
        files = [pq.ParquetFile(path) for path in self._parts.get(window, [])]
        return {place for file in files for place in file.read(["row"])["row"].to_pylist()}

    def add(self, window: int, places: Sequence[int], traces: Sequence[Trace]) -> None:
        """Write one batch; when this returns it is on the disk.

        Raises:
            StoreError: the disk is full or the folder cannot be written; nothing is lost.
        """
        if not self._signed:
            sizes = {layer: value.shape[1] for layer, value in traces[0].phi.items()}
            manifest = self._manifest.signed(sizes)
            write_atomically(self._folder / "manifest.json", manifest.to_json())
            self._signed = True
        table = to_table(places, traces)
        path = write_rows(self._folder / "parts", window, table, range(len(places)))
        self._parts.setdefault(window, []).append(path)

    def seal(self, window: int) -> None:
        """Turn a complete window's parts into its shard. Raises StoreError as ``add`` does."""
        if window in self._shards:
            return
        parts = self._parts.pop(window)
        table = pa.concat_tables([pq.ParquetFile(path).read() for path in parts])
        order = pc.sort_indices(table["row"]).to_pylist()
        assert len(order) == len(self._manifest.places(window)), "sealed before it was complete"
        self._shards[window] = [write_rows(self._folder / "traces", window, table, order)]
        remove(parts)


@contextmanager
def writing(folder: str | Path, manifest: Manifest) -> Iterator[Writer]:
    """Begin or go on with a run; the folder is locked until the block ends.

    Raises:
        StoreError: another process writes it, a setting changed, the folder holds something else or
            cannot be written.
    """
    folder = Path(folder)
    accepted(folder, manifest)  # before the lock, which would leave a file in a foreign folder
    with locked(folder):
        remove([*folder.glob(".*.tmp"), *folder.glob("*/.*.tmp")])
        manifest = accepted(folder, manifest)
        write_atomically(folder / "manifest.json", manifest.to_json())
        yield Writer(folder, manifest)
        if (folder / "parts").is_dir() and not any((folder / "parts").iterdir()):
            (folder / "parts").rmdir()


def _keep_sound(files: dict[int, list[Path]], window: int) -> None:
    """Remove the window's damaged files, from the disk and from the list."""
    broken = [path for path in files.get(window, []) if not is_sound(path)]
    for path in broken:
        _log.warning("%s is damaged; its rows are traced again.", path)
    remove(broken)
    if kept := [path for path in files.pop(window, []) if path not in broken]:
        files[window] = kept


def _sorted(files: Sequence[pq.ParquetFile]) -> pa.Table:
    table = pa.concat_tables([file.read() for file in files])
    return in_order(table, pc.sort_indices(table["row"]).to_pylist())


def _groups(
    file: pq.ParquetFile, columns: Sequence[str] | None, where: Mapping[str, str | int]
) -> Iterator[pa.Table]:
    """The rows asked for, a row group at a time; a group without any is not read."""
    _require_columns(file.schema_arrow, [*(columns or ()), *where])
    names = None if columns is None else [*dict.fromkeys([*columns, *where])]
    for group in range(file.num_row_groups):
        if where and not _select(file.read_row_group(group, [*where]), None, where).num_rows:
            continue
        yield _select(file.read_row_group(group, names), columns, where)


def _select(
    table: pa.Table, columns: Sequence[str] | None, where: Mapping[str, str | int]
) -> pa.Table:
    for name, value in where.items():
        try:
            table = table.filter(pc.equal(table[name], value))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
            raise InputError(
                f"Column {name} holds {table[name].type}, which is never {value!r}. "
                "Choose a column of text or numbers."
            ) from error
    return table if columns is None else table.select(list(columns))


def _require_columns(schema: pa.Schema, names: Sequence[str]) -> None:
    if missing := [name for name in names if name not in schema.names]:
        raise InputError(
            f"No column {', '.join(missing)} in the store. It has: {', '.join(schema.names)}."
        )
