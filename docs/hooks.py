"""Pages that are made when the site is built: commands, Python names and errors from the code, results
from the study's file.
"""

from __future__ import annotations

import html
import inspect
import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from error_messages import COMMAND, SERVER, Message, entries, kinds
from mkdocs.structure.files import File, Files
from results_tables import results_tables

#: Page of errors -> its title and the first parts of the modules whose messages stand on it; a message
#: stands on the page with the longest part that fits.
ERROR_PAGES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "prompts": ("Prompts and files", ("prompts", "files", "types", "alignment", "organism")),
    "models": ("Models and generation", ("models", "sampling", "tracing", "compat")),
    "runs": ("Run folders and machines", ("store", "runs", "cluster")),
    "signals": ("Anchors, signals, guards", ("sri", "guard", "detectors", "metrics", "intervals")),
    "attacks": (
        "Attacks, judges, defenses",
        ("attacks", "judges", "defenses", "endpoint", "settings"),
    ),
    "server": ("The server", ("serve",)),
    "studies": ("Studies, figures, pages", ("study", "viz")),
    "elsewhere": ("Hub, engines, other tools", ("hub", "adapters", "integrations")),
    "commands": ("The command line", ("cli", "watching")),
}

#: Modules whose public names are on the page of the library, beside ``demur`` itself.
ROOMS: Mapping[str, str] = {
    "demur.adapters": "States that other engines recorded, as traces.",
    "demur.runs": "Run folders, as `demur trace` and `demur ls` make and list them.",
    "demur.cluster": "Traces over many machines (extra `ray`).",
    "demur.watching": "A generation while it happens, as `demur watch` shows it.",
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
        **error_pages(),
    }
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The study's tables below what is written about them."""
    return markdown + results_tables() if page.file.src_uri == "results/README.md" else markdown


def command_page() -> str:
    """``--help`` of every command."""
    import typer

    from demur.cli import app

    root = typer.main.get_command(app)
    parts = ["# Command line\n\nMade from `--help`.\n"]
    for words, command in commands(("demur",), root):
        settings = {**root.context_settings, **command.context_settings}
        context = type(root).context_class(command, info_name=" ".join(words), **settings)
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

    parts = ["# Python\n\n`import demur` gives these names; each is imported when it is used."]
    parts += [named(demur, name) for name in demur.__all__]
    for module, about in ROOMS.items():
        parts.append(f"## {module}\n\n{about}")
        parts += [named(import_module(module), name, level=3) for name in public(module)]
    return "\n\n".join(parts) + "\n"


def public(module: str) -> list[str]:
    """Names that a module defines or lists for others."""
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


#: Methods by which values are written and read; users call ``save`` and ``load``.
INSIDE = ("arrays", "about", "rebuilt")


def own(kind: type, name: str) -> bool:
    """Whether this is a method or property of a class, not a field with a default."""
    value = inspect.getattr_static(kind, name)
    return callable(value) or isinstance(value, property | classmethod | staticmethod)


def error_pages() -> dict[str, str]:
    """The pages of errors: an anchored entry for each message, with what to do."""
    found = entries()
    placed: dict[str, list[list[Message]]] = {name: [] for name in ERROR_PAGES}
    for places in found.values():
        placed[error_page(places[0])].append(places)
    pages = {"reference/errors/index.md": error_index(placed)}
    for name, messages in placed.items():
        title = ERROR_PAGES[name][0]
        messages.sort(key=lambda places: places[0].text.lstrip("‹").casefold())
        body = "\n".join(entry(places) for places in messages)
        pages[f"reference/errors/{name}.md"] = f"---\nhide: [toc]\n---\n# Errors: {title}\n\n{body}"
    return pages


def error_page(message: Message) -> str:
    """The page that a message stands on."""
    first = message.room.removesuffix(".py").split("/")[0]
    return next(name for name, (_, parts) in ERROR_PAGES.items() if first in parts)


def entry(places: list[Message]) -> str:
    """One message: what happened as the heading, then what to do, and where it comes from."""
    one = places[0]
    what = {SERVER: f"HTTP {one.code.replace(' ', ', code ', 1)}", COMMAND: "the command line"}
    rooms = sorted({f"demur.{p.room.removesuffix('.py').replace('/', '.')}" for p in places})
    rooms = [room.removesuffix(".__init__") for room in rooms]
    said = one.parts[1] != ""
    fix = escaped(one.fix) if said else one.fix
    kind = what.get(one.kind, f"`{one.kind}`")
    return (
        f"## {escaped(one.parts[0])} {{ #{one.anchor} .message }}\n\n{fix}\n\n"
        f"{kind} from {', '.join(f'`{room}`' for room in rooms)}\n{{ .origin }}\n"
    )


def error_index(placed: Mapping[str, list[list[Message]]]) -> str:
    """Where to look."""
    rows = "\n".join(
        f"| [{ERROR_PAGES[name][0]}]({name}.md) | {len(messages)} |"
        for name, messages in placed.items()
    )
    tree = "\n".join(f"| `{name}` | {meaning} |" for name, meaning in kinds().items())
    return ERROR_LEAD + f"\n| page | messages |\n|---|---|\n{rows}\n\n{ERROR_KINDS}\n{tree}\n"


ERROR_LEAD = """# Errors

Every message that demur stops with, and what to do about it. Search the site for a few of its own
words in quotes, such as `"anchors file"`, or look on the page of the part that it comes from;
each entry has a link of its own. Words in ‹angle brackets› stand for the value received. These pages
are made from the source.
"""

ERROR_KINDS = """On the command line a message is one line and the exit code is 2 (1: done, and
something was found; 130: interrupted). The server answers with OpenAI's error body: `message`, `type`,
`param` and a stable `code`; what HTTP itself refuses carries HTTP's own words, such as "Method Not
Allowed." In Python each error is a class of `demur.errors`:

| class | meaning |
|---|---|"""


def escaped(text: str) -> str:
    """A message as Markdown that shows it as it is."""
    return re.sub(r"([\\`*_{}\[\]#|~])", r"\\\1", html.escape(text, quote=False))
