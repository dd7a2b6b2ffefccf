"""What to say of a checkpoint that cannot be loaded: what was found there and what to do next."""

from __future__ import annotations

from pathlib import Path

from demur.organism import NAMES


def nowhere(name: str, error: Exception) -> str:
    """What to say of a name behind which no config could be read."""
    known = ", ".join(NAMES)
    folder = Path(name)
    if folder.is_dir():
        return (
            f"No model at {name!r}: no readable config.json there ({first_line(error)}). Give the "
            f"folder that holds config.json, a hub id or a built-in model ({known})."
        )
    if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        return (
            f"No model at {name!r}: there is no such folder. Give a folder, a hub id such as "
            f"org/model, or a built-in model ({known})."
        )
    return (
        f"No model at {name!r}: there is no such folder, and as a hub id it has no readable "
        f"config.json ({first_line(error)}). Run: hf download {name} (without HF_HUB_OFFLINE=1; "
        f"after hf auth login for a gated one). Give a folder, a hub id or a built-in model ({known})."
    )


def unreadable(location: str, name: str, error: Exception, *, allow_pickle: bool) -> str:
    """What to say of weights that could not be loaded: the damaged file, or what is there instead."""
    folder = Path(location)
    said = f"Could not load {name}: {sentence(error)}"
    for file in sorted(folder.glob("*.safetensors")):
        if wrong := _damage(file):
            return f"Could not load {name}: {file.name} is damaged ({wrong}). Download that file again."
    pickled = sorted(file.name for file in folder.glob("pytorch_model*.bin"))
    if any(folder.glob("*.safetensors")) or not folder.is_dir():
        return f"{said} Check that the folder is complete, every shard of its index included."
    if pickled and not allow_pickle:
        return (
            f"{said} There are pickled weights ({pickled[0]}) and no safetensors. A pickle can run "
            "code: convert it, or if you trust it load with allow_pickle=True (--allow-pickle)."
        )
    if pickled:
        return f"{said} The pickled weights ({pickled[0]}) cannot be read as tensors alone."
    return f"{said} There are no weights in the folder. Download its *.safetensors."


def _damage(file: Path) -> str:
    """Why a safetensors file cannot be opened, empty where it can."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt"):
            return ""
    except (SafetensorError, OSError) as error:
        return first_line(error)


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def sentence(error: Exception) -> str:
    """An error's first line, closed by a full stop."""
    return first_line(error).rstrip(".") + "."
