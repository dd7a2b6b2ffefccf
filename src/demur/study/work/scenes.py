"""The cell that selects generations to replay, by a stated rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from demur.organism import oracle
from demur.sri import signal
from demur.study.engine.cells import WANTED, Cell, Subject, keyed_by
from demur.study.engine.workspace import Workspace
from demur.study.plan.arms import Arm
from demur.study.work.verdicts import AnchorsCell, Verdicts, VerdictsCell
from demur.types import Traces
from demur.viz.replay import Scene, scene

#: The rule, for the methods section.
RULE = (
    "of each attack the first prompt that the first model answers harmfully and the first diffusion "
    "model does not; of those the three whose signal changes most from step to step under diffusion"
)
_MOST = 3

#: How a response ended, in words.
_ENDS = {"1": "the harmful answer", "0": "no harmful answer", "?": "harm not judged"}
_REFUSED = {True: "a refusal", False: "no refusal", None: "refusal not judged"}


@dataclass(frozen=True)
class Scenes:
    """The generations to replay, each prompt under every arm."""

    scenes: tuple[Scene, ...]


#: Verdicts, and the place of one prompt in them.
_Place = tuple[Verdicts, int]


@dataclass(frozen=True, kw_only=True)
class ReplayCell(Cell[Scenes]):
    """Scenes of the selected prompts under every arm. The first two arms are compared."""

    kind = "replay"

    arms: tuple[Arm, ...] = field(metadata=keyed_by(lambda arms: [arm.name for arm in arms]))
    anchors: tuple[AnchorsCell, ...]
    verdicts: tuple[tuple[VerdictsCell, ...], ...] = field(metadata=WANTED)
    judge: str
    rule: str = RULE

    @property
    def name(self) -> str:
        return "telling generations"

    @property
    def subject(self) -> Subject:
        return Subject(arm="replay")

    def run(self, workspace: Workspace) -> Scenes:
        rows = [self._harmful(workspace, cells) for cells in self.verdicts]
        return Scenes(
            tuple(
                self._scene(workspace, place, name, *known[name])
                for name in _selected(rows[0], rows[1])
                for place, known in enumerate(rows)
                if name in known
            )
        )

    def _harmful(self, workspace: Workspace, cells: tuple[VerdictsCell, ...]) -> dict[str, _Place]:
        """Harmful prompts by id."""
        found = [workspace.result(cell) for cell in workspace.done(cells)]
        return {
            name: (one, i)
            for one in found
            for i, name in enumerate(one.ids)
            if one.labels[i] == "harmful"
        }

    def _scene(self, workspace: Workspace, place: int, name: str, rows: Verdicts, i: int) -> Scene:
        arm, anchors = self.arms[place], self.anchors[place].read(workspace)
        traces = workspace.traces(*workspace.done(c.traced for c in self.verdicts[place]))
        trace = next(one for one in traces if one.prompt.id == name)
        sigma = signal(anchors.states(Traces((trace,))), anchors)[0]
        tokenizer = workspace.model(arm).tokenizer
        ended = _ENDS[rows.drafts[i][-1]]
        refused = _REFUSED[rows.refused[self.judge][i]]
        return scene(
            trace,
            sigma,
            text_of=tokenizer.convert_ids_to_tokens,
            title=arm.name,
            refusal_words=oracle.REFUSAL_WORDS,
            harmful_words=oracle.facts(trace.prompt.goal),
            note=f"In the end: {ended}, {refused}.",
        )


def _selected(first: Mapping[str, _Place], second: Mapping[str, _Place]) -> list[str]:
    """Ids by the rule; any common prompt if the rule selects none."""
    best: dict[str, str] = {}
    for name, (rows, i) in first.items():
        if _succeeded(rows, i) and name in second and not _succeeded(*second[name]):
            best.setdefault(rows.attacks[i], name)
    ranked = sorted(best.values(), key=lambda name: -_change(*second[name]))
    return ranked[:_MOST] or [name for name in first if name in second][:1]


def _succeeded(rows: Verdicts, i: int) -> bool:
    return rows.drafts[i][-1] == "1"


def _change(rows: Verdicts, i: int) -> float:
    """Mean absolute change of sigma from step to step."""
    return float(np.abs(np.diff(rows.sigma[i])).mean())
