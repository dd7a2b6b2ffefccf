"""Thresholds and p-values from benign scores: split conformal, PAC, and by clusters.

Vovk, Gammerman, Shafer, Algorithmic Learning in a Random World (2005), chapter 4; Vovk, Conditional
validity of inductive conformal predictors (2012), proposition 2a, for the PAC threshold:

    1. a benign score exceeds the k-th largest of n benign scores with probability at most k / (n + 1);
    2. given the n scores, that probability is distributed as Beta(k, n - k + 1).

Prompts about one task resemble each other, so that the scores of many prompts about few tasks are not
exchangeable with a score of a new task. Lee, Barber, Willett, Distribution-free inference with
hierarchical data (2023), section 3: where the clusters are exchangeable,

    3. each score counts for 1 / (size of its cluster), and K clusters take the place of n scores.

The guarantee is for benign traffic exchangeable with the calibration set (with clusters: for prompts
of new clusters like those), and for nothing else.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from demur.errors import CalibrationError
from demur.types import Prompt

Method = Literal["conformal", "pac"]

#: Names what a prompt shares with others like it, such as its goal.
Clustering = Callable[[Prompt], Hashable]

#: Confidence of the PAC threshold.
PAC_CONFIDENCE = 0.95


def threshold_rank(
    n: int, alpha: float, *, method: Method = "conformal", of: str = "prompts"
) -> int:
    """Which of n calibration scores, counted from the largest, is the threshold (1 = the largest).

    conformal: the largest k with k <= alpha (n + 1), so that a benign score exceeds it with
    probability at most alpha. pac: the largest k for which the rate above the k-th largest score,
    distributed as Beta(k, n - k + 1), is at most alpha with 95% confidence. ``of`` is what they are
    scores of, for the message.

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
            f"{n} {of} are too few to calibrate alpha = {alpha:g} ({method}). Use at least "
            f"{enough:,} benign {of} for calibration, or a larger alpha."
        )
    return place


def hold_out(
    clusters: Sequence[Hashable], *, one_in: int, seed: int
) -> tuple[list[int], list[int]]:
    """Places of the rows that are kept, and of those of one in so many clusters, drawn at random."""
    known = list(dict.fromkeys(clusters))
    order = np.random.default_rng(seed).permutation(len(known)).tolist()
    held = {known[i] for i in order[: max(1, len(known) // one_in)]}
    kept, out = list[int](), list[int]()
    for place, name in enumerate(clusters):
        (out if name in held else kept).append(place)
    return kept, out


def cluster_weights(clusters: Sequence[Hashable]) -> NDArray[np.float64]:
    """``[M]`` what each score counts for: 1 / (scores of its cluster)."""
    sizes = Counter(clusters)
    return np.array([1 / sizes[cluster] for cluster in clusters])


def threshold(
    benign: NDArray[np.floating],
    alpha: float,
    *,
    method: Method = "conformal",
    weights: NDArray[np.float64] | None = None,
) -> float:
    """The benign score above which a score is flagged.

    Args:
        benign: ``[M]`` sorted benign scores.
        alpha: false-positive rate, in (0, 1).
        method: see ``threshold_rank``.
        weights: ``[M]`` from ``cluster_weights``; one each when None.

    Raises:
        CalibrationError: alpha outside (0, 1), too few scores or clusters, or PAC with clusters.
    """
    if weights is None:
        return float(benign[-threshold_rank(len(benign), alpha, method=method)])
    if method != "conformal":
        raise CalibrationError(
            f"Method {method!r} knows no clusters. Use conformal, or leave the clusters out."
        )
    clusters = round(weights.sum())
    threshold_rank(clusters, alpha, of="clusters")
    spent = np.cumsum(weights[::-1])
    place = int(np.argmax(spent > alpha * (clusters + 1) - 1 + 1e-9))
    return float(benign[-1 - place])


def p_values(
    benign: NDArray[np.floating], scores: ArrayLike, weights: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Conformal p-values of scores ``[N]``: (1 + benign scores as high) / (M + 1), in (0, 1].

    Args:
        benign: ``[M]`` sorted benign scores.
        scores: ``[N]``, higher = more suspicious.
        weights: ``[M]`` what each benign score counts for; then K clusters stand for M.
    """
    below = np.searchsorted(benign, np.asarray(scores))
    if weights is None:
        return np.asarray((1 + len(benign) - below) / (len(benign) + 1))
    above = np.append(np.cumsum(weights[::-1])[::-1], 0.0)[below]
    return np.asarray((1 + above) / (weights.sum() + 1))


def _pac_rank(n: int, alpha: float) -> int:
    from scipy.stats import beta

    ranks = np.arange(1, int(alpha * n) + 2)
    kept = ranks[beta.cdf(alpha, ranks, n - ranks + 1) >= PAC_CONFIDENCE]
    return int(kept.max()) if len(kept) else 0
