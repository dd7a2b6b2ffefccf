"""Files are written whole or not at all, and a failed write says why."""

from __future__ import annotations

import csv
import errno
from pathlib import Path

import numpy as np
import pytest

from demur.errors import InputError, StoreError
from demur.files import explain, read_tensors, write_atomically, write_csv, write_tensors
from demur.viz.tables import Table


def test_written_whole(tmp_path: Path) -> None:
    path = write_atomically(tmp_path / "a" / "b.bin", b"x" * 1000)
    assert path.read_bytes() == b"x" * 1000
    assert [p.name for p in path.parent.iterdir()] == ["b.bin"]


@pytest.mark.parametrize("place", ["s3://bucket/report.html", Path("s3://bucket/report.html")])
def test_a_url_is_no_folder(
    place: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"s3:/+bucket/report\.html is a URL"):
        write_atomically(place, b"x")
    assert not [*tmp_path.iterdir()]


def test_reasons_are_explained() -> None:
    error = OSError(errno.ENOSPC, "No space left on device")
    assert "disk is full" in explain(error, "x")
    assert "run the same command again" in explain(error, "x")
    assert "Choose another --out" in explain(OSError(errno.EROFS, "Read-only"), "x")


def test_a_file_in_the_way_is_explained(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("in the way")
    with pytest.raises(StoreError, match="was not written"):
        write_atomically(tmp_path / "a" / "b", b"")


def test_tensors_keep_kind_and_values(tmp_path: Path) -> None:
    values = {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}
    path = write_tensors(tmp_path / "t", values, kind="anchors", about={"n": 3})
    arrays, about = read_tensors(path, kind="anchors")
    np.testing.assert_array_equal(arrays["x"], values["x"])
    assert about == {"n": 3}
    with pytest.raises(
        InputError, match=r"not demur\.guard\. Make one with: demur guard fit RUN --an"
    ):
        read_tensors(path, kind="guard")


def test_csv_quotes_what_needs_it(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", ["id", "text"], [["1", 'a "b",\nc']])
    assert path.read_bytes() == b'id,text\r\n1,"a ""b"",\nc"\r\n'


FORMULAS = {
    "=1+1": "'=1+1",
    "+49 30 1": "'+49 30 1",
    "-cmd|' /C calc'!A0": "'-cmd|' /C calc'!A0",
    "@SUM(A1)": "'@SUM(A1)",
    "\t=1": "'\t=1",
    "\r=1": "'\\r=1",
    "  =1": "'  =1",
    "\uff1d1": "'\uff1d1",
    "-1.5": "-1.5",
    "+3e-4": "+3e-4",
    "a=1": "a=1",
    "a\nb\tc": "a\nb\tc",
    "a\r\nb": "a\r\nb",
    "\x1b[31mred\x07": "\\x1b[31mred\\x07",
    "safe\u202egnp.exe": "safe\\u202egnp.exe",
    "half \ud800": "half \\ud800",
    "a\0b\x85c\u2028d": "a\\x00b\\x85c\\u2028d",
    "it's é 🦊": "it's é 🦊",
    "": "",
}


def test_csv_neutralises_formulas_and_control_characters(tmp_path: Path) -> None:
    rows = [[text, -1.5, None] for text in FORMULAS]
    path = write_csv(tmp_path / "t.csv", ["=header", "n", "none"], rows)
    with path.open(encoding="utf-8", newline="") as file:
        header, *found = csv.reader(file)
    assert header == ["'=header", "n", "none"]
    assert found == [[text, "-1.5", ""] for text in FORMULAS.values()]


def test_csv_of_a_report_neutralises_too() -> None:
    table = Table("T", ["name", "value"], [["=HYPERLINK(1)", -0.5], ["-", 2]])
    assert table.to_csv() == "name,value\n'=HYPERLINK(1),-0.5\n'-,2\n"
