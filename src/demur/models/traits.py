"""What a model family declares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Traits:
    """What a family declares about how its models generate.

    Attributes:
        family: name in the table of families.
        attention: which positions a position may look at: those before it, all, all up to the end of
            its own block, or (``canvas``) what comes before a canvas and the whole canvas;
            ``encoder`` is all, for classes that open it themselves and keep no cache.
        end_ids: tokens that end a response.
        mask_id: the mask token; None for autoregressive models.
        shift: whether the state at position j - 1 predicts token j, as in causal models and Dream.
        sampler: default sampler spec as plain data (PAPER sections 3 and 6 unless the model's card
            says otherwise).
        pooling: default pooling of the states.
        template: what the chat template is given besides the turns.
        final_norm: module of ``LanguageModel.body`` whose output is the ``last`` states; None where
            that differs from checkpoint to checkpoint and the native class knows it.
    """

    family: str
    attention: Literal["causal", "bidirectional", "encoder", "block", "canvas"]
    end_ids: tuple[int, ...]
    sampler: Mapping[str, Any]
    pooling: str
    mask_id: int | None = None
    shift: bool = True
    template: Mapping[str, Any] = field(default_factory=dict)
    final_norm: str | None = "norm"
