"""The built-in models and the synthetic world they are trained on.

Toy models: results with them are not evidence about real models.
"""

from __future__ import annotations

from pathlib import Path

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
