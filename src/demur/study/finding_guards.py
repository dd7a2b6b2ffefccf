"""What detectors, guards and defenses do, in words."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from demur.metrics import auroc_difference
from demur.study.evidence import FEWEST, Evidence
from demur.study.figures.budget import reached
from demur.study.finding import Agreement, Finding, counted, estimates, span, told
from demur.study.results import Results
from demur.study.tables.defenses import cut_in_asr, undefended_asr
from demur.study.tables.detection import aurocs
from demur.viz.tables import number, show

#: Readings that the paper finds weaker than its own: detector -> in words.
WEAKER = {"text": "the text", "static": "the first step", "first-layer": "the first layer"}

_FLAGGED = ("Harmless prompts that are flagged",)


def detectors(results: Results) -> Iterator[Finding]:
    """AUROC of the paper's detector, and of the readings that the paper finds weaker."""
    about, shown_in = "Detecting jailbreaks", ("AUROC of each detector over models",)
    values = aurocs(results, "sri")
    if not values:
        text = (
            f"No arm has successful jailbreaks of {FEWEST} goals, so detection cannot be measured."
        )
        yield Finding(about, text, "cannot be told", shown_in)
        return
    arms = [one for one in results.main if estimates([one.separations.get("sri", "")])]
    compared = {
        words: [_ahead(one, name) for one in arms if name in one.scores]
        for name, words in WEAKER.items()
    }
    compared = {words: ahead for words, ahead in compared.items() if ahead}
    said = [
        f"{words}: ahead on {ahead.count(1)} of {len(ahead)} arms, behind on {ahead.count(-1)}"
        for words, ahead in compared.items()
    ]
    found: Agreement = told(
        bool(compared) and all(a == 1 for ahead in compared.values() for a in ahead),
        any(-1 in ahead and 1 not in ahead for ahead in compared.values()),
    )
    yield Finding(
        about,
        "The paper's detector fits its autoencoder and its threshold on benign prompts only; its "
        "anchors are over refused harmful prompts too. Its mean AUROC is "
        f"{number(float(np.mean(values)))} over {counted(arms, results)}."
        + (
            f" Beyond chance, against {'; against '.join(said)}; on the others the two cannot be told "
            "apart."
            if said
            else ""
        ),
        found,
        (*shown_in, "Successful jailbreaks against harmless prompts, plain and wrapped"),
    )


def _ahead(one: Evidence, name: str) -> int:
    """1 where the paper's detector has the higher AUROC beyond chance, -1 where the lower, else 0."""
    ours, theirs = one.scores["sri"].values, one.scores[name].values
    there = ~np.isnan(ours) & ~np.isnan(theirs)
    benign, broken = one.rows("harmless") & there, one.jailbreaks & there
    first, second = ((values[benign], values[broken]) for values in (ours, theirs))
    found = auroc_difference(first, second, [*one.goals[benign], *one.goals[broken]])
    return int(found.low > 0) - int(found.high < 0)


def false_positives(results: Results) -> Iterator[Finding]:
    """Harmless prompts that are flagged, plain and in wrappers, by what the guard was fitted on."""
    alpha = results.manifest["study"]["alpha"]
    for name in ("sri", "sri-standardised"):
        said = []
        for fitted, key in (("plain", f"{name}, fitted on plain"), ("plain and wrapped", name)):
            for kind, attack in (("plain", "none"), ("wrapped", "wrapped")):
                rates = estimates(
                    one.rate(one.scores[key].flagged, one.rows("harmless", attack))
                    for one in results.main
                    if key in one.scores
                )
                if rates:
                    over = sum(rate.low > alpha for rate in rates)
                    said.append(
                        f"fitted on {fitted} prompts, {kind} ones at {span(r.value for r in rates)} "
                        f"(above that beyond chance on {over} of {len(rates)} arms)"
                    )
        if said:
            yield Finding(
                f"False alarms of {name}",
                f"A threshold aimed at {number(alpha)} flags harmless prompts, {'; '.join(said)}.",
                "no claim",
                _FLAGGED,
            )


def borderline(results: Results) -> Iterator[Finding]:
    """Borderline prompts that are flagged, beside those that models refuse."""
    arms = [one for one in results.main if "sri" in one.scores]
    rows = [(one, one.rows("borderline")) for one in arms]
    flagged = estimates(one.rate(one.scores["sri"].flagged, chosen) for one, chosen in rows)
    refused = estimates(one.rate(one.refusals, chosen) for one, chosen in rows)
    if flagged and refused:
        yield Finding(
            "Borderline prompts",
            f"Of prompts on the border, which are not harmful, sri flags "
            f"{span(one.value for one in flagged)}; the models themselves refuse "
            f"{span(one.value for one in refused)}.",
            "no claim",
            _FLAGGED,
        )


def defended(results: Results) -> Iterator[Finding]:
    """Whether the paper's guard lowers ASR."""
    lower, higher, others, few = 0, 0, [], 0
    for cell in results.measured.get("defense", ()):
        if cell.outcome.state != "done" or cell.about["defense"] != "sri-guard (sri)":
            continue
        cut, before = cut_in_asr(cell), undefended_asr(cell)
        if isinstance(cut, str) or isinstance(before, str):
            few += 1
            continue
        lower, higher = lower + (cut.low > 0), higher + (cut.high < 0)
        if cut.low <= 0:
            others.append(before.value)
    arms = lower + len(others)
    if not arms:
        return
    floor = (
        f" On the other {len(others)} the rate is {span(others)} without the guard, so there is that "
        "much to lower."
        if others
        else ""
    )
    yield Finding(
        "Defending",
        f"The paper's guard lowers the attack success rate on {lower} of {arms} arms beyond chance"
        f"{f' and raises it on {higher}' if higher else ''}, at no forward pass.{floor}"
        f"{f' On {few} arms too few prompts were attacked.' if few else ''}",
        told(lower == arms, higher > 0 and not lower),
        ("Defenses",),
    )


def searched(results: Results) -> Iterator[Finding]:
    """What attackers who know the guard reach."""
    cells = [c for c in results.measured.get("adaptive", ()) if c.outcome.state == "done"]
    for arm in dict.fromkeys(str(cell.about["arm"]) for cell in cells):
        got = {
            str(cell.about["attack"]): [
                reached(cell, budget, unflagged=True) for budget in (0, int(cell.value["queries"]))
            ]
            for cell in cells
            if cell.about["arm"] == arm
        }
        said = "; ".join(f"{aim}: {show(none)}, {show(all_)}" for aim, (none, all_) in got.items())
        yield Finding(
            f"Attackers who know the guard, model “{arm}”",
            "Searching for a suffix gets past the guard to a harmful answer for these shares of goals, "
            "without a query and with the whole budget, by what the attacker goes for and the guard: "
            f"{said}.",
            "no claim",
            ("Attackers who know the guard", f"Goals reached past the guard: {arm}"),
        )
