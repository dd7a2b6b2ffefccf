"""Figures: valid SVG for a strict page, which follows the data and says what is missing."""

from __future__ import annotations

import math
import warnings
from xml.etree import ElementTree

import numpy as np
import pytest
from numpy.typing import NDArray

from demur.errors import InputError, SignalError
from demur.metrics import Estimate
from demur.viz.figures import Figure, irr_bars, lda, trajectories

HOSTILE = "<script>alert(1)</script> $x_y$ & \x00"
SVG = "{http://www.w3.org/2000/svg}"


def signals(mean: float, *, rows: int = 20, steps: int = 8, seed: int = 0) -> NDArray[np.float64]:
    noise = np.random.default_rng(seed).normal(0, 0.05, size=(rows, steps))
    return np.clip(mean + noise, 0, 1)


def groups(shift: float = 0.0) -> dict[str, NDArray[np.float64]]:
    return {
        "harmless": signals(0.9),
        "harmful": signals(0.1, seed=1),
        "role play": signals(0.5 + shift, seed=2),
    }


def estimate(value: float) -> Estimate:
    return Estimate(value, value - 0.05, value + 0.05, 50, 25)


def three() -> tuple[NDArray[np.float64], list[str]]:
    found = groups()
    labels = [name for name, rows in found.items() for _ in rows]
    return np.concatenate(list(found.values())), labels


def parse(figure: Figure) -> ElementTree.Element:
    return ElementTree.fromstring(figure.svg)


def words(figure: Figure) -> str:
    return " ".join("".join(e.itertext()) for e in parse(figure).iter(f"{SVG}text"))


def every() -> list[Figure]:
    values, labels = three()
    return [
        trajectories(groups(), title="A"),
        irr_bars({"ar": {"0.5": estimate(0.1)}, "dlm": {"0.5": estimate(0.5)}}, title="B"),
        lda(values, labels, title="C"),
    ]


def test_figures_stand_in_a_page_that_forbids_styles() -> None:
    seen: set[str] = set()
    for figure in every():
        root = parse(figure)
        assert root.tag == f"{SVG}svg"
        assert root.get("aria-label")
        assert not list(root.iter(f"{SVG}style"))
        assert not [e for e in root.iter() if "style" in e.attrib]
        ids = {e.attrib["id"] for e in root.iter() if "id" in e.attrib}
        assert ids
        assert not ids & seen
        seen |= ids


def test_every_reference_inside_a_figure_is_met() -> None:
    for figure in every():
        root = parse(figure)
        ids = {e.attrib["id"] for e in root.iter() if "id" in e.attrib}
        link = "{http://www.w3.org/1999/xlink}href"
        wanted = {e.attrib[link][1:] for e in root.iter() if link in e.attrib}
        wanted |= {e.attrib["clip-path"][5:-1] for e in root.iter() if "clip-path" in e.attrib}
        assert wanted <= ids


def test_the_same_data_gives_the_same_figure_and_other_data_another() -> None:
    assert trajectories(groups(), title="A").svg == trajectories(groups(), title="A").svg
    assert trajectories(groups(), title="A").svg != trajectories(groups(0.1), title="A").svg
    one, other = ({"ar": {"0.5": estimate(value)}} for value in (0.1, 0.2))
    assert irr_bars(one, title="B").svg != irr_bars(other, title="B").svg
    values, labels = three()
    assert lda(values, labels, title="C").svg != lda(values[::-1], labels, title="C").svg


def test_trajectories_carry_the_numbers_they_draw() -> None:
    found = groups()
    data = trajectories(found, title="A").data
    row = next(r for r in data.rows if r[:2] == ("role play", 3))
    column = found["role play"][:, 2]
    assert row[2:] == pytest.approx((column.mean(), *np.percentile(column, [10, 90]), 20))


def test_references_stand_out_and_the_regions_are_named() -> None:
    figure = trajectories(groups(), title="A")
    thick = [e for e in parse(figure).iter(f"{SVG}path") if e.get("stroke-width") == "3"]
    assert {e.get("stroke") for e in thick} == {"#009e73", "#d55e00"}
    assert all(word in words(figure) for word in ("complying", "refusing", "role play (n = 20)"))


def test_an_empty_group_is_named_with_its_count() -> None:
    figure = trajectories({**groups(), "flip": np.empty((0, 8))}, title="A")
    assert "flip (n = 0)" in words(figure)


def test_bars_say_when_there_is_nothing_to_count() -> None:
    nothing = Estimate(math.nan, math.nan, math.nan, 0, 0)
    figure = irr_bars({"ar": {"0.5": estimate(0.3), "0.4": nothing}}, title="B")
    assert "nothing to count" in words(figure)
    assert ".30" in words(figure)


def test_the_plane_separates_groups_that_differ() -> None:
    values, labels = three()
    rows = lda(values, labels, title="C").data.rows
    places = {name: np.array([r[1:] for r in rows if r[0] == name], float) for name in set(labels)}
    for name, points in places.items():
        for other in (p for n, p in places.items() if n != name):
            gap = np.linalg.norm(points.mean(0) - other.mean(0))
            assert gap > 4 * points.std(0).max()


def test_the_plane_says_which_groups_are_too_small() -> None:
    values, labels = three()
    figure = lda(values[:42], labels[:42], title="C")
    assert "Too few to take part: role play (n = 2)" in words(figure)
    assert len(figure.data.rows) == 42
    alone = lda(values[:2], labels[:2], title="C")
    assert "Nothing to compare" in words(alone)
    assert not alone.data.rows


def test_constant_signals_are_no_plane() -> None:
    assert "Nothing to compare" in words(lda(np.ones((6, 4)), list("aaabbb"), title="C"))


def test_any_text_is_drawn_as_text() -> None:
    values, _ = three()
    figures = [
        trajectories({HOSTILE: signals(0.5)}, title=HOSTILE, ylabel=HOSTILE),
        irr_bars({HOSTILE: {HOSTILE: estimate(0.2)}}, title=HOSTILE),
        lda(values, [HOSTILE] * 30 + ["b"] * 30, title=HOSTILE),
    ]
    for figure in figures:
        assert not list(parse(figure).iter(f"{SVG}script"))
        assert "<script>alert(1)</script>" in words(figure)
        assert "$x_y$" in words(figure)


def test_a_script_the_drawing_font_lacks_raises_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "拒否" in words(trajectories({"拒否": signals(0.5)}, title="拒否"))


@pytest.mark.parametrize(
    ("found", "error", "message"),
    [
        ({}, InputError, "needs signals of one length"),
        ({"a": signals(0.5), "b": signals(0.5, steps=9)}, InputError, "of one length"),
        ({"a": np.ones(4)}, InputError, "must be \\[N, T\\]; got \\[4\\]"),
        ({"a": np.full((2, 3), np.nan)}, SignalError, "NaN or infinite"),
    ],
)
def test_signals_that_cannot_be_drawn_are_refused(
    found: dict[str, NDArray[np.float64]], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        trajectories(found, title="A")


def test_rates_and_labels_that_cannot_be_drawn_are_refused() -> None:
    with pytest.raises(InputError, match="no rates"):
        irr_bars({"a": {}}, title="B")
    with pytest.raises(InputError, match="2 labels for 20 signals"):
        lda(signals(0.5), ["a", "b"], title="C")
