"""Rows of text from csv, tsv, jsonl, json, txt and parquet files, standard input and the model hub."""

from __future__ import annotations

import codecs
import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from demur.errors import InputError, MissingExtraError

#: The column of sources that have none: text files and lists of plain strings.
PLAIN = "text"

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


@dataclass(frozen=True)
class Table:
    """The columns of a source, and its rows: where each is (for messages), and column -> value."""

    columns: Sequence[str]
    rows: Iterable[tuple[str, Mapping[str, Any]]]


def read_table(source: str, *, known: set[str]) -> Table:
    """Read a file, ``-`` (standard input) or ``hub:org/name[:split]``.

    Args:
        source: where; a file's ending tells its format.
        known: lower-case column names that tell a csv header from text on standard input.

    Raises:
        InputError: not there, unreadable, empty or malformed; the message says where.
        MissingExtraError: ``hub:`` without the extra ``hub``.
    """
    if source.startswith("hub:"):
        return read_hub(source)
    if source == "-":
        text = decode(sys.stdin.buffer.read(), "standard input")
        return _sniff(text, known)(text, "standard input")
    path = Path(source)
    kind = path.suffix.lower()
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{source} {what}. Give a file of prompts.")
    if kind not in READERS and kind != ".parquet":
        raise InputError(
            f"{source} is of an unknown kind, {kind or 'without an ending'}. "
            f"Known: {', '.join([*READERS, '.parquet'])}; - for standard input; hub:org/name."
        )
    if kind == ".parquet":
        return _parquet(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{source} cannot be read: {error.strerror}.") from error
    return READERS[kind](decode(data, source), source)


def decode(data: bytes, source: str) -> str:
    """Text of UTF-8, with or without a byte order mark, or of UTF-16 with one.

    Raises:
        InputError: empty, or a byte that does not belong there; the message gives its offset.
    """
    mark, encoding = next((b for b in _BOMS if data.startswith(b[0])), (b"", "utf-8"))
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        offset = error.start + len(mark)
        raise InputError(
            f"{source}: byte 0x{data[offset]:02x} at offset {offset} is not {encoding.upper()}. "
            f"Convert it, for example: iconv -f latin1 -t utf-8 {source} > fixed{_ending(source)}"
        ) from error
    if "\0" in text:
        raise InputError(
            f"{source}: NUL character at offset {text.index(chr(0))}. It is no text file, or UTF-16 "
            f"without its mark: iconv -f utf-16le -t utf-8 {source} > fixed{_ending(source)}"
        )
    if not text.strip():
        raise InputError(f"{source} is empty. Give a file with at least one prompt.")
    return text


def _ending(source: str) -> str:
    return Path(source).suffix or ".txt"


# ---------------------------------------------------------------------------------- formats


def _csv(text: str, source: str, *, delimiter: str = ",") -> Table:
    rows: list[tuple[str, Mapping[str, Any]]] = []
    header: list[str] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        with _fields_up_to(len(text)):
            for values in reader:
                if not values:
                    continue
                if not header:
                    header = [name.strip() for name in values]
                    continue
                where = f"row {len(rows) + 1}, line {reader.line_num}"
                if len(values) != len(header):
                    raise InputError(
                        f"{source}, {where}: {len(values)} fields where the header has "
                        f"{len(header)}. Quote fields that hold commas, quotes or newlines."
                    )
                rows.append((where, dict(zip(header, values, strict=True))))
    except csv.Error as error:
        raise InputError(
            f"{source}, line {reader.line_num}: {error}. Quote fields that hold commas, quotes or "
            "newlines, and double the quotes inside."
        ) from error
    return Table(header, rows)


@contextmanager
def _fields_up_to(size: int) -> Iterator[None]:
    """Let csv fields be as long as the text; the limit is the process's, so put it back."""
    before = csv.field_size_limit()
    csv.field_size_limit(max(before, size))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _jsonl(text: str, source: str) -> Table:
    # Not splitlines: JSON strings may hold U+2028 and its like as they are.
    lines = ((n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip())
    values = ((f"line {n}", _parse(line, f"{source}, line {n}")) for n, line in lines)
    return _objects(values, source)


def _json(text: str, source: str) -> Table:
    value, shared = _parse(text, source), {}
    if isinstance(value, dict):
        # JailbreakBench's artifacts say once, above the rows, which attack made them all.
        about = value.get("parameters")
        if isinstance(about, dict) and isinstance(about.get("method"), str):
            shared = {"attack": about["method"].casefold()}
        lists = [item for item in value.values() if isinstance(item, list)]
        value = lists[0] if len(lists) == 1 else value
    if not isinstance(value, list):
        raise InputError(
            f"{source} holds {_kind(value)}; a list of texts or objects is wanted, or an object "
            "with one such list."
        )
    rows = ({**shared, **item} if isinstance(item, dict) else item for item in value)
    return _objects(((f"item {n}", row) for n, row in enumerate(rows, 1)), source)


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: broken JSON ({error}). Correct it.") from error


def _objects(values: Iterable[tuple[str, Any]], source: str) -> Table:
    rows: list[tuple[str, Mapping[str, Any]]] = []
    for where, value in values:
        if not isinstance(value, dict | str):
            raise InputError(
                f"{source}, {where} holds {_kind(value)}; an object or a text is wanted."
            )
        rows.append((where, {PLAIN: value} if isinstance(value, str) else value))
    return Table([*rows[0][1]] if rows else [], rows)


def _text(text: str, source: str) -> Table:
    lines = enumerate((line.rstrip("\r") for line in text.split("\n")), 1)
    return Table([PLAIN], [(f"line {n}", {PLAIN: line}) for n, line in lines if line.strip()])


def _parquet(path: Path) -> Table:
    try:
        file = pq.ParquetFile(path)
        plain = [f.name for f in file.schema_arrow if not pa.types.is_nested(f.type)]
    except _BROKEN as error:
        raise _damaged(path, error) from error

    def rows() -> Iterator[tuple[str, Mapping[str, Any]]]:
        count = 0
        try:
            for batch in file.iter_batches(1024, columns=plain):
                for row in batch.to_pylist():
                    count += 1
                    yield f"row {count}", row
        except _BROKEN as error:
            raise _damaged(path, error) from error

    return Table(plain, rows())


#: What a damaged Parquet file makes its reader raise.
_BROKEN = (pa.ArrowException, OSError, UnicodeDecodeError, MemoryError)


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} is damaged or no Parquet file ({error}). Make it again.")


def read_hub(
    source: str, *, config: str | None = None, options: Mapping[str, Any] | None = None
) -> Table:
    """Read ``hub:org/name[:split]``; the split is ``train`` or the first one unless given.

    Raises:
        InputError: it cannot be loaded.
        MissingExtraError: the extra ``hub`` is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError(f"Reading {source}", "hub") from error
    name, _, split = source.removeprefix("hub:").partition(":")
    try:
        found = datasets.load_dataset(name, config, split=split or None, **(options or {}))
    except Exception as error:
        raise InputError(
            f"{source} could not be loaded ({type(error).__name__}: {error}). Check the name, the "
            "split (hub:org/name:split) and the network, or give a file."
        ) from error
    if not split:
        found = found["train" if "train" in found else next(iter(found))]
    return Table(found.column_names, ((f"row {n}", row) for n, row in enumerate(found, 1)))


#: File ending -> reader of its text.
READERS: Mapping[str, Callable[[str, str], Table]] = {
    ".csv": _csv,
    ".tsv": partial(_csv, delimiter="\t"),
    ".jsonl": _jsonl,
    ".json": _json,
    ".txt": _text,
}


def _sniff(text: str, known: set[str]) -> Callable[[str, str], Table]:
    """Reader of a text without a name: lines, unless its first line says otherwise."""
    first = text.lstrip().split("\n", 1)[0]
    for kind, opening in ((".jsonl", dict), (".json", list)):
        try:
            if isinstance(json.loads(first if kind == ".jsonl" else text), opening):
                return READERS[kind]
        except (ValueError, RecursionError):
            continue
    for kind, delimiter in ((".csv", ","), (".tsv", "\t")):
        if known & {name.strip().strip('"').casefold() for name in first.split(delimiter)}:
            return READERS[kind]
    return READERS[".txt"]


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", type(None): "null", bool: "a flag"}
    return names.get(type(value), "a number")
