"""Files are written whole or not at all, and a failed write says why."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

from demur.errors import InputError, StoreError
from demur.files import explain, read_tensors, write_atomically, write_csv, write_tensors


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
