"""The paper's figures as SVG: trajectories (12), recovery rates (5 and 6), the plane (13); and curves.

Rahimi et al., arXiv:2602.02600. Colours are Okabe and Ito's, for colour-blind readers; line styles,
hatches, markers and words repeat what colours say.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from demur.errors import InputError, SignalError
from demur.metrics import Estimate
from demur.viz.drawing import COMPLYING, INK, OTHERS, REFUSING, drawing, finish, legend, looks
from demur.viz.tables import Table, Value, number

#: Percentiles at the edges of the band of trajectories.
BAND = (10.0, 90.0)
#: Minimum number of signals of a group to take part in the discriminant fit.
FEWEST = 3

_HATCHES = ("", "///", "\\\\\\", "xx")


#: A point of a curve: its place, and the rate there, or words if there is none.
Point = tuple[float, Estimate | str]


@dataclass(frozen=True)
class Figure:
    """A drawing and the numbers it shows.

    Attributes:
        title: what it shows; also drawn.
        svg: one ``svg`` element, for a page or a file.
        data: the numbers drawn.
        caption: how to read it, for the page.
        pdf: the drawing as a PDF file.
    """

    title: str
    svg: str
    data: Table
    caption: str = ""
    pdf: bytes = field(default=b"", repr=False)

    def __str__(self) -> str:
        return self.svg


def trajectories(
    groups: Mapping[str, ArrayLike], *, title: str, ylabel: str = "sigma", caption: str = ""
) -> Figure:
    """Mean signal of each group with the band from its 10th to its 90th percentile (figure 12).

    Args:
        groups: name -> ``[N, T]`` signals in [0, 1]. The references are thick: the first name that
            begins with ``harmless``, and the first ``harmful`` or ``harmful, ...``.
        title: drawn above.
        ylabel: name of the signal.
        caption: how to read it.

    Raises:
        InputError: no signals at all, or groups of different T.
        SignalError: NaN or infinite signals.
    """
    signals = {name: _signals(name, values) for name, values in groups.items()}
    lengths = {values.shape[1] for values in signals.values() if len(values)}
    if len(lengths) != 1:
        shapes = {name: list(values.shape) for name, values in signals.items()}
        raise InputError(f"Figure {title!r} needs signals of one length, got {shapes}. Align them.")
    steps = np.arange(1, lengths.pop() + 1)
    rows: list[Sequence[Value]] = []
    with drawing(title, height=3.5) as (canvas, axes):
        _regions(axes, last=len(steps))
        for (name, values), look in zip(signals.items(), looks(list(signals)), strict=True):
            label = f"{name} (n = {len(values)})"
            line = {"color": look.colour, "linestyle": look.dash, "linewidth": look.width}
            if not len(values):
                axes.plot([], [], label=label, **line)
                continue
            mean = values.mean(axis=0)
            low, high = np.percentile(values, BAND, axis=0)
            axes.fill_between(steps, low, high, color=look.colour, alpha=0.13, linewidth=0)
            axes.plot(steps, mean, label=label, **line)
            found = np.column_stack([steps, mean, low, high]).tolist()
            rows += [(name, int(t), m, a, b, len(values)) for t, m, a, b in found]
        axes.set(xlabel="step", ylabel=ylabel, ylim=(0, 1), yticks=[0, 0.25, 0.5, 0.75, 1])
        legend(canvas, axes, columns=2)
        svg, pdf = finish(
            canvas, title=title, about=f"Mean {ylabel} a step of {', '.join(signals)}"
        )
    columns = ("group", "step", "mean", "10th percentile", "90th percentile", "n")
    return Figure(title, svg, Table(title, columns, rows), caption, pdf)


def irr_bars(
    rates: Mapping[str, Mapping[str, Estimate]], *, title: str, caption: str = ""
) -> Figure:
    """Internal recovery rate of each model and sampler at each threshold (figures 5 and 6).

    Args:
        rates: model or sampler -> threshold -> rate in [0, 1] with its interval.
        title: drawn above.
        caption: how to read it.

    Raises:
        InputError: there are no rates.
    """
    thresholds = list(dict.fromkeys(name for row in rates.values() for name in row))
    if not thresholds:
        raise InputError(f"Figure {title!r} has no rates to draw. Give at least one.")
    thick = 0.8 / len(thresholds)
    with drawing(title, height=1.5 + 0.27 * len(thresholds) * len(rates)) as (canvas, axes):
        for place, threshold in enumerate(thresholds):
            found = [
                (i, row[threshold]) for i, row in enumerate(rates.values()) if threshold in row
            ]
            centres = [i + (place - (len(thresholds) - 1) / 2) * thick for i, _ in found]
            axes.barh(
                centres,
                [np.nan_to_num(rate.value) for _, rate in found],
                height=thick * 0.86,
                color=OTHERS[place % len(OTHERS)],
                hatch=_HATCHES[place % len(_HATCHES)],
                edgecolor="#ffffff",
                linewidth=0,
                label=f"theta = {threshold}",
            )
            for centre, (_, rate) in zip(centres, found, strict=True):
                _interval(axes, centre, rate)
        axes.set(xlabel="internal recovery rate", xlim=(0, 1), yticks=range(len(rates)))
        axes.set_yticklabels([textwrap.fill(name, 18) for name in rates])
        axes.set_ylim(len(rates) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color=INK, alpha=0.12, linewidth=0.6)
        axes.set_axisbelow(True)
        legend(canvas, axes, columns=3)
        svg, pdf = finish(canvas, title=title, about=f"Recovery rates of {', '.join(rates)}")
    rows = [(name, t, rate) for name, row in rates.items() for t, rate in row.items()]
    return Figure(title, svg, Table(title, ("model", "theta", "IRR"), rows), caption, pdf)


def lda(signals: ArrayLike, labels: Sequence[str], *, title: str, caption: str = "") -> Figure:
    """The plane (for two groups: the line) that best separates the groups' signals (figure 13).

    Linear discriminants with a shrunk covariance, fitted on the points shown, so distances look
    larger than on new points. Groups of fewer than ``FEWEST`` are drawn hollow and take no part in
    the fit; the figure says so.

    Args:
        signals: ``[N, T]`` signals.
        labels: ``[N]`` group of each row.
        title: drawn above.
        caption: how to read it.

    Raises:
        InputError: another number of labels than signals.
        SignalError: NaN or infinite signals.
    """
    values, names = _signals(title, signals), np.array([str(label) for label in labels])
    if len(names) != len(values):
        raise InputError(
            f"{len(names)} labels for {len(values)} signals. Give one label per signal."
        )
    counts = {str(name): int((names == name).sum()) for name in dict.fromkeys(names.tolist())}
    small = [f"{name} (n = {n})" for name, n in counts.items() if n < FEWEST]
    note = f"Too few to take part: {', '.join(small)}" if small else ""
    points = _discriminants(values, names, [name for name, n in counts.items() if n >= FEWEST])
    rows: list[Sequence[Value]] = []
    with drawing(title, height=2.0 if points is None else 3.9) as (canvas, axes):
        axes.set_title(textwrap.fill(note, 60), loc="left", fontsize=10)
        if points is None:
            axes.set_axis_off()
            what = "Nothing to compare: this view needs\ntwo groups whose signals vary."
            axes.annotate(what, (0.5, 0.5), xycoords="axes fraction", ha="center", va="center")
        else:
            _scatter(axes, points, names, counts)
            rows = [(str(n), *xy) for n, xy in zip(names, points.tolist(), strict=True)]
            legend(canvas, axes, columns=2)
        svg, pdf = finish(canvas, title=title, about=note)
    columns = ("group", "discriminant 1", "discriminant 2")
    return Figure(title, svg, Table(title, columns, rows, note), caption, pdf)


def curves(
    lines: Mapping[str, Sequence[Point]],
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    doubling: bool = False,
    caption: str = "",
) -> Figure | None:
    """One line per name, with 95% intervals as a band; None if no point has a rate.

    Args:
        lines: name -> points from left to right, rates in [0, 1]. Points without a rate are left out.
        title: drawn above.
        xlabel: name of the places.
        ylabel: name of the rates.
        doubling: logarithmic axis of base 2.
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
                # Lower lines are wider, so that lines that coincide stay visible.
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


def _signals(name: str, values: ArrayLike) -> NDArray[np.float64]:
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 2:
        raise InputError(f"Signals of {name!r} must be [N, T]; got {list(found.shape)}.")
    if not np.isfinite(found).all():
        raise SignalError(f"Signals of {name!r} hold NaN or infinite values. Check their traces.")
    return found


def _regions(axes: Axes, *, last: int) -> None:
    axes.set_xlim(*((1, last) if last > 1 else (0.5, 1.5)))
    axes.axhline(0.5, color=INK, linewidth=0.8, alpha=0.6)
    for low, word, colour in ((0.5, "complying", COMPLYING), (0.0, "refusing", REFUSING)):
        axes.axhspan(low, low + 0.5, color=colour, alpha=0.11, linewidth=0)
        axes.annotate(
            word,
            (1.015, low + 0.25),
            color=colour,
            fontweight="bold",
            fontsize=10,
            rotation=90,
            va="center",
            xycoords="axes fraction",
        )


def _interval(axes: Axes, centre: float, rate: Estimate) -> None:
    if not np.isfinite(rate.value):
        axes.annotate("nothing to count", (0.01, centre), va="center", fontsize=9)
        return
    ends = np.nan_to_num([rate.low, rate.high], nan=rate.value)
    axes.plot(ends, [centre, centre], color=INK, marker="|", markersize=5, linewidth=1.3)
    text, at = number(rate.value), (ends[1], centre)
    axes.annotate(text, at, (5, 0), textcoords="offset points", va="center", fontsize=9)


def _discriminants(
    values: NDArray[np.float64], names: NDArray[np.str_], large: Sequence[str]
) -> NDArray[np.float64] | None:
    """``[N, 2]`` places; for two groups the second only spreads them; None for fewer groups."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    kept = np.isin(names, large)
    if len(large) < 2 or not np.ptp(values[kept], axis=0).any():
        return None
    model = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto")
    points: NDArray[np.float64] = model.fit(values[kept], names[kept]).transform(values)
    spread = np.arange(len(values))[:, None] * 0.618 % 1
    return points[:, :2] if points.shape[1] > 1 else np.hstack([points, spread])


def _scatter(
    axes: Axes, points: NDArray[np.float64], names: NDArray[np.str_], counts: Mapping[str, int]
) -> None:
    # The largest group is drawn first, so that it hides no other.
    drawn = sorted(zip(counts, looks(list(counts)), strict=True), key=lambda one: -counts[one[0]])
    for name, look in drawn:
        x, y = points[names == name].T
        axes.scatter(
            x,
            y,
            s=18,
            marker=look.marker,
            facecolor=look.colour if counts[name] >= FEWEST else "none",
            edgecolor=look.colour,
            alpha=0.6,
            label=f"{name} (n = {counts[name]})",
        )
    axes.set_xlabel("discriminant 1")
    if sum(n >= FEWEST for n in counts.values()) > 2:
        axes.set_ylabel("discriminant 2")
    else:
        axes.set_yticks([])
        axes.set_ylabel("spread to be seen")
