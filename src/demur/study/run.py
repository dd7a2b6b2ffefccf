"""Run a study into a folder, or say what running it would take."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from demur.cluster import joined
from demur.files import write_atomically
from demur.study.cells import Cell, Folder, Outcome, Tick
from demur.study.estimates import Estimate, estimate
from demur.study.graph import arms_of, cells_of
from demur.study.locating import locate_all
from demur.study.machine import made_with
from demur.study.results import MANIFEST
from demur.study.running import cores, run_cells, run_cells_at_once
from demur.study.sets import require_files
from demur.study.spec import Study


def plan_study(study: Study, folder: Path, out: str | Path) -> list[Estimate]:
    """State and expected cost of each cell, from what the file says: nothing is fetched.

    A prompt file that is missing counts with the prompts that were to be read from it; see
    ``demur.study.sets.missing_files``.

    Raises:
        InputError: a prompt file cannot be read, or two sets are the same.
    """
    models = locate_all(study, folder, here=True)
    return estimate(cells_of(study, folder, models, planned=True), out)


def workers_of(study: Study) -> int:
    """Cells that a run does at once unless told otherwise: the study's most, or this machine's."""
    return min(study.workers, cores())


def run_study(
    study: Study,
    folder: Path,
    out: str | Path,
    *,
    command: str = "",
    workers: int | None = None,
    ray: str | None = None,
    tick: Tick = lambda *_: None,
) -> list[Outcome]:
    """Do every cell that is not done; the same call goes on where it was stopped.

    Args:
        study: what to do.
        folder: of its relative paths.
        out: where cells are kept.
        command: how it was called, for the methods page.
        workers: cells done at once, in processes of their own if more than one; ``workers_of`` it
            when None. Changes no result.
        ray: address of a Ray cluster (see ``demur.cluster.trace_to``) that does the tracing, with at
            most ``workers`` models at once; ``out`` must be a folder that all its machines share. The
            other cells are done here, one after the other.
        tick: progress.

    Returns:
        What became of each cell.

    Raises:
        InputError: prompt files are missing (all are named) or cannot be read.
        StoreError: the folder cannot be written.
        MissingExtraError: ``ray`` without the extra of that name.
        DemurError: a process was killed.
    """
    began = time.monotonic()
    require_files(study, folder)
    models = locate_all(study, folder)
    make = partial(cells_of, study, folder, models)
    cells = make()
    about = {
        "study": study.model_dump(mode="json"),
        "command": command,
        "arms": [asdict(arm) for arm in arms_of(study, models)],
        "cells": [_entry(cell) for cell in cells],
        "made with": made_with(),
    }
    path = Path(out) / MANIFEST
    write_atomically(path, _json(about))
    at_once = workers or workers_of(study)
    if ray:
        with joined(ray):  # once, not for every cell
            pool = {"address": ray, "workers": workers}
            outcomes = run_cells(cells, Folder(out), tick=tick, pool=pool)
    elif at_once > 1:
        outcomes = run_cells_at_once(make, Folder(out), workers=at_once, tick=tick)
    else:
        outcomes = run_cells(cells, Folder(out), tick=tick)
    about["made with"] = together([one.made for one in outcomes if one.made])
    about["seconds"] = {
        "this run": round(time.monotonic() - began),
        "all cells": round(
            sum({c.key: o.seconds for c, o in zip(cells, outcomes, strict=True)}.values())
        ),
    }
    write_atomically(path, _json(about))
    return outcomes


def together(made: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all cells were made with; where they differ, every value with the number of its cells."""
    found: dict[str, Any] = {}
    for name in dict.fromkeys(name for one in made for name in one):
        values = [one.get(name) for one in made]
        if isinstance(values[0], Mapping):
            found[name] = together([value for value in values if isinstance(value, Mapping)])
            continue
        different = [*dict.fromkeys(values)]
        counts = (f"{value} ({values.count(value)} cells)" for value in different)
        found[name] = different[0] if len(different) == 1 else "; ".join(counts)
    return found


def failures(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Those that failed by themselves, not for want of another."""
    return [o for o in outcomes if o.state == "failed" and not o.error.startswith("needs ")]


def _entry(cell: Cell) -> dict[str, Any]:
    kept = {name: getattr(cell, name) for name in ("kind", "name", "place", "units", "arm")}
    return kept | {"about": dict(cell.about)}


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
