"""Options of commands that ask a model on a server, and what asking has cost."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from demur.cli import console

if TYPE_CHECKING:
    from demur.endpoint import Assistant

KeyVariable = Annotated[str, typer.Option(help="Environment variable that holds the server's key.")]
Cache = Annotated[Path | None, typer.Option(help="Folder that keeps the server's answers.")]
Timeout = Annotated[float, typer.Option(help="Seconds that one try of the server may take.")]
ReasoningTokens = Annotated[
    int, typer.Option(help="Tokens beyond an answer's own, for a model that reasons first.")
]


def note_cost(asked: Iterable[Assistant | None]) -> None:
    """Say of each server's model what it was asked and what it wrote."""
    from demur.endpoint import Endpoint

    for one in asked:
        if isinstance(one, Endpoint):
            used = one.usage
            console.note(
                f"{one.model}: {used.requests} requests, {used.cached} answers from the cache, "
                f"{used.prompt_tokens} tokens read, {used.answer_tokens} written"
            )
