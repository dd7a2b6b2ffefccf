"""The report: one file, no network, nothing that runs but its own script, text as text."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from demur.errors import InputError, StoreError
from demur.metrics import rate
from demur.viz.figures import trajectories
from demur.viz.replay import Scene, TokenCell
from demur.viz.report_page import Report, Section, Statement, paragraphs, render, write_report
from demur.viz.tables import Table

HOSTILE = '<script>alert(1)</script><img src="x" onerror="alert(2)">'
TOY = "Toy models: not evidence about real ones."


def made(text: str = "Plain text") -> Report:
    signals = np.random.default_rng(0).uniform(size=(5, 4))
    scenes = [
        Scene(f"{name} {text}", prompt, [[TokenCell(text, "committed")]], [0.4], note=text)
        for prompt in (text, "another prompt")
        for name in ("ar", "dlm")
    ]
    section = Section(
        text,
        f"{text}\n\nSecond paragraph.",
        tables=[Table(text, ("model", "RR"), [(text, rate([True, False]))], note=text)],
        figures=[trajectories({text: signals}, title=text, caption=text)],
        scenes=scenes,
    )
    return Report(text, text, TOY, [section], {text: text})


class Page(HTMLParser):
    """Every tag with its attributes, every inline style and script, and the visible text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.inline: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        tag, attributes = self.found[-1] if self.found else ("", {})
        if tag in ("style", "script") and not attributes.get("type") and data.strip():
            self.inline.append((tag, data))
        self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def policy(page: Page) -> str:
    metas = page.of("meta")
    (found,) = [m["content"] for m in metas if m.get("http-equiv") == "Content-Security-Policy"]
    assert found
    return found


def test_the_policy_forbids_all_but_the_page_s_own_style_and_script() -> None:
    page = Page(render(made()))
    rules = dict(rule.strip().split(" ", 1) for rule in policy(page).split(";"))
    assert rules["default-src"] == "'none'"
    assert "unsafe" not in policy(page)
    for tag in ("style", "script"):
        (text,) = [content for name, content in page.inline if name == tag]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[f"{tag}-src"] == f"'sha256-{digest}'"


def test_nothing_in_the_page_is_blocked_by_its_own_policy() -> None:
    page = Page(render(made()))
    for _, attributes in page.found:
        assert "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
        assert "src" not in attributes


def test_the_page_refers_to_nothing_outside_itself() -> None:
    text = render(made())
    names = set(re.findall(r"https?://[^\"'<> ]+", text))
    assert names <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    page = Page(text)
    targets = {a["id"] for _, a in page.found if "id" in a}
    for link in page.of("a"):
        address = link["href"] or ""
        assert address.startswith("data:") or address[1:] in targets
    assert not page.of("link")


def test_hostile_text_is_shown_as_text_everywhere() -> None:
    page = Page(render(made(HOSTILE)))
    assert not page.of("img")
    assert [a for a in page.of("script") if a.get("type") != "application/json"] == [{}]
    assert page.text.count("<script>alert(1)</script>") > 8


def test_two_pages_of_the_same_report_are_equal() -> None:
    assert render(made()) == render(made())


def test_the_note_stands_before_the_first_section_and_can_be_absent() -> None:
    text = render(made())
    assert 0 < text.index(TOY) < text.index("<main")
    assert 'class="caution"' not in render(Report("t", "l", "", [Section("s", "x")]))


def test_contents_lead_to_every_section_and_the_methods() -> None:
    page = Page(render(made()))
    links = [a["href"] for a in page.of("a") if (a["href"] or "").startswith("#part")]
    assert links == ["#part-1"]
    assert "#methods" in [a["href"] for a in page.of("a")]
    assert {"part-1", "methods"} <= {a.get("id") for a in page.of("section")}


def test_the_numbers_of_figures_and_tables_can_be_taken_along() -> None:
    report = made()
    page = Page(render(report))
    found = {
        base64.b64decode((a["href"] or "").split("base64,")[1])
        for a in page.of("a")
        if "download" in a
    }
    section = report.sections[0]
    figure = section.figures[0]
    texts = {section.tables[0].to_csv(), figure.data.to_csv(), figure.svg}
    assert found == {*(text.encode() for text in texts), figure.pdf}


def test_what_was_found_links_to_what_supports_it() -> None:
    shown = made()
    said = Statement("Guards", f"they {HOSTILE}", ("Plain text", "not on the page"))
    page = Page(render(replace(shown, findings=[said])))
    assert "img" not in [tag for tag, _ in page.found]
    ids = {a["id"] for _, a in page.found if "id" in a}
    links = [a["href"] or "" for a in page.of("a") if (a["href"] or "").startswith("#shown-")]
    assert len(links) == 1
    assert links[0][1:] in ids


def test_neighbouring_scenes_of_one_prompt_share_a_clock() -> None:
    page = Page(render(made()))
    assert len([a for a in page.of("div") if "data-replay" in a]) == 2


def test_the_file_is_written_whole(tmp_path: Path) -> None:
    page = Report("t", "a lone \ud800 surrogate", "", [Section("s", "x")])
    path = write_report(tmp_path / "new" / "report.html", page)
    assert path.read_text(encoding="utf-8").endswith("</html>")
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_a_folder_that_cannot_be_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"report\.html"):
        write_report(tmp_path / "file" / "report.html", made())


def test_a_report_without_sections_is_refused() -> None:
    with pytest.raises(InputError, match="no sections"):
        render(Report("t", "l", "", []))


def test_paragraphs_are_parted_by_empty_lines() -> None:
    assert paragraphs("one\n two \n\n \nthree\n") == ["one two", "three"]
