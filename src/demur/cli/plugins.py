"""``demur plugins``: list plug-ins."""

from __future__ import annotations

import typer

from demur.cli import console, options
from demur.plugins import plugins as found_plugins


@options.app.command()
def plugins(as_json: options.AsJson = False) -> None:
    """List plug-ins.

    Shows axis, name, package and version, and why one failed. Exit code 1 if any failed.

    Example: demur --plugin my_file.py plugins
    """
    found = found_plugins()
    if as_json:
        shown = ("axis", "name", "source", "problem")
        console.say_json([{field: getattr(one, field) for field in shown} for one in found])
    else:
        for plugin in found:
            said = f"FAILED: {plugin.problem}" if plugin.problem else ""
            console.say(f"{plugin.axis:<10}  {plugin.name:<20}  {plugin.source}  {said}".rstrip())
        if not found:
            console.say("No plug-ins. See docs/add/plugin.md.")
    if any(plugin.problem for plugin in found):
        raise typer.Exit(1)
