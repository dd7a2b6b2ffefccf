"""Cells that fit a guard with one detector and score every other set with it.

Supervised detectors are fitted on all attacks, and again without each attack.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from demur.detectors import DetectionMethod, detection_method, of_signals
from demur.detectors.autoencoder import Autoencoder, fit_autoencoder
from demur.detectors.method import Detector
from demur.guard import Guard, fit_guard
from demur.sri import TAU, Anchors
from demur.study.engine.cells import WANTED, ArmCell, Subject, keyed_by
from demur.study.engine.workspace import Workspace
from demur.study.plan.arms import Located
from demur.study.plan.spec import Ablation, Judges
from demur.study.work.traces import RunCell
from demur.study.work.verdicts import AnchorsCell, judged_anchors
from demur.types import Traces

#: Detectors that are fitted on plain benign prompts alone, too.
PLAIN = ("sri", "sri-standardised")


@dataclass(frozen=True)
class DetectorSetup:
    """A detector and how it is fitted: one row of the detection tables.

    Attributes:
        name: name in tables.
        detector: name in ``demur.detectors``.
        group: which table it is for.
        benign: fitted and calibrated on plain benign prompts alone, or on wrapped ones too.
        anchors: anchor prompts per class; None: all; ``elsewhere``: those of another distribution.
        tau: temperature of the signal; None: the default. Only for ``sri``.
        steps: first steps that are read; None: all. Only for ``sri``.
    """

    name: str
    detector: str = "sri"
    group: Literal["detector", "ablation"] = "detector"
    benign: Literal["all", "plain"] = "all"
    anchors: int | Literal["elsewhere"] | None = None
    tau: float | None = None
    steps: int | None = None

    @property
    def method(self) -> DetectionMethod:
        """How the detector is fitted."""
        method = detection_method(self.detector)
        if self.tau is None and self.steps is None:
            return method
        tau = TAU if self.tau is None else self.tau
        return replace(method, build=of_signals(_autoencoder, tau=tau, first=self.steps))


def detector_setups(names: Sequence[str]) -> Iterator[DetectorSetup]:
    """The named detectors; those in ``PLAIN`` also fitted on plain prompts alone."""
    for name in names:
        yield DetectorSetup(name, name)
        if name in PLAIN:
            yield DetectorSetup(f"{name}, fitted on plain", name, benign="plain")


def ablation_setups(settings: Ablation, *, most: int) -> Iterator[DetectorSetup]:
    """The paper's detector with one setting changed; at most ``most`` anchor prompts per class."""
    for tau in settings.tau:
        yield DetectorSetup(f"tau = {tau:g}", group="ablation", tau=tau)
    for steps in settings.steps:
        yield DetectorSetup(f"first {steps} steps", group="ablation", steps=steps)
    for count in settings.anchors:
        if count <= most:
            yield DetectorSetup(f"anchors of {count}", group="ablation", anchors=count)
    yield DetectorSetup("anchors of other prompts", group="ablation", anchors="elsewhere")


@dataclass(frozen=True)
class SetScores:
    """What one detector says of every set: a score per trace, higher = more suspicious.

    ``left_out``: attack -> set -> scores of the detector fitted without that attack.
    """

    threshold: float
    sets: Mapping[str, tuple[float, ...]]
    left_out: Mapping[str, Mapping[str, tuple[float, ...]]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ScoresCell(ArmCell[SetScores]):
    """Score every calibration and test set with one detector.

    ``elsewhere``, ``harmful``, ``anchored`` (traces behind the anchors) and ``reader`` are given only
    to setups that use them.
    """

    kind, pace = "scores", 0.0005

    setup: DetectorSetup
    elsewhere: AnchorsCell | None
    anchors: AnchorsCell
    fit: tuple[RunCell, ...]
    calibration: tuple[RunCell, ...]
    harmful: tuple[RunCell, ...]
    anchored: tuple[RunCell, ...]
    test: tuple[RunCell, ...] = field(metadata=WANTED)
    judges: Judges = field(metadata=keyed_by(lambda judges: judges.refusing))
    alpha: float
    seed: int
    reader: Located | None

    @property
    def subject(self) -> Subject:
        return Subject(
            arm=self.arm.name,
            detector=self.setup.name,
            group=self.setup.group,
            supervised=self.setup.method.supervised,
        )

    def run(self, workspace: Workspace) -> SetScores:
        benign = self._benign(workspace, self.fit)
        bad = workspace.traces(*self.harmful) if self.harmful else None
        how: dict[str, Any] = {
            "anchors": self._anchors(workspace),
            "model": workspace.model(self.reader) if self.reader else None,
            "seed": self.seed,
        }
        method, held_out = self.setup.method, self._benign(workspace, self.calibration)
        guard = fit_guard(benign, held_out, detector=method, harmful=bad, alpha=self.alpha, **how)
        scored = (*self.calibration, *workspace.done(self.test))
        sets = {cell.subject.set: workspace.traces(cell) for cell in scored}
        left_out = {}
        for attack in dict.fromkeys(t.prompt.attack for t in bad or ()):
            if attack != "none":
                without = Traces(tuple(t for t in bad or () if t.prompt.attack != attack))
                left_out[attack] = _numbers(method.fit(benign, harmful=without, **how), sets)
        return SetScores(guard.threshold, _numbers(guard, sets), left_out)

    def _anchors(self, workspace: Workspace) -> dict[str, Anchors]:
        """Layer -> anchors, as the setup wants them."""
        if not isinstance(self.setup.anchors, int):
            cell = self.elsewhere or self.anchors
            return {layer: cell.read(workspace, layer) for layer in self.arm.layers}
        traces = workspace.traces(*self.anchored)
        labels = np.array([t.prompt.label for t in traces])
        count = self.setup.anchors
        first = [np.flatnonzero(labels == label)[:count] for label in np.unique(labels)]
        chosen = Traces(tuple(traces[int(i)] for i in np.concatenate(first)))
        # How few traces will do is what this ablation asks.
        return {"last": judged_anchors(chosen, self.judges, allow_few=True)}

    def _benign(self, workspace: Workspace, cells: Sequence[RunCell]) -> Traces:
        traces = workspace.traces(*cells)
        if self.setup.benign == "all":
            return traces
        return Traces(tuple(t for t in traces if t.prompt.attack == "none"))


def _autoencoder(signals: NDArray[np.float32], seed: int) -> Autoencoder:
    return fit_autoencoder(signals, seed=seed)


def _numbers(scorer: Guard | Detector, sets: Mapping[str, Traces]) -> dict[str, tuple[float, ...]]:
    """Set -> its scores, to six digits."""
    return {
        name: tuple(float(f"{value:.6g}") for value in scorer.score(traces))
        for name, traces in sets.items()
    }
