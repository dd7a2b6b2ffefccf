"""The look that all figures share: paper, ink, colours, and the way out as SVG and PDF."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from demur.viz.svg import INK, embed

#: Okabe and Ito: bluish green, vermilion, and the colours of groups that are no reference.
COMPLYING = "#009e73"
REFUSING = "#d55e00"
OTHERS = ("#1a7fc9", "#b765a0", "#c98a00", "#7a7f87")
#: Line styles and markers that say again what a colour says.
DASHES: tuple[Any, ...] = ((0, (4, 2)), (0, (1, 1.2)), (0, (6, 2, 1, 2)), "-")
MARKERS = "os^Dv"

#: Inches; at 360 pixels of page width the text is still about 10 pixels high.
_WIDTH = 5.0
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "demur",
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 11,
    "hatch.linewidth": 0.8,
    "legend.fontsize": 10,
    "legend.handlelength": 2.6,
    "legend.columnspacing": 1.4,
    "legend.frameon": False,
}


@contextmanager
def drawing(title: str, *, height: float) -> Iterator[tuple[Figure, Axes]]:
    """An empty figure of ``height`` inches with its title, and its axes; the look holds inside."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        text = textwrap.fill(title, 48)
        figure.suptitle(text, x=0.012, ha="left", fontsize=12, fontweight="bold")
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        yield figure, axes


def legend(canvas: Figure, axes: Axes, *, columns: int) -> None:
    """Below the axes; one column where a name would not fit beside another."""
    handles, labels = axes.get_legend_handles_labels()
    fits = max(map(len, labels)) * columns <= 52
    canvas.legend(handles, labels, loc="outside lower left", ncols=columns if fits else 1)


def finish(figure: Figure, *, title: str, about: str) -> tuple[str, bytes]:
    """The figure as one SVG element, and as a PDF; the same figure gives the same."""
    svg, pdf = io.StringIO(), io.BytesIO()
    with warnings.catch_warnings():
        # The reader's fonts draw the text, so a glyph that matplotlib's own font lacks is no fault.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(svg, format="svg", transparent=True, metadata=nothing)
        dateless = {"CreationDate": None, "Creator": None, "Producer": None}
        figure.savefig(pdf, format="pdf", transparent=True, metadata=dateless)
    return embed(svg.getvalue(), title=title, description=about), pdf.getvalue()
