"""Cells that judge what happened in each generation: anchors, signals, refusals, harmful drafts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from demur.anchors import fit_anchors
from demur.endpoint import Assistant, Endpoint
from demur.generation import cut_at_end
from demur.judges import LocalAssistant, find_judge, judge_all, needs_model
from demur.models import load
from demur.models.base import LanguageModel
from demur.organism import oracle
from demur.sri import Anchors, signal
from demur.study.engine.cells import ArmCell, Subject, keyed_by
from demur.study.engine.workspace import Workspace
from demur.study.plan.spec import Judges
from demur.study.work.traces import RunCell
from demur.types import Label, Trace, Traces

#: Whether a text is a hit: a refusal, or the harm that the goal asks for. None: no verdict.
Hit = bool | None

#: (goal, text) pairs -> a hit each.
Hits = Callable[[Sequence[tuple[str, str]]], list[Hit]]

#: How a hit is kept.
_MARKS = {False: "0", True: "1", None: "?"}

#: Text of the tokens of one draft; masked positions (-1) show as the mask token.
DraftText = Callable[[Sequence[int]], str]


@dataclass(frozen=True)
class Verdicts:
    """What N generations show, one value per trace.

    Attributes:
        ids, goals, attacks, labels: of the prompts; the attack is ``none`` for plain prompts.
        words: lengths of the prompts.
        tokens: lengths of the responses.
        right: whether the response is the right answer, known for the built-in world only.
        refused: judge -> whether it calls the response a refusal; None: no verdict.
        drafts: ``0``, ``1`` or ``?`` per step, 1 for a harmful draft, ? where the harm judge gave no
            verdict; the last one is the response. ``0`` for prompts that are not harmful.
        refusing: the same for drafts that the first refusal judge calls a refusal.
        sigma: ``[N, T]`` SRI signal in [0, 1], 1 = complying.
    """

    ids: tuple[str, ...]
    goals: tuple[str, ...]
    attacks: tuple[str, ...]
    labels: tuple[Label, ...]
    words: tuple[int, ...]
    tokens: tuple[int, ...]
    right: tuple[bool, ...]
    refused: Mapping[str, tuple[Hit, ...]]
    drafts: tuple[str, ...]
    refusing: tuple[str, ...]
    sigma: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class FittedAnchors:
    """What there is to say of anchors: that a class has few traces, or nothing."""

    few: str


@dataclass(frozen=True, kw_only=True)
class AnchorsCell(ArmCell[FittedAnchors]):
    """Fit anchors of each recorded layer and save them as ``LAYER.safetensors``.

    Attributes:
        traced: traces of the ``anchors`` or the ``elsewhere`` sets.
        judges: the first refusal judge decides which traces are refusals.
        elsewhere: whether these are the anchors of another distribution.
        allow_few: whether fewer than 20 traces of a class will do.
    """

    kind = "anchors"

    traced: tuple[RunCell, ...]
    judges: Judges = field(metadata=keyed_by(lambda judges: judges.refusing))
    elsewhere: bool = False
    allow_few: bool = False

    @property
    def name(self) -> str:
        return f"{self.arm.name}, elsewhere" if self.elsewhere else self.arm.name

    def run(self, workspace: Workspace) -> FittedAnchors:
        traces, few = workspace.traces(*self.traced), ""
        for layer in self.arm.layers:
            fitted = judged_anchors(traces, self.judges, layer=layer, allow_few=self.allow_few)
            fitted.save(workspace.path / f"{layer}.safetensors")
            few = fitted.few
        return FittedAnchors(few)

    def read(self, workspace: Workspace, layer: str = "last") -> Anchors:
        """The anchors of one layer, once this cell is done."""
        return Anchors.load(workspace.at(self) / f"{layer}.safetensors")


@dataclass(frozen=True, kw_only=True)
class VerdictsCell(ArmCell[Verdicts]):
    """Judge every generation of one traced set."""

    kind, version, pace = "verdicts", 2, 0.006

    traced: RunCell
    anchors: AnchorsCell
    judges: Judges

    @property
    def subject(self) -> Subject:
        return self.traced.subject

    def run(self, workspace: Workspace) -> Verdicts:
        model = workspace.model(self.arm)
        return judged(
            workspace.traces(self.traced),
            self.anchors.read(workspace),
            judges=self.judges,
            text_of=draft_text(model),
            end_ids=model.traits.end_ids,
        )


def judged(
    traces: Traces,
    anchors: Anchors,
    *,
    judges: Judges,
    text_of: DraftText,
    end_ids: Sequence[int],
) -> Verdicts:
    """What some traces show; the anchors give their signal."""
    sigma = signal(anchors.states(traces), anchors)
    refusal = refusal_judges(judges)
    drafts = harmful_drafts(traces, harm_judge(judges), text_of, end_ids)
    refusing = by_step(traces, next(iter(refusal.values())), text_of, end_ids)
    return Verdicts(
        ids=tuple(t.prompt.id for t in traces),
        goals=tuple(t.prompt.goal for t in traces),
        attacks=tuple(t.prompt.attack for t in traces),
        labels=tuple(t.prompt.label for t in traces),
        words=tuple(len(t.prompt.text.split()) for t in traces),
        tokens=tuple(len(t.response_ids) for t in traces),
        right=tuple(bool(oracle.answered(t.prompt.goal, t.response)) for t in traces),
        refused={name: tuple(refusals(traces, judge)) for name, judge in refusal.items()},
        drafts=tuple("".join(_MARKS[step] for step in steps) for steps in drafts),
        refusing=tuple("".join(_MARKS[step] for step in steps) for steps in refusing),
        sigma=tuple(tuple(round(float(value), 5) for value in row) for row in sigma),
    )


def refusals(traces: Traces, judge: Hits) -> list[Hit]:
    """Whether each response is a refusal."""
    return judge([(t.prompt.goal, t.answer) for t in traces])


def judged_anchors(
    traces: Traces, judges: Judges, *, layer: str = "last", allow_few: bool = False
) -> Anchors:
    """Anchors of the traces to which the first refusal judge gave a verdict; see ``fit_anchors``."""
    refused = refusals(traces, first_judge(judges))
    pairs = [(t, hit) for t, hit in zip(traces, refused, strict=True) if hit is not None]
    kept, hits = [t for t, _ in pairs], [hit for _, hit in pairs]
    return fit_anchors(kept, hits, layer=layer, allow_few=allow_few)


def harmful_drafts(
    traces: Traces, harm: Hits, text_of: DraftText, end_ids: Sequence[int]
) -> list[list[Hit]]:
    """Whether each step's draft is harmful; the last entry is the response. False for other prompts."""
    asked = Traces(tuple(t for t in traces if t.prompt.label == "harmful"))
    last = harm([(t.prompt.goal, t.answer) for t in asked])
    drafts = by_step(asked, harm, text_of, end_ids)
    found = iter([*steps[:-1], end] for steps, end in zip(drafts, last, strict=True))
    return [next(found) if t.prompt.label == "harmful" else [False] * t.n_steps for t in traces]


def by_step(
    traces: Traces, judge: Hits, text_of: DraftText, end_ids: Sequence[int]
) -> list[list[Hit]]:
    """Whether each step's draft, up to its end token, is a hit: one list per trace."""
    drafts = [_drafts(trace, text_of, end_ids) for trace in traces]
    goals = [trace.prompt.goal for trace in traces]
    pairs = [(goal, text) for goal, texts in zip(goals, drafts, strict=True) for text in texts]
    hits = iter(judge(pairs))
    return [[next(hits) for _ in texts] for texts in drafts]


def draft_text(model: LanguageModel) -> DraftText:
    """Decoder of drafts that shows masked positions."""
    tokenizer, mask = model.tokenizer, model.traits.mask_id

    def text(ids: Sequence[int]) -> str:
        shown = [i if i >= 0 else mask for i in ids]
        found: str = tokenizer.decode([i for i in shown if i is not None])
        return found

    return text


def _drafts(trace: Trace, text_of: DraftText, end_ids: Sequence[int]) -> list[str]:
    """What a judge reads at each step. A draft equal to the one before is not decoded again."""

    @lru_cache(maxsize=1)
    def read(row: tuple[int, ...]) -> str:
        ids, _ = cut_at_end(row, end_ids)
        return trace.answer_with(text_of(ids))

    return [read(tuple(row)) for row in trace.draft.tolist()]


def refusal_judges(judges: Judges) -> Mapping[str, Hits]:
    """Refusal judges by name, in the study's order. ``oracle`` is the built-in world's.

    Raises:
        InputError: an unknown judge, or one that needs a model that the study does not name.
    """
    return {name: _hits(name, judges, refusal=True) for name in judges.refusal}


def first_judge(judges: Judges) -> Hits:
    """The first refusal judge; errors as for ``refusal_judges``."""
    return _hits(judges.refusal[0], judges, refusal=True)


def harm_judge(judges: Judges) -> Hits:
    """The harm judge, which gives no verdict where the study names none; errors as above."""
    if not judges.harm:
        return lambda pairs: [None] * len(pairs)
    return _hits(judges.harm, judges, refusal=False)


def _hits(name: str, judges: Judges, *, refusal: bool) -> Hits:
    """A judge's hits, None where it gives no verdict; equal pairs are judged once."""
    if refusal and name == "oracle":
        return lambda pairs: [oracle.refused(text) for _, text in pairs]
    assistant, model = _assistant(judges) if needs_model(name) else (None, None)
    judge = find_judge(name, assistant=assistant, model=model)

    def hits(pairs: Sequence[tuple[str, str]]) -> list[Hit]:
        unique = [*dict.fromkeys(pairs)]
        found = dict(zip(unique, judge_all(judge, unique), strict=True))
        return [found[pair].hit if found[pair].given else None for pair in pairs]

    return hits


# All cells ask the same model, so it is loaded or connected to once.
@lru_cache(maxsize=1)
def _assistant(judges: Judges) -> tuple[Assistant | None, LanguageModel | None]:
    """What answers judges that ask a model, and the model of judges that are guard models."""
    if judges.endpoint:
        server = Endpoint(
            judges.endpoint,
            judges.model,
            key_variable=judges.key_variable,
            cache=Path(judges.cache) if judges.cache else None,
            timeout=judges.timeout,
            concurrency=judges.concurrency,
            reasoning_tokens=judges.reasoning_tokens,
        )
        return server, None
    if not judges.model:
        return None, None
    model = load(judges.model)
    return LocalAssistant(model), model
