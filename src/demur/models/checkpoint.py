"""Find a checkpoint and read its config."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from demur.errors import ModelError
from demur.models.faults import nowhere
from demur.organism import NAMES, path

#: Files of a folder, beside its config, that decide what a model does.
_TELLING = (
    *("*.safetensors", "pytorch_model*.bin", "generation_config.json"),
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt"),
    *("spiece.model", "sentencepiece*", "chat_template*", "additional_chat_templates/*"),
)


@dataclass(frozen=True)
class Checkpoint:
    """Where a model's files are and how they should be loaded."""

    name: str
    location: str
    config: Mapping[str, Any]
    revision: str
    hub_revision: str | None
    dtype: torch.dtype | str
    device: str | None
    device_map: str | Mapping[str, Any] | None
    attention: str | None = None
    bits: int | None = None
    allow_pickle: bool = False

    @property
    def title(self) -> str:
        """The name without its organisation, by which some variants are told apart."""
        return self.name.rsplit("/", 1)[-1]

    @property
    def card(self) -> Mapping[str, Any]:
        """What the checkpoint's own config says to demur (key ``demur``), empty if nothing."""
        card: Mapping[str, Any] = self.config.get("demur", {})
        return card


def find(
    name: str | Path,
    *,
    revision: str | None = None,
    dtype: str | None = None,
    device: str | None = None,
    device_map: str | Mapping[str, Any] | None = None,
    attention: str | None = None,
    bits: int | None = None,
    allow_pickle: bool = False,
    here: bool = False,
) -> Checkpoint:
    """Locate a built-in name, a local folder or a hub id, and read its config.

    With ``here`` a hub id is looked for among what was downloaded before, and nowhere else.

    Raises:
        ModelError: nothing there, no readable config, an unknown dtype or number of bits.
    """
    from transformers import PretrainedConfig

    location = str(path(str(name))) if str(name) in NAMES else str(name)
    try:
        config, _ = PretrainedConfig.get_config_dict(
            location, revision=revision, local_files_only=here
        )
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(nowhere(str(name), error)) from error
    if not config or not isinstance(config, dict):
        raise ModelError(
            f"No model at {str(name)!r}: its config.json is missing, empty or no JSON object. Download "
            "it again."
        )
    if not isinstance(config.get("demur", {}), dict):
        raise ModelError(
            f"The config.json of {str(name)!r} says demur: {config['demur']!r}, which is no card. "
            'Write it as {"demur": {"family": ...}}, or leave it out.'
        )
    if device and device_map is not None:
        raise ModelError(
            f"device {device!r} and device_map {device_map!r} both say where the model goes. Give one."
        )
    if bits not in (None, 4, 8):
        raise ModelError(f"Weights of {bits} bits cannot be made. Use 8 or 4, or leave it out.")
    on_cpu = device_map is None and (device or "cpu") == "cpu"
    return Checkpoint(
        name=str(name) if not Path(location).is_dir() else Path(location).resolve().name,
        location=location,
        config=config,
        revision=_identity(location, config),
        hub_revision=revision,
        dtype=_dtype(dtype) if dtype else (torch.float32 if on_cpu else "auto"),
        device=device,
        device_map=device_map,
        attention=attention,
        bits=bits,
        allow_pickle=allow_pickle,
    )


def _dtype(name: str) -> torch.dtype:
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ModelError(f"Unknown dtype {name!r}. Use float32, bfloat16 or float16.")
    return found


def _identity(location: str, config: Mapping[str, Any]) -> str:
    """The hub's commit, or a hash of all that decides what the model does: its config, its tokenizer
    and chat template, and its weights.

    Text files and weight files up to 64 MiB are hashed whole. Of a larger one its size, its first and
    last MiB and 256 samples evenly between them are, so that 16 GB take a moment: another training
    run changes all of them, an edit of a few tensors by hand may be missed.
    """
    if commit := config.get("_commit_hash"):
        return str(commit)
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    folder = Path(location)
    for file in sorted({file for pattern in _TELLING for file in folder.glob(pattern)}):
        size = file.stat().st_size
        digest.update(f"{file.relative_to(folder).as_posix()}:{size}".encode())
        with file.open("rb") as handle:
            for start, length in _sampled(size):
                handle.seek(start)
                digest.update(handle.read(length))
    return digest.hexdigest()[:16]


def _sampled(size: int) -> list[tuple[int, int]]:
    """Beginnings and lengths of the parts of a file that tell it from others."""
    edge, sample, count = 1 << 20, 1 << 12, 256
    if size <= 64 * edge:
        return [(0, size)]
    between = [edge + (size - 2 * edge) * i // count for i in range(count)]
    return [(0, edge), *((start, sample) for start in between), (size - edge, edge)]
