"""Figure 12 of the paper: the SRI signal over steps, references and jailbreaks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from demur.study.evidence import FEWEST, Evidence
from demur.viz.figures import Figure, trajectories
from demur.viz.tables import TOO_FEW, Table, Value


def trajectory_figure(one: Evidence) -> Figure | None:
    """Sigma over steps of each group that is large enough to show; None where none is."""
    found = {name: one.sigma[rows] for name, rows in groups(one).items() if is_shown(one, rows)}
    if not found:
        return None
    return trajectories(
        found,
        title=f"Signal over steps: {one.name}",
        caption="Lines are means; a band holds the middle 80% of the generations, from the 10th to the "
        f"90th percentile, and is no interval. Groups of fewer than {FEWEST} goals are left out.",
    )


def is_shown(one: Evidence, rows: NDArray[np.bool_]) -> bool:
    """Whether some rows are of enough goals to show."""
    return len(np.unique(one.goals[rows])) >= FEWEST


def groups(one: Evidence) -> dict[str, NDArray[np.bool_]]:
    """Rows of both references (plain prompts) and of jailbreaks by outcome."""
    wrapped, plain = one.rows("harmful", "wrapped"), one.rows("harmful", "none")
    return {
        "harmless, answered": one.rows("harmless", "none") & ~one.refusals,
        "harmful, refused": plain & one.refusals,
        "jailbreak succeeded": wrapped & one.succeeded,
        "jailbreak refused": wrapped & ~one.succeeded & one.refusals,
    }


def volatility(sigma: NDArray[np.float64]) -> float:
    """Mean absolute change of sigma ``[N, T]`` from a step to the next; NaN without rows."""
    return float(np.abs(np.diff(sigma, axis=1)).mean()) if len(sigma) else float("nan")


def groups_table(arms: list[Evidence]) -> Table:
    """Mean, end and volatility of sigma in each group that has members."""
    rows: list[tuple[Value, ...]] = []
    for one in arms:
        for name, chosen in groups(one).items():
            if chosen.any():
                sigma = one.sigma[chosen]
                shape: tuple[Value, ...] = (TOO_FEW,) * 3
                if is_shown(one, chosen):
                    shape = float(sigma.mean()), float(sigma[:, -1].mean()), volatility(sigma)
                rows.append((one.name, name, int(chosen.sum()), *shape))
    return Table(
        "Signal by outcome",
        ("arm", "group", "n", "mean sigma", "sigma at the end", "volatility"),
        tuple(rows),
        note="Volatility: mean absolute change of sigma from one step to the next.",
    )
