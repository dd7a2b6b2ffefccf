"""The part of a generation that is read: all steps, those of the thought, or those of the answer.

A step is thought where every token that it commits is thought; a step that commits none is what the
step before it was. Other samplers than the autoregressive keep the state of each chosen step. A
running mean restarts: with h_t = n_t phi_t - n_(t-1) phi_(t-1) the state that step t adds to the
mean of n_t states, it becomes the mean of h over the chosen steps up to t.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from demur.errors import InputError
from demur.thoughts import thought_tokens
from demur.types import Trace, Traces

#: Which steps of a generation are read.
Part = Literal["all", "answer", "thought"]

#: Poolings whose state is a mean over the tokens so far, where one token comes a step.
_RUNNING = ("running", "generated", "content")


def check_part(part: str) -> None:
    """Raise InputError unless there is such a part."""
    if part not in get_args(Part):
        raise InputError(f"Unknown part {part!r}. Known: {', '.join(get_args(Part))}.")


def part_of(trace: Trace, part: Part) -> Trace:
    """The trace with the steps of a part alone.

    Raises:
        InputError: it has no such step, or no such part is known.
    """
    check_part(part)
    if part == "all" or (trace.thought is None and part == "answer"):
        return trace
    thought = _thought(trace)
    chosen = thought if part == "thought" else ~thought
    if chosen.all():
        return trace
    if not chosen.any():
        why = "was cut off while it thought" if part == "answer" else "has no thought"
        raise InputError(
            f"The generation for prompt {trace.prompt.id} {why}: it has no {part} steps. Leave it out "
            "(demur.parts.with_part), or read all steps (part='all')."
        )
    restarts = trace.fingerprint.pooling in _RUNNING and _token_by_token(trace)
    return replace(
        trace,
        committed=trace.committed[chosen],
        draft=trace.draft[chosen],
        phi={k: _restarted(v, chosen) if restarts else v[chosen] for k, v in trace.phi.items()},
        blocks=trace.blocks[chosen],
        thought=thought[chosen] if part == "thought" else None,
    )


def with_part(traces: Sequence[Trace], part: Part) -> Traces:
    """The traces that have a step of a part, whole."""
    check_part(part)
    if part == "all":
        return Traces(tuple(traces))
    wanted = part == "thought"
    return Traces(tuple(trace for trace in traces if (_thought(trace) == wanted).any()))


def thought_steps(
    committed: NDArray[np.int32], pieces: Sequence[str], *, before: str = "", skip: int = 0
) -> NDArray[np.bool_] | None:
    """``[T]`` bool, the steps of a generation that are thought; None where none is.

    Args:
        committed: ``[T, R]`` tokens after each step, -1 where none.
        pieces: text of each response token in order.
        before: the opening of a thought that the prompt ends with.
        skip: tokens of the response that stand before position 0, such as a prefill.
    """
    thought = np.array(thought_tokens([before, *pieces])[1:][skip:], dtype=bool)
    if not thought.any():
        return None
    there = committed[:, : len(thought)] >= 0
    # Positions after the end of the response are no answer.
    new = there & ~np.concatenate([np.zeros_like(there[:1]), there[:-1]])
    found = np.zeros(len(there), dtype=bool)
    last = bool(thought[0])
    for step, row in enumerate(new):
        if row.any():
            last = bool(thought[row].all())
        found[step] = last
    return found if found.any() else None


def _thought(trace: Trace) -> NDArray[np.bool_]:
    return np.zeros(trace.n_steps, bool) if trace.thought is None else trace.thought


def _token_by_token(trace: Trace) -> bool:
    """Whether each step adds the state of one more token and changes no earlier one."""
    one_more = np.tri(*trace.committed.shape, dtype=np.bool_)
    fixed_length = "gen_length" in trace.fingerprint.sampler
    return not fixed_length and np.array_equal(trace.committed >= 0, one_more)


def _restarted(phi: NDArray[np.float32], chosen: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Means ``[K, D]`` over the chosen steps alone, from means ``[T, D]`` over all steps so far."""
    values = phi.astype(np.float64)
    # A step that left a position out, such as an end token, did not move the mean.
    still = np.concatenate([[False], (values[1:] == values[:-1]).all(axis=1)])
    counts = np.cumsum(~still)[:, None].astype(np.float64)
    added = np.diff(counts * values, axis=0, prepend=0)
    kept = chosen & ~still
    if not kept.any():
        return phi[chosen]
    sums = np.cumsum(added * kept[:, None], axis=0)
    number = np.maximum(np.cumsum(kept), 1)[:, None]
    return np.asarray((sums / number)[chosen], dtype=np.float32)
