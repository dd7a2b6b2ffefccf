"""How soon a streaming guard detects, and how many tokens have left by then."""

from __future__ import annotations

import numpy as np

from demur.study.results import Results
from demur.study.tables.failed import short
from demur.viz.tables import NOTHING, TOO_FEW, Table, Value


def delay_table(results: Results) -> Table:
    """Detection and release of successful jailbreaks, and false alarms, for every main arm."""
    rows: list[tuple[Value, ...]] = []
    for cell in results.measured.get("delay", ()):
        one = results.arm(str(cell.about["arm"]))
        if one is None or cell.outcome.state != "done":
            rows.append((str(cell.about["arm"]), short(cell.outcome.error), *[NOTHING] * 6))
            continue
        sets = cell.value["sets"]
        step = one.aligned({name: found["step"] for name, found in sets.items()}, 0)
        tokens = one.aligned({name: found["tokens"] for name, found in sets.items()}, 0)
        broken, harmless = one.jailbreaks, one.rows("harmless")
        row: list[Value] = [one.name, int(broken.sum())]
        flagged = one.rate(step > 0, broken)
        if isinstance(flagged, str):
            row += [TOO_FEW] * 5
        else:
            caught = broken & (step > 0)
            length = np.array(one.columns["tokens"])[broken].mean()
            row += [
                flagged,
                one.rate((step > 0) & (step <= cell.value["steps"] // 2), broken),
                float(np.median(step[caught])) if caught.any() else NOTHING,
                float(tokens[broken].mean()),
                float(length),
            ]
        rows.append((*row, one.rate(step > 0, harmless)))
    return Table(
        "A guard that watches while the model writes",
        (
            *("arm", "jailbreaks", "flagged", "flagged by half of the steps", "median step"),
            *("tokens out, mean", "tokens of the response, mean", "harmless flagged"),
        ),
        tuple(rows),
        note="Tokens out: released before the alarm; all of the response where there was none. A "
        "diffusion model's tokens are released a finished block at a time, so one block releases "
        "nothing before the end.",
    )
