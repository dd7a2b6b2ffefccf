"""The report in a real browser, from disk: it plays, moves, listens to keys and runs nothing else."""

from __future__ import annotations

import csv
import math
import shutil
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

import demur
from demur.metrics import rate
from demur.models.base import LanguageModel
from demur.sampling import Autoregressive, Masked
from demur.sri import Anchors
from demur.types import Traces
from demur.viz.figures import trajectories
from demur.viz.replay import Scene, replay_html, scene
from demur.viz.report_page import Report, Section, write_report
from demur.viz.tables import Table

HOSTILE = "w1 <script>window.broken = 1</script> <img src=x onerror='window.broken = 2'>"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
# A busy machine may be slow; what is waited for still has to come.
expect.set_options(timeout=30_000)
LOOKS = list(product(SIZES, ("light", "dark")))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        yield found
        found.close()


@pytest.fixture(scope="module")
def scenes(tiny_ar: LanguageModel, tiny_dlm: LanguageModel) -> list[Scene]:
    written = demur.trace(tiny_ar, [HOSTILE], sampler=Autoregressive(steps=12))
    diffused = demur.trace(
        tiny_dlm, [HOSTILE], sampler=Masked(steps=8, gen_length=16, block_length=16)
    )
    return [
        made(written, tiny_ar, title="tiny-ar, left to right <b>"),
        made(diffused, tiny_dlm, title="tiny-dlm, low confidence", flagged=5),
    ]


def made(traces: Traces, model: LanguageModel, **about: Any) -> Scene:
    phi = traces.phi
    drift = np.linspace(0.5, -0.5, phi.shape[1], dtype=np.float32)[None, :, None]
    anchors = Anchors(phi[0] + drift[0], phi[0] - drift[0] + 0.1)
    return scene(
        traces[0],
        demur.signal(phi, anchors)[0],
        text_of=lambda token: model.decode([token]) or "·",
        refusal_words={"w3"},
        harmful_words={"w7"},
        **about,
    )


@pytest.fixture(scope="module")
def report(scenes: list[Scene], tmp_path_factory: pytest.TempPathFactory) -> Path:
    signals = np.random.default_rng(0).uniform(size=(20, 6))
    rows = [
        ("b", rate([True, False, True])),
        ("c", rate([])),
        ("d", "n too small"),
        ("a", rate([False] * 5)),
    ]
    section = Section(
        HOSTILE,
        HOSTILE,
        tables=[Table("Rates", ("model", "RR"), rows)],
        figures=[trajectories({"harmless": signals, "harmful": signals / 2}, title="Signals")],
        scenes=scenes,
    )
    page = Report("Report", HOSTILE, "Toy models.", [section], {"Seed": "0"})
    return write_report(tmp_path_factory.mktemp("report") / "report.html", page)


@pytest.fixture
def page(browser: Browser, report: Path) -> Iterator[Page]:
    yield from opened(browser, report)


def opened(
    browser: Browser, path: Path, *, size: str = "desktop", scheme: Any = "light"
) -> Iterator[Page]:
    """The page from disk; any console message, error or request to elsewhere fails the test."""
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, accept_downloads=True
    )
    found = context.new_page()
    problems: list[str] = []
    found.on("console", lambda message: problems.append(f"{message.type}: {message.text}"))
    found.on("pageerror", lambda error: problems.append(str(error)))
    found.on("request", lambda request: problems.append(request.url))
    found.goto(path.as_uri())
    problems.remove(path.as_uri())
    yield found
    context.close()
    assert not problems


def cells(page: Page, place: int) -> list[str]:
    return page.locator(".scene").nth(place).locator(".grid li").all_text_contents()


def points(page: Page, place: int) -> int:
    line = page.locator(".scene").nth(place).locator("polyline")
    return len((line.get_attribute("points") or "").split())


def slide(page: Page, clock: int) -> None:
    page.get_by_role("slider").fill(str(clock))


def steps_at(scenes: list[Scene], clock: int) -> list[int]:
    """Step of each scene at a moment of the clock, which runs to the longest scene's end."""
    lengths = [len(each.steps) for each in scenes]
    return [math.ceil(clock * length / max(lengths)) for length in lengths]


@pytest.mark.parametrize(("size", "scheme"), LOOKS)
def test_it_plays_to_the_end(
    browser: Browser, report: Path, scenes: list[Scene], size: str, scheme: str
) -> None:
    lengths = [len(each.steps) for each in scenes]
    for page in opened(browser, report, size=size, scheme=scheme):
        slide(page, 0)
        assert points(page, 0) == 0
        page.get_by_label("Speed").select_option("4")
        page.get_by_role("button", name="Play").click()
        expect(page.get_by_role("button", name="Pause")).to_be_visible()
        expect(page.get_by_role("slider")).to_have_value(str(max(lengths)))
        expect(page.get_by_role("button", name="Play")).to_be_visible()
        assert [points(page, 0), points(page, 1)] == lengths


@pytest.mark.parametrize(("size", "scheme"), LOOKS)
def test_nothing_is_wider_than_the_screen(
    browser: Browser, report: Path, size: str, scheme: str
) -> None:
    for page in opened(browser, report, size=size, scheme=scheme):
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
        boxes = [each.bounding_box() for each in page.locator(".scene").all()]
        assert boxes[0]
        assert boxes[1]
        assert (boxes[0]["y"] == boxes[1]["y"]) == (size == "desktop")
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        lightness = sum(map(int, paper.removeprefix("rgb(").removesuffix(")").split(","))) / 3
        assert (lightness > 200) == (scheme == "light")


def test_the_slider_moves_both_scenes_in_proportion(page: Page, scenes: list[Scene]) -> None:
    assert len(scenes[0].steps) != len(scenes[1].steps)
    for clock in (3, 6, 8):
        slide(page, clock)
        for place, step in enumerate(steps_at(scenes, clock)):
            wanted = [cell.text for cell in scenes[place].steps[step - 1]]
            assert cells(page, place) == wanted
            assert points(page, place) == step


def test_cells_say_their_state_and_mark(page: Page, scenes: list[Scene]) -> None:
    slide(page, 6)
    grid = page.locator(".scene").nth(1).locator(".grid li")
    for item, cell in zip(grid.all(), scenes[1].steps[steps_at(scenes, 6)[1] - 1], strict=True):
        assert item.get_attribute("data-state") == cell.state
        assert item.get_attribute("data-mark") == cell.mark
    slide(page, 0)
    assert set(cells(page, 1)) == {""}
    assert grid.first.get_attribute("data-state") == "masked"


def test_keys_step_jump_and_play(page: Page, scenes: list[Scene]) -> None:
    slider, replay = page.get_by_role("slider"), page.locator("[data-replay]")
    replay.focus()
    for key, value in (
        ("Home", "0"),
        ("ArrowRight", "1"),
        ("ArrowRight", "2"),
        ("ArrowLeft", "1"),
        ("End", str(max(len(each.steps) for each in scenes))),
    ):
        page.keyboard.press(key)
        expect(slider).to_have_value(value)
    page.keyboard.press("Space")
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    page.keyboard.press("Space")
    expect(page.get_by_role("button", name="Play")).to_be_visible()


def test_the_moment_is_said_to_those_who_listen(page: Page, scenes: list[Scene]) -> None:
    page.get_by_role("button", name="To the beginning").click()
    page.get_by_role("button", name="One step on").click()
    said = page.locator("[aria-live]")
    sigma = f"{scenes[0].sigma[0]:.2f}".lstrip("0")
    expect(said).to_contain_text(f"step 1 of {len(scenes[0].steps)}, sigma {sigma}")
    page.get_by_role("button", name="To the end").click()
    expect(said).to_contain_text("flagged at step 5")


def test_the_flag_appears_when_its_step_is_reached(page: Page) -> None:
    label = page.locator(".scene").nth(1).get_by_text("flagged", exact=True)
    slide(page, 4)
    expect(label).to_be_hidden()
    slide(page, 9)
    expect(label).to_be_visible()


def test_hostile_text_is_shown_and_does_not_run(page: Page) -> None:
    slide(page, 6)
    assert page.evaluate("window.broken") is None
    expect(page.locator(".prompt").first).to_have_text(HOSTILE)
    expect(page.get_by_role("heading", name=HOSTILE)).to_be_visible()
    expect(page.get_by_role("heading", name="tiny-ar, left to right <b>")).to_be_visible()


def test_columns_sort_by_click_and_key_with_the_uncounted_last(page: Page) -> None:
    def order() -> list[str]:
        return page.locator("table tbody th").all_text_contents()

    heading = page.get_by_role("columnheader", name="RR")
    heading.get_by_role("button").click()
    assert order() == ["b", "a", "c", "d"]
    assert heading.get_attribute("aria-sort") == "descending"
    page.keyboard.press("Enter")
    assert order() == ["a", "b", "c", "d"]
    assert heading.get_attribute("aria-sort") == "ascending"


def test_the_switch_changes_page_and_replay(page: Page) -> None:
    colour = "e => getComputedStyle(e).backgroundColor"
    replay = page.locator("[data-replay]")
    before = replay.evaluate(colour), page.locator("body").evaluate(colour)
    page.get_by_role("button", name="Light or dark").click()
    after = replay.evaluate(colour), page.locator("body").evaluate(colour)
    assert all(one != other for one, other in zip(before, after, strict=True))


def test_the_numbers_of_a_figure_download(page: Page) -> None:
    with page.expect_download() as waiting:
        page.get_by_role("link", name="Signals as CSV").click()
    assert waiting.value.suggested_filename == "signals.csv"
    with Path(waiting.value.path()).open(newline="") as handle:
        assert len(list(csv.DictReader(handle))) == 12


def test_a_live_page_can_push_steps(browser: Browser, scenes: list[Scene], tmp_path: Path) -> None:
    path = tmp_path / "live.html"
    path.write_text(f"<!doctype html><meta charset='utf-8'>{replay_html(scenes[:1])}", "utf-8")
    for page in opened(browser, path):
        page.evaluate("""() => {
            const scene = { title: "live", prompt: "p", total: 4, steps: [] };
            window.live = Replay.mount(document.querySelector("[data-replay]"), [scene]);
        }""")
        push = "step => window.live.push(step)"
        page.evaluate(push, {"cells": [["one", "d", ""], ["", "m", ""]], "sigma": 0.75})
        assert cells(page, 0) == ["one", ""]
        page.evaluate(push, {"cells": [["uno", "c", "r"], ["two", "d", "h"]], "sigma": 0.25})
        assert cells(page, 0) == ["uno", "two"]
        assert points(page, 0) == 2
        expect(page.get_by_role("slider")).to_have_value("2")
        expect(page.locator(".readout")).to_contain_text("σ .25")
        slide(page, 1)
        page.evaluate(push, {"cells": [["uno", "c", ""], [HOSTILE, "c", ""]], "sigma": None})
        assert cells(page, 0) == ["one", ""]
        slide(page, 3)
        assert cells(page, 0) == ["uno", HOSTILE]
        assert page.evaluate("window.broken") is None


def test_the_fragment_alone_has_its_own_switch(
    browser: Browser, scenes: list[Scene], tmp_path: Path
) -> None:
    path = tmp_path / "fragment.html"
    path.write_text(f"<!doctype html><meta charset='utf-8'>{replay_html(scenes)}", "utf-8")
    colour = "e => getComputedStyle(e).backgroundColor"
    for page in opened(browser, path, scheme="dark"):
        replay = page.locator("[data-replay]")
        dark = replay.evaluate(colour)
        page.get_by_role("button", name="Light or dark").click()
        assert replay.evaluate(colour) != dark
