"""Prompts as token ids, the same for whoever freezes a fixture and whoever checks it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

#: Where the plain words of the tiny vocabularies lie.
FIRST, LAST = 10, 59


def ids_of(length: int) -> list[int]:
    """Plain tokens, drawn by the length alone."""
    generator = torch.Generator().manual_seed(length)
    return torch.randint(FIRST, LAST, (length,), generator=generator).tolist()


def padded(rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids ``[B, P]`` padded on the left, and which are real."""
    longest = max(len(row) for row in rows)
    ids = torch.tensor([[0] * (longest - len(row)) + list(row) for row in rows])
    kept = torch.tensor([[False] * (longest - len(row)) + [True] * len(row) for row in rows])
    return ids, kept
