"""Names: no class, alias or module of ``src`` has the name of another."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1] / "src" / "demur"

#: Module names that may stand twice, with the reason.
MODULES = {
    **dict.fromkeys(
        (
            *("anchors", "guard", "organism", "plugins", "report"),
            *("scan", "serve", "study", "watch"),
        ),
        "a verb of the command line and the room or file that does its work",
    ),
    "dream": "a model family and the sampler of the same paper",
}

#: The same for classes and type aliases.
CLASSES: dict[str, str] = {}


def modules() -> dict[str, list[str]]:
    """Name -> the files and packages that have it."""
    found = defaultdict(list)
    for path in sorted(ROOT.rglob("*.py")):
        if path.stem != "__init__":
            found[path.stem].append(path.relative_to(ROOT).as_posix())
        elif path.parent != ROOT:
            found[path.parent.name].append(path.parent.relative_to(ROOT).as_posix())
    return found


def classes() -> dict[str, list[str]]:
    """Name -> the files that define a class or a type alias of that name."""
    found = defaultdict(list)
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = []
            if isinstance(node, ast.ClassDef):
                names = [node.name]
            elif isinstance(node, ast.Assign):
                names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names = [node.target.id]
            for name in names:
                if name[0].isupper() and not name.isupper():
                    found[name].append(path.relative_to(ROOT).as_posix())
    return found


def test_no_module_name_means_two_things() -> None:
    twice = {name: places for name, places in modules().items() if len(places) > 1}
    assert {name: twice[name] for name in twice.keys() - MODULES.keys()} == {}
    assert MODULES.keys() <= twice.keys(), "an exception that is not needed any more"


def test_no_class_name_means_two_things() -> None:
    twice = {name: places for name, places in classes().items() if len(places) > 1}
    assert {name: twice[name] for name in twice.keys() - CLASSES.keys()} == {}
    assert CLASSES.keys() <= twice.keys(), "an exception that is not needed any more"
