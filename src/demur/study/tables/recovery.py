"""Table 1 of the paper: recovery from harmful drafts, in the text and inside."""

from __future__ import annotations

import numpy as np

from demur.metrics import IRR_THRESHOLDS, recovery_rates
from demur.study import paper
from demur.study.evidence import FEWEST, TOO_FEW, Evidence
from demur.study.results import Results
from demur.study.tables.failed import with_failed_arms
from demur.viz.tables import NOTHING, Table, Value


def recovery_table(results: Results) -> Table:
    """HRR, FRR and IRR of each main arm and variant over all its harmful prompts."""
    arms = [one for one in results.evidence if one.group in ("main", "variant")]
    rows: list[tuple[Value, ...]] = [_row(one) for one in arms]
    blanks = [NOTHING] * len(IRR_THRESHOLDS)
    for model, (revised, recovered) in paper.printed("recovery").items():
        rows.append((model + paper.MARK, NOTHING, revised, recovered, *blanks))
    thresholds = (f"IRR at {t:g}" for t in IRR_THRESHOLDS)
    table = Table(
        "Recovery from harmful drafts",
        ("arm", "generations with a harmful draft", "HRR", "FRR", *thresholds),
        tuple(rows),
        note="HRR: a harmful draft is later revised. FRR: the response is not harmful. Both among "
        "generations with a harmful draft. An autoregressive draft is a prefix, which is never "
        f"taken back. IRR: among all harmful prompts. {paper.NOTE}",
    )
    return with_failed_arms(table, results)


def _row(one: Evidence) -> tuple[Value, ...]:
    chosen = np.flatnonzero(one.rows("harmful"))
    drafts = [one.drafts[i] for i in chosen]
    entered = sum(any(steps) for steps in drafts)
    internal = [one.irr(threshold) for threshold in IRR_THRESHOLDS]
    if entered < FEWEST:
        return one.name, entered, TOO_FEW, TOO_FEW, *internal
    return one.name, entered, *recovery_rates(drafts, one.goals[chosen].tolist()), *internal
