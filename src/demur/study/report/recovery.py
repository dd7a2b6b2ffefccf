"""Recovery from harmful drafts, in the text and inside, and the SRI signal over steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from demur.metrics import IRR_THRESHOLDS
from demur.study.report.evidence import FEWEST, Evidence, on_common_prompts
from demur.study.report.results import Results
from demur.study.report.rows import MARK, NOTE, blanks, printed, with_failed_arms
from demur.study.report.samplers import named, pairs
from demur.viz.figures import Figure, irr_bars, lda, trajectories
from demur.viz.tables import NOTHING, TOO_FEW, Table, Value


def recovery_table(results: Results) -> Table:
    """HRR, FRR and IRR of each main arm and variant (table 1 of the paper)."""
    arms = [one for one in results.evidence if one.group in ("main", "variant")]
    rows: list[tuple[Value, ...]] = [_row(one) for one in arms]
    for model, (revised, recovered) in printed("recovery").items():
        rows.append((model + MARK, NOTHING, revised, recovered, *blanks(len(IRR_THRESHOLDS))))
    thresholds = (f"IRR at {t:g}" for t in IRR_THRESHOLDS)
    table = Table(
        "Recovery from harmful drafts",
        ("arm", "generations with a harmful draft", "HRR", "FRR", *thresholds),
        tuple(rows),
        note="HRR: a harmful draft is revised later. FRR: the response is not harmful. Both among "
        "generations with a harmful draft. An autoregressive draft is a prefix, which is never taken "
        "back. IRR: among all harmful prompts. Arms differ in prompts and anchors; the figure with "
        f"the same weights compares samplers on the same prompts. {NOTE}",
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
        note="Succeeded: the response is harmful. Failed: neither harmful nor a refusal. If the state "
        "ends on the refusing side but the response is harmful, users see no recovery.",
    )
    return with_failed_arms(table, results, groups=("main", "variant"))


def _row(one: Evidence) -> tuple[Value, ...]:
    internal = [one.irr(threshold) for threshold in IRR_THRESHOLDS]
    return one.name, int(one.entered.sum()), *one.recovery(), *internal


def models_figure(results: Results) -> Figure | None:
    """Internal recovery rate of every main arm (figure 5); None if there is too little to show."""
    return _bars(
        results.main,
        "Internal recovery by model",
        "In the paper, autoregressive models stay below about .15 at every threshold, and diffusion "
        "models reach .4 to .6 at the loosest one.",
    )


def samplers_figure(results: Results) -> Figure | None:
    """The same weights in AR order and with remasking on the same prompts (figure 6).

    None if there is no such pair, or too little to show.
    """
    arms = [one for pair in pairs(results) for one in on_common_prompts(pair)]
    arms = [named(one, results) for one in arms]
    return _bars(
        arms,
        "Internal recovery with the same weights",
        "Both samplers of a model on the same prompts, each with its own anchors. In the paper, the "
        "two differ by .29 to .48 with the same weights.",
    )


def _bars(arms: list[Evidence], title: str, caption: str) -> Figure | None:
    found = {one.name: {f"{t:g}": one.irr(t) for t in IRR_THRESHOLDS} for one in arms}
    rates = {
        name: {threshold: rate for threshold, rate in row.items() if not isinstance(rate, str)}
        for name, row in found.items()
    }
    if not any(rates.values()):
        return None
    return irr_bars(rates, title=title, caption=caption)


def trajectory_figure(one: Evidence) -> Figure | None:
    """Sigma over steps of each group with enough goals (figure 12); None if there is none."""
    found = {name: one.sigma[rows] for name, rows in groups(one).items() if is_shown(one, rows)}
    if not found:
        return None
    return trajectories(
        found,
        title=f"Signal over steps: {one.name}",
        caption="Lines: means. Bands: the middle 80% of the generations, from the 10th to the 90th "
        f"percentile; not a confidence interval. Groups of fewer than {FEWEST} goals are left out.",
    )


def is_shown(one: Evidence, rows: NDArray[np.bool_]) -> bool:
    """Whether some rows have enough goals to show."""
    return len(np.unique(one.goals[rows])) >= FEWEST


def groups(one: Evidence) -> dict[str, NDArray[np.bool_]]:
    """Rows of both references (plain prompts), and of attacked prompts by outcome."""
    wrapped, plain = one.where("harmful", "wrapped"), one.where("harmful", "none")
    return {
        "harmless, answered": one.where("harmless", "none") & ~one.refusals,
        "harmful, refused": plain & one.refusals,
        "jailbreak succeeded": wrapped & one.succeeded,
        "jailbreak refused": wrapped & ~one.succeeded & one.refusals,
    }


def volatility(sigma: NDArray[np.float64]) -> float:
    """Mean absolute change of sigma ``[N, T]`` from one step to the next; NaN without rows."""
    return float(np.abs(np.diff(sigma, axis=1)).mean()) if len(sigma) else float("nan")


def groups_table(arms: Sequence[Evidence]) -> Table:
    """Mean, last value and volatility of sigma in each group."""
    rows: list[tuple[Value, ...]] = []
    for one in arms:
        for name, chosen in groups(one).items():
            if chosen.any():
                sigma = one.sigma[chosen]
                shape: tuple[Value, ...] = (TOO_FEW,) * 3
                if is_shown(one, chosen):
                    shape = float(sigma.mean()), float(sigma[:, -1].mean()), volatility(sigma)
                rows.append((one.name, name, int(chosen.sum()), *shape))
    return Table(
        "Signal by outcome",
        ("arm", "group", "n", "mean sigma", "sigma at the end", "volatility"),
        tuple(rows),
        note="Volatility: mean absolute change of sigma from one step to the next.",
    )


#: Groups in the discriminant view.
_SHOWN = ("harmless, answered", "harmful, refused", "jailbreak succeeded")


def plane_figure(one: Evidence) -> Figure | None:
    """Discriminant view of references and successful jailbreaks (figure 13); None for one group."""
    labels = np.full(len(one.goals), "", dtype=object)
    for name, rows in groups(one).items():
        if name in _SHOWN and is_shown(one, rows):
            labels[rows] = name
    kept = labels != ""
    if len(set(labels[kept])) < 2:
        return None
    return lda(
        one.sigma[kept],
        labels[kept].tolist(),
        title=f"Plane of signals: {one.name}",
        caption="Linear discriminants fitted on the points shown, so groups look further apart than "
        f"new points would. Groups of fewer than {FEWEST} goals are left out.",
    )
