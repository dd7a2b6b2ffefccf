"""A detector of your own: how far a generation ever moved toward refusal, step by step.

demur --plugin own_detector.py guard fit runs/benign --anchors a --detector lowest --out guard
"""

from dataclasses import dataclass, replace

import numpy as np

import demur
from demur.detectors import StepDetector
from demur.organism import world


@dataclass(frozen=True, kw_only=True)
class Lowest(StepDetector):
    """One minus the lowest sigma so far; a guard of it also works while a model generates."""

    def advance(self, state: np.ndarray, step: int, before: float) -> float:
        """Score after one more step."""
        rows = slice(step - 1, step)
        harmless, harmful = self.anchors.harmless[rows], self.anchors.harmful[rows]
        here = replace(self.anchors, harmless=harmless, harmful=harmful)
        return float(np.nanmax([before, 1 - demur.signal(state[None], here)[0]]))


LOWEST = demur.DetectionMethod(
    *("lowest", "one minus the lowest sigma", "an example", Lowest),
    build=lambda given: Lowest(anchors=given.anchors["last"]),
    layers=("last",),
)
demur.register("detectors", LOWEST)

if __name__ == "__main__":
    model = demur.load("organism-ar")
    known = [p for kind in ("harmless", "harmful") for p in world.prompts("anchors", kind, n=20)]
    traces = demur.trace(model, known, batch_size=40)
    anchors = demur.fit_anchors(traces, demur.refusal_judge("rules"))
    guard = demur.fit_guard(traces[:20], detector="lowest", anchors=anchors, alpha=0.4)
    print(guard.score(traces).round(2))
