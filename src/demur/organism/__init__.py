"""The built-in models and the synthetic world they are trained on.

Toy models: results with them are not evidence about real models.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from demur.errors import ModelError

#: Models shipped with demur.
NAMES: tuple[str, ...] = (
    "organism-ar",
    "organism-dlm",
    "organism-ar-small",
    "organism-dlm-small",
    "organism-ar-wide",
    "organism-dlm-wide",
)

#: Samplers whose anchors and guard ship: the variant's name -> changes to the model's default sampler.
#: Only ``organism-dlm`` has the second.
VARIANTS: Mapping[str, Mapping[str, Any]] = {"": {}, "random": {"remasking": "random"}}


def path(name: str) -> Path:
    """Return the folder of a built-in model.

    Raises:
        ModelError: no built-in model has this name, or its files are not installed.
    """
    if name not in NAMES:
        raise ModelError(f"No built-in model {name!r}. Use one of: {', '.join(NAMES)}.")
    folder = Path(__file__).parent / "weights" / name
    if not (folder / "model.safetensors").is_file():
        raise ModelError(
            f"The files of {name} are missing from {folder}. Run: demur organism train --out DIR"
        )
    return folder


def fitted(name: str, kind: str, variant: str = "") -> Path:
    """Return the file of a built-in model's shipped anchors or guard, which need not exist.

    Args:
        name: of the model.
        kind: ``anchors`` or ``guard``.
        variant: one of ``VARIANTS``.
    """
    return path(name) / "fitted" / f"{'-'.join(filter(None, (kind, variant)))}.safetensors"
