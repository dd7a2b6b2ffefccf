"""Has live traffic left the calibration set? A test martingale over the guard's scores.

Vovk, Testing randomness online, Statistical Science 36 (2021): smoothed conformal p-values and the
Simple Jumper.

    1. each new score gets p = (scores higher + U (scores equal + 1)) / (n + 1) among the calibration
       scores and every score before it, U uniform: independent and uniform while all are exchangeable;
    2. three gamblers bet 1 + e (p - 1/2) on it, e in {-1, 0, 1}, a share of their capital moving
       between them at each turn: a martingale under exchangeability;
    3. Shiryaev-Roberts: such a bet of capital 1 begins at every score, and the value is their sum. A
       bet that began long ago has lost its capital by the time that traffic changes; this does not
       age. Under exchangeability n scores bring it to n on average, and it reaches C within n scores
       with probability at most n / C: a false alarm at C comes no sooner than after C scores on
       average.

Differs from the paper: the scores that others are compared with are no more than ``KEPT``, so that
memory and time are bounded; from then on they stand still. Attacks are drift as well: the value says
that traffic changed, not how. Steps inside a generation depend on each other, so only whole
generations are bet on.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from typing import TYPE_CHECKING, final

import numpy as np

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import ArrayLike

#: Slopes of the three bets.
SLOPES = (-1.0, 0.0, 1.0)

#: Share of the capital that moves at each turn (Vovk's choice).
JUMP = 0.01

#: Most scores that are kept to compare others with.
KEPT = 10_000

#: Largest value; where it stands, nothing more can be said.
MOST = 1e300


@final
class Drift:
    """The statistic and what it compares with.

    Args:
        calibration: ``[M]`` benign scores, such as ``guard.group("all").calibration``.
        generator: breaks ties.
    """

    def __init__(self, calibration: ArrayLike, *, generator: Generator) -> None:
        from array import array

        self._scores = array("d", np.sort(np.asarray(calibration, dtype=np.float64)))
        self._generator = generator
        self._capital = [0.0] * len(SLOPES)

    @property
    def value(self) -> float:
        """Capital of all bets, 0 or more: near the number of scores or below while nothing changed."""
        return sum(self._capital)

    def observe(self, score: float) -> float:
        """Bet on one finished generation's statistic. Returns its smoothed p-value in [0, 1]."""
        low, high = bisect_left(self._scores, score), bisect_right(self._scores, score)
        equal, above = high - low, len(self._scores) - high
        p = (above + self._generator.random() * (equal + 1)) / (len(self._scores) + 1)
        if len(self._scores) < KEPT:
            insort(self._scores, score)
        fresh = (JUMP * self.value + 1) / len(SLOPES)
        self._capital = [
            min(((1 - JUMP) * own + fresh) * (1 + slope * (p - 0.5)), MOST)
            for own, slope in zip(self._capital, SLOPES, strict=True)
        ]
        return p
