"""Curves of rates with their intervals over a number: steps, budgets, block lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from demur.errors import InputError
from demur.metrics import Estimate
from demur.viz.drawing import DASHES, MARKERS, OTHERS, drawing, finish, legend
from demur.viz.figures import Figure
from demur.viz.tables import Table, Value

#: A point: where it is, and the rate there.
Point = tuple[float, Estimate]


def curves(
    lines: Mapping[str, Sequence[Point]],
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    doubling: bool = False,
    caption: str = "",
) -> Figure:
    """One line a name, with its 95% intervals as a band.

    Args:
        lines: name -> points from left to right, rates in [0, 1].
        title: drawn above.
        xlabel: what the places are.
        ylabel: what the rates are.
        doubling: places at powers of two apart stand at equal distances.
        caption: how to read it.

    Raises:
        InputError: there are no points.
    """
    if not any(lines.values()):
        raise InputError(f"Figure {title!r} has no points to draw. Compute some first.")
    rows: list[Sequence[Value]] = []
    with drawing(title, height=3.5) as (canvas, axes):
        for place, (name, points) in enumerate(lines.items()):
            if not points:
                continue
            x = [where for where, _ in points]
            y, low, high = np.array([(r.value, r.low, r.high) for _, r in points]).T
            colour = OTHERS[place % len(OTHERS)]
            axes.fill_between(x, low, high, color=colour, alpha=0.13, linewidth=0)
            axes.plot(
                x,
                y,
                color=colour,
                linestyle=DASHES[place % len(DASHES)],
                marker=MARKERS[place % len(MARKERS)],
                markersize=4,
                markevery=max(1, len(x) // 12),
                linewidth=1.9,
                label=name,
            )
            rows += [(name, where, rate) for where, rate in points]
        axes.set(xlabel=xlabel, ylabel=ylabel, ylim=(-0.02, 1.02))
        if doubling:
            axes.set_xscale("log", base=2)
            ticks = sorted({where for points in lines.values() for where, _ in points})
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.minorticks_off()
        legend(canvas, axes, columns=2)
        svg, pdf = finish(
            canvas, title=title, about=f"{ylabel} over {xlabel} of {', '.join(lines)}"
        )
    return Figure(title, svg, Table(title, ("line", xlabel, ylabel), rows), caption, pdf)
