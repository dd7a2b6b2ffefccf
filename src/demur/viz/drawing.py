"""The look of all figures, and their export as SVG for a page and as PDF.

A strict content security policy forbids ``style`` attributes, and two figures on one page must not
share ids. So styles become presentation attributes, unused ids are removed, the others get a prefix
per figure, and ink takes the colour of the text around.
"""

from __future__ import annotations

import hashlib
import io
import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"

#: Colour of text and axes; replaced by the colour of the page's text.
INK = "#1b1e24"

#: Characters that XML does not allow: controls and lone surrogates.
_UNPRINTABLE = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")

#: Okabe and Ito's bluish green and vermilion, for the two sides of the signal.
COMPLYING = "#009e73"
REFUSING = "#d55e00"
#: Colours for lines without an outcome: blue, amber, sky blue, brown.
OTHERS = ("#1a7fc9", "#c98a00", "#56a5d8", "#8c6d46")
#: Line styles, so that colour is never the only difference.
DASHES: tuple[Any, ...] = ("-", (0, (4, 2)), (0, (6, 2, 1, 2)), (0, (1, 1.2)), (0, (2, 4)))
MARKERS = "Dv<>P"


@dataclass(frozen=True)
class Look:
    """How a line or a group of points is drawn in every figure."""

    colour: str
    dash: Any
    marker: str
    width: float = 1.9


#: Pattern of a line's name -> its look. The first match counts.
OUTCOMES = (
    (r"succe|harmful draft|harmful, answered|\bASR\b", Look("#b765a0", DASHES[2], "^")),
    (r"refus|\bRR\b|^harmful$", Look(REFUSING, DASHES[1], "s")),
    (r"failed", Look("#7a7f87", DASHES[3], "x")),
    (r"harmless", Look(COMPLYING, DASHES[0], "o")),
)


def looks(names: Sequence[str]) -> list[Look]:
    """The look of each line: by the outcome in its name, else in order.

    The references are thick and solid: the first name that begins with ``harmless``, and the first
    ``harmful`` or ``harmful, ...``. Two lines never share both colour and style.
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


#: Width in inches. At a page width of 360 pixels, text is still about 10 pixels high.
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
    """An empty figure of ``height`` inches with a title, and its axes, in the common style."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        text = textwrap.fill(title, 48)
        figure.suptitle(text, x=0.012, ha="left", fontsize=12, fontweight="bold")
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        yield figure, axes


def legend(canvas: Figure, axes: Axes, *, columns: int) -> None:
    """A legend below the axes, in one column if the names are long."""
    handles, labels = axes.get_legend_handles_labels()
    fits = max(map(len, labels)) * columns <= 52
    canvas.legend(handles, labels, loc="outside lower left", ncols=columns if fits else 1)


def finish(figure: Figure, *, title: str, about: str) -> tuple[str, bytes]:
    """The figure as an SVG element and as a PDF. Equal figures give equal bytes."""
    svg, pdf = io.StringIO(), io.BytesIO()
    with warnings.catch_warnings():
        # The reader's fonts draw the text, so matplotlib's font may lack a glyph.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(svg, format="svg", transparent=True, metadata=nothing)
        dateless = {"CreationDate": None, "Creator": None, "Producer": None}
        figure.savefig(pdf, format="pdf", transparent=True, metadata=dateless)
    return embed(svg.getvalue(), title=title, description=about), pdf.getvalue()


def embed(source: str, *, title: str, description: str) -> str:
    """Rewrite an SVG document as an element for a page. Equal input gives equal text."""
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    root = ElementTree.fromstring(_UNPRINTABLE.sub("", source))
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}style", f"{{{_SVG}}}metadata"):
                parent.remove(child)
    for element in root.iter():
        _presentation(element)
    _own_ids(root, prefix=f"f{hashlib.sha256(source.encode('utf-8', 'replace')).hexdigest()[:8]}-")
    root.set("role", "img")
    root.set("aria-label", _UNPRINTABLE.sub("", f"{title}. {description}".strip()))
    root.set("stroke-linejoin", "round")
    return ElementTree.tostring(root, encoding="unicode")


def _presentation(element: ElementTree.Element) -> None:
    for declaration in element.attrib.pop("style", "").split(";"):
        name, _, value = declaration.partition(":")
        if name.strip() == "font-family":
            value = "system-ui, sans-serif"
        if value:
            element.set(name.strip(), value.strip().replace(INK, "currentColor"))
    if element.tag == f"{{{_SVG}}}text":
        element.attrib.setdefault("fill", "currentColor")


def _own_ids(root: ElementTree.Element, *, prefix: str) -> None:
    link = f"{{{_XLINK}}}href"
    used = {e.attrib[link].lstrip("#") for e in root.iter() if link in e.attrib}
    for element in root.iter():
        for value in element.attrib.values():
            used.update(_REFERENCE.findall(value))
    for element in root.iter():
        identifier = element.attrib.pop("id", None)
        if identifier in used:
            element.set("id", f"{prefix}{identifier}")
        for name, value in element.attrib.items():
            element.set(name, _REFERENCE.sub(rf"url(#{prefix}\1)", value))
        if link in element.attrib:
            element.set(link, f"#{prefix}{element.attrib[link].lstrip('#')}")
