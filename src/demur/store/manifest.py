"""What made a run folder, and how two runs differ."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from demur._version import __version__
from demur.errors import StoreError
from demur.store.folder import Folder
from demur.types import Fingerprint

#: Format of the run folder; a reader refuses a higher one.
FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    """What made a run, in ``manifest.json``.

    Attributes:
        fingerprint: model, sampler, pooling, system prompt, dtype.
        layers: layers recorded.
        seed: seed of the run.
        prompts: hash of the prompt list.
        count: prompts in it.
        shard_rows: prompts of a window, which becomes one shard.
        created: UTC time of the first start.
        writers: versions that wrote rows, oldest first, with the time each began. Workers of one
            cluster have the same.
        sizes: layer -> size D of its states; empty until the first batch is written.
        format: format of the folder.
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
        """Numbers of the windows that the prompt list is cut into."""
        return range(-(-self.count // self.shard_rows))

    def places(self, window: int) -> range:
        """Places in the prompt list that a window covers."""
        start = window * self.shard_rows
        return range(start, min(start + self.shard_rows, self.count))

    def settings(self) -> dict[str, Any]:
        """What must not change between two starts of a run, flat: name -> value."""
        made = asdict(self.fingerprint)
        sampler = {f"sampler.{name}": value for name, value in made.pop("sampler").items()}
        own = {name: getattr(self, name) for name in ("seed", "prompts", "count", "shard_rows")}
        return {**made, **sampler, "layers": ", ".join(self.layers), **own}

    def is_signed(self, made_with: Mapping[str, str]) -> bool:
        """Whether these versions are the last writer's."""
        last = {**self.writers[-1]} if self.writers else {}
        return last == {**made_with, "since": last.get("since")}

    def signed(
        self, made_with: Mapping[str, str], sizes: Mapping[str, int] | None = None
    ) -> Manifest:
        """With these versions among the writers, and the sizes of the states where they are known."""
        writers = self.writers
        if not self.is_signed(made_with):
            writers = (*writers, {**made_with, "since": _now()})
        return replace(self, sizes=sizes or self.sizes, writers=writers)

    def to_json(self) -> bytes:
        """As written."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False).encode() + b"\n"


def read_manifest(folder: Folder) -> Manifest:
    """Read and check ``manifest.json``.

    Raises:
        StoreError: none there, damaged, or of a newer format.
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
    """Versions that decide what is written."""
    libraries = {name: version(name) for name in ("torch", "transformers", "pyarrow")}
    return {"demur": __version__, "python": platform.python_version(), **libraries}


def accepted(folder: Folder, manifest: Manifest) -> Manifest:
    """The manifest to go on with: the folder's own once it holds rows, else the new one.

    Raises:
        StoreError: a setting differs from the rows', or the folder holds something else.
    """
    found = [name for name in folder.names() if not name.startswith(".")]
    if "manifest.json" in found:
        kept = read_manifest(folder)
        data = (*folder.names("traces"), *folder.names("parts"))
        if any(name.endswith(".parquet") for name in data):
            _require_same(folder, kept.settings(), manifest.settings())
            return kept
    elif found:
        raise StoreError(
            f"{folder} holds {', '.join(found[:3])} and no manifest.json: it is not a run. "
            "Choose another --out folder."
        )
    return replace(manifest, created=_now())


def _require_same(folder: Folder, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    names = [name for name in {**old, **new} if old.get(name, _NONE) != new.get(name, _NONE)]
    if names:
        changes = (f"{name}: {old.get(name, _NONE)} -> {new.get(name, _NONE)}" for name in names)
        raise StoreError(
            f"{folder} was made with other settings ({'; '.join(changes)}). "
            "Choose another --out folder, or remove this one to start again."
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


_NONE = "(not there)"
