"""Has live traffic left the calibration set? A test martingale over the guard's scores.

Vovk, Testing randomness online, Statistical Science 36 (2021): smoothed conformal p-values and the
Simple Jumper.

    1. each new score gets p = (scores higher + U (scores equal + 1)) / (n + 1) among the calibration
       scores and every score before it, U uniform: independent and uniform while all are exchangeable;
    2. three gamblers bet 1 + e (p - 1/2) on it, e in {-1, 0, 1}, a share of their capital moving
       between them at each turn;
    3. their joint capital begins at 1 and, under exchangeability, ever reaches C with probability at
       most 1 / C (Ville).

Differs from the paper: nothing. Attacks are drift as well: the value says that traffic changed, not
how. Steps inside a generation depend on each other, so only whole generations are bet on.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from typing import TYPE_CHECKING, final

import numpy as np

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import ArrayLike

#: Slopes of the three bets.
SLOPES = np.array([-1.0, 0.0, 1.0])

#: Share of the capital that moves at each turn (Vovk's choice).
JUMP = 0.01


@final
class Drift:
    """The martingale; eight bytes a score are kept.

    Args:
        calibration: ``[M]`` benign scores, such as ``guard.group("all").calibration``.
        generator: breaks ties.
    """

    def __init__(self, calibration: ArrayLike, *, generator: Generator) -> None:
        from array import array

        self._scores = array("d", np.sort(np.asarray(calibration, dtype=np.float64)))
        self._generator = generator
        self._shares = np.full(3, 1 / 3)
        self._log = 0.0

    @property
    def value(self) -> float:
        """Capital now, above 0: 1 at the beginning, 100 or more with probability at most 1%."""
        return math.exp(min(self._log, 700.0))

    def observe(self, score: float) -> float:
        """Bet on one finished generation's statistic. Returns its smoothed p-value in [0, 1]."""
        low, high = bisect_left(self._scores, score), bisect_right(self._scores, score)
        equal, above = high - low, len(self._scores) - high
        p = (above + self._generator.random() * (equal + 1)) / (len(self._scores) + 1)
        insort(self._scores, score)
        shares = ((1 - JUMP) * self._shares + JUMP / 3) * (1 + SLOPES * (p - 0.5))
        total = float(shares.sum())
        self._log += math.log(total)
        self._shares = shares / total
        return float(p)
