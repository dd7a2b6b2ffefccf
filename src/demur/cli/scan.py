"""``demur scan``: what a model refuses, over-refuses and answers, on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from demur.cli import console, options


@options.app.command()
def scan(
    model: Annotated[str, typer.Argument(help="Built-in model, folder, GGUF file or hub id.")],
    harmful: Annotated[
        str | None,
        typer.Option(
            help="Harmful prompts: a file, or a set such as set:advbench. demur ships none."
        ),
    ] = None,
    harmless: Annotated[
        str | None, typer.Option(help="Ordinary prompts to ask instead of the bundled ones.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="System prompt.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Ask about a fifth of the prompts.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder for the run, the anchors and the page.")] = Path(
        "scan"
    ),
    dtype: options.Dtype = None,
    device: options.Device = None,
) -> None:
    """Ask a model ordinary and harmful prompts, and write one page about what it refuses.

    Interrupted scans resume when you run the same command again.

    Example: demur scan HuggingFaceTB/SmolLM2-135M-Instruct --harmful harmful.csv --quick
    """
    from demur.scan import scan as scan_model
    from demur.scan.scan_page import limits, next_commands, sentences, write_scan

    settings = {"dtype": dtype, "device": device} | ({} if system is None else {"system": system})
    loaded = options.load_model(model, **settings)
    with console.progress() as tick:
        found = scan_model(
            loaded,
            out,
            harmful=harmful,
            harmless=harmless,
            quick=quick,
            location=model,
            progress=lambda done, total: tick("prompts answered", done, total),
        )
    page = write_scan(
        out / "scan.html", found, text_of=lambda token: loaded.decode([token], special=True)
    )
    for line in sentences(found):
        console.say(line)
    for line in limits(found):
        console.say(f"- {line}")
    console.say(f"Page: {page}")
    console.say("Next:")
    for command in next_commands(found, out):
        console.say(f"  {command}")
