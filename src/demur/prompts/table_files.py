"""Read rows from csv, tsv, json, jsonl, txt and parquet files, standard input and the hub."""

from __future__ import annotations

import codecs
import gzip
import json
import shlex
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from demur.errors import InputError, MissingExtraError
from demur.prompts.columns import PLAIN, TEXTS, Rows
from demur.prompts.conversations import WHO
from demur.prompts.csv_files import delimiter_of, read_csv, read_tsv
from demur.prompts.labels import label_word

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
#: Workbooks, which demur does not read.
_WORKBOOKS = (".xlsx", ".xls", ".xlsm", ".ods")
#: LibreOffice command with the filter for UTF-8 csv with commas.
_TO_CSV = "libreoffice --headless --convert-to 'csv:Text - txt - csv (StarCalc):44,34,76'"


def read_table(source: str, *, known: set[str]) -> Rows:
    """Read a file, ``-`` (standard input) or ``hub:org/name[:split]``.

    Args:
        source: where; a file's ending tells its format.
        known: lower-case column names, by which a csv header and its delimiter are recognised.

    Raises:
        InputError: not there, unreadable, empty or malformed; the message says where.
        MissingExtraError: ``hub:`` without the extra ``hub``.
    """
    if source.startswith("hub:"):
        return read_hub(source)
    if source == "-":
        text = decode(sys.stdin.buffer.read(), "standard input")
        return _sniff(text, known)(text, "standard input", known)
    path = Path(source)
    packed = path.suffix.lower() == ".gz"
    kind = Path(path.stem if packed else path.name).suffix.lower()
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{source} {what}. Give a file of prompts.")
    if kind in _WORKBOOKS:
        raise InputError(
            f"{source} is a workbook ({kind}), which demur does not read. Save it as CSV UTF-8 in the "
            f"spreadsheet program, or run: {_TO_CSV} {shlex.quote(source)}"
        )
    if kind not in READERS and (kind != ".parquet" or packed):
        raise InputError(
            f"{source} is of an unknown kind, {kind or 'without an ending'}. "
            f"Known: {', '.join([*READERS])}, each also with .gz; .parquet; - for standard input; "
            "hub:org/name."
        )
    if kind == ".parquet":
        return _parquet(path)
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if packed else data
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            f"{source} is damaged or not a gzip file ({error}). Make it again."
        ) from error
    except OSError as error:
        raise InputError(f"{source} cannot be read: {error.strerror}.") from error
    return READERS[kind](decode(data, source), source, known)


def decode(data: bytes, source: str) -> str:
    """Decode UTF-8, with or without a byte order mark, or UTF-16 with one.

    Raises:
        InputError: empty, or an invalid byte; the message gives its offset.
    """
    mark, encoding = next((b for b in _BOMS if data.startswith(b[0])), (b"", "utf-8"))
    try:
        text = data[len(mark) :].decode(encoding).lstrip("\ufeff")
    except UnicodeDecodeError as error:
        offset = error.start + len(mark)
        raise InputError(
            f"{source}: byte 0x{data[offset]:02x} at offset {offset} is not {encoding.upper()}. "
            f"Convert it, for example: iconv -f latin1 -t utf-8 {source} > fixed{_ending(source)}"
        ) from error
    if "\0" in text:
        raise InputError(
            f"{source}: NUL character at offset {text.index(chr(0))}. It is not a text file, or it is "
            f"UTF-16 without a byte order mark: "
            f"iconv -f utf-16le -t utf-8 {source} > fixed{_ending(source)}"
        )
    if not text.strip():
        raise InputError(f"{source} is empty. Give a file with at least one prompt.")
    return text


def _ending(source: str) -> str:
    return Path(source.removesuffix(".gz")).suffix or ".txt"


# ------------------------------------------------------------------------------ json and text


def _jsonl(text: str, source: str, known: set[str]) -> Rows:
    # Not splitlines, which also splits at U+2028, which JSON strings may contain.
    lines = ((n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip())
    values = ((f"line {n}", _parse(line, f"{source}, line {n}")) for n, line in lines)
    return _objects(values, source)


def _json(text: str, source: str, known: set[str]) -> Rows:
    if _is_lines(text):
        return _jsonl(text, source, known)
    value, shared = _parse(text, source), {}
    if isinstance(value, dict):
        # JailbreakBench's artifacts name the attack once, above the rows.
        about = value.get("parameters")
        if isinstance(about, dict) and isinstance(about.get("method"), str):
            shared = {"attack": about["method"].casefold()}
        value = _by_behavior(value) or _only_list(value)
    if not isinstance(value, list):
        raise InputError(
            f"{source} holds {_kind(value)}; expected a list of texts or objects, or an object "
            "with one such list."
        )
    rows = ({**shared, **item} if isinstance(item, dict) else item for item in value)
    return _objects(((f"item {n}", row) for n, row in enumerate(rows, 1)), source)


def _is_lines(text: str) -> bool:
    """Whether this is JSON Lines: the first line is a complete object and more lines follow."""
    first, _, rest = text.strip().partition("\n")
    try:
        return bool(rest) and isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def _by_behavior(value: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Rows of HarmBench's files, which map behavior ids to test cases or completions.

    If the keys name labels, the texts are prompts with these labels. None for other files.
    """
    lists = [item for item in value.values() if isinstance(item, list)]
    if not value or len(lists) != len(value):
        return None
    items = [(key, item) for key, items in value.items() for item in items]
    if all(isinstance(item, dict) and "test_case" in item for _, item in items):
        return [{"behavior_id": key, **item} for key, item in items]
    if len(lists) > 1 and all(isinstance(item, str) for _, item in items):
        key_is = "label" if all(map(label_word, value)) else "behavior_id"
        return [{key_is: key, "test_case": item} for key, item in items]
    return None


def _only_list(value: Mapping[str, Any]) -> Any:
    lists = [item for item in value.values() if isinstance(item, list)]
    return lists[0] if len(lists) == 1 else value


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: broken JSON ({error}). Correct it.") from error


def _objects(values: Iterable[tuple[str, Any]], source: str) -> Rows:
    """Rows of objects and texts. The columns are the keys of all objects."""
    rows: list[tuple[str, Mapping[str, Any]]] = []
    for where, value in values:
        if not isinstance(value, dict | str):
            hint = " A file that is one JSON list ends in .json." if isinstance(value, list) else ""
            raise InputError(
                f"{source}, {where} holds {_kind(value)}; expected an object or a text.{hint}"
            )
        rows.append((where, {PLAIN: value} if isinstance(value, str) else value))
    return Rows([*dict.fromkeys(name for _, row in rows for name in row)], rows)


def _text(text: str, source: str, known: set[str]) -> Rows:
    lines = enumerate((line.rstrip("\r") for line in text.split("\n")), 1)
    return Rows([PLAIN], [(f"line {n}", {PLAIN: line}) for n, line in lines if line.strip()])


# ------------------------------------------------------------------------------ parquet and the hub


def _parquet(path: Path) -> Rows:
    try:
        file = pq.ParquetFile(path)
        columns = [field.name for field in file.schema_arrow if _is_read(field)]
        names = _class_names(file.schema_arrow.metadata or {})
    except _BROKEN as error:
        raise _damaged(path, error) from error

    def rows() -> Iterator[tuple[str, Mapping[str, Any]]]:
        count = 0
        try:
            for batch in file.iter_batches(1024, columns=columns):
                for row in batch.to_pylist():
                    count += 1
                    yield f"row {count}", _with_class_names(row, names)
        except _BROKEN as error:
            raise _damaged(path, error) from error

    return Rows(columns, rows())


def _is_read(field: pa.Field) -> bool:
    """Whether a column holds plain values, conversations or lists of texts, not arrays or images."""
    if not pa.types.is_nested(field.type):
        return True
    if not (pa.types.is_list(field.type) or pa.types.is_large_list(field.type)):
        return False
    inner = field.type.value_type
    if pa.types.is_struct(inner):
        return any(inner.get_field_index(name) >= 0 for name in WHO)
    texts = pa.types.is_string(inner) or pa.types.is_large_string(inner)
    return texts and field.name.casefold() in TEXTS


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """Column -> class names, which the ``datasets`` library writes into the schema's metadata."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        return {
            name: [str(one) for one in kind["names"]]
            for name, kind in features.items()
            if isinstance(kind, dict) and kind.get("_type") == "ClassLabel"
        }
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}


def _with_class_names(
    row: Mapping[str, Any], names: Mapping[str, Sequence[str]]
) -> Mapping[str, Any]:
    """The row with class names in place of class numbers; -1 means no class."""
    if not names:
        return row
    told = {}
    for column, classes in names.items():
        number = row.get(column)
        if isinstance(number, int) and number < len(classes):
            told[column] = classes[number] if number >= 0 else None
    return {**row, **told}


#: What pyarrow raises for a damaged Parquet file.
_BROKEN = (pa.ArrowException, OSError, UnicodeDecodeError, MemoryError)


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} is damaged or not a Parquet file ({error}). Make it again.")


def read_hub(
    source: str, *, config: str | None = None, options: Mapping[str, Any] | None = None
) -> Rows:
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
    notes: tuple[str, ...] = ()
    if not split:
        split = "train" if "train" in found else next(iter(found))
        if len(found) > 1:
            notes = (
                f"Split {split} of {', '.join(found)} was read; hub:{name}:SPLIT reads another",
            )
        found = found[split]
    classes = {c: f.names for c, f in found.features.items() if isinstance(f, datasets.ClassLabel)}
    rows = ((f"row {n}", _with_class_names(row, classes)) for n, row in enumerate(found, 1))
    return Rows(found.column_names, rows, notes)


#: File ending -> reader of its text.
READERS: Mapping[str, Callable[[str, str, set[str]], Rows]] = {
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".txt": _text,
}


def _sniff(text: str, known: set[str]) -> Callable[[str, str, set[str]], Rows]:
    """Choose a reader for text without a file name: lines, unless the first line shows a format."""
    first = text.lstrip().split("\n", 1)[0]
    for kind, opening in ((".jsonl", dict), (".json", list)):
        try:
            if isinstance(json.loads(first if kind == ".jsonl" else text), opening):
                return READERS[kind]
        except (ValueError, RecursionError):
            continue
    kinds = {",": ".csv", ";": ".csv", "\t": ".tsv"}
    return READERS[kinds.get(delimiter_of(text, known) or "", ".txt")]


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", type(None): "null", bool: "a flag"}
    return names.get(type(value), "a number")
