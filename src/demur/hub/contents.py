"""Read and check a file or run folder, and collect the facts for its card."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from demur.errors import InputError, StoreError
from demur.files import tensors_kind
from demur.guard import StreamingGuard, load_guard
from demur.sri import Anchors
from demur.store import Store
from demur.types import Fingerprint

#: Names of the files that demur puts into a repository; no others are fetched.
FILES = re.compile(
    r"(anchors|guard)\.safetensors|manifest\.json|traces/[0-9]{6}-[0-9a-f]+\.parquet"
)

#: Sorted benign scores ``[M]``, and their weights ``[M]`` if calibrated by goal.
Benign = tuple[NDArray[np.float32], NDArray[np.float64] | None]


@dataclass(frozen=True)
class Contents:
    """Anchors, a guard or a run.

    Attributes:
        kind: what it is.
        files: name in the repository -> local file.
        fingerprint: model and settings it was made with; None for released anchors without one.
        facts: name -> value, for people.
        benign: group -> calibration scores of a guard.
        alpha: false-positive rate of a guard, else 0.
    """

    kind: Literal["anchors", "guard", "streaming guard", "run"]
    files: Mapping[str, Path]
    fingerprint: Fingerprint | None
    facts: Mapping[str, str]
    benign: Mapping[str, Benign] = field(default_factory=dict)
    alpha: float = 0.0


def read_contents(path: str | Path) -> Contents:
    """Read and check anchors, a guard or a finished run.

    Raises:
        InputError: nothing there, or not made by demur.
        StoreError: the run is unfinished or damaged.
    """
    path = Path(path)
    if path.is_dir():
        return _run(path)
    if not path.is_file():
        raise InputError(
            f"Nothing at {path}. Give a run folder, anchors or a guard, made by demur trace, demur "
            "anchors or demur guard fit."
        )
    kind = tensors_kind(path, made_by="demur anchors or demur guard fit")
    if kind == "demur.anchors":
        return _anchors(path)
    if kind not in ("demur.guard", "demur.streaming_guard"):
        raise InputError(
            f"{path} holds {kind or 'other tensors'}. Give anchors or a guard, made by demur "
            "anchors or demur guard fit."
        )
    return _guard(path)


def _run(folder: Path) -> Contents:
    store = Store.open(folder)
    manifest = store.manifest
    written = len(store.ids())  # reading every shard checks its hash
    if written < manifest.count:
        raise StoreError(
            f"{folder} has {written} of {manifest.count} traces. Finish the run first: run the command "
            "that makes it again."
        )
    shards = sorted((folder / "traces").glob("*.parquet"))
    files = {"manifest.json": folder / "manifest.json"}
    files |= {f"traces/{shard.name}": shard for shard in shards}
    facts = {
        "traces": f"{written:,}",
        "layers": ", ".join(f"{layer} ({size})" for layer, size in manifest.sizes.items()),
        "seed": str(manifest.seed),
        "prompt list": manifest.prompts,
    }
    return Contents("run", files, manifest.fingerprint, facts)


def _anchors(path: Path) -> Contents:
    anchors = Anchors.load(path)
    files = {"anchors.safetensors": path}
    return Contents("anchors", files, anchors.fingerprint, _anchor_facts(anchors))


def _guard(path: Path) -> Contents:
    guard = load_guard(path)
    streaming = isinstance(guard, StreamingGuard)
    facts = {
        "detector": f"{guard.name}, step by step" if streaming else guard.name,
        "false-positive rate": f"{guard.alpha:g} {'of whole generations ' * streaming}({guard.method})",
        **(_anchor_facts(guard.anchors) if guard.anchors else {}),
    }
    benign = {name: (group.calibration, group.weights) for name, group in guard.groups.items()}
    return Contents(
        "streaming guard" if streaming else "guard",
        {"guard.safetensors": path},
        guard.fingerprint,
        facts,
        benign,
        guard.alpha,
    )


def _anchor_facts(anchors: Anchors) -> dict[str, str]:
    harmless, harmful = anchors.counts
    counts: Sequence[str] = (f"{harmless:,} answered harmless", f"{harmful:,} refused harmful")
    return {
        "anchors": f"{anchors.steps} steps of layer {anchors.layer}, over {' and '.join(counts)}",
        "alignment": anchors.alignment,
    }
