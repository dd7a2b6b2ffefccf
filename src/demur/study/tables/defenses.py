"""Tables 13 and 14 of the paper: what each defense does, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from demur.metrics import difference, rate
from demur.study import paper
from demur.study.evidence import Shown, enough
from demur.study.results import Measured, Results
from demur.study.tables.failed import short
from demur.viz.tables import NOTHING, Table, Value

#: Attacks that fill masked slots, which have a table of their own.
INFILLING = ("pad", "dija")

Row = Mapping[str, Any]


def defenses_table(results: Results) -> Table | None:
    """Overhead in passes, false positives, RR and ASR; None where no defense was run."""
    rows: list[tuple[Value, ...]] = []
    for cell, undefended in _cells(results):
        arm = str(cell.about["arm"])
        if cell.outcome.state != "done":
            blanks = [NOTHING] * 5
            rows.append((arm, str(cell.about["defense"]), short(cell.outcome.error), *blanks))
            continue
        before, after = cell.value["passes"]
        if undefended:
            rows.append((arm, "none", 0.0, *_figures(cell, defended=False), NOTHING))
        shown = *_figures(cell, defended=True), cut_in_asr(cell)
        rows.append((arm, str(cell.about["defense"]), after / before - 1, *shown))
    if not rows:
        return None
    for model, defenses in paper.printed("defenses").items():
        for name, (overhead, false, refused, harmful) in defenses.items():
            rows.append(
                (model + paper.MARK, name, overhead, NOTHING, false, refused, harmful, NOTHING)
            )
    return Table(
        "Defenses",
        (
            *("arm", "defense", "overhead", "attacked prompts", "false positives"),
            *("RR", "ASR", "cut in ASR"),
        ),
        tuple(rows),
        note="Overhead: extra forward passes as a share of the undefended ones, counted in the same "
        "run (negative where a blocked prompt saves its generation); the paper's is time. False "
        "positives: harmless prompts, plain and wrapped, whose response is a refusal. RR and ASR "
        f"under attack; cut in ASR: paired, on the same prompts. 95% intervals, by goal. {paper.NOTE}",
    )


def infilling_table(results: Results) -> Table | None:
    """ASR of attacks on masked slots, with and without each defense; None where none was run."""
    rows: list[tuple[Value, ...]] = []
    broken: list[tuple[Value, ...]] = []
    for cell, undefended in _cells(results):
        if cell.outcome.state != "done":
            failure = short(cell.outcome.error)
            broken.append((str(cell.about["arm"]), NOTHING, str(cell.about["defense"]), failure))
            continue
        for attack in INFILLING:
            chosen = _chosen(cell, lambda row: row["attack"] == attack)  # noqa: B023
            if not chosen:
                continue
            if undefended:
                rows.append((str(cell.about["arm"]), attack, "none", _rate(chosen, "harmful", 0)))
            name = str(cell.about["defense"])
            rows.append((str(cell.about["arm"]), attack, name, _rate(chosen, "harmful", 1)))
    if not rows:
        return None
    rows += [row for row in broken if row[0] in {row[0] for row in rows}]
    for attack, figures in paper.printed("diffusion_attacks").items():
        for defense, value in zip(("none", "diffuguard", "sri-guard"), figures, strict=True):
            rows.append((f"LLaDA{paper.MARK}", attack, defense, value))
    return Table(
        "Attacks that fill in masked slots",
        ("arm", "attack", "defense", "ASR"),
        tuple(rows),
        note=f"PAD fixes anchors in the response, DIJA writes masks into the prompt. {paper.NOTE}",
    )


def times_table(results: Results) -> Table:
    """Seconds of each defense against the undefended generation in the same run."""
    rows: list[tuple[Value, ...]] = []
    for cell, _ in _cells(results):
        if cell.outcome.state == "done":
            before, after = cell.value["seconds"]
            arm, name = str(cell.about["arm"]), str(cell.about["defense"])
            rows.append((arm, name, before, after, after / before - 1))
    return Table(
        "Time of each defense",
        ("arm", "defense", "seconds undefended", "seconds defended", "overhead"),
        tuple(rows),
        note="Wall-clock time on the machine under Methods, once; it differs from run to run.",
        timing=True,
    )


def _cells(results: Results) -> Iterator[tuple[Measured, bool]]:
    """Every defense, and whether it is its arm's first, which also shows the undefended figures."""
    shown: set[str] = set()
    for cell in results.measured.get("defense", ()):
        arm = str(cell.about["arm"])
        yield cell, cell.outcome.state == "done" and arm not in shown
        if cell.outcome.state == "done":
            shown.add(arm)


def _figures(cell: Measured, *, defended: bool) -> list[Value]:
    attacked = _attacked(cell)
    harmless = _chosen(cell, lambda row: row["label"] == "harmless")
    place = int(defended)
    return [
        len(attacked),
        _rate(harmless, "refused", place),
        _rate(attacked, "refused", place),
        _rate(attacked, "harmful", place),
    ]


def cut_in_asr(cell: Measured) -> Shown:
    """ASR without the defense less that with it, on the same attacked prompts."""
    rows = _attacked(cell)
    before, after = ([row["harmful"][place] for row in rows] for place in (0, 1))
    return enough(difference(before, after, [row["goal"] for row in rows]))


def undefended_asr(cell: Measured) -> Shown:
    """ASR on the attacked prompts without the defense."""
    return _rate(_attacked(cell), "harmful", 0)


def _attacked(cell: Measured) -> Sequence[Row]:
    return _chosen(
        cell,
        lambda row: row["label"] == "harmful" and row["attack"] not in ("none", *INFILLING),
    )


def _chosen(cell: Measured, wanted: Callable[[Row], bool]) -> Sequence[Row]:
    return [row for row in cell.value["rows"] if wanted(row)]


def _rate(rows: Sequence[Row], what: str, place: int) -> Shown:
    hits = np.array([row[what][place] for row in rows], dtype=np.bool_)
    return enough(rate(hits, [row["goal"] for row in rows]))
