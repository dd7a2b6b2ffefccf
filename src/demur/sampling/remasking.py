"""Remasking rules: which predicted tokens a masked sampler commits first.

Each rule turns logits into a confidence. The most confident positions are committed, the rest are
masked again. Ties go to the leftmost position.

- ``low_confidence``: probability of the chosen token (LLaDA ``generate.py``; the paper's default).
- ``random``: a uniform number (LLaDA ``generate.py``).
- ``entropy``: minus the entropy of the distribution (Dream ``generation_utils.py``).
- ``margin``: difference of the two largest probabilities (Dream ``topk_margin``).
- ``left_to_right``: the leftmost first, autoregressive order (arXiv:2602.02600, table 2).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from demur.sampling.noise import Noise

Remasking = Literal["low_confidence", "random", "entropy", "margin", "left_to_right"]


def confidence(
    rule: Remasking, logits: Tensor, chosen: Tensor, where: Tensor, noise: Noise
) -> Tensor:
    """Confidence of each masked position; the highest are committed first.

    Args:
        rule: see the module's list.
        logits: ``[N, V]``, in the dtype in which to compute the confidence.
        chosen: ``[N]`` predicted tokens.
        where: ``[B, L]`` bool, the N positions, row by row.
        noise: random numbers of the rows, for ``random``.

    Returns:
        ``[N]`` float32 or float64.
    """
    if rule == "left_to_right":
        return -where.nonzero()[:, 1].double()
    if rule == "random":
        return noise.uniform(where)
    if rule == "entropy":
        disorder: Tensor = torch.special.entr(logits.softmax(-1)).sum(-1)
        return -disorder.float()
    if rule == "margin":
        top = logits.softmax(-1).topk(2, dim=-1).values
        return (top[:, 0] - top[:, 1]).float()
    # Rounded to the logits' dtype like upstream's softmax, so ties are the same.
    return logits.softmax(-1).gather(1, chosen[:, None])[:, 0].float()


def spread(score: Tensor, where: Tensor) -> Tensor:
    """Scores ``[N]`` at the true entries of ``where`` ``[B, L]``, row by row, and -inf elsewhere."""
    nothing = torch.full(where.shape, -torch.inf, dtype=score.dtype, device=score.device)
    return nothing.masked_scatter(where, score)


def commits_at(masked: Tensor, step: Tensor, steps: int) -> Tensor:
    """How many positions a step commits; arguments and result are ``[B]``.

    The positions ``masked`` at the block's beginning are spread evenly over its ``steps``, the
    remainder first; ``step`` counts from 0. Source: LLaDA ``generate.py``,
    ``get_num_transfer_tokens`` (linear noise schedule).
    """
    return masked // steps + (step < masked % steps).long()


def most_confident(score: Tensor, count: Tensor) -> Tensor:
    """The ``count`` highest entries of each row.

    Args:
        score: ``[B, L]``, -inf where nothing may be committed.
        count: ``[B]`` how many to take.

    Returns:
        ``[B, L]`` bool, never true where the score is -inf.
    """
    order = score.argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(
        1, order, torch.arange(score.shape[1], device=score.device).expand_as(order)
    )
    return (rank < count[:, None]) & torch.isfinite(score)
