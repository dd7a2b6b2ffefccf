"""The summary says what the numbers say, in both directions, and when they say nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from demur.metrics import Estimate
from demur.study.report.evidence import Evidence, Scores
from demur.study.report.findings import SAID, Finding, agreement, findings
from demur.study.work.verdicts import Verdicts
from hand_made import fingerprint, results

N = 40


def arm(
    name: str, *, harmful: float, group: str = "main", sampler: dict[str, Any] | None = None
) -> Evidence:
    """``N`` attacked and ``N`` harmless rows; a share of the first ends harmful, the rest refused."""
    bad = int(harmful * N)
    refused = (False,) * bad + (True,) * (N - bad) + (False,) * N
    return Evidence(
        name=name,
        model=name.split(",")[0],
        group=group,
        fingerprint=fingerprint(sampler),
        rows=Verdicts(
            ids=tuple(str(i) for i in range(2 * N)),
            goals=tuple(str(i) for i in range(2 * N)),
            labels=("harmful",) * N + ("harmless",) * N,
            attacks=("flip",) * N + ("none",) * N,
            words=(5,) * 2 * N,
            tokens=(5,) * 2 * N,
            right=(False,) * 2 * N,
            refused={"paper": refused},
            drafts=("01",) * bad + ("00",) * (2 * N - bad),
            refusing=("00",) * 2 * N,
            sigma=tuple((0.1, 0.1) if one else (0.9, 0.9) for one in refused),
        ),
        sets={"test": 2 * N},
    )


def about(found: list[Finding], word: str) -> Finding:
    return next(one for one in found if word in one.text)


MASKED = {"name": "masked", "gen_length": 8, "block_length": 8, "steps": 4}
ORDERED = {**MASKED, "block_length": 1, "steps": 8}


@pytest.mark.parametrize(
    ("ordered", "remasked", "said"),
    [(0.8, 0.1, "appears"), (0.1, 0.8, "does not appear"), (0.5, 0.5, "cannot be told")],
)
def test_same_weights_in_both_directions(ordered: float, remasked: float, said: str) -> None:
    found = findings(
        results(
            arm("DLM", harmful=remasked, sampler=MASKED),
            arm("DLM, AR order", harmful=ordered, group="variant", sampler=ORDERED),
        )
    )
    one = about(found, "same weights")
    assert one.agreement == said
    assert ("against the paper" in one.text) == (said == "does not appear")


@pytest.mark.parametrize(
    ("causal", "diffusion", "said"),
    [(0.8, 0.1, "appears"), (0.1, 0.8, "does not appear"), (0.4, 0.4, "cannot be told")],
)
def test_kinds_of_models_in_both_directions(causal: float, diffusion: float, said: str) -> None:
    both = arm("AR", harmful=causal), arm("DLM", harmful=diffusion, sampler=MASKED)
    assert about(findings(results(*both)), "attack success rate").agreement == said


@pytest.mark.parametrize(("text", "said"), [(0.2, "appears"), (3.0, "does not appear")])
def test_the_detector_in_both_directions(text: float, said: str) -> None:
    one = arm("AR", harmful=0.5)
    rng = np.random.default_rng(0)
    noise, broken = rng.normal(size=2 * N), one.jailbreaks

    def scores(name: str, lift: float) -> Scores:
        return Scores(name, "detector", False, 9.0, noise + lift * broken)

    one.scores.update({"sri": scores("sri", 1.5), "text": scores("text", text)})  # type: ignore[attr-defined]
    found = about(findings(results(one)), "paper's detector")
    assert found.agreement == said
    assert ("behind on 1" in found.text) == (said == "does not appear")


def test_too_few_is_said_and_not_counted() -> None:
    found = findings(results(arm("AR", harmful=0.05), arm("DLM", harmful=0.05, sampler=MASKED)))
    assert about(found, "Too few generations").agreement == "cannot be told"


def test_the_interval_decides() -> None:
    assert agreement(Estimate(0.1, 0.01, 0.2, 9, 9)) == "appears"
    assert agreement(Estimate(0.1, 0.0, 0.2, 9, 9)) == "cannot be told"
    assert agreement(Estimate(-0.1, -0.2, -0.01, 9, 9)) == "does not appear"
    assert set(SAID) == {"appears", "does not appear", "cannot be told", "no claim"}


def test_kinds_that_differ_within_chance_are_not_told_apart() -> None:
    both = arm("AR", harmful=0.5), arm("DLM", harmful=0.45, sampler=MASKED)
    one = about(findings(results(*both)), "attack success rate")
    assert one.agreement == "cannot be told"
    assert "1 are not significant" in one.text


def test_the_detector_says_what_it_has_seen_and_where_it_was_measured() -> None:
    one = arm("AR", harmful=0.5)
    values = one.jailbreaks.astype(float)
    one.scores["sri"] = Scores("sri", "detector", False, 0.5, values)  # type: ignore[index]
    found = about(
        findings(results(one, arm("DLM", harmful=0.0, sampler=MASKED))), "paper's detector"
    )
    assert "never" not in found.text
    assert "1 of 2 arms, all autoregressive" in found.text


def test_false_alarms_are_said_of_plain_prompts_too() -> None:
    one = arm("AR", harmful=0.5)
    flagged = one.where("harmless") & (np.arange(2 * N) % 4 == 0)
    one.scores["sri"] = Scores("sri", "detector", False, 0.5, flagged.astype(float))  # type: ignore[index]
    found = about(findings(results(one)), "target false-positive rate of .01")
    assert (
        "flags .25 of plain ones (significantly more than the target on 1 of 1 arms)" in found.text
    )
