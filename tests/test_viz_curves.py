"""Curves: the points, their intervals, and the numbers behind them."""

from __future__ import annotations

from xml.etree import ElementTree

from demur.metrics import Estimate
from demur.viz.drawing import REFUSING, looks
from demur.viz.figures import curves

POINTS = [(x, Estimate(x / 8, x / 16, x / 4, 10, 5)) for x in (1, 2, 4)]
LABELS = {"xlabel": "block length", "ylabel": "rate"}


def test_points_are_data_and_the_drawing_is_one_element() -> None:
    found = curves({"RR": POINTS, "none": []}, title="a title", **LABELS, doubling=True)
    assert found is not None
    assert [tuple(row)[:2] for row in found.data.rows] == [("RR", 1), ("RR", 2), ("RR", 4)]
    root = ElementTree.fromstring(found.svg)
    assert root.tag.endswith("svg")
    text = " ".join("".join(e.itertext()) for e in root.iter() if e.tag.endswith("text"))
    for word in ("a title", "block length", "rate", "RR"):
        assert word in text
    assert found.pdf.startswith(b"%PDF")


def test_the_same_curve_is_the_same_drawing() -> None:
    made = [curves({"RR": POINTS}, title="t", **LABELS) for _ in range(2)]
    first, second = (figure for figure in made if figure)
    assert (first.svg, first.pdf) == (second.svg, second.pdf)


def test_points_without_a_number_are_left_out() -> None:
    found = curves({"RR": [*POINTS, (8, "n too small")]}, title="t", **LABELS)
    assert found is not None
    assert len(found.data.rows) == len(POINTS)
    assert curves({"RR": [(1, "n too small")], "ASR": []}, title="t", **LABELS) is None


def test_an_outcome_looks_the_same_in_every_figure() -> None:
    for names in (("ASR", "RR"), ("RR", "IRR", "ASR"), ("harmless prompts", "ASR", "RR")):
        found = dict(zip(names, looks(names), strict=True))
        assert (found["ASR"].colour, found["RR"].colour) == ("#b765a0", REFUSING)
    draft, refusing = looks(["harmful draft", "refusing draft"])
    assert (draft.colour, refusing.colour) == ("#b765a0", REFUSING)
    reference, broken = looks(["harmful, refused", "jailbreak refused"])
    assert reference.colour == broken.colour
    assert reference.dash != broken.dash
