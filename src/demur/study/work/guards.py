"""Cells of guards: fit and save them, replay when a streaming one would have stopped, and let a
white-box model's guard judge what another model wrote (arXiv:2602.02600, appendix E.6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from demur.guard import detection_delay, fit_guard, fit_streaming_guard
from demur.guard.surrogate import read_texts
from demur.study.engine.cells import UNKEYED, WANTED, ArmCell, Cell, Subject, keyed_by
from demur.study.engine.workspace import Workspace
from demur.study.plan.arms import Located
from demur.study.plan.spec import Judges
from demur.study.work.traces import RunCell
from demur.study.work.verdicts import AnchorsCell, judged_anchors
from demur.types import Traces

#: Detectors of the guards that are fitted.
GUARDS = ("sri", "sri-standardised")


@dataclass(frozen=True, kw_only=True)
class GuardsCell(ArmCell[None]):
    """Fit the guards of ``GUARDS`` and save them as ``NAME.safetensors``."""

    kind = "guards"

    anchors: AnchorsCell
    fit: tuple[RunCell, ...]
    calibration: tuple[RunCell, ...]
    alpha: float
    seed: int

    def run(self, workspace: Workspace) -> None:
        for name in GUARDS:
            fitted = fit_guard(
                workspace.traces(*self.fit),
                workspace.traces(*self.calibration),
                detector=name,
                anchors=self.anchors.read(workspace),
                alpha=self.alpha,
                seed=self.seed,
            )
            fitted.save(workspace.path / f"{name}.safetensors")


@dataclass(frozen=True)
class SetDelay:
    """When each generation of a set was flagged.

    Attributes:
        step: 1-based step of the flag, 0 for never.
        tokens: response tokens released by then.
    """

    step: tuple[int, ...]
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Delays:
    """When a streaming guard that watches ``steps`` steps flags each test set."""

    steps: int
    sets: Mapping[str, SetDelay]


@dataclass(frozen=True, kw_only=True)
class DelayCell(ArmCell[Delays]):
    """Step at which a streaming guard flags each test generation, and tokens released by then."""

    kind, pace = "delay", 0.0005

    anchors: AnchorsCell
    fit: tuple[RunCell, ...]
    calibration: tuple[RunCell, ...]
    test: tuple[RunCell, ...] = field(metadata=WANTED)
    alpha: float

    def run(self, workspace: Workspace) -> Delays:
        guard = fit_streaming_guard(
            workspace.traces(*self.fit),
            workspace.traces(*self.calibration),
            anchors=self.anchors.read(workspace),
            alpha=self.alpha,
        )
        sets = {}
        for cell in workspace.done(self.test):
            found = detection_delay(guard, workspace.traces(cell))
            sets[cell.subject.set] = SetDelay(
                tuple(found.step.tolist()), tuple(found.tokens_out.tolist())
            )
        return Delays(guard.steps, sets)


@dataclass(frozen=True)
class SurrogateFlags:
    """Guard -> test set -> whether it flags each response."""

    flagged: Mapping[str, Mapping[str, tuple[bool, ...]]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SurrogateCell(Cell[SurrogateFlags]):
    """Which test generations of the arm ``black`` the guards of the model ``white`` flag."""

    kind = "surrogate"

    white: Located
    black: str = field(metadata=UNKEYED)
    anchored: tuple[RunCell, ...]
    fit: tuple[RunCell, ...]
    calibration: tuple[RunCell, ...]
    test: tuple[RunCell, ...] = field(metadata=WANTED)
    judges: Judges = field(metadata=keyed_by(lambda judges: judges.refusing))
    alpha: float
    seed: int
    allow_few: bool = False
    batch_size: int = field(metadata=UNKEYED)

    @property
    def name(self) -> str:
        return f"{self.white.name} reads {self.black}"

    @property
    def subject(self) -> Subject:
        return Subject(arm=self.black, white=self.white.name)

    def run(self, workspace: Workspace) -> SurrogateFlags:
        model = workspace.model(self.white)

        def read(*cells: RunCell) -> Traces:
            texts = [(trace.prompt, trace.response) for trace in workspace.traces(*cells)]
            return read_texts(model, texts, batch_size=self.batch_size)

        reference = read(*self.anchored)
        anchors = judged_anchors(reference, self.judges, allow_few=self.allow_few)
        benign = read(*self.fit), read(*self.calibration)
        sets = {cell.subject.set: read(cell) for cell in workspace.done(self.test)}
        flagged = {}
        for guard in GUARDS:
            fitted = fit_guard(
                *benign, detector=guard, anchors=anchors, alpha=self.alpha, seed=self.seed
            )
            flagged[guard] = {key: tuple(fitted.flag(t).tolist()) for key, t in sets.items()}
        return SurrogateFlags(flagged)
