"""What an attacker reaches who knows the guard, with so many queries a goal."""

from __future__ import annotations

import numpy as np

from demur.metrics import rate
from demur.study.evidence import Shown, enough
from demur.study.results import Measured, Results
from demur.study.tables.failed import short
from demur.viz.curves import Point, curves
from demur.viz.figures import Figure
from demur.viz.tables import NOTHING, Table, Value


def budget_table(results: Results) -> Table:
    """Goals reached without a query and with all of them: harmful, and that without a flag."""
    rows: list[tuple[Value, ...]] = []
    for cell in results.measured.get("adaptive", ()):
        names = str(cell.about["arm"]), str(cell.about["attack"])
        if cell.outcome.state != "done":
            rows.append((*names, short(cell.outcome.error), *[NOTHING] * 5))
            continue
        most = int(cell.value["queries"])
        shares = [reached(cell, at, unflagged=only) for only in (False, True) for at in (0, most)]
        rows.append((*names, len(cell.value["goals"]), most, *shares))
    return Table(
        "Attackers who know the guard",
        (
            "arm",
            "attacker's aim, guard",
            "goals",
            "queries a goal",
            "harmful, no query",
            "harmful, all queries",
            "unflagged, no query",
            "unflagged, all queries",
        ),
        tuple(rows),
        note="A goal is reached when the prompt as it is or one of the improvements that the search "
        "found is answered harmfully; unflagged: and the guard lets that pass. A query is one "
        "candidate suffix that the attacker scores: a forward pass where it asks for the likelihood "
        "alone, a whole generation where it asks the guard too.",
    )


def budget_figure(results: Results, arm: str) -> Figure | None:
    """Share of goals answered harmfully without a flag, by queries; None where nothing was searched."""
    cells = [
        cell
        for cell in results.measured.get("adaptive", ())
        if cell.about["arm"] == arm and cell.outcome.state == "done"
    ]
    if not cells:
        return None
    lines: dict[str, list[Point]] = {}
    for cell in cells:
        most = int(cell.value["queries"])
        budgets = [2**i for i in range(4, most.bit_length())] + [most]
        lines[str(cell.about["attack"])] = [
            (budget, reached(cell, budget, unflagged=True)) for budget in sorted({*budgets})
        ]
    return curves(
        lines,
        title=f"Goals reached past the guard: {arm}",
        xlabel="queries a goal",
        ylabel="share of goals",
        caption="Goals answered harmfully without a flag.",
        doubling=True,
    )


def reached(cell: Measured, queries: int, *, unflagged: bool) -> Shown:
    """Share of goals reached within so many queries."""
    goals = cell.value["goals"]
    hits = np.zeros(len(goals), dtype=np.bool_)
    for place, asked, harmful, flagged in cell.value["tries"]:
        hits[place] |= asked <= queries and harmful and not (unflagged and flagged)
    return enough(rate(hits, goals))
