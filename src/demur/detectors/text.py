"""The text signal: what SRI would see if it read the drafts instead of the states
(arXiv:2602.02600, table 4).

Our reading, since the paper does not define it:

    1. each step's draft becomes a bag of tokens, a vector of unit length;
    2. the signal at step t is its cosine distance to the mean bag of benign drafts at step t;
    3. the paper's autoencoder, standardised per step, is fitted on benign signals.

It reads token ids, so it needs neither a tokenizer nor a list of phrases.

On ``organism-dlm`` with answers begun for it (prefill) it does not beat chance: AUROC 0.45, 14
jailbreaks against 24 harmless prompts begun alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from demur.alignment import align
from demur.detectors import autoencoder
from demur.detectors.autoencoder import Autoencoder
from demur.types import Trace, Traces


@dataclass(frozen=True)
class Text:
    """A fitted text signal and its detector.

    Attributes:
        centre: ``[T, V]`` mean bag of benign drafts at each step, of unit length.
        detector: of the signals.
    """

    centre: NDArray[np.float32]
    detector: Autoencoder

    def score(self, traces: Traces) -> NDArray[np.float32]:
        """See ``demur.detectors.Detector``."""
        return self.detector.score(_signals(traces, self.centre))


def fit(benign: Traces, *, seed: int = 0) -> Text:
    """Fit on benign traces; ``seed`` of the autoencoder."""
    steps = max(trace.n_steps for trace in benign)
    # One more for every token that no benign draft holds.
    width = 2 + max(int(trace.draft.max()) for trace in benign)
    total = np.zeros((steps, width), np.float32)
    for trace in benign:
        total += _bags(trace, steps, width)
    centre = total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)
    detector = autoencoder.fit(_signals(benign, centre), standardise=True, seed=seed)
    return Text(centre, detector)


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
