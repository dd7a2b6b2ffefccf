"""The built-in models."""

from __future__ import annotations

from typing import Annotated

import typer

from demur.cli import console
from demur.cli.app import Out, organism_app


@organism_app.command("train")
def organism_train(
    out: Out, seed: Annotated[int, typer.Option(help="Of everything random.")] = 0
) -> None:
    """Make the built-in models again, in under 30 minutes on two cores; resumable.

    Example: demur organism train --out organism
    """
    from demur.organism.train import Recipe, train

    with console.progress() as tick:
        train(
            out,
            recipe=Recipe(seed=seed),
            progress=lambda phase, step, steps, loss: tick(phase, step, steps),
        )
    console.say(f"Models in {out}")
