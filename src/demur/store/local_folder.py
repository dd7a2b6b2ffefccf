"""A run folder on disk: atomic writes by rename, content hashes checked on reading, a file lock."""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import BinaryIO, final

import pyarrow.parquet as pq

from demur.errors import InputError, StoreError
from demur.files import explain, write_atomically


@final
@dataclass(frozen=True)
class LocalFolder:
    """A folder on disk; see ``demur.store.folder.Folder``."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def names(self, inside: str = "", *, begins: str = "") -> list[str]:
        if self.path.is_file():
            raise StoreError(f"{self} is a file, not a folder. Choose another --out folder.")
        return sorted(path.name for path in (self.path / inside).glob(f"{begins}*"))

    @contextmanager
    def _reading(self, name: str) -> Iterator[Path]:
        path = self.path / name
        try:
            yield path
        except (FileNotFoundError, NotADirectoryError) as error:
            raise FileNotFoundError(name) from error
        except OSError as error:
            raise StoreError(
                f"{path} cannot be read: {error.strerror}. Check its permissions and the disk."
            ) from error

    def read(self, name: str) -> bytes:
        with self._reading(name) as path:
            return path.read_bytes()

    def write(self, name: str, data: bytes) -> None:
        write_atomically(self.path / name, data)

    def remove(self, names: Sequence[str]) -> None:
        for name in names:
            try:
                (self.path / name).unlink(missing_ok=True)
            except OSError as error:
                raise StoreError(explain(error, self.path / name)) from error

    def is_sound(self, name: str) -> bool:
        """Whether the content's SHA-256 begins with the hash in the name."""
        with self._reading(name) as path, path.open("rb") as handle:
            return is_hashed(name, handle)

    def parquet(self, name: str) -> pq.ParquetFile:
        return pq.ParquetFile(self.path / name)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Use an advisory lock, which the system releases when the process ends for any reason."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            # O_NOFOLLOW: the lock file is truncated, so a link must not lead to another file.
            mode = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
            handle = os.fdopen(os.open(self.path / ".lock", mode, 0o666), "ab+", buffering=0)
        except OSError as error:
            raise StoreError(explain(error, self.path)) from error
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                handle.truncate(0)
                handle.write(this_process().encode())
            except BlockingIOError as error:
                handle.seek(0)
                holder = handle.read().decode(errors="replace") or "another process"
                raise StoreError(
                    f"{self} is being written by {holder}. Wait for it, stop it, or choose another "
                    "--out folder."
                ) from error
            except OSError as error:
                raise StoreError(explain(error, self.path)) from error
            half_written = [*self.path.glob(".*.tmp"), *self.path.glob("*/.*.tmp")]
            self.remove([str(path.relative_to(self.path)) for path in half_written])
            yield
            parts = self.path / "parts"
            if parts.is_dir() and not any(parts.iterdir()):
                parts.rmdir()

    def runs(self) -> list[str]:
        if not self.path.is_dir():
            raise InputError(f"No folder {str(self)!r}. Make a run with: demur trace ... --out DIR")
        found = []
        for place, folders, files in os.walk(self.path):
            if "manifest.json" in files:
                found.append(str(Path(place)))
                folders.clear()  # runs are not nested
        return sorted(found)


def is_hashed(name: str, content: BinaryIO) -> bool:
    """Whether the name ends with the beginning of the content's SHA-256."""
    found = hashlib.file_digest(content, "sha256").hexdigest()  # type: ignore[arg-type]
    return PurePath(name).stem.endswith(found[:16])


def this_process() -> str:
    """Content of a lock file: process, machine and start time."""
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return f"process {os.getpid()} on {socket.gethostname()} since {since}"
