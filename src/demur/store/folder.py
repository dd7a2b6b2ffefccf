"""Where a run is stored: a folder on disk, or a prefix in an object store."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import pyarrow.parquet as pq

_URL = re.compile(r"([a-z][a-z0-9+.]+):/+(.*)")


class Folder(Protocol):
    """File operations of the store. Names are relative paths: ``traces/000000-<hash>.parquet``.

    Every method raises StoreError if the folder cannot be reached, read or written.
    """

    def __str__(self) -> str:
        """The path or URL as a user writes it."""

    def names(self, inside: str = "", *, begins: str = "") -> list[str]:
        """Sorted names in the folder or a subfolder that begin with ``begins``; may be empty."""

    def read(self, name: str) -> bytes:
        """A file's content. Raises FileNotFoundError."""

    def write(self, name: str, data: bytes) -> None:
        """Write a file atomically."""

    def remove(self, names: Sequence[str]) -> None:
        """Remove files; missing ones are ignored."""

    def is_sound(self, name: str) -> bool:
        """Whether a data file is undamaged. Raises FileNotFoundError."""

    def parquet(self, name: str) -> pq.ParquetFile:
        """Open a data file. Raises FileNotFoundError."""

    def locked(self) -> AbstractContextManager[None]:
        """Create and lock the folder. Raises StoreError, naming the process that holds the lock."""

    def runs(self) -> list[str]:
        """Sorted paths of the runs in this folder and below. Raises InputError if it is missing."""


def folder_at(place: str | Path) -> Folder:
    """The folder at a path or an fsspec URL, such as ``s3://bucket/runs/x``.

    Raises:
        InputError: an unsupported kind of URL.
        MissingExtraError: the package for this kind of URL is not installed.
    """
    from demur.store.local_folder import LocalFolder

    # Path("s3://x") drops one of the two slashes.
    url = _URL.fullmatch(str(place))
    if not url:
        return LocalFolder(Path(place))
    if url[1] == "file":
        return LocalFolder(Path("/" + url[2]))
    from demur.store.remote_folder import connect

    return connect(url[1], url[2])
