"""Data files of a run: their names and their bytes.

A file is called ``<window>-<hash>.parquet``; the hash is the beginning of the content's SHA-256, so a
truncated file or a flipped bit is found wherever it is, no index has to be kept in step, and writing
the same rows again writes the same file.
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

#: Rows that are compressed, read and filtered together.
GROUP_ROWS = 32

_NAME = re.compile(r"(\d{6,})-([0-9a-f]{16})\.parquet")


def data_files(folder: Folder, inside: str, *, window: int | None = None) -> dict[int, list[str]]:
    """Window -> names of its files, of one or of all; what is not named like ours is left alone."""
    found: dict[int, list[str]] = {}
    for name in folder.names(inside, begins="" if window is None else f"{window:06d}-"):
        if match := _NAME.fullmatch(name):
            found.setdefault(int(match[1]), []).append(f"{inside}/{name}")
    return found


def write_rows(
    folder: Folder, inside: str, window: int, table: pa.Table, order: Sequence[int]
) -> str:
    """Write rows in the order given; the bytes depend on these rows alone. Returns the name.

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
    """Places in the prompt list of the rows in some files."""
    return {place for file in files for place in file.read(["row"])["row"].to_pylist()}


def merged(tables: Sequence[pa.Table]) -> tuple[pa.Table, list[int]]:
    """Batches of one window put together, and the order that lists each prompt once, by its place.

    A batch is there twice when a worker that was given up for lost wrote it after all.
    """
    # ``turns`` is in those tables only that hold conversations, and always last.
    table = pa.concat_tables(tables, promote_options="default")
    first = {place: index for index, place in reversed([*enumerate(table["row"].to_pylist())])}
    return table, [first[place] for place in sorted(first)]


def in_order(table: pa.Table, order: Sequence[int]) -> pa.Table:
    """Rows in another order, without copying them."""
    return pa.concat_tables([table.slice(place, 1) for place in order])


def _leaf(field: Any) -> str:
    """Parquet's name of the column's innermost values."""
    name, kind = field.name, field.type
    while pa.types.is_list(kind):
        name, kind = f"{name}.list.element", kind.value_type
    return str(name)
