"""Atomic writes of small files, CSV, and safetensors with a checked header."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demur.errors import InputError, StoreError

if TYPE_CHECKING:
    from numpy.typing import NDArray


#: Path("s3://x") drops one of the two slashes.
_URL = re.compile(r"[a-z][a-z0-9+.]+:/")

#: First characters of a formula. Some spreadsheet programs accept the full-width signs too.
_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
#: C0 but tab, newline and CRLF, C1, line and paragraph marks, direction marks, lone surrogates.
_CONTROL = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]|\r(?!\n)"
)


def write_atomically(path: str | Path, data: bytes) -> Path:
    """Write a temporary file beside the target, flush it, and rename it. Returns the path.

    Raises:
        InputError: the path is a URL.
        StoreError: the disk is full or the folder cannot be written.
    """
    if _URL.match(str(path)):
        raise InputError(
            f"{path} is a URL, but this file can only be written to disk. Give a path and copy it "
            "there; only runs are written to URLs: demur trace PROMPTS --out s3://bucket/run"
        )
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        with temporary.open("xb") as handle:  # "x": do not follow a link planted there
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(target)
        # Flush the rename too, so that it survives a power cut.
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise StoreError(explain(error, target)) from error
    return target


def explain(error: OSError, target: str | Path) -> str:
    """Explain a failed write and what to do."""
    if error.errno == errno.ENOSPC:
        return (
            f"The disk is full: {target} was not written; everything written before is safe. Free "
            "some space and run the same command again."
        )
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return f"{target} cannot be written: {error.strerror}. Choose another --out folder."
    return f"{target} was not written: {error.strerror or error}. Check the path and the disk."


def write_csv(path: str | Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    """Write a table as UTF-8 CSV, texts as in ``csv_text``. Returns the path."""
    return write_atomically(path, csv_text(header, rows).encode())


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]], *, newline: str = "\r\n") -> str:
    """A table as CSV that is safe to open in a spreadsheet program.

    Texts that it would take for a formula begin with an apostrophe; control characters, direction
    marks and lone surrogates are written as ``\\x1b``, ``\\u202e`` and the like. Newlines and tabs
    stay, and so do numbers.
    """
    out = io.StringIO(newline="")
    table = csv.writer(out, lineterminator=newline)
    for row in (header, *rows):
        table.writerow([_harmless(cell) if isinstance(cell, str) else cell for cell in row])
    return out.getvalue()


def _harmless(cell: str) -> str:
    """A text that a spreadsheet program shows as it is, and a terminal too."""
    if _FORMULA.match(cell) and not _NUMBER.fullmatch(cell):
        cell = f"'{cell}"
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), cell)


def write_tensors(
    path: str | Path, arrays: Mapping[str, NDArray[Any]], *, kind: str, about: Mapping[str, Any]
) -> Path:
    """Write arrays as safetensors, with ``about`` as JSON in the header. Returns the path."""
    import numpy as np
    from safetensors.numpy import save

    header = {"format": f"demur.{kind}", "about": json.dumps(about, sort_keys=True)}
    values = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
    return write_atomically(path, save(values, metadata=header))


def read_tensors(path: str | Path, *, kind: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read arrays and ``about`` from a file of ``write_tensors``.

    Raises:
        InputError: the file is missing, damaged or of another kind.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise InputError(f"No {kind} file at {path}. Make one with: demur {_VERB.get(kind, kind)}")
    with intact(path, kind=kind):
        try:
            with safe_open(str(path), framework="numpy") as handle:
                header = handle.metadata() or {}
                arrays = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(error) from error
        about = dict(json.loads(header["about"]))
    if header.get("format") != f"demur.{kind}":
        raise InputError(
            f"{path} has format {header.get('format')!r}, not demur.{kind}. Make one with: demur "
            f"{_VERB.get(kind, kind)}"
        )
    return arrays, about


def tensors_kind(path: str | Path, *, made_by: str) -> str:
    """The format named in a safetensors header, such as ``demur.guard``; empty where there is none.

    ``made_by``: command that makes such a file, for the error.

    Raises:
        InputError: not there, or not a safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as handle:
            return str((handle.metadata() or {}).get("format", ""))
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path} is missing, damaged or not a safetensors file ({type(error).__name__}). Make one "
            f"with: {made_by}"
        ) from error


@contextmanager
def intact(path: str | Path, *, kind: str) -> Iterator[None]:
    """Convert errors about a file's content to an InputError that names the file."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError, OSError) as error:
        raise InputError(
            f"{path} is damaged or not a {kind} file ({type(error).__name__}). Make it again."
        ) from error


_VERB = {
    "anchors": "anchors RUN --out FILE",
    "guard": "guard fit RUN --anchors FILE --out FILE",
    "streaming_guard": "guard fit RUN --streaming --anchors FILE --out FILE",
}
