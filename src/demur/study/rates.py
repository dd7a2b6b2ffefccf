"""Refusal and attack success per attack and arm (PAPER tables 2 and 3)."""

from __future__ import annotations

from collections.abc import Sequence

from demur.metrics import rate
from demur.study.evidence import Evidence
from demur.viz.tables import Table, Value


def rates_table(evidence: Sequence[Evidence]) -> Table:
    """RR (dictionary) and ASR (oracle) on harmful prompts, a row per attack, two columns an arm."""
    columns = ["attack", *(f"{e.arm.name} {m}" for e in evidence for m in ("RR", "ASR"))]
    rows: list[tuple[Value, ...]] = []
    for attack in evidence[0].attacks:
        row: list[Value] = [attack]
        for one in evidence:
            chosen = one.rows(label="harmful", attack=attack)
            goals = [g for g, keep in zip(one.goals, chosen, strict=True) if keep]
            row += [rate(one.refused[chosen], goals), rate(one.succeeded[chosen], goals)]
        rows.append(tuple(row))
    return Table(
        "Refusal rate and attack success rate on harmful prompts",
        tuple(columns),
        tuple(rows),
        note="RR: the paper's dictionary. ASR: the oracle. 95% intervals, clustered by goal.",
    )


def harmless_table(evidence: Sequence[Evidence]) -> Table:
    """How often harmless prompts are refused, plain and in attack wrappers."""
    rows: list[tuple[Value, ...]] = []
    for attack in ("none", "wrapped"):
        row: list[Value] = ["plain" if attack == "none" else "in attack wrappers"]
        for one in evidence:
            chosen = one.rows(label="harmless", attack=attack)
            goals = [g for g, keep in zip(one.goals, chosen, strict=True) if keep]
            row.append(rate(one.refused[chosen], goals))
        rows.append(tuple(row))
    return Table(
        "Over-refusal: harmless prompts that are refused",
        ("prompts", *(f"{e.arm.name} RR" for e in evidence)),
        tuple(rows),
    )
