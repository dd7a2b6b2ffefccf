"""The command line: one verb, one library call.

Exit codes: 0 success; 1 success with findings (``guard score`` flagged a trace, ``ls`` found a damaged
run, a study cell failed); 2 error, with one line that says why and what to do; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import NoReturn

import typer

from demur.cli import console
from demur.cli.options import app
from demur.errors import DemurError

__all__ = ["app", "main"]

#: Modules of verbs, in the order in which --help lists them. Importing one adds its verbs to ``app``.
VERBS = (
    *("scan", "watch", "trace", "anchors", "guard", "judge", "attack", "defend", "report", "serve"),
    *("study", "share", "plugins", "organism"),
)
for verb in VERBS:
    import_module(f"demur.cli.{verb}")

#: Exit code after Ctrl-C.
INTERRUPTED = 130


def main() -> None:
    """Run the command line; no error prints a traceback unless DEMUR_TRACEBACK is set."""
    # Spinning threads slow a busy machine down several times. torch reads this when it is imported.
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
        if hasattr(error, "show") and hasattr(error, "exit_code"):  # a usage error of click
            error.show()
            sys.exit(error.exit_code)
        if "DEMUR_TRACEBACK" in os.environ:
            raise
        kind = type(error).__name__
        _fail(
            f"Unexpected {kind}: {error}. Set DEMUR_TRACEBACK=1 to see where; please report it.", 2
        )
    if code == INTERRUPTED:
        _fail("Interrupted. Finished work is kept; run the same command to resume.", code)
    sys.exit(code)


def _fail(message: str, code: int) -> NoReturn:
    console.note(f"demur: {message}")
    sys.exit(code)
