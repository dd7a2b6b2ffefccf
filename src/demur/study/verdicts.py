"""Cells that say what happened in each generation: anchors, signals, refusals, harmful drafts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demur.generation import cut_at_end
from demur.judges.reading import answer_of
from demur.models.base import LanguageModel
from demur.organism import oracle
from demur.sri import Anchors, fit_anchors, signal
from demur.study.cells import Cell, Desk
from demur.study.judging import Hits, harm_judge, refusal_judges
from demur.study.spec import Judges
from demur.study.tracing import Arm
from demur.types import Trace, Traces

VERSION = 1
#: The same for verdicts alone, which anchors do not depend on.
JUDGED = 2

#: Text of the tokens of one draft; masked positions (-1) show as the mask token.
DraftText = Callable[[Sequence[int]], str]


def anchors_cell(arm: Arm, traced: Sequence[Cell], *, judges: Judges, name: str = "") -> Cell:
    """Anchors of each recorded layer, saved as ``LAYER.safetensors``."""

    def work(desk: Desk) -> Mapping[str, Any]:
        traces = desk.traces(*traced)
        refused = refusals(traces, refusal_judges(judges)[judges.refusal[0]])
        counts: tuple[int, int] = (0, 0)
        for layer in arm.layers:
            fitted = fit_anchors(traces, refused, layer=layer)
            fitted.save(desk.path / f"{layer}.safetensors")
            counts = fitted.counts
        return {"harmless": counts[0], "harmful": counts[1]}

    return Cell(
        kind="anchors",
        name=name or arm.name,
        inputs={"layers": arm.layers, "judge": judges.refusing, "version": VERSION},
        work=work,
        needs=tuple(traced),
        units=sum(cell.units for cell in traced),
        arm=arm.name,
    )


def anchors_at(desk: Desk, cell: Cell, layer: str = "last") -> Anchors:
    """Anchors of one layer of a finished anchors cell."""
    return Anchors.load(desk.at(cell) / f"{layer}.safetensors")


def verdicts_cell(arm: Arm, traced: Cell, anchors: Cell, *, judges: Judges) -> Cell:
    """What every generation of one traced set shows, one value a row."""

    def work(desk: Desk) -> Mapping[str, Any]:
        traces = desk.traces(traced)
        model = desk.model(arm.location, arm.options)
        return judged(
            traces,
            anchors_at(desk, anchors),
            refusal=refusal_judges(judges),
            harm=harm_judge(judges),
            text_of=draft_text(model),
            end_ids=model.traits.end_ids,
        )

    return Cell(
        kind="verdicts",
        name=traced.name,
        inputs={"judges": judges.inputs, "version": JUDGED},
        work=work,
        needs=(traced, anchors),
        units=traced.units,
        pace=0.006,
        arm=arm.name,
        about=dict(traced.about),
    )


def judged(
    traces: Traces,
    anchors: Anchors,
    *,
    refusal: Mapping[str, Hits],
    harm: Hits,
    text_of: DraftText,
    end_ids: Sequence[int],
) -> dict[str, Any]:
    """Columns of plain data, one value a trace: see ``demur.study.evidence.Evidence``."""
    sigma = signal(anchors.states(traces), anchors)
    first = next(iter(refusal.values()))
    drafts = harmful_drafts(traces, harm, text_of, end_ids)
    refusing = by_step(traces, first, text_of, end_ids)
    return {
        "ids": [t.prompt.id for t in traces],
        "goals": [t.prompt.goal for t in traces],
        "attacks": [t.prompt.attack for t in traces],
        "labels": [t.prompt.label for t in traces],
        "lengths": [len(t.prompt.text.split()) for t in traces],
        "tokens": [len(t.response_ids) for t in traces],
        "steps": [t.n_steps for t in traces],
        "right": [oracle.answered(t.prompt.goal, t.response) for t in traces],
        "refused": {name: refusals(traces, judge) for name, judge in refusal.items()},
        "drafts": ["".join("01"[step] for step in steps) for steps in drafts],
        "refusing": ["".join("01"[step] for step in steps) for steps in refusing],
        "sigma": [[round(float(value), 5) for value in row] for row in sigma],
    }


def refusals(traces: Traces, judge: Hits) -> list[bool]:
    """Whether each response is a refusal."""
    return judge([(t.prompt.goal, answer_of(t)) for t in traces])


def harmful_drafts(
    traces: Traces, harm: Hits, text_of: DraftText, end_ids: Sequence[int]
) -> list[list[bool]]:
    """Whether each step's draft is harmful, the last entry the response; False for other prompts."""
    asked = Traces(tuple(t for t in traces if t.prompt.label == "harmful"))
    last = harm([(t.prompt.goal, answer_of(t)) for t in asked])
    found = iter(zip(by_step(asked, harm, text_of, end_ids), last, strict=True))
    steps = []
    for one in traces:
        if one.prompt.label == "harmful":
            drafts, response = next(found)
            steps.append([*drafts[:-1], response])
        else:
            steps.append([False] * one.n_steps)
    return steps


def by_step(
    traces: Traces, judge: Hits, text_of: DraftText, end_ids: Sequence[int]
) -> list[list[bool]]:
    """Whether each step's draft, up to its end token, is a hit: one list a trace."""
    drafts = [_drafts(trace, text_of, end_ids) for trace in traces]
    goals = [trace.prompt.goal for trace in traces]
    pairs = [(goal, text) for goal, texts in zip(goals, drafts, strict=True) for text in texts]
    hits = iter(judge(pairs))
    return [[next(hits) for _ in texts] for texts in drafts]


def draft_text(model: LanguageModel) -> DraftText:
    """Decode drafts as a reader would see them, masks included."""
    tokenizer, mask = model.tokenizer, model.traits.mask_id

    def text(ids: Sequence[int]) -> str:
        shown = [i if i >= 0 else mask for i in ids]
        found: str = tokenizer.decode([i for i in shown if i is not None])
        return found

    return text


def _drafts(trace: Trace, text_of: DraftText, end_ids: Sequence[int]) -> list[str]:
    """What a judge reads at each step; a draft like the one before is not decoded again."""
    texts: list[str] = []
    before: NDArray[np.int32] | None = None
    for row in trace.draft:
        if before is None or not np.array_equal(row, before):
            ids, _ = cut_at_end(row.tolist(), end_ids)
            texts.append(answer_of(trace, text_of(ids)))
        else:
            texts.append(texts[-1])
        before = row
    return texts
