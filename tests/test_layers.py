"""Floors: imports go down only, rooms on one floor do not know each other, and nothing is circular."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "demur"

FLOORS = (
    ("errors", "_version"),
    ("alignment", "files", "plugins", "thoughts"),
    ("types", "intervals"),
    ("metrics", "organism", "endpoint", "parts"),
    ("models", "prompts", "sri", "store", "viz"),
    ("sampling", "detectors"),
    ("generation", "anchors", "guard", "compat"),
    ("judges", "hub", "adapters"),
    ("attacks", "defenses", "runs"),
    ("cluster", "integrations"),
    ("study", "serve", "scan"),
    ("cli",),
)
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}

SOURCES = sorted(p for p in ROOT.rglob("*.py") if p.parent != ROOT or p.stem != "__init__")


def module_of(path: Path) -> str:
    """A file's dotted name below ``demur``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in SOURCES}


@cache
def imported(path: Path, *, types: bool = True) -> frozenset[str]:
    """Modules below ``demur`` that a file imports anywhere, inside functions too.

    Args:
        path: the file.
        types: whether imports under ``if TYPE_CHECKING`` count.
    """
    found = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if not types:
        tree.body = [node for node in tree.body if not is_for_types(node)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            assert "demur" not in names, f"{path}:{node.lineno}: import demur, which hides the room"
            found |= {name.removeprefix("demur.") for name in names if name.startswith("demur.")}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            if node.module == "demur" or (node.module or "").startswith("demur."):
                base = node.module.removeprefix("demur").removeprefix(".")
                for alias in node.names:
                    full = f"{base}.{alias.name}".removeprefix(".")
                    name = full if full in MODULES else base
                    assert name, f"{path}:{node.lineno}: from demur import {alias.name}"
                    found.add(name)
    return frozenset(found)


def is_for_types(node: ast.stmt) -> bool:
    """Whether this is an ``if TYPE_CHECKING`` block."""
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def test_every_room_has_a_floor() -> None:
    rooms = {name.split(".")[0] for name in MODULES}
    assert rooms == set(FLOOR), "keep FLOORS and docs/architecture.md up to date"
    page = (ROOT.parents[1] / "docs" / "architecture.md").read_text()
    told = set(page.replace("`", " ").replace("/", " ").replace(".py", " ").split())
    assert rooms - {"_version"} <= told


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_imports_go_down(path: Path) -> None:
    room = module_of(path).split(".")[0]
    for other in {name.split(".")[0] for name in imported(path)} - {room}:
        assert FLOOR[other] < FLOOR[room], f"{path.name}: {room} imports {other}"


def test_no_circle() -> None:
    """At run time, inside rooms too. A package imports its parts, so the parts do not import it."""
    seen: dict[str, bool] = {}  # True while on the path from the start

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert seen.get(name) is not True, " -> ".join([*trail[trail.index(name) :], name])
        if name in seen:
            return
        seen[name] = True
        for other in sorted(imported(MODULES[name], types=False)):
            if other in MODULES and other != name:
                visit(other, (*trail, name))
        seen[name] = False

    for name in MODULES:
        visit(name, ())


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_files_stay_small(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_import_is_light() -> None:
    heavy = "{'torch', 'transformers', 'numpy', 'pyarrow', 'matplotlib', 'sklearn'}"
    code = f"import sys, demur; found = {heavy} & set(sys.modules); assert not found, found"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_there() -> None:
    import demur

    assert len(demur.__all__) <= 30
    for name in demur.__all__:
        assert getattr(demur, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        demur.no_such_name  # noqa: B018
