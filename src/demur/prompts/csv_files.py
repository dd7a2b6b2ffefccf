"""Rows of text whose columns are separated by commas, semicolons or tabs."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from demur.errors import InputError
from demur.prompts.columns import Rows


def read_csv(text: str, source: str, known: set[str]) -> Rows:
    """Rows of csv. The delimiter is the one that yields a known column; a comma by default."""
    if said := re.match("sep=([,;\t])\r?\n", text):  # Excel's hint
        return _separated(text[said.end() :], source, said[1], line=1)
    return _separated(text, source, delimiter_of(text, known) or ",")


def delimiter_of(text: str, known: set[str]) -> str | None:
    """The delimiter with which the first line names a known column; None if there is none."""
    first = text.lstrip().splitlines()[0]
    for delimiter in (",", ";", "\t"):
        if known & {name.strip().strip('"').casefold() for name in first.split(delimiter)}:
            return delimiter
    return None


def read_tsv(text: str, source: str, known: set[str]) -> Rows:
    """Rows of tsv, with fields quoted as in csv or with quotes as plain text.

    Raises:
        InputError: malformed, or both readings work and give different rows.
    """
    bare = _unquoted(text)
    try:
        quoted = _separated(text, source, "\t")
    except InputError:
        if bare is None:
            raise
        return Rows(
            bare.columns, bare.rows, ("Quotes were read as text, because they are not all paired",)
        )
    if bare is not None and len(bare.columns) > 1 and len([*bare.rows]) != len([*quoted.rows]):
        line = next((n for n, one in enumerate(text.split("\n"), 1) if _opens(one)), 1)
        raise InputError(
            f"{source}, line {line}: a field begins with a quote that the line does not close, so the "
            f"file has {len([*bare.rows])} rows if quotes are text and {len([*quoted.rows])} if fields "
            "span lines. Double the quotes and put the field in quotes, or save it as .jsonl."
        )
    return quoted


def _opens(line: str) -> bool:
    fields = line.rstrip("\r").split("\t")
    return any(f.startswith('"') and not re.fullmatch('"(?:[^"]|"")*"', f) for f in fields)


def _unquoted(text: str) -> Rows | None:
    """Rows of tsv, one per line; None if a line has more or fewer fields than the header."""
    lines = [
        (n, line.rstrip("\r")) for n, line in enumerate(text.split("\n"), 1) if line.strip("\r")
    ]
    fields = [(n, [_bare(field) for field in line.split("\t")]) for n, line in lines]
    header = [name.strip() for name in fields[0][1]]
    if any(len(values) != len(header) for _, values in fields):
        return None
    rows = [(f"line {n}", dict(zip(header, values, strict=True))) for n, values in fields[1:]]
    return Rows(header, rows)


def _bare(field: str) -> str:
    """The field without the quotes around it, if they are paired."""
    return field[1:-1].replace('""', '"') if re.fullmatch('"(?:[^"]|"")*"', field) else field


def _separated(text: str, source: str, delimiter: str, *, line: int = 0) -> Rows:
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
                where = f"row {len(rows) + 1}, line {reader.line_num + line}"
                if len(values) != len(header):
                    raise InputError(
                        f"{source}, {where}: {len(values)} fields where the header has "
                        f"{len(header)}. Quote fields that hold commas, quotes or newlines."
                    )
                rows.append((where, dict(zip(header, values, strict=True))))
    except csv.Error as error:
        raise InputError(
            f"{source}, line {reader.line_num + line}: {error}. Quote fields that hold commas, quotes "
            "or newlines, and double the quotes inside."
        ) from error
    return Rows(header, rows)


@contextmanager
def _fields_up_to(size: int) -> Iterator[None]:
    """Let csv fields be as long as the text; the limit is the process's, so put it back."""
    before = csv.field_size_limit()
    csv.field_size_limit(max(before, size))
    try:
        yield
    finally:
        csv.field_size_limit(before)
