"""The look that all figures share: paper, ink, colours, and the way out as deterministic SVG."""

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


def finish(figure: Figure, *, title: str, about: str) -> str:
    """The figure as one SVG element; the same figure gives the same text."""
    out = io.StringIO()
    with warnings.catch_warnings():
        # The reader's fonts draw the text, so a glyph that matplotlib's own font lacks is no fault.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    return embed(out.getvalue(), title=title, description=about)
