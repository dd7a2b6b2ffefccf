"""SRI Guard: a generation whose signal a calibrated guard flags is replaced by a refusal.

arXiv:2602.02600, section 5. It reads the states of the very generation, so it costs no forward pass.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pydantic import InstanceOf

from demur.defenses.defended import Defended, screened
from demur.defenses.generation import Generation, generate
from demur.guard import Guard, StreamingGuard, load_guard
from demur.models.base import LanguageModel
from demur.sampling import Sampler, sampler_from
from demur.types import Prompt


@dataclass(frozen=True, kw_only=True)
class SriGuard:
    """Settings of SRI Guard.

    Attributes:
        guard: fitted with anchors, of either kind, or the file that holds it. A streaming guard reads
            the generation once it is finished, to the same verdict as while it is produced.
    """

    name: ClassVar[str] = "sri-guard"
    description: ClassVar[str] = "a generation whose signal a guard flags is replaced by a refusal"
    source: ClassVar[str] = "arXiv:2602.02600, section 5"
    guard: InstanceOf[Guard] | InstanceOf[StreamingGuard] | str

    def __call__(
        self,
        model: LanguageModel,
        prompts: Sequence[Prompt],
        *,
        sampler: Sampler | None = None,
        seed: int = 0,
        batch_size: int = 8,
        undefended: Generation | None = None,
    ) -> Defended:
        """See ``Defense``.

        Raises:
            FingerprintError: the guard is of another model or sampler, or has no anchors.
        """
        guard = load_guard(self.guard) if isinstance(self.guard, str) else self.guard
        mark = guard.anchors.fingerprint if guard.anchors else None
        said = undefended or generate(
            model,
            prompts,
            sampler=sampler or sampler_from(model.traits.sampler),
            seed=seed,
            batch_size=batch_size,
            pooling=mark.pooling if mark else None,
            layers=("last", guard.anchors.layer) if guard.anchors else ("last",),
        )
        began = time.perf_counter()
        scores = guard.score(said.traces)
        return screened(
            self.name,
            said,
            scores > guard.threshold,
            [f"score {score:.4g}, threshold {guard.threshold:.4g}" for score in scores],
            extra_passes=[0] * len(scores),
            extra_seconds=time.perf_counter() - began,
        )
