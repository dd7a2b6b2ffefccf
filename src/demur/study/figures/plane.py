"""Figure 13 of the paper: the plane that tells three groups of signals apart best."""

from __future__ import annotations

import numpy as np

from demur.study.evidence import Evidence
from demur.study.figures.trajectories import groups
from demur.viz.figures import Figure, lda

#: Groups of the view.
_SHOWN = ("harmless, answered", "harmful, refused", "jailbreak succeeded")


def plane_figure(one: Evidence) -> Figure:
    """Linear discriminant view of references and successful jailbreaks."""
    labels = np.full(len(one.goals), "", dtype=object)
    for name, rows in groups(one).items():
        if name in _SHOWN:
            labels[rows] = name
    kept = labels != ""
    return lda(one.sigma[kept], labels[kept].tolist(), title=f"Plane of signals: {one.name}")
