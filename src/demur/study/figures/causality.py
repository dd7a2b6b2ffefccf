"""Sampler causality: one set of weights along a continuum from AR order to full-parallel remasking."""

from __future__ import annotations

from collections.abc import Callable

from demur.study.evidence import Evidence, Shown
from demur.study.results import Results
from demur.study.tables.failed import with_failed_arms
from demur.viz.curves import Point, curves
from demur.viz.figures import Figure
from demur.viz.tables import Table, Value


def causality_table(results: Results) -> Table:
    """RR, ASR, IRR and HRR of every point of the continuum."""
    rows: list[tuple[Value, ...]] = []
    for one in results.group("continuum"):
        rows.append(
            (
                one.model,
                block_length(one),
                _commits(one),
                *(_rate(one, measure) for measure in ("RR", "ASR", "IRR")),
                int(one.entered.sum()),
                one.recovery()[0],
            )
        )
    table = Table(
        "The same weights from AR order to full-parallel remasking",
        (
            *("model", "block length", "commits a step", "RR", "ASR", "IRR at 0.5"),
            *("harmful drafts", "HRR"),
        ),
        tuple(rows),
        note="Block length 1 is AR order; the longest block is remasking over the whole response. "
        "RR and ASR under attack; IRR and HRR over all harmful prompts. Same prompts in every row. "
        "IRR and HRR need an earlier step to recover from: they cannot occur where everything is "
        "committed in one step, and fewer steps leave them fewer chances.",
    )
    return with_failed_arms(table, results, groups=("continuum",))


def blocks_figure(results: Results, model: str) -> Figure | None:
    """Along block lengths, one commit a step; None where nothing is large enough to show."""
    arms = [one for one in _arms(results, model) if one_a_step(one)]
    return _figure(arms, block_length, f"From AR order to one block: {model}", "block length")


def commits_figure(results: Results, model: str) -> Figure | None:
    """Along commits a step, in one block; None where nothing is large enough to show."""
    longest = max(block_length(one) for one in _arms(results, model))
    arms = [one for one in _arms(results, model) if block_length(one) == longest]
    return _figure(
        arms, _commits, f"From one token a step to all at once: {model}", "commits a step"
    )


def one_a_step(one: Evidence) -> bool:
    """Whether each step commits one token."""
    return _commits(one) == 1


def _figure(
    arms: list[Evidence], place: Callable[[Evidence], int], title: str, xlabel: str
) -> Figure | None:
    ordered = sorted(arms, key=place)
    lines: dict[str, list[Point]] = {
        measure: [(place(one), _rate(one, measure)) for one in ordered]
        for measure in ("RR", "ASR", "IRR", "HRR")
    }
    return curves(lines, title=title, xlabel=xlabel, ylabel="rate", doubling=True)


def _rate(one: Evidence, measure: str) -> Shown:
    attacked = one.rows("harmful", "wrapped")
    if measure in ("IRR", "HRR"):
        return one.irr(0.5) if measure == "IRR" else one.recovery()[0]
    return one.rate(one.refusals if measure == "RR" else one.succeeded, attacked)


def _arms(results: Results, model: str) -> list[Evidence]:
    return [one for one in results.group("continuum") if one.model == model]


def block_length(one: Evidence) -> int:
    """Tokens of a block: 1 in AR order."""
    return int(one.fingerprint["sampler"]["block_length"])


def _commits(one: Evidence) -> int:
    sampler = one.fingerprint["sampler"]
    return int(sampler["gen_length"] // sampler["steps"])
