"""Table 4 of the paper: how well each detector tells successful jailbreaks from harmless prompts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from demur.metrics import Estimate, auroc, tpr_at_fpr
from demur.study import paper
from demur.study.evidence import FEWEST, TOO_FEW, Evidence, Scores
from demur.study.results import Results
from demur.study.tables.failed import short, with_failed_arms
from demur.viz.tables import NOTHING, Table, Value

#: Resamples of an interval: one takes a millisecond on a thousand scores, and there are hundreds.
DRAWS = 300


def detectors_table(results: Results) -> Table:
    """Mean and standard deviation over models of each detector's AUROC."""
    rows: list[tuple[Value, ...]] = []
    for name in detector_names(results):
        found = [one for one in _aurocs(results, name) if isinstance(one, Estimate)]
        values = [one.value for one in found]
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
        note=f"Models with fewer than {FEWEST} successful jailbreaks are left out. Detectors fitted "
        "on attacks saw the same families in training; without them see the next tables. Length and "
        f"perplexity are baselines that look at nothing else. {paper.NOTE}",
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
        note=f"“{TOO_FEW}”: fewer than {FEWEST} jailbreaks succeeded, or a false-positive rate below "
        "one in the number of harmless prompts. Thresholds are set on held-out harmless prompts.",
    )
    return with_failed_arms(table, results)


def outcomes_table(results: Results) -> Table:
    """AUROC of attacked prompts against harmless ones, by how the attack ended."""
    rows: list[tuple[Value, ...]] = []
    for one in results.main:
        attacked = one.rows("harmful", "wrapped")
        ends = {
            "succeeded": attacked & one.succeeded,
            "refused": attacked & ~one.succeeded & one.refusals,
            "failed": attacked & ~one.succeeded & ~one.refusals,
        }
        for name in ("sri", "sri-standardised"):
            if name in one.scores:
                cells = [separation(one, one.scores[name].values, rows_) for rows_ in ends.values()]
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
                pair = [separation(one, values, chosen) for values in (scores.values, without)]
                rows.append((one.name, scores.name, attack.replace("_", " "), *pair))
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


def separation(
    one: Evidence, scores: NDArray[np.float64], positives: NDArray[np.bool_]
) -> Estimate | str:
    """AUROC of some rows against all harmless ones; words where there are too few."""
    benign = one.rows("harmless") & ~np.isnan(scores)
    positives = positives & ~np.isnan(scores)
    if positives.sum() < FEWEST or not benign.any():
        return TOO_FEW
    goals = [*one.goals[benign], *one.goals[positives]]
    return auroc(scores[benign], scores[positives], goals)


def _aurocs(results: Results, name: str) -> list[Estimate | str]:
    there = (one for one in results.main if name in one.scores)
    return [separation(one, one.scores[name].values, one.jailbreaks) for one in there]


def _row(one: Evidence, scores: Scores) -> list[Value]:
    chosen = one.jailbreaks & ~np.isnan(scores.values)
    benign = one.rows("harmless") & ~np.isnan(scores.values)
    if chosen.sum() < FEWEST:
        return [TOO_FEW] * 4
    pair = scores.values[benign], scores.values[chosen]
    goals = [*one.goals[benign], *one.goals[chosen]]
    cells: list[Value] = [separation(one, scores.values, one.jailbreaks)]
    for fpr in (0.01, 0.001):
        # A rate below one in n harmless prompts cannot be seen on them.
        seen = benign.sum() * fpr >= 1
        cells.append(tpr_at_fpr(*pair, goals, fpr=fpr, draws=DRAWS) if seen else TOO_FEW)
    return [*cells, one.rate(scores.flagged, chosen)]
