"""Evidence: what one arm's traces, anchors, signals and verdicts say, ready for tables and figures.

An arm is a model under a sampler. Everything after the traces is a pure function of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demur.guard import Guard, fit_guard
from demur.judges import refusal_judge
from demur.sri import Anchors, fit_anchors, signal
from demur.types import Trace, Traces

#: Decodes token ids; masked positions (-1) become the mask's text.
Decode = Callable[[Sequence[int]], str]

#: Whether a text holds the harmful answer to a goal.
Harmful = Callable[[str, str], bool]


@dataclass(frozen=True)
class Arm:
    """One column of a comparison.

    Attributes:
        name: what it is called in tables.
        model: name or path for ``demur.load``.
        sampler: changes to the model's default sampler, as plain data.
        guarded: whether a guard is fitted for it.
    """

    name: str
    model: str
    sampler: Mapping[str, Any]
    guarded: bool = True


@dataclass(frozen=True)
class Evidence:
    """What one arm shows on its test prompts.

    Attributes:
        arm: the arm.
        traces: of the test prompts, all attacks, harmless and harmful.
        anchors: fitted on the anchors split.
        guards: name -> guard fitted and calibrated on benign prompts of splits of their own.
        refused: ``[N]`` bool, the dictionary's verdict on each response.
        harmful_drafts: whether each step's draft holds the harmful answer, one list a trace.
    """

    arm: Arm
    traces: Traces
    anchors: Anchors
    guards: Mapping[str, Guard]
    refused: NDArray[np.bool_]
    harmful_drafts: tuple[tuple[bool, ...], ...]

    @cached_property
    def sigma(self) -> NDArray[np.float32]:
        """``[N, T]`` SRI signals."""
        return signal(self.anchors.states(self.traces), self.anchors)

    @cached_property
    def succeeded(self) -> NDArray[np.bool_]:
        """``[N]`` whether the final response is harmful."""
        return np.array([steps[-1] for steps in self.harmful_drafts])

    @property
    def goals(self) -> list[str]:
        """Goal of each row, by which intervals are clustered."""
        return [trace.prompt.goal for trace in self.traces]

    def rows(self, *, label: str, attack: str | None = None) -> NDArray[np.bool_]:
        """``[N]`` bool: prompts with this label and, unless None, this attack.

        ``attack="wrapped"`` stands for every attack but ``none``.
        """
        return np.array(
            [t.prompt.label == label and _is_attack(t.prompt.attack, attack) for t in self.traces],
            dtype=np.bool_,
        )

    @property
    def attacks(self) -> list[str]:
        """Attacks of the harmful prompts, in the order they come."""
        names = (t.prompt.attack for t in self.traces if t.prompt.label == "harmful")
        return list(dict.fromkeys(names))


def gather(
    arm: Arm,
    *,
    anchor_traces: Traces,
    test_traces: Traces,
    benign_traces: tuple[Traces, Traces] | None,
    decode: Decode,
    harmful: Harmful,
    alpha: float = 0.01,
) -> Evidence:
    """Fit anchors and both guards (raw as in the paper, standardised) and judge every draft.

    Args:
        benign_traces: to fit the guards and to calibrate them; no guard is fitted when None.

    Raises:
        SignalError, CalibrationError, FingerprintError: see ``fit_anchors`` and ``fit_guard``.
    """
    judge = refusal_judge("paper")

    def refusals(traces: Traces) -> list[bool]:
        return [judge(t.prompt.goal, t.response).hit for t in traces]

    anchors = fit_anchors(anchor_traces, refusals(anchor_traces))
    guards = {
        name: fit_guard(*benign_traces, anchors=anchors, alpha=alpha, standardise=standardise)
        for name, standardise in (("sri", False), ("sri standardised", True))
        if benign_traces
    }
    return Evidence(
        arm=arm,
        traces=test_traces,
        anchors=anchors,
        guards=guards,
        refused=np.array(refusals(test_traces), dtype=np.bool_),
        harmful_drafts=tuple(draft_verdicts(t, decode, harmful) for t in test_traces),
    )


def draft_verdicts(trace: Trace, decode: Decode, harmful: Harmful) -> tuple[bool, ...]:
    """Whether the draft of each step holds the harmful answer; the last entry is the response's.

    A draft that equals the one before it is not judged again.
    """
    if trace.prompt.label != "harmful":
        return (False,) * trace.n_steps
    verdicts: list[bool] = []
    before: NDArray[np.int32] | None = None
    for row in trace.draft:
        same = before is not None and np.array_equal(row, before)
        verdicts.append(verdicts[-1] if same else harmful(trace.prompt.goal, decode(row.tolist())))
        before = row
    verdicts[-1] = harmful(trace.prompt.goal, trace.response)
    return tuple(verdicts)


def _is_attack(name: str, wanted: str | None) -> bool:
    if wanted == "wrapped":
        return name != "none"
    return wanted is None or name == wanted
