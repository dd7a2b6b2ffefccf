"""The floors of the house: imports go down only, and rooms on one floor do not know each other."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "demur"

FLOORS = (
    ("errors",),
    ("alignment", "files", "settings", "thoughts"),
    ("types", "intervals"),
    ("metrics", "organism", "endpoint"),
    ("models", "prompts", "sri", "store", "viz"),
    ("sampling", "detectors"),
    ("tracing", "guard", "compat"),
    ("judges", "hub", "adapters"),
    ("attacks", "defenses", "runs", "watching"),
    ("cluster", "integrations"),
    ("study", "serve"),
    ("cli",),
)
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            base = node.module or ""
            names = [f"demur.{alias.name}" for alias in node.names] if base == "demur" else [base]
        found |= {name.split(".")[1] for name in names if name.startswith("demur.")}
    return found - {"__version__"}


SOURCES = sorted(p for p in ROOT.rglob("*.py") if p.parent != ROOT or p.stem != "__init__")


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path: Path) -> None:
    room = room_of(path)
    assert room in FLOOR, f"{room} has no floor; give it one in FLOORS and in docs/architecture.md"
    for other in imported_rooms(path) - {room}:
        assert FLOOR[other] < FLOOR[room], f"{path.name}: {room} imports {other}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_stay_small(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_import_is_light() -> None:
    heavy = "{'torch', 'transformers', 'numpy', 'pyarrow', 'matplotlib', 'sklearn'}"
    code = f"import sys, demur; found = {heavy} & set(sys.modules); assert not found, found"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_there() -> None:
    import demur

    assert len(demur.__all__) <= 20
    for name in demur.__all__:
        assert getattr(demur, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        demur.no_such_name  # noqa: B018
