"""``demur report``: a page about runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from demur.cli import console, options
from demur.errors import ModelError


@options.app.command()
def report(
    runs: options.RunFolders,
    anchors: Annotated[
        Path | None,
        typer.Option("--anchors", help="File made by demur anchors. Default: text only."),
    ] = None,
    out: options.Out = Path("report.html"),
    guard: Annotated[Path | None, typer.Option("--guard", help="A fitted guard.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Model whose tokenizer writes the replays.")
    ] = None,
    replays: Annotated[int, typer.Option(help="Number of generations to replay.")] = 3,
    judge: Annotated[str, typer.Option(help="Refusal judge.")] = "rules",
) -> None:
    """Write a self-contained page about runs.

    It shows rates, signals, the guard and replays. Without anchors it shows the text only, and why
    anchors cannot be fitted on these runs.

    Example: demur report runs/x --anchors anchors.safetensors --model organism-dlm
    """
    from demur.study.report.run_report import write_run_report

    tokenizer = tokenizer_of(model) if model else None
    path = write_run_report(
        out,
        runs,
        anchors=anchors,
        guard=guard,
        tokenizer=tokenizer,
        replays=replays,
        judge=judge,
    )
    console.say(f"Report: {path}")


def tokenizer_of(model: str) -> Any:
    """A model's tokenizer; its weights are loaded only where its family alone knows the tokenizer."""
    from demur.models import load
    from demur.models.checkpoint import find
    from demur.models.tokens import load_tokenizer

    try:
        return load_tokenizer(find(model))
    except ModelError:
        return load(model).tokenizer
