"""Pool the hidden states of an autoregressive generation that ran elsewhere.

The states belong to consecutive positions, counted from the first response token; ``first`` is the
position of the first state:

    position   -P ... -2  -1 |  0   1   2  ...  T-1
    token      prompt        |  response

Step t (1..T) chose the token at position t - 1. Pooling ``running`` averages the states before the
tokens, positions -1 to t - 2. ``generated`` and ``content`` average the tokens' own states, 0 to t - 1,
and so need the last token to be fed back to the model. See ``demur.sampling.pooling``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demur.errors import InputError, SignalError
from demur.generation import cut_at_end
from demur.sampling import SAMPLERS, Pooling, find_pooling
from demur.types import Fingerprint, Prompt, Trace


@dataclass(frozen=True, kw_only=True)
class Source:
    """The engine that ran the model. Traces of different sources cannot be mixed.

    demur cannot check these values, so the traces are never treated as demur's own: fit anchors and
    guards on traces of the same source.

    Attributes:
        engine: name and version, such as ``"vllm 0.22.0"``.
        model: name or path of the model.
        steps: maximum number of response tokens, T.
        revision: revision of the weights, if known.
        settings: sampling settings, such as ``{"temperature": 0.0}``.
        system: system prompt.
        dtype: dtype the model ran in, such as ``"bfloat16"``.
    """

    engine: str
    model: str
    steps: int
    revision: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    system: str = ""
    dtype: str = ""

    def __post_init__(self) -> None:
        if not self.engine or self.engine in SAMPLERS:
            raise InputError(
                f"engine is {self.engine!r}. Name what ran the model, such as 'vllm 0.22.0'; names "
                "of demur's samplers are reserved for its own traces."
            )
        if self.steps < 1:
            raise InputError(f"steps is {self.steps}; it must be at least 1.")

    def fingerprint(self, *, pooling: str) -> Fingerprint:
        """The fingerprint of traces from this source, with the engine as sampler name."""
        return Fingerprint(
            model=self.model,
            revision=self.revision,
            sampler={**self.settings, "name": self.engine, "steps": self.steps},
            pooling=pooling,
            system=self.system,
            dtype=self.dtype,
        )


def from_hidden_states(
    states: Mapping[str, Any],
    response_ids: Sequence[int],
    *,
    prompt: Prompt | str,
    response: str,
    first: int,
    pooling: str,
    source: Source | Fingerprint,
    end_ids: Collection[int] = (),
) -> Trace:
    """Make a trace of one autoregressive generation from its hidden states.

    Args:
        states: layer -> ``[S, D]`` array or tensor of consecutive positions. ``last`` means after
            the final norm.
        response_ids: generated tokens; cut after the first end token.
        prompt: prompt or plain text.
        response: the decoded response.
        first: position of the first row: 0 for the first response token, -1 for the last prompt
            token, -P for the first of P prompt tokens.
        pooling: ``running``, ``generated`` or ``content``. There is no default, because a wrong
            choice gives a wrong signal without an error.
        source: the engine that ran the model; a whole fingerprint if you know that it is correct.
        end_ids: tokens that end a response.

    Raises:
        InputError: no tokens, more than ``source.steps``, missing positions, or a pooling of masked
            positions.
        SignalError: NaN or infinite states.
    """
    mark = source if isinstance(source, Fingerprint) else source.fingerprint(pooling=pooling)
    rule = find_pooling(pooling)
    if rule.positions == "response":
        raise InputError(
            f"Pooling {pooling!r} averages masked positions, which an autoregressive generation "
            "does not have. Use running, generated or content."
        )
    ids, reason = cut_at_end([int(token) for token in response_ids], list(end_ids))
    prompt = Prompt(prompt) if isinstance(prompt, str) else prompt
    steps, most = len(ids), int(mark.sampler["steps"])
    if not 1 <= steps <= most:
        raise InputError(
            f"Prompt {prompt.id} has {steps} response tokens and steps is {most}. Give at least one "
            "token, and set steps to the maximum number of response tokens."
        )
    counted = np.ones(steps, dtype=bool)
    if rule.positions == "content":
        counted[1:] = ~np.isin(ids[1:], list(end_ids))
    shown = np.tri(steps, most, dtype=bool)  # step t shows t tokens
    tokens = np.where(shown, np.pad(ids, (0, most - steps)), -1).astype(np.int32)
    return Trace(
        prompt=prompt,
        response=response,
        response_ids=np.array(ids, dtype=np.int32),
        committed=tokens,
        draft=tokens,
        phi={k: _running_means(value, counted, first, rule, k) for k, value in states.items()},
        finish_reason=reason,
        blocks=np.zeros(steps, dtype=np.int32),
        fingerprint=mark,
    )


def _running_means(
    value: Any, counted: NDArray[np.bool_], first: int, pooling: Pooling, layer: str
) -> NDArray[np.float32]:
    """Means ``[T, D]`` of the states that the pooling averages, over the counted ones so far."""
    if hasattr(value, "detach"):  # a tensor of any dtype and device
        value = value.detach().float().cpu().numpy()
    states = np.asarray(value, dtype=np.float32)
    if states.ndim != 2:
        raise InputError(
            f"The states of layer {layer!r} have shape {list(states.shape)}; give [positions, width] "
            "of one generation, such as states[0] of a batch."
        )
    begin, steps = -1 if pooling.predictor else 0, len(counted)
    start = begin - first
    if start < 0 or start + steps > len(states):
        raise InputError(
            f"Pooling {pooling.name!r} of {steps} tokens needs the states of positions {begin} to "
            f"{begin + steps - 1}; layer {layer!r} has {first} to {first + len(states) - 1}. The "
            "first response token is position 0. Generation never computes its last token's own "
            "state: use running, or feed the whole text through the model once more."
        )
    rows = states[start : start + steps]
    if not np.isfinite(rows).all():
        bad = int(np.argwhere(~np.isfinite(rows).all(axis=1))[0, 0]) + 1
        raise SignalError(
            f"The states of layer {layer!r} have NaN or infinite values at step {bad}. Run the model "
            "in float32 or bfloat16."
        )
    weights = counted.astype(np.float64)[:, None]
    means = np.cumsum(rows * weights, axis=0) / np.cumsum(weights, axis=0)
    return np.asarray(means, dtype=np.float32)
