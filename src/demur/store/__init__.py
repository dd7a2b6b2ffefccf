"""A run folder: traces in Parquet. An interrupted run resumes without losing or repeating rows.

    manifest.json                   the run's settings; resuming with other settings is refused
    traces/000000-<hash>.parquet    shard: a complete window of prompts, in order, one row per trace
    parts/000001-<hash>.parquet     finished batch of a window that is not complete yet
    .lock                           the process that is writing

Every file is written atomically. When a window is complete, its parts are merged into one shard and
removed. A shard's bytes depend only on its rows, not on interruptions. Columns: ``demur.store.rows``.
The folder is on disk or in an object store (``demur.store.folder``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from demur.errors import InputError, StoreError
from demur.store.folder import Folder, folder_at
from demur.store.manifest import Manifest, read_manifest
from demur.store.rows import data_files, in_order, merged, places_of, to_traces
from demur.store.writer import Writer as Writer
from demur.store.writer import writing as writing
from demur.types import Trace


@final
class Store:
    """Reads a run, finished or not, even while it is being written."""

    def __init__(self, folder: Folder, manifest: Manifest) -> None:
        self.manifest = manifest
        self.folder = folder
        self._sound: set[str] = set()

    @classmethod
    def open(cls, folder: str | Path) -> Store:
        """Open the run at a path or an fsspec URL, such as ``s3://bucket/runs/x``.

        Raises:
            StoreError: there is no run, its manifest is damaged, or its format is newer.
            InputError: an unsupported kind of URL.
        """
        place = folder_at(folder)
        return cls(place, read_manifest(place))

    def __len__(self) -> int:
        """Number of traces written so far."""
        parts, shards = self._files()
        whole = sum(len(self.manifest.places(window)) for window in shards)
        loose = [name for window in parts.keys() - shards for name in parts[window]]
        try:
            return whole + len(places_of(self._file(name) for name in loose))
        except FileNotFoundError:  # a running writer has just merged the parts
            return len(self)

    def ids(self) -> list[str]:
        """Ids of the traces written so far, in prompt order."""
        return [name for table in self._tables(["id"], {}) for name in table["id"].to_pylist()]

    def traces(self, *, where: Mapping[str, str | int] | None = None) -> Iterator[Trace]:
        """Iterate over traces in prompt order, with only a few in memory.

        Args:
            where: column -> required value, such as ``{"label": "harmless"}``.

        Raises:
            StoreError: a file is damaged; the message names it.
            InputError: an unknown column, or a value of the wrong type.
        """
        for table in self._tables(None, where or {}):
            try:
                yield from to_traces(table, self.manifest.fingerprint)
            except (LookupError, AttributeError, TypeError, ValueError) as error:
                raise StoreError(
                    f"{self.folder} has rows that demur did not write ({error}). Remove it and run "
                    "the command that made it again."
                ) from error

    def read(self, *, columns: Sequence[str] | None = None) -> pa.Table:
        """Return all rows in prompt order; ``columns=None`` reads every column.

        Raises:
            StoreError: a file is damaged (named), or nothing has been written yet.
            InputError: an unknown column.
        """
        tables = list(self._tables(columns, {}))
        if not tables:
            raise StoreError(f"{self.folder} has no rows yet. Run the command that makes it.")
        return pa.concat_tables(tables, promote_options="default")

    def _tables(
        self, columns: Sequence[str] | None, where: Mapping[str, str | int]
    ) -> Iterator[pa.Table]:
        parts, shards = self._files()
        for window in sorted(parts.keys() | shards):
            if window not in shards:
                try:
                    table = self._loose(parts[window])
                except FileNotFoundError:  # a running writer has just merged the parts
                    shards = self._files()[1]
                else:
                    _require_columns(table.schema, [*(columns or ()), *where])
                    yield _select(table, columns, where)
                    continue
            name = shards[window][0]
            with self._naming(name):
                yield from _groups(self._file(name), columns, where)

    def _loose(self, names: Sequence[str]) -> pa.Table:
        """Rows of an incomplete window, in prompt order."""
        tables = []
        for name in names:
            with self._naming(name):
                tables.append(self._file(name).read())
        return in_order(*merged(tables))

    def _file(self, name: str) -> pq.ParquetFile:
        if name not in self._sound:
            if not self.folder.is_sound(name):
                raise StoreError(
                    f"{self.folder}/{name} is damaged: its content does not match the hash in its "
                    f"name. Run the command that made {self.folder} again; it only redoes damaged "
                    "files."
                )
            self._sound.add(name)
        return self.folder.parquet(name)

    @contextmanager
    def _naming(self, name: str) -> Iterator[None]:
        """Name the file in errors about its pages."""
        try:
            yield
        except FileNotFoundError:
            raise
        except (OSError, pa.ArrowException) as error:
            raise StoreError(
                f"{self.folder}/{name} cannot be read: {error}. If the folder is reachable, the file "
                f"is damaged: remove it and run the command that made {self.folder} again, which "
                "only redoes missing files."
            ) from error

    def _files(self) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
        # List parts first: a window merged between the two listings is then seen twice, not missed.
        return data_files(self.folder, "parts"), data_files(self.folder, "traces")


def _groups(
    file: pq.ParquetFile, columns: Sequence[str] | None, where: Mapping[str, str | int]
) -> Iterator[pa.Table]:
    """Selected rows of a file; whole rows are read one row group at a time, if any of it matches."""
    _require_columns(file.schema_arrow, [*(columns or ()), *where])
    if columns is not None:
        yield _select(file.read([*dict.fromkeys([*columns, *where])]), columns, where)
        return
    matching = set(range(file.num_row_groups))
    if where:
        ends = np.cumsum([file.metadata.row_group(group).num_rows for group in sorted(matching)])
        narrow = file.read([*where])
        numbered = narrow.append_column("", pa.array(np.arange(narrow.num_rows)))
        found = _select(numbered, [""], where)[""].to_numpy()
        matching = {*map(int, np.searchsorted(ends, found, side="right"))}
    for group in sorted(matching):
        yield _select(file.read_row_group(group), None, where)


def _select(
    table: pa.Table, columns: Sequence[str] | None, where: Mapping[str, str | int]
) -> pa.Table:
    for name, value in where.items():
        try:
            table = table.filter(pc.equal(table[name], value))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
            raise InputError(
                f"Column {name} has type {table[name].type}, which cannot equal {value!r}. "
                "Choose a column of text or numbers."
            ) from error
    return table if columns is None else table.select(list(columns))


def _require_columns(schema: pa.Schema, names: Sequence[str]) -> None:
    if missing := [name for name in names if name not in schema.names]:
        raise InputError(
            f"No column {', '.join(missing)} in the store. It has: {', '.join(schema.names)}."
        )
