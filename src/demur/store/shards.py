"""Data files of a run: their names and their content.

A file is named ``<window>-<hash>.parquet``, with the first 16 digits of the content's SHA-256. So
truncated or corrupted files are detected without an index, and the same rows give the same file.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from demur.store.folder import Folder
from demur.store.rows import OPTIONAL

#: Rows per Parquet row group, the unit of compression and reading.
GROUP_ROWS = 32

_NAME = re.compile(r"(\d{6,})-([0-9a-f]{16})\.parquet")


def data_files(folder: Folder, inside: str, *, window: int | None = None) -> dict[int, list[str]]:
    """Window -> names of its files, for one window or all; other files are ignored."""
    found: dict[int, list[str]] = {}
    for name in folder.names(inside, begins="" if window is None else f"{window:06d}-"):
        if match := _NAME.fullmatch(name):
            found.setdefault(int(match[1]), []).append(f"{inside}/{name}")
    return found


def write_rows(
    folder: Folder, inside: str, window: int, table: pa.Table, order: Sequence[int]
) -> str:
    """Write rows in the given order; the content depends only on these rows. Returns the name.

    Raises:
        StoreError: the disk is full or the folder cannot be written.
    """
    sink = io.BytesIO()
    dictionary = [_leaf(field) for field in table.schema if not field.name.startswith("phi_")]
    options = {"compression": "zstd", "use_dictionary": dictionary, "write_page_checksum": True}
    with pq.ParquetWriter(sink, table.schema, **options) as writer:
        for start in range(0, len(order), GROUP_ROWS):
            group = in_order(table, order[start : start + GROUP_ROWS])
            writer.write_table(group.combine_chunks())
    data = sink.getvalue()
    name = f"{inside}/{window:06d}-{hashlib.sha256(data).hexdigest()[:16]}.parquet"
    folder.write(name, data)
    return name


def places_of(files: Iterable[pq.ParquetFile]) -> set[int]:
    """Prompt indices of all rows in these files."""
    return {place for file in files for place in file.read(["row"])["row"].to_pylist()}


def merged(tables: Sequence[pa.Table]) -> tuple[pa.Table, list[int]]:
    """Concatenate batches of a window; also return row numbers that list each prompt once, in order.

    A batch occurs twice if a worker that was considered lost wrote it after all.
    """
    table = pa.concat_tables(tables, promote_options="default")
    last = [name for name in OPTIONAL if name in table.column_names]
    table = table.select([name for name in table.column_names if name not in last] + last)
    first = {place: index for index, place in reversed([*enumerate(table["row"].to_pylist())])}
    return table, [first[place] for place in sorted(first)]


def in_order(table: pa.Table, order: Sequence[int]) -> pa.Table:
    """Reorder rows without copying them."""
    return pa.concat_tables([table.slice(place, 1) for place in order])


def _leaf(field: Any) -> str:
    """Parquet path of the column's innermost values."""
    name, kind = field.name, field.type
    while pa.types.is_list(kind):
        name, kind = f"{name}.list.element", kind.value_type
    return str(name)
