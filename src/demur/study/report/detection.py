"""How well detectors tell successful jailbreaks from harmless prompts, and what that depends on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from demur.metrics import Estimate, tpr_at_fpr
from demur.study.report.evidence import FEWEST, Evidence, Scores
from demur.study.report.extra_rows import (
    MARK,
    NOTE,
    attack_name,
    blanks,
    printed,
    short,
    with_failed_arms,
)
from demur.study.report.results import Results
from demur.study.work.scores import PLAIN
from demur.viz.tables import NOTHING, TOO_FEW, Table, Value

#: Bootstrap resamples per TPR. One takes 1 ms on 1,000 scores, and there are hundreds of TPRs.
DRAWS = 300


def detectors_table(results: Results) -> Table:
    """Mean and standard deviation over models of each detector's AUROC (table 4 of the paper)."""
    rows: list[tuple[Value, ...]] = []
    for name in detector_names(results):
        values = aurocs(results, name)
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else NOTHING
        kind = any(s.supervised for e in results.main if (s := e.scores.get(name)))
        mean = float(np.mean(values)) if values else TOO_FEW
        rows.append((name, "attacks" if kind else "benign", mean, spread, len(values)))
    for name, (mean, spread) in printed("auroc").items():
        rows.append((name + MARK, "benign", mean, spread, 6))
    return Table(
        "AUROC of each detector over models",
        ("detector", "fitted on", "mean AUROC", "standard deviation", "models"),
        tuple(rows),
        note=f"Models with successful jailbreaks of fewer than {FEWEST} goals are left out. Detectors "
        "fitted on attacks saw the same attack families in training; the next tables leave families "
        f"out. Length and perplexity are baselines that use nothing else. {NOTE}",
    )


def detection_table(results: Results) -> Table:
    """AUROC, TPR at 1% and 0.1% FPR, and the share flagged at the calibrated threshold, by arm."""
    rows: list[tuple[Value, ...]] = []
    for one in results.main:
        for name in detector_names(results):
            if name in one.scores:
                rows.append((one.name, name, one.jailbreak_count, *_row(one, one.scores[name])))
            elif name in one.failed:
                rows.append((one.name, name, short(one.failed[name]), *blanks(4)))
    table = Table(
        "Successful jailbreaks against harmless prompts, plain and wrapped",
        (
            *("arm", "detector", "jailbreaks", "AUROC", "TPR at 1% FPR", "TPR at 0.1% FPR"),
            "flagged at the threshold",
        ),
        tuple(rows),
        note=f"“{TOO_FEW}”: jailbreaks of fewer than {FEWEST} goals succeeded, or the false-positive "
        "rate is below 1 / (number of harmless prompts). Flagged at the threshold: with the threshold "
        "set on held-out harmless prompts, like a guard's. TPR at a false-positive rate: with the "
        "threshold set on this test's harmless prompts, to compare detectors at the same rate.",
    )
    return with_failed_arms(table, results)


def outcomes_table(results: Results) -> Table:
    """AUROC of attacked prompts against harmless ones, by how the attack ended."""
    rows: list[tuple[Value, ...]] = []
    for one in results.main:
        attacked = one.where("harmful", "wrapped")
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
        note="Failed: neither harmful nor a refusal. A jailbreak detector should be high on succeeded. "
        "If it is high on refused, it detects the topic or the refusal.",
    )
    return with_failed_arms(table, results)


def left_out_table(results: Results) -> Table:
    """AUROC of supervised detectors on an attack, fitted with that attack and without it."""
    rows: list[tuple[Value, ...]] = []
    for one in results.main:
        for scores in one.scores.values():
            for attack, without in sorted(scores.left_out.items()):
                chosen = one.where("harmful", attack) & one.succeeded
                pair = [one.separation(values, chosen) for values in (scores.values, without)]
                rows.append((one.name, scores.name, attack_name(attack), *pair))
    table = Table(
        "Trained detectors on attacks they never saw",
        ("arm", "detector", "attack", "AUROC, attack seen", "AUROC, attack left out"),
        tuple(rows),
    )
    return with_failed_arms(table, results)


def detector_names(results: Results) -> list[str]:
    """Detectors that the study names or that scored an arm, in the study's order."""
    scored = [s.name for one in results.main for s in one.scores.values() if s.group == "detector"]
    named = [name for name in results.manifest.study.detectors if name not in scored]
    return list(dict.fromkeys([*scored, *named]))


def aurocs(results: Results, name: str) -> list[float]:
    """A detector's AUROC on each model with enough successful jailbreaks."""
    found = (one.separations.get(name) for one in results.main)
    return [one.value for one in found if isinstance(one, Estimate)]


def _row(one: Evidence, scores: Scores) -> list[Value]:
    found = one.separations[scores.name]
    if isinstance(found, str):
        return [found] * 4
    there = ~np.isnan(scores.values)
    chosen, benign = one.jailbreaks & there, one.where("harmless") & there
    pair = scores.values[benign], scores.values[chosen]
    goals = [*one.goals[benign], *one.goals[chosen]]
    cells: list[Value] = [found]
    for fpr in (0.01, 0.001):
        # n harmless prompts cannot show a rate below 1 / n.
        seen = benign.sum() * fpr >= 1
        cells.append(tpr_at_fpr(*pair, goals, fpr=fpr, draws=DRAWS) if seen else TOO_FEW)
    return [*cells, one.rate(scores.flagged, chosen)]


def false_positives_table(results: Results) -> Table:
    """Share of harmless prompts that are flagged, by what the detector was fitted on."""
    wrappers = list(dict.fromkeys(a for one in results.main for a in kinds(one)))
    rows: list[tuple[Value, ...]] = []
    for one in results.main:
        chosen = kinds(one)
        for name in PLAIN:
            fitted = {"plain and wrapped": name, "plain": f"{name}, fitted on plain"}
            for label, scored in fitted.items():
                if scores := one.scores.get(scored):
                    seen = ~np.isnan(scores.values)
                    there = {kind: of & seen for kind, of in chosen.items()}
                    rates = [
                        one.rate(scores.flagged, there[kind])
                        if kind in there and there[kind].any()
                        else NOTHING
                        for kind in wrappers
                    ]
                    rows.append((one.name, name, label, *rates))
    table = Table(
        "Harmless prompts that are flagged",
        ("arm", "detector", "fitted and calibrated on", *wrappers),
        tuple(rows),
        note=f"Thresholds aim at {results.manifest.study.alpha:g}. Conformal calibration keeps this "
        "rate if test prompts are exchangeable with calibration prompts. They are not quite: their "
        "tasks differ, and prompts of one task are alike, so the effective number of prompts is "
        "smaller. The table shows the rates measured on test prompts. Shorter and longer: the third "
        "of the plain harmless prompts with the fewest and with the most words.",
    )
    return with_failed_arms(table, results)


def kinds(one: Evidence) -> dict[str, NDArray[np.bool_]]:
    """Rows of each kind of prompt that should not be flagged."""
    plain = one.where("harmless", "none")
    lengths = np.array(one.rows.words)
    low, high = np.quantile(lengths[plain], [1 / 3, 2 / 3]) if plain.any() else (0, 0)
    labels = zip(one.rows.labels, one.rows.attacks, strict=True)
    wrappers = dict.fromkeys(a for label, a in labels if label == "harmless" and a != "none")
    return {
        "plain": plain,
        "shorter": plain & (lengths <= low),
        "longer": plain & (lengths >= high),
        "borderline": one.where("borderline"),
        "in wrappers": one.where("harmless", "wrapped"),
        **{attack_name(attack): one.where("harmless", attack) for attack in wrappers},
    }


#: Detectors of ``demur.detectors`` that differ from the paper's in one setting.
ALTERNATIVES = {
    "log-ratio": "signal: log-ratio instead of sigma",
    "sri-standardised": "signal: each step at unit spread",
    "first-layer": "layer: first",
    "middle-layer": "layer: middle",
    "mahalanobis": "one-class model: Mahalanobis",
    "one-class-svm": "one-class model: support vector machine",
    "isolation-forest": "one-class model: isolation forest",
    "sri, fitted on plain": "fitted on plain prompts alone",
}


def ablation_table(results: Results) -> Table:
    """AUROC of each setting on each model of the ablation."""
    ablated = [
        one for one in results.main if any(s.group == "ablation" for s in one.scores.values())
    ]
    pooled = {one.name: one for one in results.group("pooling")}
    settings: dict[str, dict[str, Value]] = {}
    for one in ablated:
        for setting, name in _settings(one).items():
            found = one.separations[name]
            settings.setdefault(setting, {})[one.name] = found
            if name != "sri":
                paper, few = one.scores["sri"], isinstance(one.separations["sri"], str)
                gain = TOO_FEW if few else one.auroc_gain(one.scores[name].values, paper.values)
                settings[setting][f"{one.name}, change"] = gain
        for other in pooled.values():
            if other.model == one.model and "sri" in other.scores:
                setting = f"pooling: {other.fingerprint.pooling}"
                found = other.separations["sri"]
                settings.setdefault(setting, {})[one.name] = found
    names = [name for one in ablated for name in (one.name, f"{one.name}, change")]
    rows = [
        (setting, *(found.get(name, NOTHING) for name in names))
        for setting, found in settings.items()
    ]
    return Table(
        "AUROC with one setting changed",
        ("setting", *names),
        tuple(rows),
        note="The first row is the paper's setting: autoencoder on sigma, tau = 0.1, all steps, last "
        "layer, all anchors. Change: difference from it, paired on the same prompts. Nothing was "
        "chosen on test prompts: the table shows every setting that was tried.",
    )


def _settings(one: Evidence) -> dict[str, str]:
    """Setting, for readers -> detector."""
    found = {"the paper's": "sri"} | {title: name for name, title in ALTERNATIVES.items()}
    found |= {name: name for name, scores in one.scores.items() if scores.group == "ablation"}
    return {title: name for title, name in found.items() if name in one.scores}
