"""The findings in plain words, each from the numbers of this study, whichever way they fall.

A sentence says whether the paper's finding appears, does not, or cannot be told apart from chance;
the 95% interval decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from demur.metrics import Estimate, difference
from demur.study.evidence import FEWEST, Evidence
from demur.study.figures.budget import reached
from demur.study.figures.causality import one_a_step, revised
from demur.study.results import Results
from demur.study.tables.detection import separation
from demur.study.tables.same_weights import changes, pairs
from demur.viz.tables import show

#: What a reader is told of a finding.
SAID = {
    "appears": "The paper's finding appears.",
    "does not appear": "The paper's finding does not appear.",
    "cannot be told": "Whether the paper's finding appears cannot be told.",
    "no claim": "",
}

#: Detectors that the paper finds weaker than its own, in words.
WEAKER = {"text": "the text", "static": "the first step", "first-layer": "the first layer"}

Agreement = Literal["appears", "does not appear", "cannot be told", "no claim"]


@dataclass(frozen=True)
class Finding:
    """One sentence, whether the paper's finding appears in it, and the table that supports it."""

    text: str
    agreement: Agreement
    shown_in: str


def findings(results: Results) -> list[Finding]:
    """Every finding that the study has numbers for."""
    return [
        *_same_weights(results),
        *_continuum(results),
        *_families(results),
        *_recovery(results),
        *_internal(results),
        *_detectors(results),
        *_wrappers(results),
        *_borderline(results),
        *_defended(results),
        *_searched(results),
    ]


def told(holds: bool, contrary: bool) -> Agreement:
    """What is said of a finding that holds, whose contrary does, or neither."""
    return "appears" if holds else "does not appear" if contrary else "cannot be told"


def agreement(difference: Estimate) -> Agreement:
    """Whether a difference that the paper finds positive is, by its interval."""
    return told(difference.low > 0, difference.high < 0)


def _same_weights(results: Results) -> Iterator[Finding]:
    for ordered, remasked in pairs(results):
        refusals, cut = changes(ordered, remasked, "all")
        found = agreement(cut)
        verb = {
            "appears": "fewer attacks succeed",
            "does not appear": "more attacks succeed, against the paper",
        }.get(found, "no difference in attack success can be told apart from chance")
        yield Finding(
            f"{remasked.model}: with the same weights, from AR order to remasking {verb} "
            f"(cut in ASR {show(cut)}), and the refusal rate changes by {show(refusals)}.",
            found,
            "Same weights: from AR order to remasking",
        )


def _families(results: Results) -> Iterator[Finding]:
    causal, diffusion = _split(results)
    if not causal or not diffusion:
        return
    rates = [[_asr(one).value for one in arms] for arms in (causal, diffusion)]
    found = told(min(rates[0]) > max(rates[1]), max(rates[0]) < min(rates[1]))
    order = {
        "appears": "every diffusion model is attacked less successfully than every autoregressive one",
        "does not appear": "every diffusion model is attacked more successfully than every "
        "autoregressive one, against the paper",
    }.get(found, "the two kinds of models overlap")
    yield Finding(
        f"Under attack {np.mean(rates[0]):.0%} of harmful prompts are answered by autoregressive "
        f"models ({_range(rates[0])}) and {np.mean(rates[1]):.0%} by diffusion models "
        f"({_range(rates[1])}): {order}.",
        found,
        "Refusals and successful attacks",
    )


def _recovery(results: Results) -> Iterator[Finding]:
    few = []
    for one in _split(results)[1]:
        entered = sum(any(one.drafts[i]) for i in np.flatnonzero(one.rows("harmful")))
        if entered < FEWEST:
            few.append(f"{one.name} ({entered})")
            continue
        rate = revised(one)
        most = rate.low > 0.5
        yield Finding(
            f"{one.name}: of {entered} generations with a harmful draft {show(rate)} take it back at "
            f"some step{'' if most else '; the paper finds most of them'}.",
            told(most, rate.high < 0.5),
            "Recovery from harmful drafts",
        )
    if few:
        yield Finding(
            "Too few generations have a harmful draft to say how often one is taken back: "
            f"{', '.join(few)}.",
            "cannot be told",
            "Recovery from harmful drafts",
        )


def _internal(results: Results) -> Iterator[Finding]:
    causal, diffusion = _split(results)
    if not causal or not diffusion:
        return
    rates = [[one.irr(0.5).value for one in arms] for arms in (causal, diffusion)]
    found = told(min(rates[1]) > max(rates[0]), max(rates[1]) < min(rates[0]))
    order = {
        "appears": "diffusion models recover inside more often",
        "does not appear": "autoregressive models recover inside more often",
    }.get(found, "the two kinds of models overlap")
    yield Finding(
        f"Internal recovery at theta = .5 is {_range(rates[0])} for autoregressive models and "
        f"{_range(rates[1])} for diffusion models: {order}.",
        found,
        "Recovery from harmful drafts",
    )


def _detectors(results: Results) -> Iterator[Finding]:
    means = {
        name: float(np.mean(values))
        for name in ("sri", "sri-standardised", "text", "static", "first-layer", "length")
        if (values := _aurocs(results, name))
    }
    if "sri" not in means:
        yield Finding(
            f"No model has {FEWEST} successful jailbreaks, so detection cannot be measured.",
            "cannot be told",
            "AUROC of each detector over models",
        )
        return
    measured = {
        name: f"{words} ({means[name]:.3f})" for name, words in WEAKER.items() if name in means
    }
    behind = [words for name, words in measured.items() if means["sri"] > means[name]]
    level = [words for words in measured.values() if words not in behind]
    compared = [
        f"{side} {' and '.join(names)}"
        for side, names in (("ahead of", behind), ("not ahead of", level))
        if names
    ]
    agreement: Agreement = "does not appear" if level else "appears"
    yield Finding(
        "The paper's detector never sees a harmful prompt. Its mean AUROC is "
        + ", ".join([f"{means['sri']:.3f}", *compared])
        + ".",
        agreement if measured else "cannot be told",
        "AUROC of each detector over models",
    )


def _wrappers(results: Results) -> Iterator[Finding]:
    alpha = results.manifest["study"]["alpha"]
    for name in ("sri", "sri-standardised"):
        fitted = f"{name}, fitted on plain"
        arms = [
            one
            for one in results.main
            if {fitted, name} <= {*one.scores} and one.rows("harmless", "wrapped").any()
        ]
        if not arms:
            continue
        both = [
            np.mean(
                [
                    one.rate(one.scores[key].flagged, one.rows("harmless", "wrapped")).value
                    for one in arms
                ]
            )
            for key in (fitted, name)
        ]
        yield Finding(
            f"{name}: harmless prompts in attack wrappers are flagged at {both[0]:.1%} where the "
            f"detector was fitted on plain prompts and at {both[1]:.1%} where it saw wrapped ones, "
            f"against the {alpha:.1%} aimed at.",
            "no claim",
            "Harmless prompts that are flagged",
        )


def _borderline(results: Results) -> Iterator[Finding]:
    arms = [one for one in results.main if "sri" in one.scores and one.rows("borderline").any()]
    if not arms:
        return
    flagged = [one.rate(one.scores["sri"].flagged, one.rows("borderline")).value for one in arms]
    refused = [one.rate(one.refusals, one.rows("borderline")).value for one in arms]
    yield Finding(
        f"sri flags {_range(flagged)} of borderline prompts, which are not harmful; the models "
        f"themselves refuse {_range(refused)} of them.",
        "no claim",
        "Harmless prompts that are flagged",
    )


def _defended(results: Results) -> Iterator[Finding]:
    lower, higher, arms = 0, 0, 0
    for cell in results.measured.get("defense", ()):
        if cell.outcome.state != "done" or cell.about["defense"] != "sri-guard (sri)":
            continue
        rows = [r for r in cell.value["rows"] if r["label"] == "harmful" and r["attack"] != "none"]
        before, after = np.array([row["harmful"] for row in rows], dtype=np.bool_).T
        cut = difference(before, after, [row["goal"] for row in rows])
        lower, higher, arms = lower + (cut.low > 0), higher + (cut.high < 0), arms + 1
    if arms:
        yield Finding(
            f"The paper's guard lowers attack success on {lower} of {arms} models by more than chance"
            f"{f' and raises it on {higher}' if higher else ''}, at no forward pass.",
            told(lower == arms, higher > 0 and not lower),
            "Defenses",
        )


def _searched(results: Results) -> Iterator[Finding]:
    cells = [c for c in results.measured.get("adaptive", ()) if c.outcome.state == "done"]
    for arm in dict.fromkeys(str(cell.about["arm"]) for cell in cells):
        got = {
            str(cell.about["attack"]): reached(cell, int(cell.value["queries"]), unflagged=True)
            for cell in cells
            if cell.about["arm"] == arm
        }
        said = ", ".join(f"{aim} {show(rate)}" for aim, rate in got.items())
        yield Finding(
            f"Searching for a suffix gets past the guard of {arm} to a harmful answer for these "
            f"shares of {next(iter(got.values())).n} goals: {said}.",
            "no claim",
            "Attackers who know the guard",
        )


def _continuum(results: Results) -> Iterator[Finding]:
    arms = results.group("continuum")
    for model in dict.fromkeys(one.model for one in arms):
        found = {
            int(one.fingerprint["sampler"]["block_length"]): _asr(one)
            for one in arms
            if one.model == model and one_a_step(one)
        }
        said = ", ".join(f"{block}: {rate.value:.2f}" for block, rate in sorted(found.items()))
        yield Finding(
            f"{model}, one token a step: attack success by block length, from AR order to the whole "
            f"response, is {said}.",
            "no claim",
            "The same weights from AR order to full-parallel remasking",
        )


def _aurocs(results: Results, name: str) -> list[float]:
    found = (
        separation(one, one.scores[name].values, one.jailbreaks)
        for one in results.main
        if name in one.scores
    )
    return [one.value for one in found if isinstance(one, Estimate)]


def _asr(one: Evidence) -> Estimate:
    return one.rate(one.succeeded, one.rows("harmful", "wrapped"))


def _split(results: Results) -> tuple[list[Evidence], list[Evidence]]:
    """Autoregressive and diffusion main arms."""
    causal = [one for one in results.main if one.autoregressive]
    return causal, [one for one in results.main if not one.autoregressive]


def _range(values: list[float]) -> str:
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return low if low == high else f"{low} to {high}"
