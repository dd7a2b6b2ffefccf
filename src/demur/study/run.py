"""Run a study into a folder, or say what running it would take."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from demur import __version__
from demur.files import write_atomically
from demur.study.cells import Cell, Estimate, Outcome, Tick, estimate, run_cells
from demur.study.graph import arms_of, cells_of
from demur.study.results import MANIFEST
from demur.study.spec import Study

#: Packages whose versions can change a result.
_PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "scikit-learn", "scipy", "pyarrow")


def plan_study(study: Study, folder: Path, out: str | Path) -> list[Estimate]:
    """State and expected cost of each cell.

    Raises:
        InputError: a prompt file cannot be read.
    """
    return estimate(cells_of(study, folder), out)


def run_study(
    study: Study,
    folder: Path,
    out: str | Path,
    *,
    command: str = "",
    tick: Tick = lambda *_: None,
) -> list[Outcome]:
    """Do every cell that is not done; the same call goes on where it was stopped.

    Args:
        study: what to do.
        folder: of its relative paths.
        out: where cells are kept.
        command: how it was called, for the methods page.
        tick: progress.

    Returns:
        What became of each cell.

    Raises:
        InputError: a prompt file cannot be read.
        StoreError: the folder cannot be written.
    """
    began = time.monotonic()
    cells = cells_of(study, folder)
    arms = [arm for spec in study.models for arm in arms_of(study, spec, folder)]
    about = {
        "study": study.model_dump(mode="json"),
        "command": command,
        "arms": [asdict(arm) for arm in arms],
        "cells": [_entry(cell) for cell in cells],
        "made with": _made_with(),
    }
    path = Path(out) / MANIFEST
    write_atomically(path, _json(about))
    outcomes = run_cells(cells, out, tick=tick)
    about["seconds"] = {
        "this run": round(time.monotonic() - began),
        "all cells": round(sum(one.seconds for one in outcomes)),
    }
    write_atomically(path, _json(about))
    return outcomes


def failures(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Those that failed by themselves, not for want of another."""
    return [o for o in outcomes if o.state == "failed" and not o.error.startswith("needs ")]


def _entry(cell: Cell) -> dict[str, Any]:
    kept = {name: getattr(cell, name) for name in ("kind", "name", "place", "units", "model")}
    return kept | {"about": dict(cell.about)}


def _made_with() -> dict[str, Any]:
    return {
        "demur": __version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {platform.system()}, {os.cpu_count()} cores",
        "threads": os.environ.get("OMP_NUM_THREADS", "one a core"),
        "packages": {name: version(name) for name in _PACKAGES},
        "byte order": sys.byteorder,
    }


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
