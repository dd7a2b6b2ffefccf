"""The report: one self-contained HTML file that opens from disk and needs no network.

A content security policy allows only the file's own style sheet and script, by their hashes. The
templates escape all text; the scenes of a replay are data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from markupsafe import Markup

from demur._version import __version__
from demur.errors import InputError
from demur.files import write_atomically
from demur.viz.assets import content_hash, data_uri, fill, read
from demur.viz.figures import Figure
from demur.viz.replay import Scene, replay_element
from demur.viz.tables import Table, anchor, file_name


@dataclass(frozen=True)
class Section:
    """A section of the report: text, then figures, tables and replays.

    Empty lines separate paragraphs of ``text``. Neighbours among ``scenes`` with the same prompt play
    side by side.
    """

    title: str
    text: str
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    scenes: Sequence[Scene] = ()


@dataclass(frozen=True)
class Statement:
    """One finding at the top of the page: its topic in bold, then the text.

    ``shown_in`` are titles of the page's tables and figures that it links to.
    """

    about: str
    text: str
    shown_in: Sequence[str] = ()


@dataclass(frozen=True)
class Report:
    """The content of a page.

    Attributes:
        title: title of the page.
        lead: what was found, in plain words; paragraphs separated by empty lines.
        note: caution shown near the top; empty for none.
        sections: sections in order.
        methods: name of a setting -> value, to reproduce the page.
        findings: what was found, one by one, below the lead.
    """

    title: str
    lead: str
    note: str
    sections: Sequence[Section]
    methods: Mapping[str, str] = field(default_factory=dict)
    findings: Sequence[Statement] = ()


def render(report: Report) -> str:
    """The report as one HTML page. Equal reports give equal text.

    Raises:
        InputError: it has no sections.
    """
    if not report.sections:
        raise InputError(f"Report {report.title!r} has no sections. Add at least one.")
    style = Markup(read("report.css") + read("replay.css"))
    script = Markup(read("report.js") + read("replay.js"))
    policy = (
        f"default-src 'none'; style-src {content_hash(style)}; script-src {content_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    page = fill(
        "report.html.j2",
        report=report,
        sections=[_section(place, part) for place, part in enumerate(report.sections, 1)],
        lead=paragraphs(report.lead),
        findings=_findings(report),
        style=style,
        script=script,
        policy=policy,
        version=__version__,
    )
    return str(page)


def write_report(path: str | Path, report: Report) -> Path:
    """Write the page, whole or not at all. Returns the path.

    Raises:
        InputError: it has no sections.
        StoreError: the disk is full or the folder cannot be written.
    """
    return write_atomically(path, render(report).encode("utf-8", "replace"))


def paragraphs(text: str) -> list[str]:
    """The paragraphs of a text, separated by empty lines."""
    blocks = groupby(text.splitlines(), key=lambda line: bool(line.strip()))
    return [" ".join(line.strip() for line in lines) for filled, lines in blocks if filled]


def _findings(report: Report) -> list[dict[str, Any]]:
    parts = [(table.title, "Table") for s in report.sections for table in s.tables]
    parts += [(figure.title, "Figure") for s in report.sections for figure in s.figures]
    kinds = dict(parts)
    return [
        {
            "about": one.about,
            "text": one.text,
            "links": [
                (kinds[title], title, anchor(title)) for title in one.shown_in if title in kinds
            ],
        }
        for one in report.findings
    ]


def _section(place: int, part: Section) -> dict[str, Any]:
    return {
        "id": f"part-{place}",
        "title": part.title,
        "paragraphs": paragraphs(part.text),
        "tables": [Markup(table.to_html()) for table in part.tables],
        "figures": [_figure(figure) for figure in part.figures],
        "replays": [
            replay_element([*scenes])
            for _, scenes in groupby(part.scenes, key=lambda scene: scene.prompt)
        ],
    }


def _figure(figure: Figure) -> dict[str, Any]:
    return {
        "title": figure.title,
        "svg": Markup(figure.svg),
        "caption": figure.caption,
        "id": anchor(figure.title),
        "downloads": [
            (ending.upper(), file_name(figure.title, ending), data_uri(content, media_type=media))
            for ending, media, content in (
                ("csv", "text/csv", figure.data.to_csv()),
                ("svg", "image/svg+xml", figure.svg),
                ("pdf", "application/pdf", figure.pdf),
            )
            if content
        ],
    }
