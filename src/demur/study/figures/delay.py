"""How soon a streaming guard flags successful jailbreaks, and how often it flags harmless prompts."""

from __future__ import annotations

from demur.study.results import Results
from demur.viz.curves import Point, curves
from demur.viz.figures import Figure


def delay_figure(results: Results, arm: str) -> Figure | None:
    """Share flagged by each step, one line for jailbreaks and one for harmless prompts.

    Groups of too few goals are left out; None where neither is large enough, or where the guard's
    delay was not measured.
    """
    one = results.arm(arm)
    cells = [c for c in results.measured.get("delay", ()) if c.about["arm"] == arm]
    if one is None or not cells or cells[0].outcome.state != "done":
        return None
    value = cells[0].value
    # -1: a set that the guard did not see.
    step = one.aligned({name: found["step"] for name, found in value["sets"].items()}, -1)
    groups = {"successful jailbreaks": one.jailbreaks, "harmless prompts": one.rows("harmless")}
    lines: dict[str, list[Point]] = {}
    for name, rows in groups.items():
        seen = rows & (step >= 0)
        lines[f"{name} (n = {seen.sum()})"] = [
            (at, one.rate((step > 0) & (step <= at), seen))
            for at in range(1, int(value["steps"]) + 1)
        ]
    return curves(
        lines,
        title=f"Flagged by each step: {arm}",
        xlabel="step",
        ylabel="share flagged so far",
        caption="The guard reads each step as it comes and may flag at any; its threshold keeps the "
        "false-positive rate over all steps together.",
    )
