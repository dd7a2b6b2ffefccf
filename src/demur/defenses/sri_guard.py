"""SRI Guard: a generation whose signal a calibrated guard flags is replaced by a refusal.

arXiv:2602.02600, section 5. It reads the states of the very generation, so it costs no forward pass.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import ClassVar

from pydantic import InstanceOf

from demur.defenses.defended import Answers, Defended, Defense, Setup, screened
from demur.guard import AnyGuard, Guard, StreamingGuard, load_guard


@dataclass(frozen=True, kw_only=True)
class SriGuard(Defense):
    """Settings of SRI Guard.

    Attributes:
        guard: fitted with anchors, of either kind, or the file that holds it. A streaming guard reads
            the generation once it is finished, to the same verdict as while it is produced.
    """

    name: ClassVar[str] = "sri-guard"
    description: ClassVar[str] = "a generation whose signal a guard flags is replaced by a refusal"
    source: ClassVar[str] = "arXiv:2602.02600, section 5"
    guard: InstanceOf[Guard] | InstanceOf[StreamingGuard] | str

    def defend(self, setup: Setup, undefended: Answers) -> Defended:
        """Block what the guard flags.

        Raises:
            FingerprintError: the guard is of another model or sampler, or has no anchors.
        """
        guard = self._loaded()
        began = time.perf_counter()
        scores = guard.score(undefended.traces)
        return screened(
            self.name,
            undefended,
            scores > guard.threshold,
            [f"score {score:.4g}, threshold {guard.threshold:.4g}" for score in scores],
            extra_passes=[0] * len(scores),
            seconds=undefended.seconds + time.perf_counter() - began,
        )

    def prepare(self, setup: Setup) -> Setup:
        """Record what the guard reads."""
        if (anchors := self._loaded().anchors) is None:
            return setup
        pooling = anchors.fingerprint.pooling if anchors.fingerprint else setup.record.pooling
        layers = ("last", anchors.layer)
        return replace(setup, record=replace(setup.record, layers=layers, pooling=pooling))

    def _loaded(self) -> AnyGuard:
        return load_guard(self.guard) if isinstance(self.guard, str) else self.guard
