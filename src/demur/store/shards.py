"""Data files of a run folder: their names, their bytes, and the lock around them.

A file is called ``<window>-<hash>.parquet``; the hash is the beginning of the content's SHA-256, so a
truncated file or a flipped bit is found wherever it is, and no index has to be kept in step.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import re
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from demur.errors import StoreError
from demur.files import explain, write_atomically

#: Rows that are compressed, read and filtered together.
GROUP_ROWS = 32

_NAME = re.compile(r"(\d{6,})-([0-9a-f]{16})\.parquet")


def data_files(folder: Path) -> dict[int, list[Path]]:
    """Window -> its files in a folder; whatever is not named like ours is left alone."""
    found: dict[int, list[Path]] = {}
    for path in sorted(folder.glob("*.parquet")):
        if match := _NAME.fullmatch(path.name):
            found.setdefault(int(match[1]), []).append(path)
    return found


def is_sound(path: Path) -> bool:
    """Whether a data file's content matches the hash in its name.

    Raises:
        FileNotFoundError: it is gone.
        StoreError: it cannot be read.
    """
    try:
        with path.open("rb") as handle:
            found = hashlib.file_digest(handle, "sha256").hexdigest()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}.") from error
    return path.stem.endswith(found[:16])


def write_rows(folder: Path, window: int, table: pa.Table, order: Sequence[int]) -> Path:
    """Write rows in the order given; the bytes depend on these rows alone. Returns the path.

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
    name = f"{window:06d}-{hashlib.sha256(data).hexdigest()[:16]}.parquet"
    return write_atomically(folder / name, data)


def in_order(table: pa.Table, order: Sequence[int]) -> pa.Table:
    """Rows in another order, without copying them."""
    return pa.concat_tables([table.slice(place, 1) for place in order])


def remove(paths: Iterable[Path]) -> None:
    """Remove files. Raises StoreError where the folder cannot be written."""
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(explain(error, path)) from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder and keep every other process from writing it.

    Raises:
        StoreError: another process has it (named), or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = (folder / ".lock").open("ab+", buffering=0)
    except OSError as error:
        raise StoreError(explain(error, folder)) from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            handle.truncate(0)
            since = datetime.now(UTC).isoformat(timespec="seconds")
            handle.write(f"process {os.getpid()} on {socket.gethostname()} since {since}".encode())
        except BlockingIOError as error:
            handle.seek(0)
            holder = handle.read().decode(errors="replace") or "another process"
            raise StoreError(
                f"{folder} is being written by {holder}. Wait for it, stop it, or choose another "
                "--out folder."
            ) from error
        except OSError as error:
            raise StoreError(explain(error, folder)) from error
        yield


def _leaf(field: Any) -> str:
    """Parquet's name of the column's innermost values."""
    name, kind = field.name, field.type
    while pa.types.is_list(kind):
        name, kind = f"{name}.list.element", kind.value_type
    return str(name)
