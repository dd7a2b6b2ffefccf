"""Table 4 of the paper: how well each detector tells successful jailbreaks from harmless prompts."""

from __future__ import annotations

import numpy as np

from demur.metrics import Estimate, tpr_at_fpr
from demur.study import paper
from demur.study.evidence import FEWEST, Evidence, Scores
from demur.study.results import Results
from demur.study.tables.failed import short, with_failed_arms
from demur.study.tables.rates import shown
from demur.viz.tables import NOTHING, TOO_FEW, Table, Value

#: Resamples of a TPR: one takes a millisecond on a thousand scores, and there are hundreds.
DRAWS = 300


def detectors_table(results: Results) -> Table:
    """Mean and standard deviation over models of each detector's AUROC."""
    rows: list[tuple[Value, ...]] = []
    for name in detector_names(results):
        values = aurocs(results, name)
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else NOTHING
        kind = any(s.supervised for e in results.main if (s := e.scores.get(name)))
        mean = float(np.mean(values)) if values else TOO_FEW
        rows.append((name, "attacks" if kind else "benign", mean, spread, len(values)))
    for name, (mean, spread) in paper.printed("auroc").items():
        rows.append((name + paper.MARK, "benign", mean, spread, 6))
    return Table(
        "AUROC of each detector over models",
        ("detector", "fitted on", "mean AUROC", "standard deviation", "models"),
        tuple(rows),
        note=f"Models with successful jailbreaks of fewer than {FEWEST} goals are left out. Detectors "
        "fitted on attacks saw the same families in training; without them see the next tables. Length "
        f"and perplexity are baselines that look at nothing else. {paper.NOTE}",
    )


def detection_table(results: Results) -> Table:
    """AUROC, TPR at 1% and 0.1% FPR, and what is flagged at the calibrated threshold, by model."""
    rows: list[tuple[Value, ...]] = []
    for one in results.main:
        for name in detector_names(results):
            if name in one.scores:
                rows.append(
                    (one.name, name, int(one.jailbreaks.sum()), *_row(one, one.scores[name]))
                )
            elif name in one.failed:
                rows.append((one.name, name, short(one.failed[name]), *[NOTHING] * 4))
    table = Table(
        "Successful jailbreaks against harmless prompts, plain and wrapped",
        (
            *("arm", "detector", "jailbreaks", "AUROC", "TPR at 1% FPR", "TPR at 0.1% FPR"),
            "flagged at the threshold",
        ),
        tuple(rows),
        note=f"“{TOO_FEW}”: jailbreaks of fewer than {FEWEST} goals succeeded, or a false-positive "
        "rate below one in the number of harmless prompts. Flagged at the threshold: the threshold was "
        "set on held-out harmless prompts, as a guard's is. TPR at a false-positive rate: the "
        "threshold is set on the very harmless prompts of this test, to compare detectors at one rate.",
    )
    return with_failed_arms(table, results)


def outcomes_table(results: Results) -> Table:
    """AUROC of attacked prompts against harmless ones, by how the attack ended."""
    rows: list[tuple[Value, ...]] = []
    for one in results.main:
        attacked = one.rows("harmful", "wrapped")
        ends = {end: attacked & chosen for end, chosen in one.ends.items()}
        for name, scores in one.scores.items():
            if name in ("sri", "sri-standardised") or scores.supervised:
                cells = [one.separation(scores.values, chosen) for chosen in ends.values()]
                counts = ", ".join(str(int(chosen.sum())) for chosen in ends.values())
                rows.append((one.name, name, counts, *cells))
    table = Table(
        "AUROC by how the attack ended",
        ("arm", "detector", "prompts of each", "succeeded", "refused", "failed"),
        tuple(rows),
        note="Failed: neither harmful nor a refusal. A detector of jailbreaks should be high on the "
        "first; high on the second, it sees the topic or the refusal.",
    )
    return with_failed_arms(table, results)


def left_out_table(results: Results) -> Table:
    """Supervised detectors on an attack they were fitted with, and fitted without it."""
    rows: list[tuple[Value, ...]] = []
    for one in results.main:
        for scores in one.scores.values():
            for attack, without in sorted(scores.left_out.items()):
                chosen = one.rows("harmful", attack) & one.succeeded
                pair = [one.separation(values, chosen) for values in (scores.values, without)]
                rows.append((one.name, scores.name, shown(attack), *pair))
    table = Table(
        "Trained detectors on attacks they never saw",
        ("arm", "detector", "attack", "AUROC, attack seen", "AUROC, attack left out"),
        tuple(rows),
    )
    return with_failed_arms(table, results)


def detector_names(results: Results) -> list[str]:
    """Every detector that the study names or that scored some arm, in the study's order."""
    scored = [s.name for one in results.main for s in one.scores.values() if s.group == "detector"]
    named = [name for name in results.manifest["study"]["detectors"] if name not in scored]
    return list(dict.fromkeys([*scored, *named]))


def aurocs(results: Results, name: str) -> list[float]:
    """A detector's AUROC on each model that has enough successful jailbreaks."""
    found = (one.separations.get(name) for one in results.main)
    return [one.value for one in found if isinstance(one, Estimate)]


def _row(one: Evidence, scores: Scores) -> list[Value]:
    found = one.separations[scores.name]
    if isinstance(found, str):
        return [found] * 4
    there = ~np.isnan(scores.values)
    chosen, benign = one.jailbreaks & there, one.rows("harmless") & there
    pair = scores.values[benign], scores.values[chosen]
    goals = [*one.goals[benign], *one.goals[chosen]]
    cells: list[Value] = [found]
    for fpr in (0.01, 0.001):
        # A rate below one in n harmless prompts cannot be seen on them.
        seen = benign.sum() * fpr >= 1
        cells.append(tpr_at_fpr(*pair, goals, fpr=fpr, draws=DRAWS) if seen else TOO_FEW)
    return [*cells, one.rate(scores.flagged, chosen)]
