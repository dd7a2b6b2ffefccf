"""The command line's verbs hang here; options that several of them share."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from demur import __version__
from demur.cli import console
from demur.errors import InputError

app = typer.Typer(
    name="demur",
    help="Watch, measure and guard how a language model refuses, step by step.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
guard_app = typer.Typer(help="Fit a guard on benign runs, and score runs with it.")
organism_app = typer.Typer(help="The built-in models.")
app.add_typer(guard_app, name="guard", no_args_is_help=True)
app.add_typer(organism_app, name="organism", no_args_is_help=True)

Out = Annotated[Path, typer.Option("--out", help="Where to write.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Run = Annotated[Path, typer.Argument(help="A run folder made by demur trace.")]
Runs = Annotated[list[Path], typer.Argument(help="Run folders made by demur trace.")]
MaybeRuns = Annotated[
    list[Path] | None, typer.Argument(help="Run folders made by demur trace, with labels.")
]
AnchorFile = Annotated[Path, typer.Option("--anchors", help="File made by demur anchors.")]
GuardFile = Annotated[Path, typer.Option("--guard", help="File made by demur guard fit.")]
Surrogate = Annotated[
    str | None,
    typer.Option("--surrogate", help="Autoregressive model that reads the runs' texts instead."),
]
Layer = Annotated[str, typer.Option("--layer", help="Recorded layer to read.")]


def one_of(value: str, known: tuple[Any, ...], what: str) -> Any:
    """The value, if it is one of the known ones."""
    if value not in known:
        raise InputError(f"Unknown {what} {value!r}. Use one of: {', '.join(known)}.")
    return value


def assignment(text: str) -> tuple[str, Any]:
    """``name=value``, the value read as JSON where it is JSON."""
    name, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"--set takes name=value; got {text!r}.")
    try:
        return name.strip(), json.loads(value)
    except json.JSONDecodeError:
        return name.strip(), value


def _version(wanted: bool) -> None:
    if wanted:
        console.say(f"demur {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    threads: Annotated[
        int, typer.Option("--threads", help="CPU threads for the model; 0 leaves torch's choice.")
    ] = 0,
) -> None:
    """Options of every command."""
    if threads:
        # Before torch is imported, so that it needs no import here.
        os.environ["OMP_NUM_THREADS"] = str(threads)
