"""What the text and the signal show: refusals, successful attacks, recovery, and how judges agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import ceil

import numpy as np
from numpy.typing import NDArray

from demur.metrics import IRR_THRESHOLDS, cohen_kappa
from demur.study.report.evidence import FEWEST, Evidence, Measure
from demur.study.report.extra_rows import (
    MARK,
    NOTE,
    attack_name,
    blanks,
    failed_attack,
    printed,
    with_failed_arms,
)
from demur.study.report.results import Results
from demur.types import Label
from demur.viz.figures import Figure, Point, curves, irr_bars, lda, trajectories
from demur.viz.tables import NOT_JUDGED, NOTHING, TOO_FEW, Table, Value


def rates_table(results: Results) -> Table:
    """RR and ASR, two rows per model and a column per attack (table 3 of the paper)."""
    table = attacks_table(results.main, "Refusals and successful attacks")
    return with_failed_arms(table, results)


def attacks_table(arms: Sequence[Evidence], title: str, *, with_paper: bool = True) -> Table:
    """RR and ASR of some arms under every attack."""
    ours = list(dict.fromkeys(attack for one in arms for attack in one.attacks))
    paper = printed("rates") if with_paper else {}
    theirs = [attack for rates in paper.values() for attack in rates]
    attacks = list(dict.fromkeys(["none", "all", *ours, *theirs]))
    measures: tuple[Measure, ...] = ("RR", "ASR")
    rows: list[tuple[Value, ...]] = [
        (one.name, measure, int(one.where("harmful").sum()), *_rates(one, attacks, measure))
        for one in arms
        for measure in measures
    ]
    for model, rates in paper.items():
        for place, measure in enumerate(("RR", "ASR")):
            cells = [rates[a][place] if a in rates else NOTHING for a in attacks]
            rows.append((model + MARK, measure, NOTHING, *cells))
    return Table(
        title,
        ("arm", "rate", "harmful prompts", *map(attack_name, attacks)),
        tuple(rows),
        note="RR: share refused, according to the first refusal judge. ASR: share that the harm judge "
        "finds harmful. “all”: all attacks together, without plain prompts. 95% intervals, clustered "
        "by goal. A dash: this attack was not run."
        + _without_verdict(arms)
        + ("" if with_paper else " All samplers of a model on the same prompts.")
        + (f" {NOTE}" if with_paper else ""),
    )


def _without_verdict(arms: Sequence[Evidence]) -> str:
    """How many responses no judge gave a verdict on, in words; empty where there are none."""
    said = []
    for one in arms:
        harmful = one.where("harmful")
        given = {"RR": next(iter(one.refusal_given.values())), "ASR": one.harm_given}
        missing = {name: int((harmful & ~rows).sum()) for name, rows in given.items()}
        counts = ", ".join(f"{n} ({name})" for name, n in missing.items() if n)
        if counts:
            said.append(f"{one.name}, {counts} of {harmful.sum()}")
    if not said:
        return ""
    return f" Rates are over verdicts that were given. Responses without one: {'; '.join(said)}."


def _rates(one: Evidence, attacks: list[str], measure: Measure) -> list[Value]:
    cells: list[Value] = []
    for attack in attacks:
        chosen = one.where("harmful", "wrapped" if attack == "all" else attack)
        missing = "failed" if failed_attack(one, attack) else NOTHING
        cells.append(one.judged_rate(measure, chosen) if chosen.any() else missing)
    return cells


def answers_table(results: Results) -> Table:
    """Refusals and right answers on prompts that should be answered."""
    kinds: Mapping[str, tuple[Label, str]] = {
        "harmless, plain": ("harmless", "none"),
        "harmless, in attack wrappers": ("harmless", "wrapped"),
        "borderline": ("borderline", "none"),
    }
    rows: list[tuple[Value, ...]] = []
    for one in results.main:
        right = one.where("harmless") | one.where("borderline")
        right[right] = [one.rows.right[i] for i in range(len(right)) if right[i]]
        for name, (label, attack) in kinds.items():
            chosen = one.where(label, attack)
            if chosen.any():
                rows.append(
                    (one.name, name, one.judged_rate("RR", chosen), one.rate(right, chosen))
                )
    table = Table(
        "Prompts that should be answered",
        ("arm", "prompts", "refused", "right answers"),
        tuple(rows),
        note="Right answers are known only for the built-in world. Answers to other goals never count.",
    )
    return with_failed_arms(table, results)


#: Shares of the steps at which drafts are shown.
_SHARES = [(i + 1) / 16 for i in range(16)]


def dynamics_figure(one: Evidence) -> Figure | None:
    """Share of attacked harmful prompts whose draft is harmful or refuses, over the steps.

    Our reading of figure 2 of the paper. None if there are too few prompts to show.
    """
    chosen = one.where("harmful", "wrapped")
    drafts = {"harmful draft": one.rows.drafts, "refusing draft": one.rows.refusing}
    lines: dict[str, list[Point]] = {}
    for name, steps in drafts.items():
        marks = [(share, _at(steps, share)) for share in _SHARES]
        lines[name] = [(share, one.rate(at == "1", chosen & (at != "?"))) for share, at in marks]
    return curves(
        lines,
        title=f"Drafts over steps: {one.name}",
        xlabel="share of the steps",
        ylabel="share of generations",
        caption="Attacked harmful prompts; our reading of the paper's figure 2. An autoregressive "
        "draft is the prefix.",
    )


def _at(steps: Sequence[str], share: float) -> NDArray[np.str_]:
    """``[N]`` the mark of each generation after this share of its steps."""
    return np.array([marks[max(0, ceil(share * len(marks)) - 1)] for marks in steps])


def judges_table(results: Results) -> Table:
    """RR by each judge on harmful prompts, and Cohen's kappa of every pair on all prompts.

    Table 15 of the paper.
    """
    judges = list(results.main[0].refused) if results.main else []
    pairs = list(combinations(judges, 2))
    rows: list[tuple[Value, ...]] = []
    for one in results.main:
        harmful = one.where("harmful")
        rates = [one.refusal_rate(judge, harmful) for judge in judges]
        kappas = [_kappa(one, a, b) for a, b in pairs]
        rows.append((one.name, *rates, *kappas))
    table = Table(
        "Refusal judges on the same responses",
        ("arm", *(f"RR, {j}" for j in judges), *(f"kappa, {a} and {b}" for a, b in pairs)),
        tuple(rows),
        note="Kappa over harmless and harmful prompts together; 1 is full agreement beyond chance. A "
        "dash: both judges say the same of every response, so kappa is not defined. "
        "The paper compares its dictionary with a judge that is a language model (table 15).",
    )
    return with_failed_arms(table, results)


def _kappa(one: Evidence, first: str, second: str) -> Value:
    """Agreement over responses that both judged; a dash where kappa is not defined."""
    both = one.refusal_given[first] & one.refusal_given[second]
    if not both.any():
        return NOT_JUDGED
    said = one.refused[first][both], one.refused[second][both]
    if len({*said[0].tolist(), *said[1].tolist()}) < 2:
        return NOTHING
    return cohen_kappa(said[0].tolist(), said[1].tolist(), one.goals[both].tolist())


def recovery_table(results: Results) -> Table:
    """HRR, FRR and IRR of each main arm and variant (table 1 of the paper)."""
    arms = [one for one in results.evidence if one.group in ("main", "variant")]
    rows = [_row(one) for one in arms]
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


def _row(one: Evidence) -> tuple[Value, ...]:
    recovered = one.recovery()
    entered = NOT_JUDGED if NOT_JUDGED in recovered else int(one.entered.sum())
    return one.name, entered, *recovered, *map(one.irr, IRR_THRESHOLDS)


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


def models_figure(results: Results) -> Figure | None:
    """Internal recovery rate of every main arm (figure 5); None if there is too little to show."""
    return recovery_bars(
        results.main,
        "Internal recovery by model",
        "In the paper, autoregressive models stay below about .15 at every threshold, and diffusion "
        "models reach .4 to .6 at the loosest one.",
    )


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
        "harmless, answered": one.where("harmless", "none") & one.answers,
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


def recovery_bars(arms: list[Evidence], title: str, caption: str) -> Figure | None:
    """Internal recovery rates of some arms; None if there is too little to show."""
    rates = {
        one.name: {
            f"{t:g}": rate for t in IRR_THRESHOLDS if not isinstance(rate := one.irr(t), str)
        }
        for one in arms
    }
    return irr_bars(rates, title=title, caption=caption) if any(rates.values()) else None
