"""Pages that are made from the code when the site is built: commands, Python names, errors."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

SOURCE = Path(__file__).parents[1] / "src" / "demur"


def on_files(files: Files, config: Any) -> Files:
    """Add the pages."""
    pages = {"cli": command_page(), "python": python_page(), "errors": error_page()}
    for name, content in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=content))
    return files


def command_page() -> str:
    """``--help`` of every command."""
    import typer

    from demur.cli import app

    root = typer.main.get_command(app)
    parts = ["# Command line\n\nMade from `--help`.\n"]
    for words, command in commands(("demur",), root):
        context = type(root).context_class(command, info_name=" ".join(words))
        parts.append(f"## {' '.join(words)}\n\n```text\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


def commands(words: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """A command and those below it, with the words that call each."""
    yield words, command
    for name, below in getattr(command, "commands", {}).items():
        yield from commands((*words, name), below)


def python_page() -> str:
    """Every public name, from its docstring."""
    import demur

    names = "\n\n".join(f"::: demur.{demur._HOMES[name]}.{name}" for name in demur.__all__)
    lead = "`import demur` gives these names; each is imported when it is used."
    return f"# Python\n\n{lead}\n\n{names}\n"


def error_page() -> str:
    """Every message that demur raises on purpose, by kind; a message says what to do next."""
    found: dict[str, list[str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        for kind, message in messages(path):
            found.setdefault(kind, []).append(f"| `{message}` | `{path.relative_to(SOURCE)}` |")
    parts = [
        "# Errors\n\nEvery error that demur raises on purpose is a `DemurError`; the command line "
        "prints its message and exits with 2. A message says what happened, the value, and what to "
        "do next. Words in braces stand for the value received.\n"
    ]
    for kind, meaning in kinds():
        rows = "\n".join(found.get(kind, []))
        if rows:
            parts.append(f"## {kind}\n\n{meaning}\n\n| message | raised in |\n|---|---|\n{rows}\n")
    return "\n".join(parts)


def kinds() -> list[tuple[str, str]]:
    """Classes of errors and what each stands for."""
    tree = ast.parse((SOURCE / "errors.py").read_text("utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    return [(node.name, ast.get_docstring(node) or "") for node in classes]


def messages(path: Path) -> Iterator[tuple[str, str]]:
    """Kind and message of each ``raise`` in a file, values in braces."""
    known = {name for name, _ in kinds()}
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)):
            continue
        kind = getattr(node.exc.func, "id", "")
        if kind in known and node.exc.args and (text := template(node.exc.args[0])):
            yield kind, " ".join(text.split()).replace("|", "\\|").replace("`", "'")


def template(node: ast.expr) -> str:
    """Text of a string or f-string, with the expressions in braces."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(
            part.value if isinstance(part, ast.Constant) else f"{{{ast.unparse(part.value)}}}"
            for part in node.values
        )
    if isinstance(node, ast.BinOp):
        return template(node.left) + template(node.right)
    return ""
