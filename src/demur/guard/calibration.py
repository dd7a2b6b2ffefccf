"""Thresholds and p-values from benign scores: split conformal and PAC.

Vovk, Gammerman, Shafer, Algorithmic Learning in a Random World (2005), chapter 4; Vovk, Conditional
validity of inductive conformal predictors (2012), proposition 2a, for the PAC threshold:

    1. a benign score exceeds the k-th largest of n benign scores with probability at most k / (n + 1);
    2. given the n scores, that probability is distributed as Beta(k, n - k + 1).

The guarantee is for benign traffic exchangeable with the calibration set, and for nothing else.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from demur.errors import CalibrationError

Method = Literal["conformal", "pac"]

#: Confidence of the PAC threshold.
PAC_CONFIDENCE = 0.95


def threshold_rank(n: int, alpha: float, *, method: Method = "conformal") -> int:
    """Which of n calibration scores, counted from the largest, is the threshold (1 = the largest).

    conformal: the largest k with k <= alpha (n + 1), so that a benign score exceeds it with
    probability at most alpha. pac: the largest k for which the rate above the k-th largest score,
    distributed as Beta(k, n - k + 1), is at most alpha with 95% confidence.

    Raises:
        CalibrationError: alpha outside (0, 1), or n too small; says which n is enough.
    """
    if not 0 < alpha < 1:
        raise CalibrationError(f"alpha is {alpha}; a false-positive rate lies between 0 and 1.")
    if method == "conformal":
        # A tolerance keeps 0.01 * 100 from falling below 1 in floating point.
        place, enough = math.floor(alpha * (n + 1) + 1e-9), math.ceil(1 / alpha - 1e-9) - 1
    else:
        place = _pac_rank(n, alpha)
        enough = math.ceil(math.log(1 - PAC_CONFIDENCE) / math.log(1 - alpha))
    if place < 1:
        raise CalibrationError(
            f"{n} calibration signals are too few for alpha = {alpha:g} ({method}). Use at least "
            f"{enough:,} benign prompts for calibration, or a larger alpha."
        )
    return place


def p_values(benign: NDArray[np.floating], scores: ArrayLike) -> NDArray[np.float64]:
    """Conformal p-values of scores ``[N]``: (1 + benign scores as high) / (M + 1), in (0, 1].

    Args:
        benign: ``[M]`` sorted benign scores.
        scores: ``[N]``, higher = more suspicious.
    """
    above = len(benign) - np.searchsorted(benign, np.asarray(scores, dtype=benign.dtype))
    return np.asarray((1 + above) / (len(benign) + 1))


def _pac_rank(n: int, alpha: float) -> int:
    from scipy.stats import beta

    ranks = np.arange(1, int(alpha * n) + 2)
    kept = ranks[beta.cdf(alpha, ranks, n - ranks + 1) >= PAC_CONFIDENCE]
    return int(kept.max()) if len(kept) else 0
