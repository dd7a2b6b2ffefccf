"""Has live traffic left the calibration set? A test martingale over the guard's scores.

Vovk, Testing randomness online, Statistical Science 36 (2021): smoothed conformal p-values and the
Simple Jumper.

    1. each new score gets p = (scores higher + U (scores equal + 1)) / (n + 1) among the calibration
       scores and every score before it, U uniform: independent and uniform while all are exchangeable;
    2. three gamblers bet 1 + e (p - 1/2) on it, e in {-1, 0, 1}, and a share of their capital moves
       between them each turn: a martingale under exchangeability;
    3. Shiryaev-Roberts: a new bet of capital 1 begins at every score, and the value is the sum of all
       bets. An old bet has lost its capital by the time traffic changes; the sum has not. Under
       exchangeability the value after n scores is n on average, and it reaches C within n scores with
       probability at most n / C, so a false alarm at C takes more than C scores on average.

Differs from the paper: at most ``KEPT`` scores are kept for comparison, so that memory and time are
bounded; after that the set stays fixed. Attacks are drift as well: the value says that traffic
changed, not how. The steps of a generation depend on each other, so only whole generations are bet on.
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

#: Most scores kept for comparison.
KEPT = 10_000

#: Cap on each gambler's capital.
MOST = 1e300


@final
class Drift:
    """The martingale and its comparison set.

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
        """Capital of all bets, 0 or more; about the number of scores or less while nothing changed."""
        return sum(self._capital)

    def observe(self, score: float) -> float:
        """Bet on a finished generation's score. Returns its smoothed p-value in [0, 1]."""
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
