"""What the paper's detector owes to its settings, one changed at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from demur.metrics import auroc_difference
from demur.study.evidence import Evidence, Shown
from demur.study.results import Results
from demur.viz.tables import TOO_FEW, Table, Value

#: Detectors of ``demur.detectors`` that differ from the paper's in one thing.
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
    """AUROC of each setting on each model that was ablated."""
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
                settings[setting][f"{one.name}, change"] = _change(one, one.scores[name].values)
        for other in pooled.values():
            if other.model == one.model and "sri" in other.scores:
                setting = f"pooling: {other.fingerprint['pooling']}"
                found = other.separations["sri"]
                settings.setdefault(setting, {})[one.name] = found
    names = [name for one in ablated for name in (one.name, f"{one.name}, change")]
    rows = [
        (setting, *(found.get(name, "–") for name in names)) for setting, found in settings.items()
    ]
    return Table(
        "AUROC with one setting changed",
        ("setting", *names),
        tuple(rows),
        note="The first row is the paper's: autoencoder on sigma, tau = 0.1, all steps, last layer, "
        "all anchors. Change: against it, paired on the same prompts. Nothing was chosen "
        "on test prompts: every setting that was tried is here.",
    )


def _change(one: Evidence, scores: NDArray[np.float64]) -> Shown:
    """Change in AUROC from the paper's setting, paired: both score the same rows."""
    if isinstance(one.separations["sri"], str):
        return TOO_FEW
    paper = one.scores["sri"].values
    seen = ~np.isnan(scores) & ~np.isnan(paper)
    benign, broken = one.rows("harmless") & seen, one.jailbreaks & seen
    changed, before = ((values[benign], values[broken]) for values in (scores, paper))
    return auroc_difference(changed, before, [*one.goals[benign], *one.goals[broken]])


def _settings(one: Evidence) -> dict[str, str]:
    found = {"the paper's": "sri"} | {shown: name for name, shown in ALTERNATIVES.items()}
    found |= {name: name for name, scores in one.scores.items() if scores.group == "ablation"}
    return {shown: name for shown, name in found.items() if name in one.scores}
