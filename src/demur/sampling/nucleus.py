"""Leave out unlikely tokens before one is drawn."""

from __future__ import annotations

import torch
from torch import Tensor


def nucleus(logits: Tensor, *, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Logits ``[N, V]`` with -inf outside the ``top_p`` mass and then outside the ``top_k``.

    The mass is that of all tokens, as in Dream's ``sample_tokens``.

    Args:
        logits: already divided by the temperature.
        top_k: how many of the most likely tokens stay; 0 keeps all. Ties with the last one stay.
        top_p: probability mass that stays, in (0, 1]; the most likely token always does.
    """
    if top_p < 1:
        ordered, order = logits.sort(descending=False)
        outside = ordered.softmax(-1).cumsum(-1) <= 1 - top_p
        outside[..., -1] = False
        logits = logits.masked_fill(outside.scatter(-1, order, outside), -torch.inf)
    if top_k:
        least = logits.topk(min(top_k, logits.shape[-1])).values[..., -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    return logits
