"""Cells of guards: the paper's, fitted and saved, and when a streaming one would have stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from demur.guard import detection_delay, fit_guard, fit_streaming_guard
from demur.study.cells import Cell, Desk
from demur.study.tracing import Arm
from demur.study.verdicts import anchors_at

VERSION = 1

#: Detectors of the guards that are saved.
GUARDS = ("sri", "sri-standardised")


def guards_cell(
    arm: Arm,
    anchors: Cell,
    fit: Sequence[Cell],
    calibration: Sequence[Cell],
    *,
    alpha: float,
    seed: int,
) -> Cell:
    """The guards of ``GUARDS``, saved as ``NAME.safetensors``."""

    def work(desk: Desk) -> Mapping[str, Any]:
        for name in GUARDS:
            fitted = fit_guard(
                desk.traces(*fit),
                desk.traces(*calibration),
                anchors=anchors_at(desk, anchors),
                alpha=alpha,
                detector=name,
                seed=seed,
            )
            fitted.save(desk.path / f"{name}.safetensors")
        return {"guards": list(GUARDS)}

    return Cell(
        kind="guards",
        name=arm.name,
        inputs={"alpha": alpha, "seed": seed, "version": VERSION},
        work=work,
        needs=(anchors, *fit, *calibration),
        units=sum(cell.units for cell in (*fit, *calibration)),
        arm=arm.name,
    )


def delay_cell(
    arm: Arm,
    anchors: Cell,
    fit: Sequence[Cell],
    calibration: Sequence[Cell],
    test: Sequence[Cell],
    *,
    alpha: float,
) -> Cell:
    """Step at which a streaming guard flags each test generation, and tokens released by then."""

    def work(desk: Desk) -> Mapping[str, Any]:
        guard = fit_streaming_guard(
            desk.traces(*fit),
            desk.traces(*calibration),
            anchors=anchors_at(desk, anchors),
            alpha=alpha,
        )
        sets = {}
        for cell in desk.there(test):
            found = detection_delay(guard, desk.traces(cell))
            sets[str(cell.about["set"])] = {
                "step": found.step.tolist(),
                "tokens": found.tokens_out.tolist(),
            }
        return {"steps": guard.steps, "sets": sets}

    return Cell(
        kind="delay",
        name=arm.name,
        inputs={"alpha": alpha, "version": VERSION},
        work=work,
        needs=(anchors, *fit, *calibration),
        wants=tuple(test),
        units=sum(cell.units for cell in (*fit, *calibration, *test)),
        pace=0.0005,
        arm=arm.name,
        about={"arm": arm.name},
    )
