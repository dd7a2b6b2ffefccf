"""``demur organism train``: make the built-in models again."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from demur.cli import console, options

organism_app = typer.Typer(help="Train the built-in models again.")
options.app.add_typer(organism_app, name="organism", no_args_is_help=True)


@organism_app.command("train")
def organism_train(
    out: options.Out,
    recipe: Annotated[
        Literal["base", "small", "wide"], typer.Option(help="Size of the models.")
    ] = "base",
) -> None:
    """Train a pair of built-in models again.

    Takes under an hour on one core; resumable.

    Example: demur organism train --out organism
    """
    from demur.organism.train import RECIPES, train

    with console.progress() as tick:
        train(
            out,
            recipe=RECIPES[recipe],
            suffix="" if recipe == "base" else f"-{recipe}",
            progress=lambda phase, step, steps, loss: tick(f"{phase}, training steps", step, steps),
        )
    console.say(f"Models in {out}")
