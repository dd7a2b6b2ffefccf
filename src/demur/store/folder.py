"""Where a run is stored: a folder on disk, or a prefix in an object store through fsspec.

On disk, files are written aside and renamed, and a file lock keeps a second writer out.

In an object store a put is atomic, a data file's name contains the hash of its content, and a shard's
bytes depend only on its rows. So two processes that write the same run put the same files, and the
result is correct without a lock. The lock only warns the second process; it is created with
put-if-absent, which S3, Google Cloud and Azure support and the Hugging Face hub does not. Object stores
verify uploads, so a resumed run trusts the listing of its shards instead of reading them all. Reading
verifies the checksum of each Parquet page.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import re
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any, BinaryIO, final

import pyarrow.parquet as pq

from demur.errors import InputError, MissingExtraError, StoreError
from demur.files import explain, write_atomically

#: Kinds of URL with atomic puts -> the extra or package that supports them.
_KINDS = {"memory": "", "s3": "s3", "gs": "gcsfs", "az": "adlfs", "hf": "hub"}


def folder_at(place: str | Path) -> Folder:
    """The folder at a path or an fsspec URL, such as ``s3://bucket/runs/x``.

    Keys, endpoints and regions of object stores come from the environment.

    Raises:
        InputError: an unsupported kind of URL.
        MissingExtraError: the package for this kind of URL is not installed.
    """
    # Path("s3://x") drops one of the two slashes.
    url = re.fullmatch(r"([a-z][a-z0-9+.]+):/+(.*)", str(place))
    if not url:
        return LocalFolder(Path(place))
    kind, path = url.groups()
    if kind == "file":
        return LocalFolder(Path("/" + path))
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
class LocalFolder:
    """A folder on disk.

    File names are relative paths, such as ``traces/000000-<hash>.parquet``. Every method raises
    StoreError if the folder cannot be reached, read or written.
    """

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def names(self, inside: str = "", *, begins: str = "") -> list[str]:
        """Sorted names in the folder or a subfolder that begin with ``begins``; may be empty."""
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
        """A file's content. Raises FileNotFoundError."""
        with self._reading(name) as path:
            return path.read_bytes()

    def write(self, name: str, data: bytes) -> None:
        """Write a file atomically."""
        write_atomically(self.path / name, data)

    def remove(self, names: Sequence[str]) -> None:
        """Remove files; missing ones are ignored."""
        for name in names:
            try:
                (self.path / name).unlink(missing_ok=True)
            except OSError as error:
                raise StoreError(explain(error, self.path / name)) from error

    def is_sound(self, name: str) -> bool:
        """Whether a data file is undamaged. Raises FileNotFoundError."""
        with self._reading(name) as path, path.open("rb") as handle:
            return _is_hashed(name, handle)

    def parquet(self, name: str) -> pq.ParquetFile:
        """Open a data file. Raises FileNotFoundError."""
        return pq.ParquetFile(self.path / name)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Create and lock the folder. Raises StoreError, naming the process that holds the lock.

        The system releases the lock when the process ends for any reason.
        """
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
        """Sorted paths of the runs in this folder and below. Raises InputError if it is missing."""
        if not self.path.is_dir():
            raise InputError(f"No folder {str(self)!r}. Make a run with: demur trace ... --out DIR")
        return sorted(_runs(os.walk(self.path)))


@final
@dataclass(frozen=True)
class RemoteFolder:
    """A prefix in an object store, with the methods of ``LocalFolder``."""

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

    def write(self, name: str, data: bytes, *, mode: str = "overwrite") -> None:
        try:
            with self._told("written"):
                self.files.pipe_file(self._at(name), data, mode=mode)
        except FileNotFoundError as error:
            raise StoreError(
                f"{self} cannot be written: {error}. Create the bucket first."
            ) from error

    def remove(self, names: Sequence[str]) -> None:
        for name in names:
            with suppress(FileNotFoundError), self._told("removed"):
                self.files.rm_file(self._at(name))

    def is_sound(self, name: str) -> bool:
        """Check a part by its hash, as on disk; a shard's pages are checked when they are read."""
        return name.startswith("traces/") or _is_hashed(name, io.BytesIO(self.read(name)))

    def parquet(self, name: str) -> pq.ParquetFile:
        with self._told("read"):
            # No read-ahead: Parquet asks for the byte ranges that it needs.
            handle = self.files.open(self._at(name), "rb", cache_type="none")
        return pq.ParquetFile(handle, page_checksum_verification=True, pre_buffer=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Use an object created with put-if-absent; the lock of a dead process is replaced."""
        mine, holder = this_process(), self._holder()
        free = not holder or _is_dead(holder)
        if free:
            try:
                self.write(".lock", mine.encode(), mode="overwrite" if holder else "create")
            except StoreError:
                if not self._holder():
                    raise
            holder = self._holder()
        if not free or holder != mine:  # if it was free, another process was faster
            raise StoreError(
                f"{self} is being written by {holder}. Wait for it, stop it, or choose another --out "
                f"folder. If that process no longer exists, remove {self}/.lock."
            )
        try:
            yield
        finally:
            if self._holder() == mine:
                self.remove([".lock"])

    def runs(self) -> list[str]:
        with self._told("listed"):
            if not self.files.isdir(self.path):
                raise InputError(f"No runs at {self}. Make one with: demur trace ... --out URL")
            found = _runs(self.files.walk(self.path))
        return sorted(f"{self.kind}://{place.strip('/')}" for place in found)

    def _at(self, name: str) -> str:
        return f"{self.path}/{name}"

    def _holder(self) -> str:
        with suppress(FileNotFoundError):
            return self.read(".lock").decode(errors="replace")
        return ""

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


Folder = LocalFolder | RemoteFolder


def this_process() -> str:
    """Content of a lock file: process, machine and start time."""
    return f"process {os.getpid()} on {socket.gethostname()} since {now()}"


def now() -> str:
    """UTC time to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _is_dead(holder: str) -> bool:
    """Whether the lock's holder was a process on this machine that has ended."""
    told = re.fullmatch(r"process (\d+) on (\S+) since .*", holder)
    if not told or told[2] != socket.gethostname():
        return False
    try:
        os.kill(int(told[1]), 0)
    except OSError as error:
        return isinstance(error, ProcessLookupError)
    return False


def _is_hashed(name: str, content: BinaryIO) -> bool:
    """Whether the name ends with the beginning of the content's SHA-256."""
    found = hashlib.file_digest(content, "sha256").hexdigest()  # type: ignore[arg-type]
    return PurePath(name).stem.endswith(found[:16])


def _runs(walk: Iterable[tuple[str, list[str], Sequence[str]]]) -> list[str]:
    found = []
    for place, folders, files in walk:
        if "manifest.json" in files:
            found.append(place)
            folders.clear()  # runs are not nested
    return found
