"""Where harmless prompts are flagged: in wrappers, on the border, longer and shorter."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from demur.study.evidence import Evidence
from demur.study.results import Results
from demur.study.scoring import PLAIN
from demur.study.tables.failed import with_failed_arms
from demur.study.tables.rates import shown
from demur.viz.tables import NOTHING, Table, Value


def false_positives_table(results: Results) -> Table:
    """Share flagged at the threshold, of guards fitted on plain and wrapped prompts and on plain."""
    wrappers = list(dict.fromkeys(a for one in results.main for a in kinds(one)))
    rows: list[tuple[Value, ...]] = []
    for one in results.main:
        chosen = kinds(one)
        for name in PLAIN:
            for label, scored in (
                ("plain and wrapped", name),
                ("plain", f"{name}, fitted on plain"),
            ):
                if scores := one.scores.get(scored):
                    seen = ~np.isnan(scores.values)
                    rates = [
                        one.rate(scores.flagged, chosen[kind] & seen)
                        if kind in chosen and (chosen[kind] & seen).any()
                        else NOTHING
                        for kind in wrappers
                    ]
                    rows.append((one.name, name, label, *rates))
    table = Table(
        "Harmless prompts that are flagged",
        ("arm", "detector", "fitted and calibrated on", *wrappers),
        tuple(rows),
        note=f"Thresholds aim at {results.manifest['study']['alpha']:g}. Conformal calibration keeps "
        "that where test prompts are exchangeable with the calibration prompts. They are not quite: "
        "their tasks are others, and the prompts of one task are alike, so that they count for "
        "fewer than they are. What was measured on the test prompts stands here. Shorter and longer: "
        "the thirds of the plain harmless prompts with the fewest and most words.",
    )
    return with_failed_arms(table, results)


def kinds(one: Evidence) -> dict[str, NDArray[np.bool_]]:
    """Rows of each kind of prompt that should not be flagged."""
    plain = one.rows("harmless", "none")
    lengths = np.array(one.columns["lengths"])
    low, high = np.quantile(lengths[plain], [1 / 3, 2 / 3]) if plain.any() else (0, 0)
    labels = zip(one.columns["labels"], one.columns["attacks"], strict=True)
    wrappers = dict.fromkeys(a for label, a in labels if label == "harmless" and a != "none")
    return {
        "plain": plain,
        "shorter": plain & (lengths <= low),
        "longer": plain & (lengths >= high),
        "borderline": one.rows("borderline"),
        "in wrappers": one.rows("harmless", "wrapped"),
        **{shown(attack): one.rows("harmless", attack) for attack in wrappers},
    }
