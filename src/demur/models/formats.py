"""Checkpoints in other formats: GGUF files and PEFT adapters; and hashes of files."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

from demur.errors import MissingExtraError, ModelError

_ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")

#: Metadata keys in which a GGUF file may name the repository that it was converted from.
_ORIGINS = (
    "general.base_model.0.repo_url",
    "general.source.huggingface.repository",
    "general.source.repo_url",
    "general.repo_url",
)

_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")


@dataclass(frozen=True)
class Adapter:
    """A PEFT adapter in a folder.

    Attributes:
        name: of the folder, or of the hub repository.
        folder: where its files are.
        base: the base model that its config names: a folder, a hub id or a built-in model.
        base_revision: hub revision of the base, if the config pins one.
        identity: hash of its files.
    """

    name: str
    folder: Path
    base: str
    base_revision: str | None
    identity: str

    @property
    def tokenizer(self) -> Path | None:
        """The folder, if the adapter comes with a tokenizer of its own."""
        return self.folder if (self.folder / "tokenizer_config.json").is_file() else None


def find_adapter(location: str, asked: str | Path | None, *, here: bool) -> Adapter | None:
    """The adapter ``asked`` for, or the one that ``location`` is; None if there is neither.

    A folder with base weights is never an adapter, even if it also holds one.

    Raises:
        ModelError: no readable adapter there.
        MissingExtraError: peft is not installed.
    """
    folder = named = Path(location if asked is None else asked)
    if asked is None:
        if not folder.is_dir() and "/" in location and _on_hub(location, here=here):
            folder = _download(location, here=here)
        elif not (folder / "adapter_config.json").is_file() or has_weights(folder):
            return None
    elif not folder.is_dir():
        folder = _download(str(asked), here=here)
    try:
        config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
        base, pinned = config.get("base_model_name_or_path"), config.get("revision")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise ModelError(
            f"No adapter at {str(folder)!r}: no readable adapter_config.json there "
            f"({first_line(error)}). Give the folder that PEFT's save_pretrained wrote."
        ) from error
    weights = next((folder / name for name in _ADAPTER_WEIGHTS if (folder / name).exists()), None)
    if weights is None or weights.suffix != ".safetensors":
        found = "only a pickle (adapter_model.bin)" if weights else "no weights"
        raise ModelError(
            f"The adapter {str(folder)!r} has {found}. Save it as adapter_model.safetensors: "
            "save_pretrained(folder, safe_serialization=True)."
        )
    require("peft", what="Applying an adapter", extra="peft")
    if asked is None and not base:
        raise ModelError(
            f"The adapter {str(folder)!r} names no base model. Give it: demur.load(BASE, "
            f"adapter={str(folder)!r}), or --model BASE --adapter {folder}."
        )
    base = str(base or "a base without a name")
    beside = folder / base
    texts = [file for file in folder.glob("*token*") if file.is_file()]
    chat = [file for file in folder.glob("chat_template*") if file.is_file()]
    files = {folder / "adapter_config.json", weights, *texts, *chat}
    return Adapter(
        name=named.resolve().name if named.is_dir() else named.name,
        folder=folder,
        base=str(beside) if not Path(base).exists() and beside.is_dir() else base,
        base_revision=pinned if isinstance(pinned, str) else None,
        identity=hashed(folder, files),
    )


def _on_hub(name: str, *, here: bool) -> bool:
    """Whether a hub repository holds an adapter and no model of its own."""
    from huggingface_hub import try_to_load_from_cache

    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        return False
    cached = try_to_load_from_cache(name, "adapter_config.json")
    return isinstance(cached, str) and not has_weights(Path(cached).parent)


def _download(name: str, *, here: bool) -> Path:
    from huggingface_hub import snapshot_download

    wanted = ["adapter_*", "*token*", "chat_template*", "vocab.*", "merges.txt"]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted, local_files_only=here))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"No adapter at {name!r}: no such folder, and the hub gave none ({first_line(error)}). "
            "Give the folder that PEFT's save_pretrained wrote, or a hub id."
        ) from error


def apply_adapter(net: Any, adapter: Adapter, name: str) -> Any:
    """The network with the adapter's layers, unmerged; computes the same numbers as ``PeftModel``.

    Raises:
        ModelError: an adapter of another base, or one that does more than change layers.
    """
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    try:
        with warnings.catch_warnings():
            # PEFT uses a name that transformers has changed since.
            warnings.simplefilter("ignore", FutureWarning)
            whole = PeftModel.from_pretrained(net, str(adapter.folder), is_trainable=False)
        with safe_open(adapter.folder / _ADAPTER_WEIGHTS[0], "pt") as file:
            saved = set(file.keys())
        used = set(get_peft_model_state_dict(whole))
    except Exception as error:
        raise ModelError(
            f"The adapter {adapter.name} does not fit {name}: {sentence(error)} It was made for "
            f"{adapter.base}."
        ) from error
    net = unwrapped(whole)
    # Embeddings may be saved whole beside the adapter's own tensors.
    if wrong := sorted((used - saved) | (saved - used - whole.state_dict().keys())):
        raise ModelError(
            f"The adapter {adapter.name} does not fit {name}: {wrong[0]} is in only one of them. It "
            f"was made for {adapter.base}."
        )
    return net


def unwrapped(whole: Any) -> Any:
    """The network in a ``PeftModel``, with the adapter's layers in it.

    Raises:
        ModelError: an adapter that does more than change layers.
    """
    config = whole.active_peft_config
    kind = str(getattr(config.peft_type, "value", config.peft_type))
    if (
        config.is_prompt_learning
        or kind == "XLORA"
        or getattr(config, "alora_invocation_tokens", 0)
    ):
        raise ModelError(
            f"The adapter is of type {kind}, which needs PEFT's own generate. Use one that changes "
            "layers, such as LoRA."
        )
    return whole.base_model.model


def beside(location: str, applied: Adapter | None) -> tuple[str, ...]:
    """A note on an adapter in a model's folder that is not applied."""
    folder = Path(location)
    if applied or not (folder / "adapter_config.json").is_file():
        return ()
    return (
        f"{location} holds an adapter beside its weights, which is not applied. To apply it: "
        f"demur.load({location!r}, adapter={location!r}), or --adapter {location}.",
    )


# ---------------------------------------------------------------------------------------- GGUF


def find_gguf(location: str) -> Path | None:
    """The GGUF file that a path means, None if it means no GGUF file.

    Raises:
        ModelError: several files to choose from, or one part of a split file.
        MissingExtraError: gguf or accelerate is not installed.
    """
    place = Path(location)
    if place.suffix == ".gguf":
        if not place.is_file():
            raise ModelError(f"No model at {location!r}: there is no such file. Give its path.")
        found = [place]
    elif not place.is_dir() or has_weights(place):
        return None
    else:
        found = sorted(f for f in place.glob("*.gguf") if not f.name.startswith("mmproj"))
    whole = [
        file for file in found if not (part := _SHARD.fullmatch(file.name)) or part[2] == "00001"
    ]
    if len(whole) > 1:
        names = ", ".join(file.name for file in whole)
        raise ModelError(
            f"{location} holds {len(whole)} GGUF files: {names}. Give one, such as {whole[0]}."
        )
    if not found:
        return None
    if part := _SHARD.fullmatch(found[0].name):
        raise ModelError(
            f"{found[0].name} is one of {int(part[3])} parts, and transformers reads whole files only. "
            f"Run: llama-gguf-split --merge {part[1]}-00001-of-{part[3]}.gguf {part[1]}.gguf"
        )
    for module in ("gguf", "accelerate"):
        require(module, what="Reading a GGUF file", extra="gguf")
    return whole[0]


def read_config(
    location: str, gguf: Path | None, *, revision: str | None, here: bool
) -> dict[str, Any]:
    """``config.json`` of a folder or hub id, or its equivalent from a GGUF file.

    Raises:
        ModelError: a GGUF file that transformers cannot read.
    """
    from transformers import PretrainedConfig

    if gguf is None:
        found, _ = PretrainedConfig.get_config_dict(
            location, revision=revision, local_files_only=here
        )
        return dict(found)
    try:
        with quiet():
            found, _ = PretrainedConfig.get_config_dict(location, gguf_file=gguf.name)
    except Exception as error:
        raise ModelError(unreadable_gguf(gguf, error)) from error
    return {key: value for key, value in found.items() if key != "quantization_config"}


def unreadable_gguf(file: Path, error: Exception) -> str:
    """Why transformers cannot read a GGUF file, and the command that helps."""
    from transformers import __version__

    try:
        kind, origin = _described(file)
    except Exception as broken:
        return (
            f"{file.name} is not a GGUF file, or damaged ({first_line(broken)}). Download it again."
        )
    if isinstance(error, NotImplementedError) or "equantiz" in str(error):
        return (
            f"{file.name} is quantized in a way that transformers {__version__} cannot read "
            f"({first_line(error)}). Run: llama-quantize --allow-requantize {file.name} "
            f"{file.stem}-F16.gguf F16"
        )
    return (
        f"{file.name} holds a model of the architecture {kind!r}, which transformers {__version__} "
        f"cannot read from GGUF ({first_line(error)}). Use the safetensors that it was converted from. "
        f"Run: hf download {origin or 'ORG/NAME'}"
        + ("" if origin else "; the file does not name it.")
    )


def _described(file: Path) -> tuple[str, str]:
    """A GGUF file's architecture, and the hub id that it was converted from (empty if not said)."""
    from gguf import GGUFReader

    fields = GGUFReader(file).fields
    kind = str(fields["general.architecture"].contents())
    named = [str(fields[key].contents()) for key in _ORIGINS if key in fields]
    return kind, re.sub(r"^https?://[^/]+/", "", named[0]) if named else ""


# ------------------------------------------------------------------------------------- any files


def has_weights(folder: Path) -> bool:
    """Whether a folder holds a model's own weights, in a format other than GGUF."""
    found = [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]
    return any(not file.name.startswith("adapter_") for file in found)


def hashed(folder: Path, files: Iterable[Path], digest: Any = None) -> str:
    """16 hexadecimal digits of these files' names and contents.

    Files up to 64 MiB are hashed whole. Of a larger one its size, its first and last MiB and 256
    samples evenly between them are: another training run changes all of them, but an edit of a few
    tensors by hand may be missed.

    Raises:
        ModelError: a link that leads nowhere or to itself, or something that is not a file.
    """
    digest = digest or hashlib.sha256()
    for file in sorted(files):
        try:
            size = file.stat().st_size
            if not file.is_file():
                raise OSError("it is not a file")
            digest.update(f"{file.relative_to(folder).as_posix()}:{size}".encode())
            with file.open("rb") as handle:
                for start, length in _sampled(size):
                    handle.seek(start)
                    digest.update(handle.read(length))
        except OSError as error:
            wrong = error.strerror or first_line(error)
            raise ModelError(
                f"{file} cannot be read: {wrong}. Remove it, or download it again."
            ) from error
    return str(digest.hexdigest()[:16])


def _sampled(size: int) -> list[tuple[int, int]]:
    """Offsets and lengths of the parts of a file that are hashed."""
    edge, sample, count = 1 << 20, 1 << 12, 256
    if size <= 64 * edge:
        return [(0, size)]
    between = [edge + (size - 2 * edge) * i // count for i in range(count)]
    return [(0, edge), *((start, sample) for start in between), (size - edge, edge)]


@contextmanager
def quiet(gguf: str | None = None) -> Iterator[None]:
    """Silence transformers' own reports, and its progress bars unless a terminal shows them.

    The bar for a GGUF file cannot be turned off, so its output is discarded.
    """
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    bar = redirect_stderr(StringIO()) if gguf and not sys.stderr.isatty() else nullcontext()
    try:
        with bar:
            yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def require(module: str, *, what: str, extra: str) -> None:
    """Raise MissingExtraError unless a module is installed."""
    if find_spec(module) is None:
        raise MissingExtraError(what, extra)


def first_line(error: Exception) -> str:
    """An error's first line, or its class if it has no text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def sentence(error: Exception) -> str:
    """An error's first line as a sentence."""
    return first_line(error).rstrip(".") + "."
