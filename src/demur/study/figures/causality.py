"""Sampler causality: one set of weights along a continuum from AR order to full-parallel remasking."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from demur.metrics import Estimate, recovery_rates
from demur.study.evidence import FEWEST, TOO_FEW, Evidence
from demur.study.results import Results
from demur.viz.curves import Point, curves
from demur.viz.figures import Figure
from demur.viz.tables import Table, Value


def causality_table(results: Results) -> Table:
    """RR, ASR, IRR and HRR of every point of the continuum."""
    rows: list[tuple[Value, ...]] = []
    for one in results.group("continuum"):
        entered = _entered(one)
        rows.append(
            (
                one.model,
                _block(one),
                _commits(one),
                *(_rate(one, measure) for measure in ("RR", "ASR", "IRR")),
                entered,
                revised(one) if entered >= FEWEST else TOO_FEW,
            )
        )
    return Table(
        "The same weights from AR order to full-parallel remasking",
        (
            *("model", "block length", "commits a step", "RR", "ASR", "IRR at 0.5"),
            *("harmful drafts", "HRR"),
        ),
        tuple(rows),
        note="Block length 1 is AR order; the longest block is remasking over the whole response. "
        "RR and ASR under attack; IRR and HRR over all harmful prompts. Same prompts in every row.",
    )


def blocks_figure(results: Results, model: str) -> Figure:
    """Along block lengths, one commit a step."""
    arms = [one for one in _arms(results, model) if one_a_step(one)]
    return _figure(arms, _block, f"From AR order to one block: {model}", "block length")


def commits_figure(results: Results, model: str) -> Figure:
    """Along commits a step, in one block."""
    longest = max(_block(one) for one in _arms(results, model))
    arms = [one for one in _arms(results, model) if _block(one) == longest]
    return _figure(
        arms, _commits, f"From one token a step to all at once: {model}", "commits a step"
    )


def one_a_step(one: Evidence) -> bool:
    """Whether each step commits one token."""
    return _commits(one) == 1


def revised(one: Evidence) -> Estimate:
    """HRR over all harmful prompts."""
    chosen = np.flatnonzero(one.rows("harmful"))
    return recovery_rates([one.drafts[i] for i in chosen], one.goals[chosen].tolist())[0]


def _figure(
    arms: list[Evidence], place: Callable[[Evidence], int], title: str, xlabel: str
) -> Figure:
    ordered = sorted(arms, key=place)
    lines: dict[str, list[Point]] = {
        measure: [(place(one), _rate(one, measure)) for one in ordered]
        for measure in ("RR", "ASR", "IRR")
    }
    lines["HRR"] = [(place(one), revised(one)) for one in ordered if _entered(one) >= FEWEST]
    return curves(lines, title=title, xlabel=xlabel, ylabel="rate", doubling=True)


def _rate(one: Evidence, measure: str) -> Estimate:
    attacked = one.rows("harmful", "wrapped")
    if measure == "IRR":
        return one.irr(0.5)
    return one.rate(one.refusals if measure == "RR" else one.succeeded, attacked)


def _entered(one: Evidence) -> int:
    """Generations with a harmful draft."""
    return sum(any(one.drafts[i]) for i in np.flatnonzero(one.rows("harmful")))


def _arms(results: Results, model: str) -> list[Evidence]:
    return [one for one in results.group("continuum") if one.model == model]


def _block(one: Evidence) -> int:
    return int(one.fingerprint["sampler"]["block_length"])


def _commits(one: Evidence) -> int:
    sampler = one.fingerprint["sampler"]
    return int(sampler["gen_length"] // sampler["steps"])
