"""The command line: one verb, one library call.

Exit codes: 0 done; 1 done, and something was found (``guard score`` flagged a trace, ``ls`` saw a
damaged run); 2 not done, with one line that says why and what to do; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import typer

from demur.cli import (
    attacking,
    built_in,
    console,
    detecting,
    guarding,
    judging,
    pages,
    serving,
    sharing,
    signals,
    studying,
    tracing,
    watching,
)
from demur.cli.app import app
from demur.errors import DemurError

__all__ = [
    "app",
    "attacking",
    "built_in",
    "detecting",
    "guarding",
    "judging",
    "main",
    "pages",
    "serving",
    "sharing",
    "signals",
    "studying",
    "tracing",
    "watching",
]

#: What typer gives back for Ctrl-C.
INTERRUPTED = 130


def main() -> None:
    """Run the command line; no error leaves a traceback unless DEMUR_TRACEBACK is set."""
    # Threads that spin while they wait make a busy machine several times slower. Read when torch is
    # imported, so it must be set before.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        code = app(prog_name="demur", standalone_mode=False) or 0
    except DemurError as error:
        _fail(str(error), 2)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except MemoryError:
        _fail("Out of memory. Use a smaller --batch-size; finished rows are kept.", 2)
    except Exception as error:
        if hasattr(error, "show") and hasattr(error, "exit_code"):  # the command was mistyped
            error.show()
            sys.exit(error.exit_code)
        if "DEMUR_TRACEBACK" in os.environ:
            raise
        kind = type(error).__name__
        _fail(
            f"Unexpected {kind}: {error}. Set DEMUR_TRACEBACK=1 to see where; please report it.", 2
        )
    if code == INTERRUPTED:
        _fail("Interrupted. What was finished is kept; the same command goes on from there.", code)
    sys.exit(code)


def _fail(message: str, code: int) -> NoReturn:
    console.note(f"demur: {message}")
    sys.exit(code)
