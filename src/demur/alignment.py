"""Bring trajectories of different lengths to the same number of steps, by a named rule.

A generation that ends early has fewer steps than the anchors; a sampler that decides its own number
of steps has more. The rule is part of every result, never implicit.

- ``repeat_last``: cut at T, or repeat the last pooled state.
- ``repeat_state``: cut at T, or continue as if the last token's own state h_n were repeated, so that a
  running mean keeps moving towards it: phi_t = (n phi_n + (t - n) h_n) / t with
  h_n = n phi_n - (n - 1) phi_{n-1}. This is what the paper's released Llama wrapper does after the
  end token.
- ``resample``: step t of T takes the original step ceil(t n / T).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from demur.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Alignment = Literal["repeat_last", "repeat_state", "resample"]


def default_alignment(pooling: str) -> Alignment:
    """``repeat_state`` for the running mean, ``repeat_last`` for every other pooling."""
    return "repeat_state" if pooling == "running" else "repeat_last"


def align(
    values: NDArray[Any], steps: int, *, rule: Alignment = "repeat_last"
) -> NDArray[np.float32]:
    """Bring ``[n, ...]`` values to ``[steps, ...]``.

    Raises:
        InputError: no steps at all, or an unknown rule.
    """
    n = len(values)
    if n == 0 or steps < 1:
        raise InputError(f"Cannot align {n} steps to {steps}. Both must be at least 1.")
    if rule not in get_args(Alignment):
        raise InputError(f"Unknown alignment {rule!r}. Known: {', '.join(get_args(Alignment))}.")
    values = np.asarray(values, dtype=np.float32)
    if rule == "resample":
        return values[-(-np.arange(1, steps + 1) * n // steps) - 1]
    if n >= steps:
        return values[:steps]
    missing = steps - n
    if rule == "repeat_last" or n == 1:
        return np.concatenate([values, np.repeat(values[-1:], missing, axis=0)])
    total = n * values[-1].astype(np.float64)
    state = total - (n - 1) * values[-2].astype(np.float64)
    extra = np.arange(1, missing + 1).reshape(-1, *[1] * (values.ndim - 1))
    tail = (total + extra * state) / (n + extra)
    return np.concatenate([values, tail.astype(np.float32)])
