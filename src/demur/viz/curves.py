"""Curves of rates with their intervals over a number: steps, budgets, block lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from demur.metrics import Estimate
from demur.viz.drawing import drawing, finish, legend, looks
from demur.viz.figures import Figure
from demur.viz.tables import Table, Value

#: A point: where it is, and the rate there or words that say why there is none.
Point = tuple[float, Estimate | str]


def curves(
    lines: Mapping[str, Sequence[Point]],
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    doubling: bool = False,
    caption: str = "",
) -> Figure | None:
    """One line a name, with its 95% intervals as a band; None where no point is a number.

    Args:
        lines: name -> points from left to right, rates in [0, 1]; points without one are left out.
        title: drawn above.
        xlabel: what the places are.
        ylabel: what the rates are.
        doubling: places at powers of two apart stand at equal distances.
        caption: how to read it.
    """
    measured = {
        name: [(where, rate) for where, rate in points if isinstance(rate, Estimate)]
        for name, points in lines.items()
    }
    shown = {name: points for name, points in measured.items() if points}
    if not shown:
        return None
    rows: list[Sequence[Value]] = []
    with drawing(title, height=3.5) as (canvas, axes):
        for place, (name, look) in enumerate(zip(shown, looks(list(shown)), strict=True)):
            points = shown[name]
            x = [where for where, _ in points]
            y, low, high = np.array([(r.value, r.low, r.high) for _, r in points]).T
            axes.fill_between(x, low, high, color=look.colour, alpha=0.13, linewidth=0)
            axes.plot(
                x,
                y,
                color=look.colour,
                linestyle=look.dash,
                marker=look.marker,
                markersize=4,
                markevery=max(1, len(x) // 12),
                # Lines that coincide stay visible: the ones below are wider.
                linewidth=1.6 + 0.8 * (len(shown) - 1 - place),
                label=name,
            )
            rows += [(name, where, rate) for where, rate in points]
        axes.set(xlabel=xlabel, ylabel=ylabel, ylim=(-0.02, 1.02))
        if doubling:
            axes.set_xscale("log", base=2)
            ticks = sorted({where for points in shown.values() for where, _ in points})
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.minorticks_off()
        legend(canvas, axes, columns=2)
        svg, pdf = finish(
            canvas, title=title, about=f"{ylabel} over {xlabel} of {', '.join(shown)}"
        )
    return Figure(title, svg, Table(title, ("line", xlabel, ylabel), rows), caption, pdf)
