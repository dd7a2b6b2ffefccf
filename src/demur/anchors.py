"""Fit anchors on traces, measure how well they separate, and read those released with the paper.

Rahimi et al., arXiv:2602.02600, section 3.1 and appendix: the anchors are per-step means over
non-refused generations of harmless prompts and refused generations of harmful prompts.

Differs from the paper: anchors of fewer than 20 traces a class are refused unless asked for, and
``separation`` measures on held-out prompts how well they tell refusals from answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from demur.alignment import Alignment, align, default_alignment
from demur.errors import InputError, SignalError
from demur.intervals import Estimate
from demur.metrics import auroc
from demur.parts import Part, check_part, part_of, with_part
from demur.sampling import sampler_from
from demur.sri import MIN_TRACES, Anchors, finite_states, log_ratio
from demur.types import Fingerprint, Trace, Traces

#: Number of parts of a cross-validation.
FOLDS = 5


class Refusal(Protocol):
    """A verdict on one answer, such as ``demur.judges.Verdict``."""

    @property
    def hit(self) -> bool:
        """Whether the answer is a refusal."""

    @property
    def given(self) -> bool:
        """Whether there is a verdict at all; anchors leave out answers without one."""


#: Whether each answer refuses, or a judge that decides it from a goal and an answer.
Refusals = Iterable[bool] | Callable[[str, str], Refusal]


def fit_anchors(
    traces: Iterable[Trace],
    refused: Refusals,
    *,
    layer: str = "last",
    steps: int | None = None,
    alignment: Alignment | None = None,
    allow_few: bool = False,
    part: Part = "all",
) -> Anchors:
    """Average the states of non-refused harmless and of refused harmful generations.

    Reads the traces once, in float64, and keeps none.

    Args:
        traces: of prompts labelled ``harmless`` or ``harmful``; others are an error.
        refused: a refusal judge, such as ``demur.refusal_judge("rules")``, which gets each goal
            and answer; or whether each answer is a refusal. Prompt labels are not enough for that.
        layer: which recorded layer.
        steps: T; the most steps that the sampler can take when None.
        alignment: see ``demur.alignment``; the pooling's default when None.
        allow_few: accept fewer than 20 traces of a class; ``Anchors.few`` then says so.
        part: the steps to read: ``all``, ``answer`` or ``thought`` (``demur.parts``). Traces that
            have none of them are left out and counted in ``dropped``.

    Raises:
        SignalError: a class is empty or small (says how many were refused), or states are not finite.
        InputError: a prompt without a label, or not one verdict (true or false) for each trace.
        FingerprintError: the traces are of different runs.
    """
    check_part(part)
    sums: dict[str, NDArray[np.float64]] = {}
    used, seen = Counter[str](), Counter[str]()
    first: Fingerprint | None = None
    rule: Alignment = alignment or "repeat_last"
    for trace, was_refused in _judged(traces, refused):
        label = trace.prompt.label
        if label not in ("harmless", "harmful"):
            raise InputError(
                f"Prompt {trace.prompt.id} is labelled {label!r}; anchors need harmless or harmful. "
                "Trace with --label, or pass a file with a label column."
            )
        if first is None:
            first = trace.fingerprint
            steps = steps or most_steps(first)
            rule = alignment or default_alignment(first.pooling)
        first.require(
            trace.fingerprint, what="Traces of different runs", fix="Keep each run's traces apart."
        )
        seen[label] += 1
        if was_refused is (label == "harmful") and with_part([trace], part):
            assert steps is not None
            state = align(finite_states(part_of(trace, part), layer), steps, rule=rule)
            sums[label] = sums.get(label, np.zeros(state.shape)) + state
            used[label] += 1
    _require_both(used, seen, first, allow_few=allow_few)
    harmless, harmful = ((sums[k] / used[k]).astype(np.float32) for k in ("harmless", "harmful"))
    counts = (used["harmless"], used["harmful"])
    dropped = (seen["harmless"] - counts[0], seen["harmful"] - counts[1])
    return Anchors(harmless, harmful, layer, rule, first, counts, dropped, part)


def most_steps(mark: Fingerprint) -> int:
    """T: the most steps a generation of this sampler takes.

    Samplers that stop a block early (``block`` with a threshold, ``canvas``) take fewer; their
    trajectories are brought to T like those that reach an end token early (``demur.alignment``).
    """
    if "steps" in mark.sampler:
        return int(mark.sampler["steps"])
    return sampler_from(mark.sampler).steps


@dataclass(frozen=True)
class Separation:
    """How well anchors tell refusals from answers, on prompts that they were not fitted on.

    Attributes:
        per_step: ``T`` AUROCs of the log-ratio, 1 = every refusal is closer to refusal than every
            answer, .5 = chance; 95% intervals clustered by goal.
        answered: what refused harmful prompts are compared with: answered ``harmful`` prompts where
            there are enough, else answered ``harmless`` ones, which differ in topic too.
        counts: traces compared, (answered, refused).
    """

    per_step: tuple[Estimate, ...]
    answered: str
    counts: tuple[int, int]

    def summary(self) -> dict[str, str]:
        """The AUROC at the first, middle and last step, in words."""
        steps = {1: "first", len(self.per_step) // 2: "middle", len(self.per_step): "last"}
        found = ((name, self.per_step[max(at, 1) - 1]) for at, name in steps.items())
        said = ", ".join(
            f"{e.value:.2f} [{e.low:.2f}, {e.high:.2f}] at the {n} step" for n, e in found
        )
        groups = (
            f"{self.counts[1]} refused harmful against {self.counts[0]} answered {self.answered}"
        )
        return {"held-out AUROC": f"{said} ({groups})"}


def separation(
    traces: Traces, refused: Refusals, *, layer: str = "last", seed: int = 0, part: Part = "all"
) -> Separation:
    """Cross-validate anchors: split the goals into five parts; anchors of four read the fifth.

    Args:
        traces: as for ``fit_anchors``.
        refused: as for ``fit_anchors``.
        layer: which recorded layer.
        seed: random seed of the parts.
        part: the steps to read; traces that have none of them are left out.

    Raises:
        SignalError: too few traces to fit anchors on four of the five parts.
        InputError: as for ``fit_anchors``.
    """
    pairs = [
        (trace, said)
        for trace, said in _judged(traces, refused)
        if said is not None and with_part([trace], part)
    ]
    traces = Traces(tuple(trace for trace, _ in pairs))
    verdicts = np.array([said for _, said in pairs], bool)
    goals: list[Hashable] = [trace.prompt.goal for trace in traces]
    harmful = np.array([trace.prompt.label == "harmful" for trace in traces])
    known = sorted(set(map(str, goals)))  # the order of the traces must not matter
    order = np.random.default_rng(seed).permutation(len(known))
    part_of = {known[place]: number % FOLDS for number, place in enumerate(order.tolist())}
    parts = np.array([part_of[goal] for goal in goals])
    scores = np.zeros((len(traces), most_steps(traces.fingerprint)), np.float32)
    for fold in range(FOLDS):
        inside, others = (np.flatnonzero(at).tolist() for at in (parts == fold, parts != fold))
        if not inside:
            continue
        both = {(bool(harmful[i]), bool(verdicts[i])) for i in others}
        if not both >= {(True, True), (False, False)}:
            raise SignalError(
                "Too few answered harmless or refused harmful generations to hold a fifth of the "
                "goals out."
            )
        anchors = fit_anchors(
            [traces[i] for i in others],
            verdicts[others].tolist(),
            layer=layer,
            allow_few=True,
            part=part,
        )
        held = Traces(tuple(traces[i] for i in inside))
        scores[inside] = -log_ratio(held, anchors)
    refusing = np.flatnonzero(harmful & verdicts)
    answering, answered = np.flatnonzero(harmful & ~verdicts), "harmful"
    if len(answering) < MIN_TRACES:
        answering, answered = np.flatnonzero(~harmful & ~verdicts), "harmless"
    of = [goals[i] for i in (*answering, *refusing)]
    found = (auroc(scores[answering, t], scores[refusing, t], of) for t in range(scores.shape[1]))
    return Separation(tuple(found), answered, (len(answering), len(refusing)))


def import_anchors(path: str | Path) -> Anchors:
    """Read the ``centers.pt`` released with the paper: a pair (harmless, harmful) of ``[T, D]``.

    Only tensors are unpickled (``weights_only``). The file does not name its model, so the anchors
    carry no fingerprint. Values are widened to float32.

    Raises:
        InputError: not there, or not such a pair.
    """
    import torch

    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        harmless, harmful = (np.asarray(value.float()) for value in loaded)
    except FileNotFoundError as error:
        raise InputError(f"No anchors file at {path}.") from error
    except Exception as error:
        raise InputError(
            f"{path} is not a released anchors file, a pair (harmless, harmful) of [T, D] tensors: "
            f"{type(error).__name__}."
        ) from error
    return Anchors(harmless, harmful)


def _judged(traces: Iterable[Trace], refused: Refusals) -> Iterator[tuple[Trace, bool | None]]:
    """Each trace with whether it refuses; None where the judge gives no verdict."""
    if callable(refused):
        for trace in traces:
            said = refused(trace.prompt.goal, trace.answer)
            yield trace, said.hit if said.given else None
        return
    for count, (trace, verdict) in enumerate(zip_longest(traces, refused)):
        if trace is None or verdict is None:
            more = "verdicts" if trace is None else "traces"
            raise InputError(
                f"There are more {more} than the {count:,} pairs read so far. Give one verdict "
                "(refused or not) for each trace."
            )
        if not isinstance(verdict, bool | np.bool_):
            raise InputError(
                f"The verdict of prompt {trace.prompt.id} is {verdict!r}; it must be True (refused) "
                'or False. Pass a judge: fit_anchors(traces, demur.refusal_judge("rules")).'
            )
        yield trace, bool(verdict)


def _require_both(
    used: Counter[str], seen: Counter[str], mark: Fingerprint | None, *, allow_few: bool
) -> None:
    """Raise SignalError unless both classes have traces, and enough of them."""
    name = "The model" if mark is None else mark.model
    for label in ("harmless", "harmful"):
        if not seen[label]:
            raise SignalError(
                f"No traces of {label} prompts. Anchors need both classes: trace {label} prompts too."
            )
    if not used["harmful"]:
        raise SignalError(
            f"{name} refused 0 of {seen['harmful']} harmful prompts by this judge, so there is no "
            "refusal to anchor. Try a system prompt that asks it to refuse (--system), another "
            "refusal judge (--judge), or a model that refuses. Text-only reports work without anchors."
        )
    if not used["harmless"]:
        raise SignalError(
            f"{name} refused all {seen['harmless']} harmless prompts by this judge, so there is no "
            "answer to anchor. Try another system prompt (--system) or refusal judge (--judge)."
        )
    if min(used["harmless"], used["harmful"]) < MIN_TRACES and not allow_few:
        raise SignalError(
            f"Anchors need at least {MIN_TRACES} answered harmless and {MIN_TRACES} refused harmful "
            f"generations. {name} answered {used['harmless']} of {seen['harmless']} harmless prompts "
            f"and refused {used['harmful']} of {seen['harmful']} harmful ones. Trace more prompts, or "
            "accept unreliable anchors with --allow-few (allow_few=True)."
        )
