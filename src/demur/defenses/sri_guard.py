"""SRI Guard: a refusal replaces a generation that a calibrated guard flags.

arXiv:2602.02600, section 5. The guard reads the states of the generation itself and costs no pass.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pydantic import InstanceOf

from demur.defenses.defended import Defended, screened
from demur.defenses.generation import Generation, generate
from demur.guard import AnyGuard, load_guard
from demur.models.base import LanguageModel
from demur.sampling import Sampler, sampler_from
from demur.types import Prompt


@dataclass(frozen=True, kw_only=True)
class SriGuard:
    """Settings of SRI Guard.

    Attributes:
        guard: a guard of either kind, or its file. A streaming guard gives a finished generation the
            verdict that it gives while the generation is produced.
    """

    name: ClassVar[str] = "sri-guard"
    description: ClassVar[str] = "a refusal replaces a generation that a guard flags"
    source: ClassVar[str] = "arXiv:2602.02600, section 5"
    guard: InstanceOf[AnyGuard] | str

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
            FingerprintError: the guard is of another model or sampler, or of bare signals.
        """
        guard = load_guard(self.guard) if isinstance(self.guard, str) else self.guard
        mark = guard.fingerprint
        said = undefended or generate(
            model,
            prompts,
            sampler=sampler or sampler_from(model.traits.sampler),
            seed=seed,
            batch_size=batch_size,
            pooling=mark.pooling if mark else None,
            layers=("last", *guard.layers),
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
