"""Open a guard file of either kind."""

from __future__ import annotations

from pathlib import Path

from demur.errors import InputError
from demur.guard.finished import Guard
from demur.guard.streaming import StreamingGuard

#: Reads finished generations, or also those that are being produced.
AnyGuard = Guard | StreamingGuard


def load_guard(path: str | Path) -> AnyGuard:
    """Read what ``Guard.save`` or ``StreamingGuard.save`` wrote.

    Raises:
        InputError: not there, or not a guard.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as handle:
            kind = (handle.metadata() or {}).get("format")
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path} is not there or not a guard file ({type(error).__name__}). Make one with: "
            "demur guard fit RUN --out FILE"
        ) from error
    return StreamingGuard.load(path) if kind == "demur.streaming_guard" else Guard.load(path)
