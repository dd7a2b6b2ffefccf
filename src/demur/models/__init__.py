"""Models: one family a file. To add one, write ``NAME``, ``EXAMPLES``, ``TESTED``, ``recognises``
and ``load`` in a file of its own and add it to ``FAMILIES``; other packages use the entry point group
``demur.families``.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

from demur.errors import ModelError
from demur.models import (
    a2d,
    bert_chat,
    causal,
    diffusion_gemma,
    dream,
    llada,
    llada2,
    masked_lm,
    sdar,
)
from demur.models.base import LanguageModel
from demur.models.checkpoint import Checkpoint, find
from demur.models.verification import verify


class Family(Protocol):
    """What a family's module offers."""

    NAME: str
    EXAMPLES: str
    TESTED: str

    def recognises(self, config: Mapping[str, Any]) -> bool:
        """Whether a config.json is of this family."""

    def load(self, checkpoint: Checkpoint) -> LanguageModel:
        """Load the checkpoint."""


#: The first family that recognises a config loads it, so the most general one comes last.
FAMILIES: tuple[Family, ...] = (
    masked_lm,
    llada,
    dream,
    a2d,
    bert_chat,
    sdar,
    llada2,
    diffusion_gemma,
    causal,
)


def load(
    name: str | Path,
    *,
    dtype: str | None = None,
    device: str | None = None,
    device_map: str | Mapping[str, Any] | None = None,
    revision: str | None = None,
    attention: str | None = None,
    bits: int | None = None,
    allow_pickle: bool = False,
) -> LanguageModel:
    """Load a built-in model, a local folder or a hub id, recognised from its config.

    Args:
        name: such as ``"organism-dlm"``, ``"./llama"`` or ``"org/model"``.
        dtype: ``float32`` on a CPU and the checkpoint's own elsewhere, unless given.
        device: where to put it, such as ``"cuda"``; the CPU by default.
        device_map: handed to transformers, such as ``"auto"``; excludes ``device``.
        revision: hub revision to pin.
        attention: transformers' implementation, such as ``"eager"``; its own choice by default.
            Masked models take ``"sdpa"`` and ``"eager"``.
        bits: load linear weights in 8 or 4 bits (extra ``quant``).
        allow_pickle: read pickled weights where there are no safetensors; tensors only are
            unpickled, but load none that you do not trust.

    Raises:
        ModelError: nothing there, an unknown family, or a checkpoint that does not fit.
        MissingExtraError: ``device_map`` or ``bits`` without the extra ``quant``.
    """
    checkpoint = find(
        name,
        dtype=dtype,
        device=device,
        device_map=device_map,
        revision=revision,
        attention=attention,
        bits=bits,
        allow_pickle=allow_pickle,
    )
    family = next((f for f in known_families() if f.recognises(checkpoint.config)), None)
    if family is None:
        known = "; ".join(f"{f.NAME} ({f.EXAMPLES})" for f in known_families())
        raise ModelError(
            f"Unknown architecture {checkpoint.config.get('model_type')!r} in {checkpoint.name}. "
            f"Known: {known}. To add one, write a family file (see docs/architecture.md)."
        )
    model = family.load(checkpoint)
    verify(model)
    return model


def known_families() -> tuple[Family, ...]:
    """Installed plug-ins first, then our own."""
    return (*(point.load() for point in entry_points(group="demur.families")), *FAMILIES)
