"""Pooling: which response positions are averaged, and which state represents a position.

Differs from the paper: its text (arXiv:2602.02600, section 3.1) pools generated tokens, its released
code pools all response positions for LLaDA and a running mean of last-position states for Llama. Each
way has a name here, and the name is stored with every trace.

| name | positions averaged at step t | state of position j |
|---|---|---|
| ``response`` | all response positions, including masked ones | at j |
| ``response_predictor`` | the same | at j - 1, which predicts token j in shifted models |
| ``generated`` | positions committed so far | at j |
| ``running`` | positions committed so far | at j - 1 (the released Llama wrapper) |
| ``content`` | positions before the draft's first end token | at j |
| ``content_predictor`` | the same | at j - 1 |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from demur.errors import InputError


@dataclass(frozen=True)
class Pooling:
    """A way to pool a response's states into one vector."""

    name: str
    positions: Literal["response", "generated", "content"]
    predictor: bool


POOLINGS: Mapping[str, Pooling] = {
    pooling.name: pooling
    for pooling in (
        Pooling("response", "response", predictor=False),
        Pooling("response_predictor", "response", predictor=True),
        Pooling("generated", "generated", predictor=False),
        Pooling("running", "generated", predictor=True),
        Pooling("content", "content", predictor=False),
        Pooling("content_predictor", "content", predictor=True),
    )
}


def find_pooling(name: str | None) -> Pooling:
    """The pooling of a name.

    Raises:
        InputError: no such pooling.
    """
    if name is None or name not in POOLINGS:
        raise InputError(f"Unknown pooling {name!r}. Known: {', '.join(POOLINGS)}.")
    return POOLINGS[name]


def require_own_positions(pooling: Pooling) -> None:
    """Raise InputError if the pooling takes the state before each position."""
    if pooling.predictor:
        raise InputError(
            f"Pooling {pooling.name!r} takes the state before each position, but this model predicts "
            "a token at its own. Use response, generated or content."
        )


def positions_mask(
    pooling: Pooling, *, committed: Tensor, draft: Tensor, end_ids: tuple[int, ...]
) -> Tensor:
    """Positions that a masked sampler averages at this step.

    Args:
        pooling: which positions.
        committed: ``[B, R]`` bool, committed after this step.
        draft: ``[B, R]`` tokens, including predictions.
        end_ids: tokens that end a response.

    Returns:
        ``[B, R]`` bool, at least one position a row.
    """
    if pooling.positions == "response":
        return torch.ones_like(committed)
    if pooling.positions == "generated":
        chosen = committed.clone()
    else:
        chosen = torch.isin(draft, draft.new_tensor(end_ids)).long().cumsum(1) == 0
    chosen[:, 0] |= ~chosen.any(1)
    return chosen


def mean_states(states: Tensor, chosen: Tensor) -> Tensor:
    """Mean over chosen positions: ``[B, R, D]``, ``[B, R]`` bool -> ``[B, D]`` float32."""
    weights = chosen.float()
    total = torch.einsum("brd,br->bd", states.float(), weights)
    return total / weights.sum(1, keepdim=True)


class RunningMeans:
    """Running means over the positions seen so far, one per row, kept on the device."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._count: Tensor | None = None
        self._mean: dict[str, Tensor] = {}

    def add(self, states: Mapping[str, Tensor], rows: Tensor, counted: Tensor) -> dict[str, Tensor]:
        """Add one position's states and return the means.

        Args:
            states: layer -> ``[K, D]`` of the rows still running.
            rows: ``[K]`` their indices in the batch.
            counted: ``[K]`` bool, False to leave a position out; a row's first position always
                counts, so that a mean exists.

        Returns:
            layer -> ``[B, D]`` float32 snapshot.
        """
        if self._count is None:
            self._count = torch.zeros(self._rows, device=rows.device)
            self._mean = {
                layer: torch.zeros(self._rows, value.shape[-1], device=rows.device)
                for layer, value in states.items()
            }
        before = self._count[rows]
        weight = (counted | (before == 0)).float()
        after = before + weight
        self._count[rows] = after
        share = (weight / after)[:, None]
        for layer, value in states.items():
            mean = self._mean[layer][rows]
            self._mean[layer][rows] = mean + (value.float() - mean) * share
        return {layer: mean.clone() for layer, mean in self._mean.items()}

    def forget(self, rows: Tensor) -> None:
        """Start again in these rows ``[K]``."""
        if self._count is not None:
            self._count[rows] = 0
        for mean in self._mean.values():
            # The first state is added as its difference from the mean, so anything but 0 would stay
            # in the last bit, and NaN forever.
            mean[rows] = 0


class FinishedMeans:
    """Means over finished positions, whose states are final, and those that a step works on."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._count: Tensor | None = None
        self._sum: dict[str, Tensor] = {}
        self._mean: dict[str, Tensor] = {}

    def finish(self, rows: Tensor, states: Mapping[str, Tensor], chosen: Tensor) -> None:
        """Add finished positions for good.

        Args:
            rows: ``[K]`` indices of the rows in the batch.
            states: layer -> ``[K, S, D]``.
            chosen: ``[K, S]`` bool, which of them.
        """
        count = self._begin(states, rows.device)
        count[rows] += chosen.sum(1)
        for layer, value in states.items():
            self._sum[layer][rows] += torch.einsum("bsd,bs->bd", value.float(), chosen.float())

    def mean(self, rows: Tensor, states: Mapping[str, Tensor], chosen: Tensor) -> dict[str, Tensor]:
        """Mean over finished and these positions; arguments as for ``finish``.

        A row without any chosen position gets the mean of all given positions.

        Returns:
            layer -> ``[B, D]`` float32; rows not given repeat.
        """
        count = self._begin(states, rows.device)[rows]
        none = (count + chosen.sum(1) == 0)[:, None]
        weights = (chosen | none).float()
        total = (count + weights.sum(1))[:, None]
        for layer, value in states.items():
            mean = self._sum[layer][rows] + torch.einsum("bsd,bs->bd", value.float(), weights)
            self._mean[layer] = self._mean[layer].index_copy(0, rows, mean / total)
        return dict(self._mean)

    def _begin(self, states: Mapping[str, Tensor], device: torch.device) -> Tensor:
        """Create the sums at the first use, on the states' device; return the counts ``[B]``."""
        if self._count is None:
            for layer, value in states.items():
                self._sum[layer] = torch.zeros(self._rows, value.shape[-1], device=value.device)
                self._mean[layer] = torch.zeros_like(self._sum[layer])
            self._count = torch.zeros(self._rows, device=device)
        return self._count
