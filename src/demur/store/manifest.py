"""The settings of a run, stored in ``manifest.json`` and compared when it is resumed."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from typing import Any

from demur._version import __version__
from demur.errors import StoreError
from demur.store.folder import Folder, now
from demur.types import Fingerprint

#: Format of the run folder; readers refuse higher numbers.
FORMAT = 1

_NONE = "(not there)"


@dataclass(frozen=True)
class Manifest:
    """The content of ``manifest.json``.

    Attributes:
        prompts: hash of the prompt list; ``count`` its length.
        shard_rows: prompts per window; a window becomes one shard.
        created: UTC time of the first start.
        writers: library versions that wrote rows, oldest first, with start times. All workers of a
            cluster have the same versions.
        sizes: layer -> width D of its states; empty until the first batch is written.
    """

    fingerprint: Fingerprint
    layers: tuple[str, ...]
    seed: int
    prompts: str
    count: int
    shard_rows: int
    created: str = ""
    writers: tuple[Mapping[str, str], ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    format: int = FORMAT

    def __post_init__(self) -> None:
        numbers = (self.seed, self.count, self.shard_rows)
        if not all(isinstance(n, int) for n in numbers) or self.count < 0 or self.shard_rows < 1:
            raise ValueError(f"seed, count and shard_rows are {numbers}")
        if not all(isinstance(layer, str) for layer in self.layers):
            raise TypeError(f"layers are {self.layers}")

    def windows(self) -> range:
        """Window numbers of the prompt list."""
        return range(-(-self.count // self.shard_rows))

    def places(self, window: int) -> range:
        """Prompt indices of a window."""
        start = window * self.shard_rows
        return range(start, min(start + self.shard_rows, self.count))

    def settings(self) -> dict[str, Any]:
        """Settings that must not change when a run is resumed, flat: name -> value."""
        made = asdict(self.fingerprint)
        sampler = {f"sampler.{name}": value for name, value in made.pop("sampler").items()}
        own = {name: getattr(self, name) for name in ("seed", "prompts", "count", "shard_rows")}
        return {**made, **sampler, "layers": ", ".join(self.layers), **own}

    def is_signed(self, made_with: Mapping[str, str]) -> bool:
        """Whether the last writer had these versions."""
        last = {**self.writers[-1]} if self.writers else {}
        return last == {**made_with, "since": last.get("since")}

    def signed(
        self, made_with: Mapping[str, str], sizes: Mapping[str, int] | None = None
    ) -> Manifest:
        """A copy with these versions as last writer and, if given, the sizes of the states."""
        writers = self.writers
        if not self.is_signed(made_with):
            writers = (*writers, {**made_with, "since": now()})
        return replace(self, sizes=sizes or self.sizes, writers=writers)

    def to_json(self) -> bytes:
        """The file's content."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False).encode() + b"\n"


def read_manifest(folder: Folder) -> Manifest:
    """Read and check ``manifest.json``.

    Raises:
        StoreError: the file is missing, damaged or of a newer format.
    """
    try:
        values = json.loads(folder.read("manifest.json"))
        if values["format"] > FORMAT:
            raise StoreError(
                f"{folder} has format {values['format']}, this demur reads up to {FORMAT}. "
                "Run: pip install --upgrade demur"
            )
        made = Fingerprint(**values.pop("fingerprint"))
        layers, writers = tuple(values.pop("layers")), tuple(values.pop("writers"))
        return Manifest(made, layers, writers=writers, **values)
    except FileNotFoundError as error:
        raise StoreError(
            f"No run in {folder}: there is no manifest.json. "
            f"Make one with: demur trace PROMPTS --out {folder}"
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise StoreError(
            f"{folder}/manifest.json is damaged ({type(error).__name__}: {error}). Restore it, or "
            f"remove {folder} and trace again."
        ) from error


def versions() -> dict[str, str]:
    """Versions of the libraries that affect what is written."""
    libraries = {name: version(name) for name in ("torch", "transformers", "pyarrow")}
    return {"demur": __version__, "python": platform.python_version(), **libraries}


def accepted(folder: Folder, manifest: Manifest) -> Manifest:
    """Return the folder's manifest if it has rows, else the new one.

    Raises:
        StoreError: a setting differs from the existing rows, or the folder is not a run.
    """
    found = [name for name in folder.names() if not name.startswith(".")]
    if "manifest.json" in found:
        kept = read_manifest(folder)
        data = (*folder.names("traces"), *folder.names("parts"))
        if any(name.endswith(".parquet") for name in data):
            old, new = kept.settings(), manifest.settings()
            changes = [
                f"{name}: {old.get(name, _NONE)} -> {new.get(name, _NONE)}"
                for name in {**old, **new}
                if old.get(name, _NONE) != new.get(name, _NONE)
            ]
            if changes:
                raise StoreError(
                    f"{folder} was made with other settings ({'; '.join(changes)}). "
                    "Choose another --out folder, or remove this one to start over."
                )
            return kept
    elif found:
        raise StoreError(
            f"{folder} has {', '.join(found[:3])} and no manifest.json: it is not a run. "
            "Choose another --out folder."
        )
    return replace(manifest, created=now())
