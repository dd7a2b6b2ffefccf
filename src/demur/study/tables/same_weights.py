"""Table 2 of the paper: the same weights in AR order and with remasking, attack by attack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from demur.metrics import difference
from demur.study import paper
from demur.study.evidence import Evidence, Shown, enough
from demur.study.results import Results
from demur.study.tables.failed import with_failed_arms
from demur.study.tables.rates import shown
from demur.study.tracing import is_ar_order
from demur.viz.tables import Table, Value

_TITLE = "Same weights: from AR order to remasking"
_COLUMNS = ("with remasking", "attack", "change in RR", "cut in ASR")


def same_weights_table(results: Results) -> Table | None:
    """Change in RR and cut in ASR from AR order to remasking, paired; None without such a pair."""
    rows: list[Sequence[Value]] = []
    for ordered, remasked in pairs(results):
        for attack in ["all", *remasked.attacks]:
            rows.append((remasked.name, shown(attack), *changes(ordered, remasked, attack)))
        for other in variants(results, ordered):
            rows.append((other.name, shown("all"), *changes(ordered, other, "all")))
    broken = with_failed_arms(
        Table(_TITLE, _COLUMNS, rows),
        results,
        groups=("variant",),
        wanted=lambda arm: is_ar_order(arm["sampler"]),
    )
    if not broken.rows:
        return None
    rows = [*broken.rows]
    for attack, models in paper.printed("same_weights").items():
        for model, (refusals, success) in models.items():
            rows.append((model + paper.MARK, shown(attack), refusals, success))
    return Table(
        _TITLE,
        _COLUMNS,
        rows,
        note="Differences of rates in [-1, 1] on the same prompts; positive: remasking refuses more, "
        "and fewer attacks succeed. Variants of the remasking saw fewer prompts. 95% intervals of "
        "paired differences, clustered by goal. "
        f"“all” leaves the plain prompts out. {paper.NOTE}",
    )


def pairs(results: Results) -> Iterator[tuple[Evidence, Evidence]]:
    """(AR order, main arm) of each model that has both."""
    for one in results.evidence:
        if one.group == "variant" and is_ar_order(one.fingerprint["sampler"]):
            yield from ((one, main) for main in results.main if main.model == one.model)


def variants(results: Results, ordered: Evidence) -> Iterator[Evidence]:
    """The other variants of a model that has an AR order: random remasking, blocks and so on."""
    for one in results.evidence:
        if one.group == "variant" and one.model == ordered.model and one is not ordered:
            yield one


def changes(ordered: Evidence, remasked: Evidence, attack: str) -> tuple[Shown, Shown]:
    """Change in RR and cut in ASR over the prompts that both arms saw."""
    first, second = _places(ordered, attack), _places(remasked, attack)
    both = [i for i in first if i in second]
    a, b = [first[i] for i in both], [second[i] for i in both]
    goals = remasked.goals[b].tolist()
    return (
        enough(difference(remasked.refusals[b], ordered.refusals[a], goals)),
        enough(difference(ordered.succeeded[a], remasked.succeeded[b], goals)),
    )


def _places(one: Evidence, attack: str) -> dict[str, int]:
    chosen = one.rows("harmful", "wrapped" if attack == "all" else attack)
    return {str(one.columns["ids"][i]): i for i in np.flatnonzero(chosen).tolist()}
