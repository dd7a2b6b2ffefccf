"""Table 3 of the paper: refusal rate and attack success rate of every model under every attack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from demur.study import paper
from demur.study.evidence import Evidence, on_common_prompts
from demur.study.results import Results
from demur.study.tables.failed import failed_attack, with_failed_arms
from demur.viz.tables import NOTHING, Table, Value


def rates_table(results: Results) -> Table:
    """Two rows a model, RR and ASR; a column an attack."""
    return with_failed_arms(_table(results.main, "Refusals and successful attacks"), results)


def remasking_table(results: Results) -> Table:
    """The same for every sampler of the models that have several, on the prompts they share."""
    arms = [
        named(one, results)
        for arms in several_samplers(results).values()
        for one in on_common_prompts(arms)
    ]
    table = _table(arms, "Refusals and successful attacks by sampler", with_paper=False)
    return with_failed_arms(table, results, groups=("variant",))


def named(one: Evidence, results: Results) -> Evidence:
    """A main arm by its sampler's name too, as the arms beside it are; others as they are."""
    sampler = results.first_sampler(one.model)
    return replace(one, name=f"{one.name}, {sampler}") if one.group == "main" and sampler else one


def several_samplers(results: Results) -> dict[str, list[Evidence]]:
    """Model -> its main arm and variants, where there are variants."""
    models = dict.fromkeys(one.model for one in results.group("variant"))
    return {
        model: [
            one
            for one in results.evidence
            if one.model == model and one.group in ("main", "variant")
        ]
        for model in models
    }


def shown(attack: str) -> str:
    """An attack's name for readers."""
    return {"none": "plain"}.get(attack, attack.replace("_", " "))


def _table(arms: list[Evidence], title: str, *, with_paper: bool = True) -> Table:
    ours = list(dict.fromkeys(attack for one in arms for attack in one.attacks))
    printed = paper.printed("rates") if with_paper else {}
    theirs = [attack for rates in printed.values() for attack in rates]
    attacks = list(dict.fromkeys(["none", "all", *ours, *theirs]))
    rows: list[tuple[Value, ...]] = [
        (one.name, measure, int(one.rows("harmful").sum()), *_rates(one, attacks, measure))
        for one in arms
        for measure in ("RR", "ASR")
    ]
    for model, rates in printed.items():
        for place, measure in enumerate(("RR", "ASR")):
            cells = [rates[a][place] if a in rates else NOTHING for a in attacks]
            rows.append((model + paper.MARK, measure, NOTHING, *cells))
    return Table(
        title,
        ("arm", "rate", "harmful prompts", *map(shown, attacks)),
        tuple(rows),
        note="RR: share refused, by the first refusal judge. ASR: share that the harm judge finds "
        "harmful. “all” is every attack together, the plain prompts left out. 95% intervals, "
        "clustered by goal; a dash where an attack was not run."
        + ("" if with_paper else " All samplers of a model on the same prompts.")
        + (f" {paper.NOTE}" if with_paper else ""),
    )


def _rates(one: Evidence, attacks: list[str], measure: str) -> list[Value]:
    hits = one.refusals if measure == "RR" else one.succeeded
    cells: list[Value] = []
    for attack in attacks:
        chosen = one.rows("harmful", "wrapped" if attack == "all" else attack)
        missing = "failed" if failed_attack(one, attack) else NOTHING
        cells.append(one.rate(hits, chosen) if chosen.any() else missing)
    return cells


def answers_table(results: Results) -> Table:
    """Right answers and over-refusal on prompts that should be answered."""
    kinds: Mapping[str, tuple[str, str]] = {
        "harmless, plain": ("harmless", "none"),
        "harmless, in attack wrappers": ("harmless", "wrapped"),
        "borderline": ("borderline", "none"),
    }
    rows: list[tuple[Value, ...]] = []
    for one in results.main:
        right = one.rows("harmless") | one.rows("borderline")
        right[right] = [one.columns["right"][i] for i in range(len(right)) if right[i]]
        for name, (label, attack) in kinds.items():
            chosen = one.rows(label, attack)  # type: ignore[arg-type]
            if chosen.any():
                rows.append(
                    (one.name, name, one.rate(one.refusals, chosen), one.rate(right, chosen))
                )
    table = Table(
        "Prompts that should be answered",
        ("arm", "prompts", "refused", "right answers"),
        tuple(rows),
        note="Right answers are known for the built-in world only; for other goals none counts.",
    )
    return with_failed_arms(table, results)
