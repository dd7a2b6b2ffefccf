"""The look that all figures share: paper, ink, colours, and the way out as SVG and PDF."""

from __future__ import annotations

import io
import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from demur.viz.svg import INK, embed

#: After Okabe and Ito: bluish green and vermilion for both sides of the signal.
COMPLYING = "#009e73"
REFUSING = "#d55e00"
#: Colours of what has no outcome: blue, amber, sky blue, brown.
OTHERS = ("#1a7fc9", "#c98a00", "#56a5d8", "#8c6d46")
#: Line styles that say again what a colour says, for lines whose own style is taken.
DASHES: tuple[Any, ...] = ("-", (0, (4, 2)), (0, (6, 2, 1, 2)), (0, (1, 1.2)), (0, (2, 4)))
MARKERS = "Dv<>P"


@dataclass(frozen=True)
class Look:
    """How a line or a group of points is drawn, in every figure alike."""

    colour: str
    dash: Any
    marker: str
    width: float = 1.9


#: How each outcome looks: what a line's name says -> its look. The first that fits counts.
OUTCOMES = (
    (r"succe|harmful draft|harmful, answered|\bASR\b", Look("#b765a0", DASHES[2], "^")),
    (r"refus|\bRR\b|^harmful$", Look(REFUSING, DASHES[1], "s")),
    (r"failed", Look("#7a7f87", DASHES[3], "x")),
    (r"harmless", Look(COMPLYING, DASHES[0], "o")),
)


def looks(names: Sequence[str]) -> list[Look]:
    """The look of each line: by its outcome, and in order where the name says none.

    The references of a figure, the first name that is or begins with ``harmless`` and the first
    ``harmful`` or ``harmful, ...``, are thick and solid. Two lines never share both colour and style.
    """
    thick = {
        next((n for n in names if re.match(words, n, re.IGNORECASE)), None)
        for words in ("harmless", "harmful(,|$)")
    }
    others = iter(range(len(names)))
    found: list[Look] = []
    for name in names:
        look = next((look for words, look in OUTCOMES if re.search(words, name)), None)
        if look is None:
            place = next(others)
            ring = place % len(OTHERS)
            look = Look(OTHERS[ring], DASHES[place % len(DASHES)], MARKERS[place % len(MARKERS)])
        if name in thick:
            look = replace(look, dash="-", width=3.0)
        taken = [other.dash for other in found if other.colour == look.colour]
        free = [dash for dash in (look.dash, *DASHES) if dash not in taken]
        found.append(replace(look, dash=free[0] if free else look.dash))
    return found


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
