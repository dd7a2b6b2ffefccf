"""What the sampler alone changes: the same weights from AR order to remasking."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from demur.metrics import difference
from demur.study.plan.arms import is_ar_order
from demur.study.report.evidence import Evidence, Quantity, enough, on_common_prompts
from demur.study.report.extra_rows import MARK, NOTE, attack_name, printed, with_failed_arms
from demur.study.report.rates import attacks_table, recovery_bars
from demur.study.report.results import Results
from demur.viz.figures import Figure, Point, curves
from demur.viz.tables import NOT_JUDGED, Table, Value

_TITLE = "Same weights: from AR order to remasking"
_COLUMNS = ("with remasking", "attack", "change in RR", "cut in ASR")


def same_weights_table(results: Results) -> Table | None:
    """Paired change in RR and cut in ASR from AR order to remasking (table 2 of the paper).

    None if no model has both.
    """
    rows: list[Sequence[Value]] = []
    for ordered, remasked in pairs(results):
        for attack in ["all", *remasked.attacks]:
            rows.append((remasked.name, attack_name(attack), *changes(ordered, remasked, attack)))
        for other in variants(results, ordered):
            rows.append((other.name, attack_name("all"), *changes(ordered, other, "all")))
    broken = with_failed_arms(
        Table(_TITLE, _COLUMNS, rows),
        results,
        groups=("variant",),
        wanted=lambda arm: is_ar_order(arm.sampler),
    )
    if not broken.rows:
        return None
    rows = [*broken.rows]
    for attack, models in printed("same_weights").items():
        for model, (refusals, success) in models.items():
            rows.append((model + MARK, attack_name(attack), refusals, success))
    return Table(
        _TITLE,
        _COLUMNS,
        rows,
        note="Differences of rates in [-1, 1] on the same prompts; positive: with remasking the "
        "model refuses more, and fewer attacks succeed. Variants of remasking saw fewer prompts. 95% "
        "intervals of paired differences, clustered by goal. “all”: all attacks together, without "
        f"plain prompts. {NOTE}",
    )


def pairs(results: Results) -> Iterator[tuple[Evidence, Evidence]]:
    """(AR order, main arm) of each model that has both."""
    for one in results.evidence:
        if one.group == "variant" and is_ar_order(one.fingerprint.sampler):
            yield from ((one, main) for main in results.main if main.model == one.model)


def variants(results: Results, ordered: Evidence) -> Iterator[Evidence]:
    """The other variants of the model in AR order: random remasking, blocks and so on."""
    for one in results.evidence:
        if one.group == "variant" and one.model == ordered.model and one is not ordered:
            yield one


def changes(ordered: Evidence, remasked: Evidence, attack: str) -> tuple[Quantity, Quantity]:
    """Change in RR and cut in ASR over the prompts that both arms saw."""
    first, second = _places(ordered, attack), _places(remasked, attack)
    both = [i for i in first if i in second]
    a, b = np.array([first[i] for i in both], int), np.array([second[i] for i in both], int)
    goals = remasked.goals[b]

    def change(
        more: NDArray[np.bool_], less: NDArray[np.bool_], given: NDArray[np.bool_]
    ) -> Quantity:
        if len(given) and not given.any():
            return NOT_JUDGED
        return enough(difference(more[given], less[given], goals[given].tolist()))

    answered = [next(iter(one.refusal_given.values())) for one in (ordered, remasked)]
    return (
        change(remasked.refusals[b], ordered.refusals[a], answered[0][a] & answered[1][b]),
        change(
            ordered.succeeded[a],
            remasked.succeeded[b],
            ordered.harm_given[a] & remasked.harm_given[b],
        ),
    )


def _places(one: Evidence, attack: str) -> dict[str, int]:
    chosen = one.where("harmful", "wrapped" if attack == "all" else attack)
    return {str(one.rows.ids[i]): i for i in np.flatnonzero(chosen).tolist()}


def second_opinion_table(results: Results) -> Table:
    """Change in RR from AR order to remasking by each judge (table 15 of the paper)."""
    judges = list(results.main[0].refused) if results.main else []
    rows = [
        (
            *(remasked.model, attack_name(attack)),
            *(changes(ordered.judged_by(j), remasked.judged_by(j), attack)[0] for j in judges),
        )
        for ordered, remasked in pairs(results)
        for attack in ["all", *remasked.attacks]
    ]
    return Table(
        "Same weights: change in refusals by judge",
        ("model", "attack", *judges),
        rows,
        note="Differences of RR in [-1, 1] on the same prompts; positive: remasking refuses more. 95% "
        "intervals of paired differences, clustered by goal. “all”: all attacks together, without "
        "plain prompts. The paper's second judge is a language model (table 15).",
    )


def remasking_table(results: Results) -> Table:
    """RR and ASR of each sampler of models that have several, on the prompts they share."""
    arms = [
        named(one, results)
        for arms in several_samplers(results).values()
        for one in on_common_prompts(arms)
    ]
    table = attacks_table(arms, "Refusals and successful attacks by sampler", with_paper=False)
    return with_failed_arms(table, results, groups=("variant",))


def named(one: Evidence, results: Results) -> Evidence:
    """A main arm with its sampler in its name, as in the names of variants; others unchanged."""
    sampler = results.first_sampler(one.model)
    return replace(one, name=f"{one.name}, {sampler}") if one.group == "main" and sampler else one


def several_samplers(results: Results) -> dict[str, list[Evidence]]:
    """Model -> its main arm and variants, for models that have variants."""
    compared = [one for one in results.evidence if one.group in ("main", "variant")]
    models = dict.fromkeys(one.model for one in results.group("variant"))
    return {model: [one for one in compared if one.model == model] for model in models}


def causality_table(results: Results) -> Table:
    """RR, ASR, IRR and HRR along the continuum from AR order to fully parallel remasking."""
    rows = [
        (
            *(one.model, block_length(one), _commits(one)),
            *(_rate(one, measure) for measure in ("RR", "ASR", "IRR")),
            *(int(one.entered.sum()), one.recovery()[0]),
        )
        for one in results.group("continuum")
    ]
    table = Table(
        "The same weights from AR order to full-parallel remasking",
        (
            *("model", "block length", "commits a step", "RR", "ASR", "IRR at 0.5"),
            *("harmful drafts", "HRR"),
        ),
        rows,
        note="Block length 1 is AR order. The longest block is remasking over the whole response. RR "
        "and ASR under attack; IRR and HRR over all harmful prompts. All rows use the same prompts. "
        "IRR and HRR need an earlier step to recover from. They cannot occur if everything is "
        "committed in one step, and fewer steps give fewer chances.",
    )
    return with_failed_arms(table, results, groups=("continuum",))


def blocks_figure(results: Results, model: str) -> Figure | None:
    """Rates by block length at one commit per step; None if there is too little to show."""
    arms = [one for one in _arms(results, model) if one_a_step(one)]
    return _figure(arms, block_length, f"From AR order to one block: {model}", "block length")


def commits_figure(results: Results, model: str) -> Figure | None:
    """Rates by commits per step in one block; None if there is too little to show."""
    longest = max(block_length(one) for one in _arms(results, model))
    arms = [one for one in _arms(results, model) if block_length(one) == longest]
    return _figure(
        arms, _commits, f"From one token a step to all at once: {model}", "commits a step"
    )


def one_a_step(one: Evidence) -> bool:
    """Whether each step commits one token."""
    return _commits(one) == 1


def _figure(
    arms: list[Evidence], place: Callable[[Evidence], int], title: str, xlabel: str
) -> Figure | None:
    ordered = sorted(arms, key=place)
    lines: dict[str, list[Point]] = {
        measure: [(place(one), _rate(one, measure)) for one in ordered]
        for measure in ("RR", "ASR", "IRR", "HRR")
    }
    return curves(lines, title=title, xlabel=xlabel, ylabel="rate", doubling=True)


def _rate(one: Evidence, measure: str) -> Quantity:
    attacked = one.where("harmful", "wrapped")
    if measure in ("IRR", "HRR"):
        return one.irr(0.5) if measure == "IRR" else one.recovery()[0]
    return one.judged_rate("RR" if measure == "RR" else "ASR", attacked)


def _arms(results: Results, model: str) -> list[Evidence]:
    return [one for one in results.group("continuum") if one.model == model]


def block_length(one: Evidence) -> int:
    """Tokens per block: 1 in AR order."""
    return int(one.fingerprint.sampler["block_length"])


def _commits(one: Evidence) -> int:
    sampler = one.fingerprint.sampler
    return int(sampler["gen_length"] // sampler["steps"])


def samplers_figure(results: Results) -> Figure | None:
    """The same weights in AR order and with remasking on the same prompts (figure 6).

    None if there is no such pair, or too little to show.
    """
    arms = [named(one, results) for pair in pairs(results) for one in on_common_prompts(pair)]
    return recovery_bars(
        arms,
        "Internal recovery with the same weights",
        "Both samplers of a model on the same prompts, each with its own anchors. In the paper, the "
        "two differ by .29 to .48 with the same weights.",
    )
