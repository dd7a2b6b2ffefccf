"""Figure 2 of the paper, in our reading: how drafts turn harmful or refusing, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
from numpy.typing import NDArray

from demur.study.evidence import Evidence
from demur.viz.curves import Point, curves
from demur.viz.figures import Figure

#: Shares of a generation's steps at which it is looked at.
_SHARES = [(i + 1) / 16 for i in range(16)]


def dynamics_figure(one: Evidence) -> Figure | None:
    """Share of attacked harmful generations whose draft is harmful, and whose draft refuses.

    None where they are too few to show.
    """
    chosen = one.rows("harmful", "wrapped")
    lines: dict[str, list[Point]] = {}
    for name, column in (("harmful draft", "drafts"), ("refusing draft", "refusing")):
        steps = one.columns[column]
        lines[name] = [(share, one.rate(_at(steps, share), chosen)) for share in _SHARES]
    return curves(
        lines,
        title=f"Drafts over steps: {one.name}",
        xlabel="share of the steps",
        ylabel="share of generations",
        caption="Attacked harmful prompts; our reading of the paper's figure 2. An autoregressive "
        "draft is the prefix.",
    )


def _at(steps: Sequence[str], share: float) -> NDArray[np.bool_]:
    """``[N]`` each generation's verdict when this share of its steps has run."""
    return np.array([marks[max(0, ceil(share * len(marks)) - 1)] == "1" for marks in steps])
