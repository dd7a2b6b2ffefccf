"""Response length: the baseline that any detector of answers has to beat.

A refusal is short and a jailbroken answer long, so length alone tells them apart to some degree; it
says nothing against a harmless long answer.

On ``organism-dlm`` with answers begun for it (prefill) it does not beat chance: AUROC 0.21, 14
jailbreaks against 24 harmless prompts begun alike, whose answers are the longer ones there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from demur.types import Traces


@dataclass(frozen=True)
class Length:
    """Counts tokens; there is nothing to fit."""

    def score(self, traces: Traces) -> NDArray[np.float32]:
        """Response tokens, the end token included: ``[N]``."""
        return np.array([len(trace.response_ids) for trace in traces], dtype=np.float32)
