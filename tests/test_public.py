"""The public names are those that the documents and examples use, and no more than thirty."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import demur

ROOT = Path(__file__).parents[1]


def snippets() -> Iterator[str]:
    """All Python code of README, documents, examples and notebooks."""
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        yield from re.findall(r"```python[^\n]*\n(.*?)```", page.read_text(), flags=re.DOTALL)
    for script in (ROOT / "examples").glob("*.py"):
        yield script.read_text()
    for notebook in (ROOT / "examples").rglob("*.ipynb"):
        cells = json.loads(notebook.read_text())["cells"]
        yield from ("".join(c["source"]) for c in cells if c["cell_type"] == "code")


def public_names(code: str) -> set[str]:
    """The names of ``demur`` itself that the code uses."""
    found = set[str]()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found |= {node.attr} if node.value.id == "demur" else set()
        if isinstance(node, ast.ImportFrom) and node.module == "demur":
            found |= {name.name for name in node.names}
    return found


def test_public_names_are_those_that_the_documents_use() -> None:
    used = set[str]().union(*map(public_names, snippets()))
    assert used == set(demur.__all__)


def test_there_are_no_more_than_a_reader_can_hold() -> None:
    assert len(demur.__all__) <= 30
    for name in demur.__all__:
        assert getattr(demur, name) is not None
