"""Cells of surrogates: a white-box model reads what another model wrote, and its guard decides.

Arm by arm this is the paper's appendix E.6; see ``demur.guard.surrogate``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from demur.guard import fit_guard
from demur.guard.surrogate import read_texts
from demur.sri import fit_anchors
from demur.study.cells import Cell, Desk
from demur.study.judging import refusal_judges
from demur.study.locating import Located
from demur.study.scoring import Traced
from demur.study.spec import Judges
from demur.study.verdicts import refusals
from demur.study.watching import GUARDS
from demur.types import Traces

VERSION = 1


def surrogate_cell(
    white: Located,
    black: str,
    traced: Sequence[Traced],
    *,
    judges: Judges,
    alpha: float,
    seed: int,
    batch_size: int,
) -> Cell:
    """Which of a black-box arm's test generations a white-box model's guards flag.

    Args:
        white: the model that reads.
        black: name of the arm that wrote.
        traced: the sets of that arm.
        judges: the first refusal judge says which texts anchors are over.
        alpha: of the threshold.
        seed: of the fits.
        batch_size: texts read together.
    """
    by_role = {one.role: [t.cell for t in traced if t.role == one.role] for one in traced}
    test = by_role["test"]

    def work(desk: Desk) -> Mapping[str, Any]:
        model = desk.of(white)

        def read(*cells: Cell) -> Traces:
            texts = [(trace.prompt, trace.response) for trace in desk.traces(*cells)]
            return read_texts(model, texts, batch_size=batch_size)

        refusal = refusal_judges(judges)[judges.refusal[0]]
        reference = read(*by_role["anchors"])
        anchors = fit_anchors(reference, refusals(reference, refusal))
        benign = read(*by_role["fit"]), read(*by_role["calibration"])
        sets = {str(cell.about["set"]): read(cell) for cell in desk.there(test)}
        flagged = {}
        for guard in GUARDS:
            fitted = fit_guard(*benign, detector=guard, anchors=anchors, alpha=alpha, seed=seed)
            flagged[guard] = {key: fitted.flag(traces).tolist() for key, traces in sets.items()}
        return {"flagged": flagged}

    return Cell(
        kind="surrogate",
        name=f"{white.name} reads {black}",
        inputs={
            "identity": white.identity,
            "judge": judges.refusing,
            "alpha": alpha,
            "seed": seed,
            "version": VERSION,
        },
        work=work,
        needs=tuple(c for role in ("anchors", "fit", "calibration") for c in by_role[role]),
        wants=tuple(test),
        units=sum(one.cell.units for one in traced),
        pace=0.002,
        arm=black,
        about={"arm": black, "white": white.name},
    )
