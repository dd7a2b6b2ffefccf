"""Figure 12 of the paper: the SRI signal over steps, references and jailbreaks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from demur.study.evidence import Evidence
from demur.viz.figures import Figure, trajectories
from demur.viz.tables import Table, Value


def trajectory_figure(one: Evidence) -> Figure:
    """Sigma over steps of each group that has members."""
    found = {name: one.sigma[rows] for name, rows in groups(one).items() if rows.any()}
    return trajectories(found, title=f"Signal over steps: {one.name}")


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
                shape = float(sigma.mean()), float(sigma[:, -1].mean()), volatility(sigma)
                rows.append((one.name, name, int(chosen.sum()), *shape))
    return Table(
        "Signal by outcome",
        ("arm", "group", "n", "mean sigma", "sigma at the end", "volatility"),
        tuple(rows),
        note="Volatility: mean absolute change of sigma from one step to the next.",
    )
