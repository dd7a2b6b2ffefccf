"""How soon a guard detects, and what had left by then."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from demur.guard.streaming import Grouping, StreamingGuard
from demur.sampling.release import Release
from demur.types import Trace, Traces

#: Samplers that show a token as soon as its step has passed.
TOKEN_BY_TOKEN = ("autoregressive", "surrogate")


@dataclass(frozen=True)
class Delay:
    """Detection in time.

    Attributes:
        step: ``[N]`` 1-based step at which each generation was flagged, 0 for never.
        tokens_out: ``[N]`` response tokens that had been released by then; all of them for never.
        curve: ``[T]`` share of the generations flagged by each step.
    """

    step: NDArray[np.int64]
    tokens_out: NDArray[np.int64]
    curve: NDArray[np.float64]


def detection_delay(
    guard: StreamingGuard, traces: Traces, *, groups: Grouping | None = None
) -> Delay:
    """Replay traces as if the guard had watched them.

    Args:
        guard: fitted on such traces.
        traces: of one kind, such as successful jailbreaks or harmless prompts.
        groups: as for ``StreamingGuard.detect``.

    Raises:
        FingerprintError: traces of another model or sampler.
    """
    step = guard.detect(traces, groups=groups)
    by_token = traces.fingerprint.sampler["name"] in TOKEN_BY_TOKEN
    out = [
        _tokens_out(trace, int(at), by_token=by_token)
        for trace, at in zip(traces, step, strict=True)
    ]
    times = np.arange(1, guard.steps + 1)
    curve = ((step > 0) & (step <= times[:, None])).mean(axis=1)
    return Delay(step, np.array(out, dtype=np.int64), curve)


def _tokens_out(trace: Trace, step: int, *, by_token: bool) -> int:
    if not step:
        return len(trace.response_ids)
    release, out = Release(1), [0]
    for place in range(step - 1):
        block = None if by_token else [int(trace.blocks[place])]
        out = release(trace.committed[place : place + 1], block, running=[True], flagged=[False])
    return out[0]
