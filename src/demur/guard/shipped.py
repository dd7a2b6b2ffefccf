"""Anchors and streaming guards that ship with the built-in models."""

from __future__ import annotations

from demur import organism
from demur.guard.streaming import StreamingGuard
from demur.sri import Anchors
from demur.types import Fingerprint


def shipped(mark: Fingerprint) -> tuple[Anchors, StreamingGuard] | None:
    """The anchors and the guard fitted on generations like these; None where none ship.

    Args:
        mark: what is generated: model, sampler, pooling and system prompt.
    """
    if mark.model not in organism.NAMES:
        return None
    for variant in organism.VARIANTS:
        path = organism.fitted(mark.model, "guard", variant)
        if path.is_file() and (guard := StreamingGuard.load(path)).fingerprint == mark:
            return Anchors.load(organism.fitted(mark.model, "anchors", variant)), guard
    return None
