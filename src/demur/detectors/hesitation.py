"""Hesitation count: steps at which a linear probe is undecided. Supervised through its probe.

D2-Monitor, arXiv:2605.25893:

    1. a linear probe reads the state of each step;
    2. a step hesitates when it falls within a small margin of the decision boundary;
    3. the number of hesitating steps tells how hard the generation is to judge.

Differs from the paper: there the count decides whether a larger probe is asked; here the count
itself is the score. The margin, .4 on either side of a probability of .5, is our reading.

On ``organism-dlm`` with answers begun for it (prefill) it does not beat chance: AUROC 0.46, 14
jailbreaks against 24 harmless prompts begun alike. The probe is sure of every step there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from demur.detectors.linear_probe import LinearProbe
from demur.types import Traces

#: Largest absolute logit of a hesitating step: a probability from .1 to .9.
MARGIN = float(np.log(0.9 / 0.1))


@dataclass(frozen=True)
class Hesitation:
    """Counts the undecided steps of a probe (``demur.detectors.linear_probe.fit``)."""

    probe: LinearProbe

    def score(self, traces: Traces) -> NDArray[np.float32]:
        """Hesitating steps: ``[N]``, 0 to T."""
        undecided = np.abs(self.probe.logits(traces)) < MARGIN
        return np.asarray(undecided.sum(axis=1), dtype=np.float32)
