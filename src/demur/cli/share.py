"""``demur push`` and ``demur pull``: the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from demur.cli import console, options

Address = Annotated[str, typer.Argument(metavar="hub:ORG/NAME", help="Repository on the hub.")]


@options.app.command()
def push(
    path: Annotated[Path, typer.Argument(help="Anchors, a guard, or a finished run folder.")],
    to: Address,
    licence: Annotated[str, typer.Option("--licence", help="Licence, such as apache-2.0.")],
    data: Annotated[
        str, typer.Option("--data", help="Description of the prompts, for the card.")
    ] = "",
    public: Annotated[bool, typer.Option("--public", help="Make a new repository public.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Push anchors, a guard or a run to the Hugging Face hub.

    Generates a card. The repository is private unless --public.

    Example: demur push guard.safetensors hub:org/guard --licence apache-2.0
    """
    from demur.hub import push as push_to

    page = push_to(path, to, licence=licence, data=data, public=public)
    about = {"pushed": str(path), "to": page}
    console.say_json(about) if as_json else console.say_pairs(about)


@options.app.command()
def pull(
    address: Address,
    out: options.Out,
    revision: Annotated[str | None, typer.Option(help="Commit, tag or branch.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Pull anchors, a guard or a run from the Hugging Face hub.

    The file is checked before it is put in place.

    Example: demur pull hub:org/guard --out guard.safetensors
    """
    from demur.hub import pull as pull_from

    got = pull_from(address, out, revision=revision)
    about = {"pulled": got.kind, "to": str(out), **got.facts}
    console.say_json(about) if as_json else console.say_pairs(about)
