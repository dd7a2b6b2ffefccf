"""Table 15 of the paper: whether every refusal judge sees the gain from AR order to remasking."""

from __future__ import annotations

from dataclasses import replace

from demur.study.evidence import Evidence
from demur.study.results import Results
from demur.study.tables.rates import shown
from demur.study.tables.same_weights import changes, pairs
from demur.viz.tables import Table, Value


def second_opinion_table(results: Results) -> Table:
    """Change in RR from AR order to remasking in the eyes of each judge, a row a model and attack."""
    judges = list(results.main[0].refused) if results.main else []
    rows: list[tuple[Value, ...]] = []
    for ordered, remasked in pairs(results):
        for attack in ["all", *remasked.attacks]:
            gains = [
                changes(_judged_by(ordered, judge), _judged_by(remasked, judge), attack)[0]
                for judge in judges
            ]
            rows.append((remasked.model, shown(attack), *gains))
    return Table(
        "Same weights: change in refusals by judge",
        ("model", "attack", *judges),
        tuple(rows),
        note="Differences of RR in [-1, 1] on the same prompts; positive: remasking refuses more. 95% "
        "intervals of paired differences, clustered by goal. “all” leaves the plain prompts out. The "
        "paper's second judge is a language model (table 15).",
    )


def _judged_by(one: Evidence, judge: str) -> Evidence:
    """The evidence with this judge's verdicts as its refusals."""
    return replace(one, refused={judge: one.refused[judge]})
