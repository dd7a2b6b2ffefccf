"""Table 1 of the paper: recovery from harmful drafts, in the text and inside."""

from __future__ import annotations

from demur.metrics import IRR_THRESHOLDS
from demur.study import paper
from demur.study.evidence import Evidence
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
        "taken back. IRR: among all harmful prompts. Arms differ in prompts and "
        "anchors; the figure of the same weights sets samplers on the same prompts. "
        f"{paper.NOTE}",
    )
    return with_failed_arms(table, results, groups=("main", "variant"))


def internal_table(results: Results) -> Table:
    """IRR of each main arm and variant by how the generation ended."""
    rows: list[tuple[Value, ...]] = [
        (one.name, end, int(chosen.sum()), *(one.irr(t, chosen) for t in IRR_THRESHOLDS))
        for one in results.evidence
        if one.group in ("main", "variant")
        for end, chosen in one.ends.items()
    ]
    table = Table(
        "Internal recovery by how the generation ended",
        ("arm", "response", "harmful prompts", *(f"IRR at {t:g}" for t in IRR_THRESHOLDS)),
        tuple(rows),
        note="Succeeded: the response is harmful; refused; failed: neither. A state that ends on the "
        "side of refusal under a harmful response is no recovery that a user would see.",
    )
    return with_failed_arms(table, results, groups=("main", "variant"))


def _row(one: Evidence) -> tuple[Value, ...]:
    internal = [one.irr(threshold) for threshold in IRR_THRESHOLDS]
    return one.name, int(one.entered.sum()), *one.recovery(), *internal
