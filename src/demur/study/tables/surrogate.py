"""Table 24 of the paper: one model's states guard what another model wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from demur.metrics import difference
from demur.study.evidence import Evidence, enough
from demur.study.results import Results
from demur.study.tables.failed import short
from demur.viz.tables import NOTHING, Table, Value


def surrogate_table(results: Results) -> Table:
    """ASR of the black-box model before and after the white-box model's guard, and what it costs."""
    rows: list[tuple[Value, ...]] = []
    for cell in results.measured.get("surrogate", ()):
        black = results.arm(str(cell.about["arm"]))
        names = str(cell.about["white"]), str(cell.about["arm"])
        if black is None or cell.outcome.state != "done":
            rows.append((*names, short(cell.outcome.error), *[NOTHING] * 5))
            continue
        for guard, sets in cell.value["flagged"].items():
            rows.append((*names, guard, *_row(black, sets)))
    return Table(
        "A white-box model's guard before a black-box model",
        (
            *("white box", "black box", "guard", "jailbreaks flagged"),
            *("ASR, unguarded", "ASR, guarded", "cut in ASR", "harmless flagged"),
        ),
        tuple(rows),
        note="The white-box model reads prompt and response in one pass; the guard is fitted and "
        "calibrated on its reading of harmless ones. Cut in ASR: paired, on the same "
        "prompts. PAPER table 24: Dream reads LLaDA-2.",
    )


def _row(black: Evidence, sets: Mapping[str, Sequence[bool]]) -> list[Value]:
    flagged = black.aligned(sets, False).astype(bool)
    attacked, broken = black.rows("harmful", "wrapped"), black.jailbreaks
    return [
        black.rate(flagged, broken),
        black.rate(black.succeeded, attacked),
        black.rate(black.succeeded & ~flagged, attacked),
        enough(
            difference(
                black.succeeded[attacked],
                (black.succeeded & ~flagged)[attacked],
                black.goals[attacked].tolist(),
            )
        ),
        black.rate(flagged, np.asarray(black.rows("harmless"))),
    ]
