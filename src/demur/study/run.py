"""Run a study into a folder, or estimate what it will cost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from demur.cluster import joined
from demur.study.engine.cells import CellOutcome, OnProgress
from demur.study.engine.provenance import CellEntry, StudyManifest, made_with, together
from demur.study.engine.runner import cores, run_cells, run_in_processes
from demur.study.engine.workspace import CellCost, CellFolder, RayPool, costs
from demur.study.plan.arms import arms_of, locate_all
from demur.study.plan.prompt_sets import require_files
from demur.study.plan.spec import Study
from demur.study.work.graph import cells_of


def plan_study(study: Study, folder: Path, out: str | Path) -> list[CellCost]:
    """State and expected cost of each cell. Nothing is downloaded.

    A missing prompt file counts with the number of prompts the study asks for; see
    ``demur.study.plan.prompt_sets.missing_files``.

    Raises:
        InputError: a prompt file cannot be read, or two sets are the same.
    """
    models = locate_all(study, folder, here=True)
    return costs(cells_of(study, folder, models, planned=True), out)


def workers_of(study: Study) -> int:
    """Default number of processes: the study's, at most one per core."""
    return min(study.workers, cores())


def run_study(
    study: Study,
    folder: Path,
    out: str | Path,
    *,
    command: str = "",
    workers: int | None = None,
    ray: str | None = None,
    progress: OnProgress = lambda *_: None,
) -> list[CellOutcome]:
    """Do every cell that is not done. The same call resumes an interrupted study.

    Args:
        folder: folder of the study's relative paths.
        out: folder for results.
        command: command line, for the methods section.
        workers: number of processes; ``workers_of`` if None. Changes no result.
        ray: address of a Ray cluster that does the tracing (see ``demur.cluster.trace_to``), with at
            most ``workers`` models at once. All its machines must share ``out``. Other cells are done
            here, one after the other.

    Raises:
        InputError: prompt files are missing (all are named) or cannot be read.
        StoreError: the folder cannot be written.
        MissingExtraError: ``ray`` without the extra of that name.
        DemurError: a process was killed.
    """
    began = time.monotonic()
    require_files(study, folder)
    models = locate_all(study, folder)
    cells = cells_of(study, folder, models)
    manifest = StudyManifest(
        study=study,
        command=command,
        arms=tuple(arms_of(study, models)),
        cells=tuple(CellEntry(c.kind, c.name, c.place, c.units, c.subject) for c in cells),
        made_with=made_with(),
    )
    manifest.write(out)
    cell_folder, at_once = CellFolder(out), workers or workers_of(study)
    if ray:
        with joined(ray):  # once, not for every cell
            pool = RayPool(ray, workers)
            outcomes = run_cells(cells, cell_folder, progress=progress, ray=pool)
    elif at_once > 1:
        outcomes = run_in_processes(cells, cell_folder, workers=at_once, progress=progress)
    else:
        outcomes = run_cells(cells, cell_folder, progress=progress)
    spent = {c.key: o.seconds for c, o in zip(cells, outcomes, strict=True)}
    replace(
        manifest,
        made_with=together([one.made for one in outcomes if one.made]),
        seconds={
            "this run": round(time.monotonic() - began),
            "all cells": round(sum(spent.values())),
        },
    ).write(out)
    return outcomes


def failures(outcomes: Sequence[CellOutcome]) -> list[CellOutcome]:
    """Cells that failed by themselves, not because a needed cell failed."""
    return [o for o in outcomes if o.state == "failed" and not o.error.startswith("needs ")]
