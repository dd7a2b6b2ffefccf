"""Every notebook runs from top to bottom, and ships with the outputs of that run."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "examples" / "notebooks").glob("*.ipynb"))


def kinds(book: nbformat.NotebookNode) -> list[set[str]]:
    """The kinds of output of each cell, without what libraries write to standard error."""
    return [
        {o.output_type for o in cell.get("outputs", ()) if o.get("name") != "stderr"}
        for cell in book.cells
    ]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_runs(path: Path, tmp_path: Path) -> None:
    book = nbformat.read(path, as_version=4)
    shipped = kinds(book)
    assert any({"stream", "execute_result"} & each for each in shipped)
    assert not any("error" in each for each in shipped)
    assert "site-packages" not in path.read_text("utf-8"), "a path of the machine that ran it"
    NotebookClient(
        book, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert kinds(book) == shipped, "run the notebook again and keep its outputs"
