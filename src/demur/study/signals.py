"""Signal trajectories and their two-dimensional view (PAPER figures 12 and 13)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from demur.study.evidence import Evidence
from demur.viz.figures import Figure, lda, trajectories
from demur.viz.tables import Table


def groups(one: Evidence) -> dict[str, NDArray[np.bool_]]:
    """Rows of each group: both references (plain prompts) and jailbreaks by outcome."""
    wrapped = one.rows(label="harmful", attack="wrapped")
    plain = one.rows(label="harmful", attack="none")
    return {
        "harmless, answered": one.rows(label="harmless", attack="none") & ~one.refused,
        "harmful, refused": plain & one.refused,
        "jailbreak succeeded": wrapped & one.succeeded,
        "jailbreak refused": wrapped & ~one.succeeded & one.refused,
    }


def trajectory_figure(one: Evidence) -> Figure:
    """Sigma over steps of each group that has members."""
    found = {name: one.sigma[rows] for name, rows in groups(one).items() if rows.any()}
    return trajectories(found, title=one.arm.name)


def projection_figure(one: Evidence) -> Figure:
    """Linear discriminant view of the signals in three groups."""
    wanted = ("harmless, answered", "harmful, refused", "jailbreak succeeded")
    labels = np.full(len(one.traces), "", dtype=object)
    for name, rows in groups(one).items():
        if name in wanted:
            labels[rows] = name
    kept = labels != ""
    return lda(one.sigma[kept], labels[kept].tolist(), title=one.arm.name)


def volatility(sigma: NDArray[np.float32]) -> float:
    """Mean absolute change of sigma from a step to the next; NaN without rows."""
    if not len(sigma):
        return float("nan")
    return float(np.abs(np.diff(sigma, axis=1)).mean())


def groups_table(evidence: list[Evidence]) -> Table:
    """Mean, end and volatility of sigma in each group."""
    rows = []
    for one in evidence:
        for name, chosen in groups(one).items():
            if not chosen.any():
                continue
            sigma = one.sigma[chosen]
            rows.append(
                (
                    one.arm.name,
                    name,
                    int(chosen.sum()),
                    float(sigma.mean()),
                    float(sigma[:, -1].mean()),
                    volatility(sigma),
                )
            )
    return Table(
        "Sigma by outcome",
        ("arm", "group", "n", "mean sigma", "sigma at the end", "volatility"),
        tuple(rows),
        note="Volatility: mean absolute change of sigma from one step to the next.",
    )
