"""A run folder: traces in Parquet, written so that nothing is lost and nothing is doubled.

    manifest.json                   what made the run; a changed setting is refused
    traces/000000-<hash>.parquet    a window of prompts in prompt order, one row a trace
    parts/000001-<hash>.parquet     finished batches of the windows being worked on
    .lock                           who is writing

Every file is written whole or not at all. When a window is complete its parts become one shard and are
removed; a shard's bytes depend on its rows alone, however often the run was interrupted. The columns
are in ``demur.store.rows``. The folder is on a disk (``demur.store.local``) or in an object store
(``demur.store.remote``).
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
from demur.store.rows import to_traces
from demur.store.shards import data_files, in_order, merged, places_of
from demur.store.writer import Writer as Writer
from demur.store.writer import writing as writing
from demur.types import Trace


@final
class Store:
    """Read a run, finished or not, also while it is being written."""

    def __init__(self, folder: Folder, manifest: Manifest) -> None:
        self.manifest = manifest
        self.folder = folder
        self._sound: set[str] = set()

    @classmethod
    def open(cls, folder: str | Path) -> Store:
        """Open the run in a folder.

        Args:
            folder: a path, or an fsspec URL such as ``s3://bucket/runs/x``.

        Raises:
            StoreError: no run there, its manifest is damaged, or it is of a newer format.
            InputError: a kind of URL that demur does not read.
        """
        place = folder_at(folder)
        return cls(place, read_manifest(place))

    def __len__(self) -> int:
        """Traces written so far."""
        parts, shards = self._files()
        whole = sum(len(self.manifest.places(window)) for window in shards)
        loose = [name for window in parts.keys() - shards for name in parts[window]]
        try:
            return whole + len(places_of(self._file(name) for name in loose))
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
            try:
                yield from to_traces(table, self.manifest.fingerprint)
            except (LookupError, AttributeError, TypeError, ValueError) as error:
                raise StoreError(
                    f"{self.folder} holds rows that demur did not write ({error}). Remove it and run "
                    "the command that made it again."
                ) from error

    def read(self, *, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows in prompt order; every column when None.

        Raises:
            StoreError: a file is damaged (named), or nothing has been written yet.
            InputError: no such column.
        """
        tables = list(self._tables(columns, {}))
        if not tables:
            raise StoreError(f"{self.folder} holds no rows yet. Run the command that makes it.")
        return pa.concat_tables(tables, promote_options="default")

    def _tables(
        self, columns: Sequence[str] | None, where: Mapping[str, str | int]
    ) -> Iterator[pa.Table]:
        parts, shards = self._files()
        for window in sorted(parts.keys() | shards):
            if window not in shards:
                try:
                    table = self._loose(parts[window])
                except FileNotFoundError:  # merged since by a run under way
                    shards = self._files()[1]
                else:
                    _require_columns(table.schema, [*(columns or ()), *where])
                    yield _select(table, columns, where)
                    continue
            name = shards[window][0]
            with self._naming(name):
                yield from _groups(self._file(name), columns, where)

    def _loose(self, names: Sequence[str]) -> pa.Table:
        """The rows of a window that is not complete, in prompt order."""
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
                    f"name. Run the command that made {self.folder} again; it redoes only what is "
                    "damaged."
                )
            self._sound.add(name)
        return self.folder.parquet(name)

    @contextmanager
    def _naming(self, name: str) -> Iterator[None]:
        """Name a file whose pages cannot be read."""
        try:
            yield
        except FileNotFoundError:
            raise
        except (OSError, pa.ArrowException) as error:
            raise StoreError(
                f"{self.folder}/{name} cannot be read: {error}. If the place can be reached, the file "
                f"is damaged: remove it and run the command that made {self.folder} again, which "
                "redoes only what is missing."
            ) from error

    def _files(self) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
        # Parts first: a window merged between the two listings is seen twice, never missed.
        return data_files(self.folder, "parts"), data_files(self.folder, "traces")


def _groups(
    file: pq.ParquetFile, columns: Sequence[str] | None, where: Mapping[str, str | int]
) -> Iterator[pa.Table]:
    """The rows asked for: chosen columns at once, whole rows a row group at a time."""
    _require_columns(file.schema_arrow, [*(columns or ()), *where])
    if columns is not None:
        yield _select(file.read([*dict.fromkeys([*columns, *where])]), columns, where)
        return
    for group in _groups_with(file, where):
        yield _select(file.read_row_group(group), None, where)


def _groups_with(file: pq.ParquetFile, where: Mapping[str, str | int]) -> list[int]:
    """Row groups that hold a row asked for."""
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    if not where:
        return list(range(len(sizes)))
    narrow = file.read([*where])
    numbered = narrow.append_column("", pa.array(np.arange(narrow.num_rows)))
    found = _select(numbered, [""], where)[""].to_numpy()
    return sorted({*map(int, np.searchsorted(np.cumsum(sizes), found, side="right"))})


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
