"""Find a checkpoint and read its config: a built-in name, a folder, a GGUF file or a hub id."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from demur.errors import ModelError
from demur.models.formats import (
    Adapter,
    find_adapter,
    find_gguf,
    first_line,
    hashed,
    read_config,
)
from demur.organism import NAMES, path

#: Weight files of a folder.
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")

#: Other files of a folder, besides its config, that decide what a model does.
_TEXTS = (
    *("generation_config.json", "tokenizer*", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.*", "merges.txt", "spiece.model", "sentencepiece*"),
    *("chat_template*", "additional_chat_templates/*"),
)


@dataclass(frozen=True)
class Checkpoint:
    """Where a model's files are and how to load them.

    Attributes:
        name: the folder's or file's name, or the hub id; ``base+adapter`` with an adapter.
        location: folder or hub id, as transformers takes it.
        config: ``config.json``, or its equivalent from a GGUF file.
        revision: the hub's commit, or a hash of the files; the adapter's hash is appended.
        hub_revision: the commit, tag or branch asked for.
        dtype: of the weights; ``"auto"`` is the checkpoint's own.
        device: such as ``"cuda"``.
        device_map: as transformers takes it.
        attention: transformers' attention implementation.
        bits: 8, 4 or None.
        allow_pickle: whether pickled weights may be read.
        gguf: name of the GGUF file in the folder.
        adapter: the adapter to apply to the weights.
    """

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
    gguf: str | None = None
    adapter: Adapter | None = None

    @property
    def title(self) -> str:
        """The name without its organisation; some variants are recognised by it."""
        return self.name.rsplit("/", 1)[-1]

    @property
    def card(self) -> Mapping[str, Any]:
        """The key ``demur`` of the config, empty if absent."""
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
    adapter: str | Path | None = None,
    here: bool = False,
) -> Checkpoint:
    """Locate a model and read its config; arguments as for ``demur.load``.

    With ``here``, hub ids are looked up in the local cache only.

    Raises:
        ModelError: nothing there, no readable config, an unknown dtype or number of bits.
        MissingExtraError: a GGUF file or an adapter without its extra.
    """
    if device and device_map is not None:
        raise ModelError(
            f"device {device!r} and device_map {device_map!r} both say where the model goes. Give one."
        )
    if bits not in (None, 4, 8):
        raise ModelError(f"Weights of {bits} bits are not supported. Use 8 or 4, or leave it out.")
    location = str(path(str(name))) if str(name) in NAMES else str(name)
    applied = find_adapter(location, adapter, here=here)
    if applied and adapter is None:
        location, revision = applied.base, revision or applied.base_revision
        location = str(path(location)) if location in NAMES else location
    gguf = find_gguf(location)
    if gguf and bits:
        raise ModelError(f"{gguf.name} is quantized already. Leave bits={bits} out.")
    location = str(gguf.parent) if gguf else location
    try:
        config = read_config(location, gguf, revision=revision, here=here)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        if applied and adapter is None:
            raise ModelError(absent_base(str(name), applied, error)) from error
        raise ModelError(nowhere(str(name), error)) from error
    _check_config(str(name), config)
    title = Path(location).resolve().name if Path(location).is_dir() else location
    title = gguf.stem if gguf else title
    identity = _identity(location, config, gguf)
    if applied:
        title, identity = f"{title}+{applied.name}", f"{identity}+{applied.identity}"
    on_cpu = device_map is None and (device or "cpu") == "cpu"
    return Checkpoint(
        name=title,
        location=location,
        config=config,
        revision=identity,
        hub_revision=revision,
        dtype=_dtype(dtype) if dtype else (torch.float32 if on_cpu else "auto"),
        device=device,
        device_map=device_map,
        attention=attention,
        bits=bits,
        allow_pickle=allow_pickle,
        gguf=gguf.name if gguf else None,
        adapter=applied,
    )


def _check_config(name: str, config: Any) -> None:
    if not config or not isinstance(config, dict):
        raise ModelError(
            f"No model at {name!r}: its config.json is missing, empty or not a JSON object. Download "
            "it again."
        )
    if not isinstance(config.get("demur", {}), dict):
        raise ModelError(
            f"The config.json of {name!r} has demur: {config['demur']!r}, which is not a card. "
            'Write {"demur": {"family": ...}}, or leave it out.'
        )


def _dtype(name: str) -> torch.dtype:
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ModelError(f"Unknown dtype {name!r}. Use float32, bfloat16 or float16.")
    return found


def _identity(location: str, config: Mapping[str, Any], gguf: Path | None) -> str:
    """The hub's commit, or a hash of everything that decides what the model does: config, tokenizer,
    chat template and weights. An adapter beside the weights is not part of them."""
    if commit := config.get("_commit_hash"):
        return str(commit)
    # Older transformers add an empty commit to what they read.
    said = {name: value for name, value in config.items() if name != "_commit_hash"}
    digest = hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode())
    folder = Path(location)
    files = {file for pattern in (*_TEXTS, *_WEIGHTS) for file in folder.glob(pattern)}
    if gguf:
        files = {gguf, *(file for pattern in _TEXTS for file in folder.glob(pattern))}
    files = {f for f in files if not f.name.startswith("adapter_") and not f.is_dir()}
    return hashed(folder, files, digest)


def check_index(checkpoint: Checkpoint) -> None:
    """Check the index of sharded weights, if there is one.

    Raises:
        ModelError: it is unreadable, names a pickled file among safetensors, or a path that leaves
            the folder.
    """
    folder = Path(checkpoint.location)
    if not folder.is_dir():
        found = _hub_index(checkpoint.location, checkpoint.hub_revision)
        folder = found.parent if found else folder
    for file in sorted(folder.glob("*.index.json")):
        try:
            named = set(json.loads(file.read_text("utf-8"))["weight_map"].values())
            odd = sorted(str(each) for each in named if _leaves(PurePosixPath(each)))
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ModelError(
                f"{file.name} in {folder} is not an index of weights ({first_line(error)}). Download "
                "it again."
            ) from error
        if odd:
            raise ModelError(
                f"{file.name} in {folder} names weights outside the folder ({odd[0]}). Use files from "
                "a source that you trust."
            )
        pickled = sorted(each for each in named if not each.endswith(".safetensors"))
        if pickled and "safetensors" in file.name:
            raise ModelError(
                f"{file.name} in {folder} names {pickled[0]}, which is not a safetensors file and may "
                "be a pickle. Use files from a source that you trust."
            )


def _hub_index(name: str, revision: str | None) -> Path | None:
    """The index of a hub repository's weights; None if it has none."""
    from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, cached_file

    try:
        found = cached_file(name, SAFE_WEIGHTS_INDEX_NAME, revision=revision)
    except (OSError, ValueError):
        return None
    return Path(found) if found else None


def _leaves(entry: PurePosixPath) -> bool:
    return entry.is_absolute() or ".." in entry.parts or "\\" in str(entry)


def nowhere(name: str, error: Exception) -> str:
    """The message for a name whose config could not be read."""
    known = ", ".join(NAMES)
    folder = Path(name)
    said = "it is nested too deeply" if isinstance(error, RecursionError) else first_line(error)
    if folder.is_dir():
        return (
            f"No model at {name!r}: no readable config.json there ({said}). Give the folder that "
            f"holds config.json, a hub id or a built-in model ({known})."
        )
    if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        return (
            f"No model at {name!r}: there is no such folder. Give a folder, a GGUF file, a hub id such "
            f"as org/model, or a built-in model ({known})."
        )
    return (
        f"No model at {name!r}: there is no such folder, and as a hub id it has no readable "
        f"config.json ({said}). Run: hf download {name} (without HF_HUB_OFFLINE=1; after hf auth login "
        f"for a gated one). Give a folder, a hub id or a built-in model ({known})."
    )


def absent_base(name: str, adapter: Adapter, error: Exception) -> str:
    """The message for an adapter whose base model cannot be found."""
    return (
        f"{name!r} is an adapter of {adapter.base!r}, which was not found ({first_line(error)}). Run: "
        f"hf download {adapter.base}, or give the base yourself: demur.load(BASE, adapter={name!r}), "
        f"--model BASE --adapter {name}."
    )
