"""Tables as LaTeX: every row, nothing that LaTeX reads as its own."""

from __future__ import annotations

from demur.metrics import Estimate
from demur.viz.tables import Table, escape, to_latex


def test_every_row_and_the_note_are_there() -> None:
    rate = Estimate(0.5, 0.25, 0.75, 8, 4)
    table = Table("50% of it", ("model_a", "RR"), [("x & y", rate), ("z", 3)], note="100% “sure”")
    text = to_latex(table)
    assert "x \\& y & .50 {\\scriptsize [.25, .75]} \\\\" in text
    assert "z & 3 \\\\" in text
    assert "\\caption{50\\% of it}" in text
    assert "model\\_a & RR \\\\" in text
    assert "100\\% ``sure''" in text
    assert text.count("{tabular}") == 2
    assert "{lr}" in text


def test_what_latex_reads_is_escaped() -> None:
    assert escape("\\input{x}") == "\\textbackslash{}input\\{x\\}"
    assert escape("#$%&_^~") == "\\#\\$\\%\\&\\_\\textasciicircum{}\\textasciitilde{}"


def test_nothing_counted_is_a_dash() -> None:
    nothing = Estimate(float("nan"), float("nan"), float("nan"), 0, 0)
    assert "x & -- \\\\" in to_latex(Table("t", ("a", "b"), [("x", nothing)]))
