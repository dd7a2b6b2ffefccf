"""A run in an object store, through fsspec.

A put is whole or not at all, a data file's name is the hash of its content, and a shard's bytes depend
on its rows alone. So nothing here needs more than one writer to be correct: two that write one run
put the same files. The lock is there to tell the second one; it is put only where none is (which
S3, Google Cloud and Azure check themselves, and the Hugging Face hub does not).

The store checks what it is given and keeps it, so a resumed run takes the listing of its shards as it
is instead of reading them all; what is read is checked by the checksum of each Parquet page.
"""

from __future__ import annotations

import io
import os
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import pyarrow.parquet as pq

from demur.errors import InputError, MissingExtraError, StoreError
from demur.store.local import is_hashed, this_process

#: Kinds of URL whose put is whole or not at all, and the extra or package that reads them.
_KINDS = {"memory": "", "s3": "s3", "gs": "gcsfs", "az": "adlfs", "hf": "hub"}
_EXTRAS = ("s3", "hub")

_HOLDER = re.compile(r"process (\d+) on (\S+) since .*")


def connect(kind: str, path: str) -> RemoteFolder:
    """The folder at ``kind://path``; keys, endpoints and regions come from the environment.

    Raises:
        InputError: a kind of URL that demur does not write to.
        MissingExtraError: the package for this kind of URL is not installed.
    """
    import fsspec

    if kind not in _KINDS:
        raise InputError(
            f"demur keeps no runs at {kind}://. Use a folder, or one of "
            f"{', '.join(f'{name}://' for name in _KINDS)}."
        )
    try:
        # A listing kept from before would hide what another process has written since.
        files = fsspec.filesystem(kind, use_listings_cache=False)
    except ImportError as error:
        if _KINDS[kind] in _EXTRAS:
            raise MissingExtraError(f"{kind}://", _KINDS[kind]) from error
        raise InputError(f"{kind}:// needs a package. Run: pip install {_KINDS[kind]}") from error
    return RemoteFolder(files, path.strip("/"), kind)


@final
@dataclass(frozen=True)
class RemoteFolder:
    """A prefix of an object store; see ``demur.store.folder.Folder``."""

    files: Any
    path: str
    kind: str

    def __str__(self) -> str:
        return f"{self.kind}://{self.path}"

    def names(self, inside: str = "", *, begins: str = "") -> list[str]:
        place = self._at(inside).rstrip("/")
        try:
            with self._told("listed"):
                found = (
                    self.files.find(place, prefix=begins)  # the stores that can, list only these
                    if begins
                    else self.files.ls(place, detail=False)
                )
        except FileNotFoundError:
            return []
        names = sorted(name.rstrip("/").rpartition("/")[2] for name in found)
        return [name for name in names if name.startswith(begins)]

    def read(self, name: str) -> bytes:
        with self._told("read"):
            content: bytes = self.files.cat_file(self._at(name))
        return content

    def write(self, name: str, data: bytes) -> None:
        try:
            with self._told("written"):
                self.files.pipe_file(self._at(name), data)
        except FileNotFoundError as error:
            raise StoreError(
                f"{self} cannot be written: {error}. Make the bucket first."
            ) from error

    def remove(self, names: Sequence[str]) -> None:
        for name in names:
            try:
                with self._told("removed"):
                    self.files.rm_file(self._at(name))
            except FileNotFoundError:
                continue

    def is_sound(self, name: str) -> bool:
        """Parts by their hash, as on a disk; a shard's pages are checked as they are read."""
        return name.startswith("traces/") or is_hashed(name, io.BytesIO(self.read(name)))

    def parquet(self, name: str) -> pq.ParquetFile:
        with self._told("read"):
            # Parquet knows which ranges it needs; reading ahead would fetch the states beside them.
            handle = self.files.open(self._at(name), "rb", cache_type="none")
        return pq.ParquetFile(handle, page_checksum_verification=True, pre_buffer=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """By an object that is put only where none is; one left by a dead process is replaced."""
        mine = this_process()
        holder = self._holder()
        if holder and not _is_dead(holder):
            raise self._taken(holder)
        try:
            self._put(".lock", mine.encode(), mode="overwrite" if holder else "create")
        except StoreError:
            if not self._holder():
                raise
        if (holder := self._holder()) != mine:  # another was quicker
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
                    folders.clear()  # a run holds no other
        return sorted(found)

    def _at(self, name: str) -> str:
        return f"{self.path}/{name}"

    def _put(self, name: str, data: bytes, *, mode: str) -> None:
        try:
            with self._told("written"):
                self.files.pipe_file(self._at(name), data, mode=mode)
        except FileNotFoundError as error:
            raise StoreError(
                f"{self} cannot be written: {error}. Make the bucket first."
            ) from error

    def _holder(self) -> str:
        try:
            return self.read(".lock").decode(errors="replace")
        except FileNotFoundError:
            return ""

    def _taken(self, holder: str) -> StoreError:
        return StoreError(
            f"{self} is being written by {holder}. Wait for it, stop it, or choose another --out "
            f"folder. If it is gone, remove {self}/.lock."
        )

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Each store's client has errors of its own; here they become ours."""
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
    """Whether the lock's holder was a process of this machine that has ended."""
    told = _HOLDER.fullmatch(holder)
    if not told or told[2] != socket.gethostname():
        return False
    try:
        os.kill(int(told[1]), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
