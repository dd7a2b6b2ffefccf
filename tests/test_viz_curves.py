"""Curves: the points, their intervals, and the numbers behind them."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from demur.errors import InputError
from demur.metrics import Estimate
from demur.viz.curves import curves

POINTS = [(x, Estimate(x / 8, x / 16, x / 4, 10, 5)) for x in (1, 2, 4)]
LABELS = {"xlabel": "block length", "ylabel": "rate"}


def test_points_are_data_and_the_drawing_is_one_element() -> None:
    found = curves({"RR": POINTS, "none": []}, title="a title", **LABELS, doubling=True)
    assert [tuple(row)[:2] for row in found.data.rows] == [("RR", 1), ("RR", 2), ("RR", 4)]
    root = ElementTree.fromstring(found.svg)
    assert root.tag.endswith("svg")
    text = " ".join("".join(e.itertext()) for e in root.iter() if e.tag.endswith("text"))
    for word in ("a title", "block length", "rate", "RR"):
        assert word in text
    assert found.pdf.startswith(b"%PDF")


def test_the_same_curve_is_the_same_drawing() -> None:
    made = [curves({"RR": POINTS}, title="t", **LABELS) for _ in range(2)]
    assert made[0].svg == made[1].svg
    assert made[0].pdf == made[1].pdf


def test_no_points_are_refused() -> None:
    with pytest.raises(InputError, match="no points"):
        curves({"RR": []}, title="t", **LABELS)
