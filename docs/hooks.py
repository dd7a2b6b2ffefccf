"""Pages made when the site is built: commands, Python names and the results of the study."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from mkdocs.structure.files import File, Files
from results_tables import results_tables

#: Modules whose public names are on the Python page, after those of ``demur``.
ROOMS: Mapping[str, str] = {
    "demur.adapters": "States that other engines recorded, as traces.",
    "demur.errors": "Every error that demur raises.",
    "demur.runs": "Run folders, as `demur trace` writes and `demur ls` lists them.",
    "demur.cluster": "Traces over many machines (extra `ray`).",
    "demur.hub": "Push to the hub and pull from it (extra `hub`).",
    "demur.integrations.notebook": "Notebook display.",
    "demur.integrations.tracking": "Trackers of experiments.",
    "demur.integrations.inspect_ai": "Model provider and scorer of inspect_ai (extra `inspect`).",
}


def on_files(files: Files, config: Any) -> Files:
    """Add the pages."""
    made = {
        "reference/cli.md": command_page(),
        "reference/python.md": python_page(),
    }
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Add the study's tables to the page about them."""
    return markdown + results_tables() if page.file.src_uri == "results/README.md" else markdown


COMMAND_LEAD = """# Command line

Made from `--help`. Exit codes: 0 success; 1 success with findings, such as a flagged trace; 2 error,
with one line that says why and what to do; 130 interrupted. With `DEMUR_TRACEBACK=1` an unexpected
error prints its traceback.
"""


def command_page() -> str:
    """``--help`` of every command."""
    import typer

    from demur.cli import app

    root = typer.main.get_command(app)
    parts = [COMMAND_LEAD]
    for words, command in commands(("demur",), root):
        settings = {**root.context_settings, **command.context_settings}
        context = type(root).context_class(command, info_name=" ".join(words), **settings)
        parts.append(f"## {' '.join(words)}\n\n```text\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


def commands(words: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """A command and its subcommands, with the words that call each."""
    yield words, command
    for name, below in getattr(command, "commands", {}).items():
        yield from commands((*words, name), below)


def python_page() -> str:
    """Every public name, from its docstring."""
    import demur

    parts = ["# Python\n\n`import demur` gives these names; each is imported on first use."]
    parts += [named(demur, name) for name in demur.__all__]
    for module, about in ROOMS.items():
        parts.append(f"## {module}\n\n{about}")
        parts += [named(import_module(module), name, level=3) for name in public(module)]
    return "\n\n".join(parts) + "\n"


def public(module: str) -> list[str]:
    """Names in a module's ``__all__``, or that it defines."""
    found = import_module(module)
    listed = getattr(found, "__all__", None)
    if listed is not None:
        return list(listed)
    names = [n for n, value in vars(found).items() if getattr(value, "__module__", "") == module]
    return [n for n in names if not n.startswith("_") and getattr(found, n).__doc__]


def named(module: Any, name: str, level: int = 2) -> str:
    """The directive for one name, with the methods that users call."""
    value = getattr(module, name)
    options = [f"heading_level: {level}"]
    if inspect.isclass(value):
        kept = [
            m for m in vars(value) if not m.startswith("_") and m not in INSIDE and own(value, m)
        ]
        options.append(f"members: [{', '.join(kept)}]")
    return f"::: {module.__name__}.{name}\n    options:\n      " + "\n      ".join(options)


#: Methods behind ``save`` and ``load``, which users do not call.
INSIDE = ("arrays", "about", "rebuilt")


def own(kind: type, name: str) -> bool:
    """Whether this is a method or property of a class, not a field with a default."""
    value = inspect.getattr_static(kind, name)
    return callable(value) or isinstance(value, property | classmethod | staticmethod)
