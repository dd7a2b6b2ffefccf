"""The page in a real browser: what it says of wide tables, in print and on small screens."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from demur.metrics import Estimate
from demur.viz.report_page import Report, Section, write_report
from demur.viz.tables import Table

playwright = pytest.importorskip("playwright.sync_api")
BROWSER = shutil.which("chromium")
WIDE = Table(
    "Rates",
    ("arm", *(f"under attack {i}" for i in range(12))),
    [(f"arm {i}, some remasking", *[Estimate(0.5, 0.25, 0.75, 40, 30)] * 12) for i in range(4)],
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if BROWSER is None:
        pytest.skip("no chromium here")
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, Report("Title", "Lead.", "", [Section("Part", "Text.", tables=[WIDE])]))
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=arguments)
        opened = browser.new_page()
        opened.goto(path.as_uri())
        yield opened
        browser.close()


@pytest.mark.parametrize("width", [390, 900, 1440])
def test_the_page_never_scrolls_sideways_but_its_wide_tables_do(page: Any, width: int) -> None:
    page.emulate_media(media="screen")
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator(".goals").first.inner_text() == "30 goals"
    area = page.locator(".scroll")
    if width < 1000:
        assert area.evaluate("e => e.scrollWidth > e.clientWidth")
        area.evaluate("e => { e.scrollLeft = 200 }")
        left, name = (
            page.locator(one).first.evaluate("e => e.getBoundingClientRect().left")
            for one in (".scroll", "tbody th")
        )
        assert name == pytest.approx(left, abs=1)
        area.evaluate("e => { e.scrollLeft = 0 }")


def test_a_wide_table_fits_on_paper(page: Any) -> None:
    # The width of A4 on its side between margins of 12 mm.
    page.set_viewport_size({"width": 1032, "height": 700})
    page.emulate_media(media="print")
    assert page.locator("table").evaluate("e => e.getBoundingClientRect().right") <= 1032
