"""Figure 13 of the paper: the plane that tells three groups of signals apart best."""

from __future__ import annotations

import numpy as np

from demur.study.evidence import FEWEST, Evidence
from demur.study.figures.trajectories import groups, is_shown
from demur.viz.figures import Figure, lda

#: Groups of the view.
_SHOWN = ("harmless, answered", "harmful, refused", "jailbreak succeeded")


def plane_figure(one: Evidence) -> Figure | None:
    """Linear discriminant view of references and successful jailbreaks; None with fewer than two."""
    labels = np.full(len(one.goals), "", dtype=object)
    for name, rows in groups(one).items():
        if name in _SHOWN and is_shown(one, rows):
            labels[rows] = name
    kept = labels != ""
    if len(set(labels[kept])) < 2:
        return None
    return lda(
        one.sigma[kept],
        labels[kept].tolist(),
        title=f"Plane of signals: {one.name}",
        caption="Linear discriminants fitted on the very points shown, so groups look further "
        f"apart than new ones would. Groups of fewer than {FEWEST} goals are left out.",
    )
