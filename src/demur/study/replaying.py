"""The cell that chooses generations to replay, by a stated rule, and writes them down with tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from demur.organism import oracle
from demur.sri import signal
from demur.study.cells import Cell, Desk
from demur.study.tracing import Arm
from demur.study.verdicts import anchors_at
from demur.types import Trace, Traces
from demur.viz.replay import Cell as Token
from demur.viz.replay import Scene, scene

VERSION = 1

#: What the rule is, for the methods page.
RULE = (
    "of each attack the first prompt that the first model answers harmfully and the first diffusion "
    "model does not; of those the three whose signal changes most from step to step under diffusion"
)
_MOST = 3


def replay_cell(
    arms: Sequence[tuple[Arm, Cell, Sequence[tuple[Cell, Cell]]]], *, judge: str
) -> Cell:
    """Scenes of the telling prompts under every arm.

    Args:
        arms: arm, its anchors, and (traces, verdicts) of each test set; the first two are compared.
        judge: the refusal judge whose verdict the note gives.
    """

    def work(desk: Desk) -> Mapping[str, Any]:
        rows = [_rows(desk, sets, judge) for _, _, sets in arms]
        scenes = []
        for name in _telling(rows[0], rows[1]):
            for (arm, anchors, sets), known in zip(arms, rows, strict=True):
                if name in known:
                    scenes.append(asdict(_scene(desk, arm, anchors, sets, name, known[name])))
        return {"scenes": scenes}

    wanted = [cell for _, _, sets in arms for pair in sets for cell in pair]
    return Cell(
        kind="replay",
        name="telling generations",
        inputs={
            "arms": [arm.name for arm, _, _ in arms],
            "rule": RULE,
            "judge": judge,
            "version": VERSION,
        },
        work=work,
        needs=tuple(anchors for _, anchors, _ in arms),
        wants=tuple(wanted),
        arm="replay",
    )


def scenes_from(rows: Sequence[Mapping[str, Any]]) -> list[Scene]:
    """Scenes from plain data."""
    return [
        Scene(**{**row, "steps": [[Token(**cell) for cell in step] for step in row["steps"]]})
        for row in rows
    ]


def _rows(desk: Desk, sets: Sequence[tuple[Cell, Cell]], judge: str) -> dict[str, dict[str, Any]]:
    """Harmful rows by id, with what happened in them."""
    found = {}
    for _, cell in sets:
        value = desk.value(cell) if desk.there([cell]) else {"ids": []}
        for i, name in enumerate(value["ids"]):
            if value["labels"][i] == "harmful":
                change = float(np.abs(np.diff(value["sigma"][i])).mean())
                refused = value["refused"][judge][i]
                found[name] = {
                    "attack": value["attacks"][i],
                    "harmful": value["drafts"][i][-1] == "1",
                    "refused": refused,
                    "change": change,
                }
    return found


def _telling(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    best: dict[str, str] = {}
    for name, row in first.items():
        if row["harmful"] and name in second and not second[name]["harmful"]:
            best.setdefault(row["attack"], name)
    ranked = sorted(best.values(), key=lambda name: -second[name]["change"])
    return ranked[:_MOST] or [name for name in first if name in second][:1]


def _scene(
    desk: Desk,
    arm: Arm,
    anchors: Cell,
    sets: Sequence[tuple[Cell, Cell]],
    name: str,
    row: Mapping[str, Any],
) -> Scene:
    trace = next(t for t in _traces(desk, sets) if t.prompt.id == name)
    reference = anchors_at(desk, anchors)
    sigma = signal(reference.states(Traces((trace,))), reference)[0]
    tokenizer = desk.model(arm.location, arm.options).tokenizer
    ended = "the harmful answer" if row["harmful"] else "no harmful answer"
    refused = "a refusal" if row["refused"] else "no refusal"
    return scene(
        trace,
        sigma,
        text_of=tokenizer.convert_ids_to_tokens,
        title=arm.name,
        refusal_words=oracle.REFUSAL_WORDS,
        harmful_words=oracle.facts(trace.prompt.goal),
        note=f"In the end: {ended}, {refused}.",
    )


def _traces(desk: Desk, sets: Sequence[tuple[Cell, Cell]]) -> list[Trace]:
    return [
        trace for cell in desk.there([traced for traced, _ in sets]) for trace in desk.traces(cell)
    ]
