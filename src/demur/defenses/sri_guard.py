"""SRI Guard: a refusal replaces a generation that a calibrated guard flags.

arXiv:2602.02600, section 5. The guard reads the states of the generation itself and costs no pass.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import ClassVar

from pydantic import InstanceOf

from demur.defenses.defended import Answers, Defended, Defense, Setup, screened
from demur.guard import AnyGuard, load_guard


@dataclass(frozen=True, kw_only=True)
class SriGuard(Defense):
    """Settings of SRI Guard.

    Attributes:
        guard: a guard of either kind, or its file. A streaming guard gives a finished generation the
            verdict that it gives while the generation is produced.
    """

    name: ClassVar[str] = "sri-guard"
    description: ClassVar[str] = "a refusal replaces a generation that a guard flags"
    source: ClassVar[str] = "arXiv:2602.02600, section 5"
    guard: InstanceOf[AnyGuard] | str

    def defend(self, setup: Setup, undefended: Answers) -> Defended:
        """Block what the guard flags.

        Raises:
            FingerprintError: the guard is of another model or sampler, or of bare signals.
        """
        guard = self._loaded()
        began = time.perf_counter()
        scores = guard.score(undefended.traces)
        return screened(
            self.name,
            undefended,
            ~(scores <= guard.threshold),  # NaN does not pass
            [f"score {score:.4g}, threshold {guard.threshold:.4g}" for score in scores],
            extra_passes=[0] * len(scores),
            seconds=undefended.seconds + time.perf_counter() - began,
        )

    def prepare(self, setup: Setup) -> Setup:
        """Record what the guard reads."""
        guard = self._loaded()
        pooling = guard.fingerprint.pooling if guard.fingerprint else setup.record.pooling
        record = replace(setup.record, layers=("last", *guard.layers), pooling=pooling)
        return replace(setup, record=record)

    def _loaded(self) -> AnyGuard:
        return load_guard(self.guard) if isinstance(self.guard, str) else self.guard
