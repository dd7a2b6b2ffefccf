"""What the text shows: refusals, successful attacks, right answers, and how judges agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import ceil

import numpy as np
from numpy.typing import NDArray

from demur.metrics import cohen_kappa
from demur.study.report.evidence import Evidence
from demur.study.report.results import Results
from demur.study.report.rows import (
    MARK,
    NOTE,
    attack_name,
    failed_attack,
    printed,
    with_failed_arms,
)
from demur.types import Label
from demur.viz.figures import Figure, Point, curves
from demur.viz.tables import NOTHING, Table, Value


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
    rows: list[tuple[Value, ...]] = [
        (one.name, measure, int(one.where("harmful").sum()), *_rates(one, attacks, measure))
        for one in arms
        for measure in ("RR", "ASR")
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
        + ("" if with_paper else " All samplers of a model on the same prompts.")
        + (f" {NOTE}" if with_paper else ""),
    )


def _rates(one: Evidence, attacks: list[str], measure: str) -> list[Value]:
    hits = one.refusals if measure == "RR" else one.succeeded
    cells: list[Value] = []
    for attack in attacks:
        chosen = one.where("harmful", "wrapped" if attack == "all" else attack)
        missing = "failed" if failed_attack(one, attack) else NOTHING
        cells.append(one.rate(hits, chosen) if chosen.any() else missing)
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
                    (one.name, name, one.rate(one.refusals, chosen), one.rate(right, chosen))
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
    lines: dict[str, list[Point]] = {}
    for name, steps in (
        ("harmful draft", one.rows.drafts),
        ("refusing draft", one.rows.refusing),
    ):
        lines[name] = [(share, one.rate(_at(steps, share), chosen)) for share in _SHARES]
    return curves(
        lines,
        title=f"Drafts over steps: {one.name}",
        xlabel="share of the steps",
        ylabel="share of generations",
        caption="Attacked harmful prompts; our reading of the paper's figure 2. An autoregressive "
        "draft is the prefix.",
    )


def _at(steps: Sequence[str], share: float) -> NDArray[np.bool_]:
    """``[N]`` the verdict of each generation after this share of its steps."""
    return np.array([marks[max(0, ceil(share * len(marks)) - 1)] == "1" for marks in steps])


def judges_table(results: Results) -> Table:
    """RR by each judge on harmful prompts, and Cohen's kappa of every pair on all prompts.

    Table 15 of the paper.
    """
    judges = list(results.main[0].refused) if results.main else []
    pairs = list(combinations(judges, 2))
    rows: list[tuple[Value, ...]] = []
    for one in results.main:
        harmful, goals = one.where("harmful"), one.goals.tolist()
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
