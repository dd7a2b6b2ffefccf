"""The live page in a real browser: models side by side, step by step, stopped by the guard."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

import demur
from demur.models.base import LanguageModel
from demur.organism import world
from demur.types import Prompt, Turn
from served import QUESTION, Served, a_guard, at_threshold, serving, until

KEY = "a-key-that-is-long-enough"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
HOSTILE = "how can i share a puzzle ? <img src=x onerror='window.broken = 1'>"
expect.set_options(timeout=60_000)


@pytest.fixture(scope="module")
def stopped_at() -> dict[str, Any]:
    return {}


@pytest.fixture(scope="module")
def server(stopped_at: dict[str, Any]) -> Iterator[Served]:
    """Two models; a guard that stops the first one's answer to one prompt in the middle."""
    left, right = demur.load("organism-ar"), demur.load("organism-dlm")
    guard = a_guard(left)
    prompts = world.prompts("test", "harmful", attack="role_play", n=16)
    statistics = guard.statistics(demur.trace(left, prompts, batch_size=16))
    for row, prompt in enumerate(prompts):
        rises = np.flatnonzero(np.diff(statistics[row, :20]) > 1e-3) + 1
        if len(late := rises[rises >= 6]):
            threshold = float(statistics[row, late[0] - 1 : late[0] + 1].mean())
            stopped_at.update(prompt=prompt.text, step=int(late[0]) + 1)
            with serving([left, right], [at_threshold(guard, threshold)], live=True) as found:
                yield found
            return
    raise AssertionError("no answer becomes more suspicious on its way")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        yield found
        found.close()


@pytest.fixture(params=SIZES)
def page(browser: Browser, server: Served, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page; a message on its console or a request to elsewhere fails the test."""
    width, height = SIZES[request.param]
    context = browser.new_context(viewport={"width": width, "height": height})
    found, problems = context.new_page(), list[str]()
    found.on("console", lambda message: problems.append(message.text))
    found.on("pageerror", lambda error: problems.append(str(error)))
    found.on("request", lambda r: r.url.startswith(server.url) or problems.append(r.url))
    found.goto(server.url)
    yield found
    context.close()
    # The browser notes every refusal by itself.
    expected = ("data:", "Failed to load resource: the server responded with a status of 400")
    assert not [each for each in problems if not each.startswith(expected)]


def ask(page: Page, prompt: str) -> None:
    page.get_by_label("Prompt").fill(prompt)
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("button", name="Ask")).to_be_enabled()


def test_the_guard_stops_one_and_the_other_goes_on(page: Page, stopped_at: dict[str, Any]) -> None:
    ask(page, stopped_at["prompt"])
    step = stopped_at["step"]
    status, scenes = page.locator("#status"), page.locator(".scene")
    expect(status).to_contain_text(f"organism-ar: stopped by the guard at step {step}")
    expect(status).to_contain_text("organism-dlm: not guarded")
    expect(scenes.nth(0).get_by_text("flagged", exact=True)).to_be_visible()
    assert scenes.nth(0).locator(".grid li").count() == step
    expect(status).to_contain_text(
        f"organism-ar, without the guard: the guard would stop it at step {step}"
    )
    expect(scenes.nth(1).get_by_text("flagged", exact=True)).to_be_visible()
    assert scenes.nth(1).locator(".grid li").count() > step
    expect(scenes.nth(1).locator(".ending")).to_contain_text(f"would stop it at step {step}")
    assert len(scenes.nth(2).locator(".grid li").all_text_contents()) == 64
    assert scenes.nth(2).locator(".grid [data-mark=refusal]").count() > 0
    for place in (0, 2):  # the guard's signal, and that of the shipped anchors
        expect(scenes.nth(place).locator(".chart")).to_be_visible()
    left = page.locator(".outcome .left")
    assert 0 < len(left.nth(0).inner_text().split()) < step + 3
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    boxes = [scene.bounding_box() for scene in scenes.all()]
    assert boxes[0]
    assert boxes[1]
    assert (boxes[0]["y"] == boxes[1]["y"]) == (page.viewport_size["width"] > 600)
    if folder := os.environ.get("DEMUR_SCREENSHOTS"):
        name = f"live-{page.viewport_size['width']}.png"
        page.screenshot(path=str(Path(folder) / name), full_page=True)


def test_what_is_typed_is_shown_and_does_not_run(page: Page) -> None:
    ask(page, HOSTILE)
    expect(page.locator(".demur-replay .prompt")).to_have_text(HOSTILE)
    assert page.evaluate("window.broken") is None


def test_the_replay_steps_back_by_key(page: Page, stopped_at: dict[str, Any]) -> None:
    ask(page, stopped_at["prompt"])
    page.locator("#replay").focus()
    page.keyboard.press("Home")
    expect(page.get_by_role("slider")).to_have_value("0")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".scene").nth(2).locator(".readout")).to_contain_text("step 1 of 32")


def test_what_is_not_answered_is_said_for_each_model(page: Page, server: Served) -> None:
    ask(page, "puzzle " * 600)
    status, cards = page.locator("#status"), page.locator(".outcome")
    titles = "organism-ar", "organism-ar, without the guard", "organism-dlm"
    said = [f"{title}: not answered: The prompt is too long" for title in titles]
    expect(status).to_have_text(f"{'; '.join(said)}.")
    for card in cards.all():
        expect(card.locator(".verdict")).to_have_text("not answered: The prompt is too long")
        expect(card.locator(".left")).to_have_text("nothing")


def test_a_blank_prompt_is_not_sent(page: Page) -> None:
    ask(page, "   ")
    expect(page.locator("#status")).to_have_text("Type a prompt first.")
    expect(page.locator("#steps")).to_be_hidden()


def test_controls_are_large_and_speak_of_what_is_there(page: Page) -> None:
    ask(page, "how can i share a puzzle ?")
    for control in page.locator("#replay :is(button, select)").all():
        box = control.bounding_box()
        assert box
        assert min(box["width"], box["height"]) >= 44
    expect(page.get_by_text("harmful word")).to_be_hidden()
    assert page.get_by_role("slider").evaluate("e => getComputedStyle(e).padding") == "0px"


def test_stop_ends_the_asking(page: Page, server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    states = LanguageModel.states

    def slowly(*given: Any, **named: Any) -> Any:
        """An answer must not be over before Stop can be clicked."""
        time.sleep(0.1)
        return states(*given, **named)

    monkeypatch.setattr(LanguageModel, "states", slowly)
    page.get_by_label("Prompt").fill("how can i share a puzzle ?")
    page.get_by_role("button", name="Ask").click()
    expect(page.locator(".scene").first).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Ask")).to_be_enabled()
    expect(page.locator(".outcome .verdict").first).to_have_text("stopped by you")
    for name in server.engines:
        until(lambda: server.figure("rows", model=name) == 0)  # noqa: B023


def test_examples_ask_and_a_link_only_fills(page: Page, server: Served) -> None:
    page.goto(f"{server.url}/#prompt=how%20can%20i%20share%20a%20c%2B%2B%20kite%20%3F")
    page.reload()
    field = page.get_by_label("Prompt")
    expect(field).to_have_value("how can i share a c++ kite ?")
    expect(page.locator("#status")).to_be_empty()
    expect(page.locator("#steps")).to_be_hidden()
    link = page.get_by_role("link", name="Link to this prompt")
    assert (link.get_attribute("href") or "").endswith("c%2B%2B%20kite%20%3F")
    example = page.get_by_role("group", name="Examples").get_by_role("button").first
    text = example.inner_text()
    example.click()
    expect(page.locator("#status")).to_contain_text("organism-dlm: not guarded")
    expect(field).to_have_value(text)


def test_without_anchors_the_page_shows_the_text_only(browser: Browser, monkeypatch: Any) -> None:
    monkeypatch.setattr("demur.serve.host.shipped", lambda mark: None)
    with serving([demur.load("organism-ar-small")], live=True) as server:
        page = browser.new_page()
        page.goto(server.url)
        ask(page, "how can i share a puzzle ?")
        expect(page.locator(".scene .grid li").first).to_be_visible()
        expect(page.locator(".scene .chart")).to_be_hidden()
        expect(page.locator(".readout strong")).to_be_hidden()
        for absent in ("masked", "draft, may still change"):
            expect(page.locator(".legend").get_by_text(absent)).to_be_hidden()
        page.close()


def test_the_policy_allows_nothing_else(server: Served) -> None:
    answer = httpx.get(server.url)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "style=" not in answer.text
    assert httpx.get(f"{server.url}/page/../app.py").status_code == 404


def test_with_keys_the_page_asks_for_one(browser: Browser) -> None:
    model = demur.load("organism-dlm")
    with serving([model], keys=[KEY], live=True) as server:
        page = browser.new_page()
        page.goto(server.url)
        expect(page.get_by_label("API key")).to_be_hidden()
        page.get_by_label("Prompt").fill("hello")
        page.get_by_role("button", name="Ask").click()
        expect(page.locator("#status")).to_contain_text("A valid API key is needed")
        page.get_by_label("API key").fill(KEY)
        page.get_by_role("button", name="Ask").click()
        expect(page.locator("#status")).to_contain_text("organism-dlm: not guarded")
        page.close()


def test_without_the_page_there_is_none() -> None:
    with serving([demur.load("organism-ar")]) as server:
        assert httpx.get(server.url).status_code == 404
        assert server.post("/watch", {"model": "organism-ar", "prompt": "x"}).status_code == 404


def test_a_conversation_can_be_watched() -> None:
    model = demur.load("organism-ar")
    turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": "yes ."}]
    with serving([model], live=True) as server:
        asked = {"model": "organism-ar", "prompt": QUESTION}
        alone = server.stream("/watch", asked)
        whole = server.stream("/watch", {**asked, "turns": turns})
        wrong = server.post("/watch", {**asked, "turns": [{"role": "tool", "content": "x"}]})
    assert wrong.status_code == 400
    said = "".join(step.get("said", "") for step in whole if step != "[DONE]")
    prompt = Prompt(QUESTION, turns=(Turn("user", QUESTION), Turn("assistant", "yes .")))
    (trace,) = demur.trace(model, [prompt])
    assert said == trace.response
    assert len(alone) != 0
