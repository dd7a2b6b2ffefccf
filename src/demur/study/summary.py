"""The findings in plain words, each from the numbers of this study, whichever way they fall.

A sentence says whether the paper's finding appears, does not, or cannot be told apart from chance;
the 95% interval of a difference decides.
"""

from __future__ import annotations

from demur.study import finding_guards as guards
from demur.study import finding_samplers as samplers
from demur.study.finding import Finding
from demur.study.results import Results


def findings(results: Results) -> list[Finding]:
    """Every finding that the study has numbers for."""
    return [
        *samplers.same_weights(results),
        *samplers.continuum(results),
        *samplers.attacks(results),
        *samplers.recovery(results),
        *samplers.internal(results),
        *guards.detectors(results),
        *guards.false_positives(results),
        *guards.borderline(results),
        *guards.defended(results),
        *guards.searched(results),
    ]
