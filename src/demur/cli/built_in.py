"""The built-in models."""

from __future__ import annotations

from typing import Annotated

import typer

from demur.cli import console
from demur.cli.app import Out, one_of, organism_app


@organism_app.command("train")
def organism_train(
    out: Out, recipe: Annotated[str, typer.Option(help="base, small or wide.")] = "base"
) -> None:
    """Make a pair of built-in models again, in under an hour on one core; resumable.

    Example: demur organism train --out organism
    """
    from demur.organism.train import RECIPES, train

    chosen = RECIPES[one_of(recipe, tuple(RECIPES), "recipe")]

    with console.progress() as tick:
        train(
            out,
            recipe=chosen,
            suffix="" if recipe == "base" else f"-{recipe}",
            progress=lambda phase, step, steps, loss: tick(phase, step, steps),
        )
    console.say(f"Models in {out}")
