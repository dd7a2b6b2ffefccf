"""Where a run is kept: a folder on a disk, or a prefix of an object store."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import pyarrow.parquet as pq

_URL = re.compile(r"([a-z][a-z0-9+.]+):/+(.*)")


class Folder(Protocol):
    """What the store asks of a place. Names are relative to it: ``traces/000000-<hash>.parquet``.

    Every method raises StoreError where the place cannot be reached, read or written.
    """

    def __str__(self) -> str:
        """The place as a user writes it."""

    def names(self, inside: str = "", *, begins: str = "") -> list[str]:
        """Names of what lies in it or in a folder inside, sorted; empty where there is none.

        Only those that begin so, which an object store need not list the others for.
        """

    def read(self, name: str) -> bytes:
        """A file's content. Raises FileNotFoundError where there is none."""

    def write(self, name: str, data: bytes) -> None:
        """Write a file whole or not at all."""

    def remove(self, names: Sequence[str]) -> None:
        """Remove files; those not there are left out."""

    def is_sound(self, name: str) -> bool:
        """Whether a data file is as it was written. Raises FileNotFoundError where it is gone."""

    def parquet(self, name: str) -> pq.ParquetFile:
        """Open a data file. Raises FileNotFoundError where it is gone."""

    def locked(self) -> AbstractContextManager[None]:
        """Make the place and keep every other process from writing it.

        Raises:
            StoreError: another process has it (named), or it cannot be written.
        """

    def runs(self) -> list[str]:
        """Places of the runs at or below, sorted. Raises InputError where there is no such place."""


def folder_at(place: str | Path) -> Folder:
    """The folder of a path or an fsspec URL, such as ``s3://bucket/runs/x``.

    Raises:
        InputError: a kind of URL that demur does not write to.
        MissingExtraError: the package for this kind of URL is not installed.
    """
    from demur.store.local import LocalFolder

    # A Path made of a URL has lost one of its two slashes.
    url = _URL.fullmatch(str(place))
    if not url:
        return LocalFolder(Path(place))
    if url[1] == "file":
        return LocalFolder(Path("/" + url[2]))
    from demur.store.remote import connect

    return connect(url[1], url[2])
