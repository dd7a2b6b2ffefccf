"""Tables: what a cell shows, what a program reads, and that nothing in a cell is markup."""

from __future__ import annotations

import csv
import io
import math
import re
from html.parser import HTMLParser

import pytest

from demur.errors import InputError
from demur.metrics import Estimate, rate
from demur.viz.tables import NOTHING as NO_NUMBER
from demur.viz.tables import TOO_FEW, Table, file_name, number, show

HOSTILE = "<script>alert(1)</script>"
NOTHING = Estimate(math.nan, math.nan, math.nan, 0, 0)


class Cells(HTMLParser):
    """Collects the texts and attributes of a table's body cells, and every tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.cells: list[tuple[dict[str, str | None], str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if "data-key" in dict(attrs):
            self.cells.append((dict(attrs), ""))

    def handle_data(self, data: str) -> None:
        if self.cells:
            attributes, text = self.cells[-1]
            self.cells[-1] = (attributes, text + data)

    def close(self) -> None:
        super().close()
        self.cells = [(attributes, " ".join(text.split())) for attributes, text in self.cells]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.83, ".83"),
        (-0.25, "-.25"),
        (1.0, "1.00"),
        (10.5, "10.50"),
        (0.0, ".00"),
        (0.0004, ".0004"),
        (0.0049, ".005"),
        (-0.0004, "-.0004"),
        (0.000004, "4.0e-06"),
        (0.996, ".996"),
        (0.99996, "1.0000"),
        (123.45, "123.5"),
        (20871.3, "20,871"),
        (1200, "1,200"),
        (math.nan, "–"),
    ],
)
def test_numbers_read_short(value: float, text: str) -> None:
    assert number(value) == text


def test_an_estimate_shows_its_interval_and_counts() -> None:
    value = Estimate(0.83, 0.78, 0.88, 240, 120)
    assert show(value).replace("\u00a0", " ") == ".83 [.78, .88]"
    cells = Cells(Table("T", ("model", "RR"), [("a", value)]).to_html()).cells
    attributes, text = cells[1]
    assert text == ".83 [.78, .88] 120 goals"
    assert attributes["title"] == "n = 240 in 120 groups"
    assert attributes["data-key"] == "0.83"


def test_a_real_rate_and_an_empty_one_stand_in_one_column() -> None:
    table = Table("T", ("model", "RR"), [("a", rate([True, False, True, True])), ("b", NOTHING)])
    (_, first), (empty, second) = Cells(table.to_html()).cells[1::2]
    assert first.startswith(".75 [")
    assert second == "–"
    assert empty["data-key"] == ""


def test_csv_gives_every_number_of_an_estimate_its_column() -> None:
    table = Table(
        "T", ("model", "RR"), [('a, "b"', Estimate(0.5, 0.25, 0.75, 8, 4)), ("c", "none")]
    )
    rows = list(csv.DictReader(io.StringIO(table.to_csv())))
    assert rows[0] == {
        "model": 'a, "b"',
        "RR": "0.5",
        "RR low": "0.25",
        "RR high": "0.75",
        "RR n": "8",
        "RR groups": "4",
    }
    assert rows[1]["RR"] == "none"


def test_markup_in_any_text_stays_text() -> None:
    table = Table(HOSTILE, (HOSTILE, 'x" onclick="y'), [(HOSTILE, 1)], note=HOSTILE)
    parsed = Cells(table.to_html())
    assert "script" not in parsed.tags
    assert HOSTILE in parsed.cells[0][1]


@pytest.mark.parametrize(
    ("columns", "rows", "message"),
    [
        (("a", "b"), [("x", 1), ("y",)], "Row 2 of table 'T' has 1 values for 2 columns"),
        (("a", "a"), [], "has a duplicate column"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(
    columns: tuple[str, ...], rows: list[tuple[str | int, ...]], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Table("T", columns, rows)


def test_file_names_are_plain() -> None:
    assert file_name("Time of each defense", "csv") == "time-of-each-defense.csv"
    assert re.fullmatch(r"rr-asr-test-[0-9a-f]{6}\.csv", file_name("RR & ASR / σ <test>", "csv"))
    assert re.fullmatch(r"shown-[0-9a-f]{6}\.csv", file_name("…", "csv"))


def test_titles_that_differ_are_files_that_do() -> None:
    long = "Refusals and successful attacks of many models under many attacks in"
    titles = ["AR, wide", "AR wide", "AR-wide", "ar wide", "Ar: wide", f"{long} one", f"{long} two"]
    assert len({file_name(title, "csv") for title in titles}) == len(titles)


def test_a_column_of_too_few_is_a_column_of_numbers() -> None:
    table = Table("T", ("arm", "TPR"), [("a", TOO_FEW), ("b", NO_NUMBER)])
    assert table.to_html().count('class="number"') == 3
