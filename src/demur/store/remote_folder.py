"""A run in an object store, through fsspec.

A put is atomic, a data file's name contains the hash of its content, and a shard's bytes depend only
on its rows. So two processes that write the same run put the same files, and the result is correct
without a lock. The lock only warns the second process; it is created with put-if-absent, which S3,
Google Cloud and Azure support and the Hugging Face hub does not.

Object stores verify uploads, so a resumed run trusts the listing of its shards instead of reading them
all. Reading verifies the checksum of each Parquet page.
"""

from __future__ import annotations

import io
import os
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, final

import pyarrow.parquet as pq

from demur.errors import InputError, MissingExtraError, StoreError
from demur.store.local_folder import is_hashed, this_process

#: Kinds of URL with atomic puts -> the extra or package that supports them.
_KINDS = {"memory": "", "s3": "s3", "gs": "gcsfs", "az": "adlfs", "hf": "hub"}

_HOLDER = re.compile(r"process (\d+) on (\S+) since .*")


def connect(kind: str, path: str) -> RemoteFolder:
    """The folder at ``kind://path``; keys, endpoints and regions come from the environment.

    Raises:
        InputError: an unsupported kind of URL.
        MissingExtraError: the package for this kind of URL is not installed.
    """
    import fsspec

    if kind not in _KINDS:
        raise InputError(
            f"demur cannot store runs at {kind}://. Use a folder, or one of "
            f"{', '.join(f'{name}://' for name in _KINDS)}."
        )
    try:
        # A cached listing would hide files written by other processes.
        files = fsspec.filesystem(kind, use_listings_cache=False)
    except ImportError as error:
        if _KINDS[kind] in ("s3", "hub"):
            raise MissingExtraError(f"{kind}://", _KINDS[kind]) from error
        raise InputError(f"{kind}:// needs a package. Run: pip install {_KINDS[kind]}") from error
    return RemoteFolder(files, path.strip("/"), kind)


@final
@dataclass(frozen=True)
class RemoteFolder:
    """A prefix in an object store; see ``demur.store.folder.Folder``."""

    files: Any
    path: str
    kind: str

    def __str__(self) -> str:
        return f"{self.kind}://{self.path}"

    def names(self, inside: str = "", *, begins: str = "") -> list[str]:
        place, found = self._at(inside).rstrip("/"), []
        with suppress(FileNotFoundError), self._told("listed"):
            if begins:  # filtered on the server where the store supports it
                found = self.files.find(place, prefix=begins)
            else:
                found = self.files.ls(place, detail=False)
        names = sorted(name.rstrip("/").rpartition("/")[2] for name in found)
        return [name for name in names if name.startswith(begins)]

    def read(self, name: str) -> bytes:
        with self._told("read"):
            return bytes(self.files.cat_file(self._at(name)))

    def write(self, name: str, data: bytes) -> None:
        self._put(name, data, mode="overwrite")

    def remove(self, names: Sequence[str]) -> None:
        for name in names:
            with suppress(FileNotFoundError), self._told("removed"):
                self.files.rm_file(self._at(name))

    def is_sound(self, name: str) -> bool:
        """Check a part by its hash, as on disk; a shard's pages are checked when they are read."""
        return name.startswith("traces/") or is_hashed(name, io.BytesIO(self.read(name)))

    def parquet(self, name: str) -> pq.ParquetFile:
        with self._told("read"):
            # No read-ahead: Parquet asks for the byte ranges that it needs.
            handle = self.files.open(self._at(name), "rb", cache_type="none")
        return pq.ParquetFile(handle, page_checksum_verification=True, pre_buffer=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Use an object created with put-if-absent; the lock of a dead process is replaced."""
        mine = this_process()
        holder = self._holder()
        if holder and not _is_dead(holder):
            raise self._taken(holder)
        try:
            self._put(".lock", mine.encode(), mode="overwrite" if holder else "create")
        except StoreError:
            if not self._holder():
                raise
        if (holder := self._holder()) != mine:  # another process was faster
            raise self._taken(holder)
        try:
            yield
        finally:
            if self._holder() == mine:
                self.remove([".lock"])

    def runs(self) -> list[str]:
        with self._told("listed"):
            if not self.files.isdir(self.path):
                raise InputError(f"No runs at {self}. Make one with: demur trace ... --out URL")
            found = []
            for place, folders, files in self.files.walk(self.path):
                if "manifest.json" in files:
                    found.append(f"{self.kind}://{place.strip('/')}")
                    folders.clear()  # runs are not nested
        return sorted(found)

    def _at(self, name: str) -> str:
        return f"{self.path}/{name}"

    def _put(self, name: str, data: bytes, *, mode: str) -> None:
        try:
            with self._told("written"):
                self.files.pipe_file(self._at(name), data, mode=mode)
        except FileNotFoundError as error:
            raise StoreError(
                f"{self} cannot be written: {error}. Create the bucket first."
            ) from error

    def _holder(self) -> str:
        with suppress(FileNotFoundError):
            return self.read(".lock").decode(errors="replace")
        return ""

    def _taken(self, holder: str) -> StoreError:
        return StoreError(
            f"{self} is being written by {holder}. Wait for it, stop it, or choose another --out "
            f"folder. If that process no longer exists, remove {self}/.lock."
        )

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Convert errors of the store's client to StoreError."""
        try:
            yield
        except (FileNotFoundError, InputError):
            raise
        except Exception as error:
            raise StoreError(
                f"{self} cannot be {what}: {type(error).__name__}: {error}. Check the address, the "
                "keys and the network, and run the same command again."
            ) from error


def _is_dead(holder: str) -> bool:
    """Whether the lock's holder was a process on this machine that has ended."""
    told = _HOLDER.fullmatch(holder)
    if not told or told[2] != socket.gethostname():
        return False
    try:
        os.kill(int(told[1]), 0)
    except OSError as error:
        return isinstance(error, ProcessLookupError)
    return False
