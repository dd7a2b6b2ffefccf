"""A detector of your own: how far a generation ever moved toward refusal.

demur --plugin own_detector.py detectors
"""

from dataclasses import dataclass

import numpy as np

import demur
from demur.detectors import Material, Method
from demur.organism import world


@dataclass(frozen=True)
class Lowest:
    """Reads sigma through these anchors."""

    anchors: demur.Anchors

    def score(self, traces: demur.Traces) -> np.ndarray:
        """One minus the lowest sigma of each trace: ``[N]``, higher = more suspicious."""
        return 1 - demur.signal(self.anchors.states(traces), self.anchors).min(axis=1)


def build(given: Material) -> Lowest:
    """There is nothing to learn."""
    return Lowest(given.anchors["last"])


LOWEST = Method("lowest", "one minus the lowest sigma", "an example", build, layers=("last",))
demur.register("detectors", LOWEST)

if __name__ == "__main__":
    model = demur.load("organism-ar")
    known = [p for kind in ("harmless", "harmful") for p in world.prompts("anchors", kind, n=20)]
    traces = demur.trace(model, known, batch_size=40)
    anchors = demur.fit_anchors(traces, ["cannot" in t.response for t in traces])
    print(LOWEST.fit(traces[:20], anchors={"last": anchors}).score(traces).round(2))
