"""Pages to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from demur.cli import console
from demur.cli.app import AnchorFile, Out, Runs, app
from demur.cli.studying import study_run


@app.command()
def demo(out: Out = Path("demo")) -> None:
    """See it all on the built-in models: the shipped study on two of them, with its page.

    The same as: demur study run organism --quick --out demo

    Example: demur demo --out demo
    """
    study_run("organism", out=out, quick=True)


@app.command()
def report(
    runs: Runs,
    anchors: AnchorFile,
    out: Out = Path("report.html"),
    guard: Annotated[Path | None, typer.Option("--guard", help="A fitted guard.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Whose tokenizer writes the replays.")
    ] = None,
    replays: Annotated[int, typer.Option(help="Generations to replay.")] = 3,
) -> None:
    """Write one self-contained page about runs: rates, signals, guard and replays.

    Example: demur report runs/x --anchors anchors.safetensors --model organism-dlm
    """
    from demur.models.checkpoint import find
    from demur.models.tokens import load_tokenizer
    from demur.study.report.run_report import write_run_report

    tokenizer = load_tokenizer(find(model)) if model else None
    path = write_run_report(
        out, runs, anchors=anchors, guard=guard, tokenizer=tokenizer, replays=replays
    )
    console.say(f"Report: {path}")
