"""Detectors that read response tokens instead of states: the text signal, and the response's length.

**Text** (arXiv:2602.02600, table 4): what SRI would see if it read the drafts instead of the states.
Our reading, since the paper does not define it:

    1. each step's draft becomes a bag of tokens, a vector of unit length;
    2. the signal at step t is its cosine distance to the mean bag of benign drafts at step t;
    3. the paper's autoencoder, standardised per step, is fitted on benign signals.

**Length**, the baseline that any detector of responses has to beat: a refusal is short and a
jailbroken answer long, so length alone separates them to some degree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from demur.alignment import align
from demur.detectors.autoencoder import Reconstruction, train
from demur.detectors.method import Detector
from demur.types import Trace, Traces


@final
@dataclass(frozen=True)
class Text(Reconstruction):
    """A fitted text signal and the autoencoder of its signals.

    On ``organism-dlm`` with answers begun for it (prefill) it does not beat chance: AUROC 0.45, 14
    jailbreaks against 24 harmless prompts begun alike.

    Attributes:
        centre: ``[T, V]`` mean bag of benign drafts at each step, of unit length.
    """

    centre: NDArray[np.float32]

    def score(self, traces: Traces) -> NDArray[np.float32]:
        """See ``Detector.score``."""
        return self.error(_signals(traces, self.centre))


def fit_text(benign: Traces, *, seed: int = 0) -> Text:
    """Fit on benign traces; ``seed`` of the autoencoder."""
    steps = max(trace.n_steps for trace in benign)
    # One more for every token that no benign draft holds.
    width = 2 + max(int(trace.draft.max()) for trace in benign)
    total = np.zeros((steps, width), np.float32)
    for trace in benign:
        total += _bags(trace, steps, width)
    centre = total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)
    return Text(**train(_signals(benign, centre), standardise=True, seed=seed), centre=centre)


@final
@dataclass(frozen=True)
class Length(Detector):
    """Counts tokens; there is nothing to fit.

    On ``organism-dlm`` with answers begun for it (prefill) it does not beat chance: AUROC 0.21, 14
    jailbreaks against 24 harmless prompts begun alike, whose answers are the longer ones there.
    """

    def score(self, traces: Traces) -> NDArray[np.float32]:
        """Response tokens, the end token included: ``[N]``."""
        return np.array([len(trace.response_ids) for trace in traces], dtype=np.float32)


def _signals(traces: Traces, centre: NDArray[np.float32]) -> NDArray[np.float32]:
    """``[N, T]`` cosine distances in [0, 1]; 1 where a draft is empty."""
    rows = [1 - np.vecdot(_bags(trace, *centre.shape), centre) for trace in traces]
    return np.array(rows, dtype=np.float32)


def _bags(trace: Trace, steps: int, width: int) -> NDArray[np.float32]:
    """``[T, V]`` bag of each draft, of unit length or all zero."""
    drafts = align(trace.draft, steps).astype(np.int64)
    bags = np.zeros((steps, width), np.float32)
    step, place = np.nonzero(drafts >= 0)
    np.add.at(bags, (step, np.minimum(drafts[step, place], width - 1)), 1)
    lengths = np.maximum(np.linalg.norm(bags, axis=1, keepdims=True), 1e-12)
    return np.asarray(bags / lengths)
