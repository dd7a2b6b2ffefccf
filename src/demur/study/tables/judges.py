"""Table 15 of the paper: what refusal judges say of the same responses, and how far they agree."""

from __future__ import annotations

from itertools import combinations

from demur.metrics import cohen_kappa
from demur.study.results import Results
from demur.study.tables.failed import with_failed_arms
from demur.viz.tables import Table, Value


def judges_table(results: Results) -> Table:
    """RR by each judge on harmful prompts, and Cohen's kappa of every two on all prompts."""
    judges = list(results.main[0].refused) if results.main else []
    pairs = list(combinations(judges, 2))
    rows: list[tuple[Value, ...]] = []
    for one in results.main:
        harmful, goals = one.rows("harmful"), one.goals.tolist()
        rates = [one.rate(one.refused[judge], harmful) for judge in judges]
        kappas = [
            cohen_kappa(one.refused[a].tolist(), one.refused[b].tolist(), goals) for a, b in pairs
        ]
        rows.append((one.name, *rates, *kappas))
    table = Table(
        "Refusal judges on the same responses",
        ("arm", *(f"RR, {j}" for j in judges), *(f"kappa, {a} and {b}" for a, b in pairs)),
        tuple(rows),
        note="Kappa over harmless and harmful prompts together; 1 is full agreement beyond chance. "
        "The paper compares its dictionary with a judge that is a language model (table 15).",
    )
    return with_failed_arms(table, results)
