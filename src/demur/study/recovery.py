"""Recovery from harmful drafts, in the text and inside (PAPER table 1, figures 5 and 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from demur.metrics import IRR_THRESHOLDS, Estimate, internal_recovery, rate, recovery_rates
from demur.study.evidence import Evidence
from demur.viz.figures import Figure, irr_bars
from demur.viz.tables import Table, Value


def recovery_table(evidence: Sequence[Evidence]) -> Table:
    """HRR, FRR and IRR of each arm over all its harmful prompts."""
    rows: list[tuple[Value, ...]] = []
    for one in evidence:
        chosen = [i for i, keep in enumerate(one.rows(label="harmful")) if keep]
        goals = [one.goals[i] for i in chosen]
        revised, recovered = recovery_rates([one.harmful_drafts[i] for i in chosen], goals)
        internal = internal_rates(one).values()
        rows.append((one.arm.name, revised, recovered, *internal))
    columns = ("arm", "HRR", "FRR", *(f"IRR at {t:g}" for t in IRR_THRESHOLDS))
    return Table(
        "Recovery from harmful drafts",
        columns,
        tuple(rows),
        note="HRR, FRR: among generations with a harmful draft (n in each cell). IRR: among all "
        "harmful prompts; its three thresholds are our reading of the paper.",
    )


def internal_rates(one: Evidence) -> Mapping[str, Estimate]:
    """IRR at each threshold over an arm's harmful prompts."""
    chosen = one.rows(label="harmful")
    goals = [g for g, keep in zip(one.goals, chosen, strict=True) if keep]
    sigma = one.sigma[chosen]
    return {f"{t:g}": rate(internal_recovery(sigma, threshold=t), goals) for t in IRR_THRESHOLDS}


def recovery_figure(evidence: Sequence[Evidence]) -> Figure:
    """Bars of IRR per arm and threshold."""
    bars = {one.arm.name: internal_rates(one) for one in evidence}
    return irr_bars(bars, title="Internal recovery rate")
