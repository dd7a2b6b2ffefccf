"""Load native transformers classes and account for every tensor."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

from torch import Tensor

from demur.errors import ModelError
from demur.models.checkpoint import Checkpoint, check_index
from demur.models.formats import (
    apply_adapter,
    first_line,
    has_weights,
    quiet,
    require,
    sentence,
    unreadable_gguf,
)


def load_native(
    checkpoint: Checkpoint,
    auto_class: Any,
    *,
    published: Mapping[str, str] = MappingProxyType({}),
    **options: Any,
) -> Any:
    """Load a native class, with every tensor accounted for and the adapter applied.

    Weights come from safetensors, from a GGUF file, or from pickles where these are allowed.
    ``published`` turns a native tensor's name into the checkpoint's own for messages (patterns and
    replacements). ``options`` go to the class; with a ``state_dict`` among them nothing is read from
    the folder.

    Raises:
        ModelError: no weights, a missing, extra or wrongly shaped tensor, a truncated file.
        MissingExtraError: ``device_map`` or fewer bits without accelerate and bitsandbytes.
    """
    location, device_map = Path(checkpoint.location), checkpoint.device_map
    if checkpoint.bits:
        require("accelerate", what=f"Loading weights in {checkpoint.bits} bits", extra="quant")
        options["quantization_config"] = _fewer_bits(checkpoint)
    if device_map is not None:
        require("accelerate", what="Spreading a model over devices", extra="quant")
    if checkpoint.attention:
        options["attn_implementation"] = checkpoint.attention
    if checkpoint.gguf:
        options["gguf_file"] = checkpoint.gguf
        options.setdefault("config", _gguf_config(checkpoint))
    check_index(checkpoint)
    try:
        with quiet(checkpoint.gguf), without_adapter(checkpoint.location) as read_from:
            net, info = auto_class.from_pretrained(
                None if "state_dict" in options else read_from,
                revision=checkpoint.hub_revision,
                dtype=checkpoint.dtype,
                device_map=device_map,
                # None takes safetensors where there are any; pickles are read weights-only.
                use_safetensors=None if checkpoint.allow_pickle or checkpoint.gguf else True,
                trust_remote_code=False,
                output_loading_info=True,
                # A wrong shape is reported below with its tensor's name instead.
                ignore_mismatched_sizes=True,
                # No adapter is in a folder of this name, so transformers applies none.
                adapter_kwargs={"subfolder": "no-adapter"},
                **options,
            )
    except Exception as error:
        if checkpoint.gguf:
            raise ModelError(unreadable_gguf(location / checkpoint.gguf, error)) from error
        said = unreadable(location, checkpoint.name, error, allow_pickle=checkpoint.allow_pickle)
        raise ModelError(said) from error
    check_complete(checkpoint, info, published)
    if "state_dict" not in options:
        net.name_or_path = net.config._name_or_path = checkpoint.location
    if checkpoint.gguf and hasattr(net.config, "quantization_config"):
        del net.config.quantization_config  # by now the tensors are ordinary ones
    if checkpoint.adapter:
        net = apply_adapter(net, checkpoint.adapter, checkpoint.name)
    if device_map is None and checkpoint.device:
        net = _put(net, checkpoint.device)
    return net.eval()


@contextmanager
def without_adapter(location: str) -> Iterator[str]:
    """The folder, or one of links to its files if an adapter is among them.

    With peft installed, transformers would apply that adapter unasked.
    """
    folder = Path(location)
    if not (folder / "adapter_config.json").is_file():
        yield location
        return
    with TemporaryDirectory() as links:
        for file in folder.iterdir():
            if not file.name.startswith("adapter_"):
                (Path(links) / file.name).symlink_to(file.resolve())
        yield links


def _put(net: Any, device: str) -> Any:
    """Move the network to a device; raises ModelError if there is no such device."""
    try:
        return net.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"The model cannot be put on device {device!r}: {sentence(error)} Use cpu, or a "
            "device that torch finds."
        ) from error


def read_tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Every tensor of the checkpoint's safetensors files, memory-mapped, under its own name.

    Raises:
        ModelError: no safetensors, or a truncated file.
    """
    from huggingface_hub import snapshot_download
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(checkpoint.location)
    tensors: dict[str, Tensor] = {}
    file = folder
    try:
        if not folder.is_dir():
            folder = Path(
                snapshot_download(
                    checkpoint.location,
                    revision=checkpoint.hub_revision,
                    allow_patterns=["*.safetensors"],
                )
            )
        for file in sorted(folder.glob("*.safetensors")):
            tensors |= {} if file.name.startswith("adapter_") else load_file(file)
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"Could not read the weights of {checkpoint.name} in {file.name}: {sentence(error)} "
            "Download that file again."
        ) from error
    if not tensors:
        raise ModelError(
            f"{checkpoint.name} has no *.safetensors file. Its weights must be renamed, which works on "
            "safetensors only, with --allow-pickle too. Convert them first."
        )
    return tensors


def check_complete(
    checkpoint: Checkpoint, info: Mapping[str, Any], published: Mapping[str, str]
) -> None:
    """Raise ModelError unless each tensor was found with its shape and none is left over."""
    wrong = {
        kind: sorted({_tensor(item, published) for item in info.get(f"{kind}_keys") or ()})
        for kind in ("missing", "unexpected", "mismatched")
    }
    if any(wrong.values()):
        found = "; ".join(f"{kind}: {', '.join(v[:4])}" for kind, v in wrong.items() if v)
        raise ModelError(
            f"The checkpoint {checkpoint.name} does not fit its architecture ({found}). "
            "Download it again or check its config.json."
        )


def _tensor(key: Any, published: Mapping[str, str]) -> str:
    """A tensor's published name, with both shapes where they differ."""
    name, shapes = (key, None) if isinstance(key, str) else (key[0], key[1:])
    for pattern, replacement in published.items():
        name = re.sub(pattern, replacement, name)
    return f"{name} is {list(shapes[0])} instead of {list(shapes[1])}" if shapes else str(name)


def native_config(checkpoint: Checkpoint, model_type: str) -> Any:
    """The checkpoint's config as that of a native class, without the keys that name remote code."""
    from transformers import AutoConfig

    foreign = ("model_type", "auto_map", "architectures", "transformers_version", "demur")
    kept = {k: v for k, v in checkpoint.config.items() if k not in foreign}
    kinds, layers = kept.get("layer_types"), kept.get("num_hidden_layers")
    if kinds is not None and layers is not None and len(kinds) != layers:
        raise ModelError(
            f"The config.json of {checkpoint.name} has {layers} layers and {len(kinds)} layer_types. "
            "Download it again."
        )
    return AutoConfig.for_model(model_type, **kept)


def _gguf_config(checkpoint: Checkpoint) -> Any:
    """The config that was read from a GGUF file; transformers would take seconds to read it again."""
    from transformers import AutoConfig

    return AutoConfig.for_model(**checkpoint.config)


def _fewer_bits(checkpoint: Checkpoint) -> Any:
    """bitsandbytes' settings for weights of 8 or 4 bits, which compute in the checkpoint's dtype."""
    from transformers import BitsAndBytesConfig

    bits = checkpoint.bits
    require("bitsandbytes", what=f"Loading weights in {bits} bits", extra="quant")
    said = checkpoint.config.get("dtype") or checkpoint.config.get("torch_dtype") or "float32"
    dtype = said if checkpoint.dtype == "auto" else checkpoint.dtype
    return BitsAndBytesConfig(
        load_in_8bit=bits == 8, load_in_4bit=bits == 4, bnb_4bit_compute_dtype=dtype
    )


def unreadable(folder: Path, name: str, error: Exception, *, allow_pickle: bool) -> str:
    """The message for weights that could not be loaded; names the damaged file or the files found."""
    said = f"Could not load {name}: {sentence(error)}"
    for file in sorted(folder.glob("*.safetensors")):
        if wrong := _damage(file):
            return f"Could not load {name}: {file.name} is damaged ({wrong}). Download that file again."
    pickled = sorted(file.name for file in folder.glob("pytorch_model*.bin"))
    if has_weights(folder) > bool(pickled) or not folder.is_dir():
        return f"{said} Check that the folder is complete, including every shard in its index."
    if pickled and not allow_pickle:
        return (
            f"{said} There are pickled weights ({pickled[0]}) and no safetensors. A pickle can run "
            "code: convert it, or if you trust it load with allow_pickle=True (--allow-pickle)."
        )
    if pickled:
        return f"{said} The pickled weights ({pickled[0]}) hold more than tensors."
    return f"{said} There are no weights in the folder. Download its *.safetensors."


def _damage(file: Path) -> str:
    """Why a safetensors file cannot be opened, empty if it can."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt"):
            return ""
    except (SafetensorError, OSError) as error:
        return first_line(error)
