"""The contents of a hub repository, checked, and its card: front matter and a page for people."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from demur._version import __version__
from demur.errors import CalibrationError, InputError, StoreError
from demur.files import tensors_kind
from demur.guard import StreamingGuard, load_guard
from demur.guard.calibration import threshold, threshold_rank
from demur.sri import Anchors
from demur.store import Store
from demur.types import Fingerprint

#: Names of the files that demur puts into a repository; no others are fetched.
FILES = re.compile(
    r"(anchors|guard)\.safetensors|manifest\.json|traces/[0-9]{6}-[0-9a-f]+\.parquet"
)

#: Sorted benign scores ``[M]``, and their weights ``[M]`` if calibrated by goal.
Benign = tuple[NDArray[np.float32], NDArray[np.float64] | None]

#: False-positive rates in a guard's table, besides its own.
RATES = (0.1, 0.05, 0.01, 0.001)

_LIMITS = {
    "anchors": "These anchors only fit states of this model, sampler, pooling and layer; demur "
    "refuses others.",
    "guard": "The rate only holds for benign traffic like the calibration set: unusual harmless "
    "prompts can be flagged more often. A jailbreak without hesitation can pass. A guard does not "
    "replace alignment.",
    "run": "Responses are a model's output, not advice. Prompts and responses may be harmful. Check "
    "the licence of the prompts before you share them.",
}


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
        anchors = Anchors.load(path)
        files = {"anchors.safetensors": path}
        return Contents("anchors", files, anchors.fingerprint, _anchor_facts(anchors))
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


def _guard(path: Path) -> Contents:
    guard = load_guard(path)
    streaming = isinstance(guard, StreamingGuard)
    facts = {
        "detector": f"{guard.name}, step by step" if streaming else guard.name,
        "false-positive rate": f"{guard.alpha:g} {'of whole generations ' * streaming}({guard.method})",
        **(_anchor_facts(guard.anchors) if guard.anchors else {}),
    }
    benign = {name: (group.calibration, group.weights) for name, group in guard.groups.items()}
    kind: Literal["guard", "streaming guard"] = "streaming guard" if streaming else "guard"
    files = {"guard.safetensors": path}
    return Contents(kind, files, guard.fingerprint, facts, benign, guard.alpha)


def _anchor_facts(anchors: Anchors) -> dict[str, str]:
    harmless, harmful = anchors.counts
    counts = f"{harmless:,} answered harmless and {harmful:,} refused harmful"
    return {
        "anchors": f"{anchors.steps} steps of layer {anchors.layer}, over {counts}",
        "alignment": anchors.alignment,
    }


def card(contents: Contents, *, address: str, licence: str, data: str = "") -> str:
    """Write the card as Markdown; every value is escaped. Arguments as for ``push``."""
    mark = contents.fingerprint
    facts = {"data": data or "not stated", "licence": licence, **contents.facts}
    made_with: list[tuple[str, str]] = []
    if mark:
        settings = ", ".join(f"{k} {v}" for k, v in mark.sampler.items() if v is not None)
        made_with = [
            *(("model", mark.model), ("weights", mark.revision), ("dtype", mark.dtype)),
            *(("sampler", settings), ("pooling", mark.pooling), ("system prompt", mark.system)),
        ]
    out = "runs/pulled" if contents.kind == "run" else next(iter(contents.files))
    parts = [
        _front_matter(contents, licence),
        f"# {contents.kind.capitalize()} made with demur",
        f"Made with demur {__version__} (arXiv:2602.02600).",
        f"```sh\ndemur pull {address} --out {out}\n```",
        _table(("", ""), [*facts.items()]),
        "## Made with",
        _table(("", ""), made_with) if mark else "No record of the model.",
    ]
    if contents.benign:
        parts += ["## False-positive rate", _rates(contents)]
    limits = _LIMITS[contents.kind.removeprefix("streaming ")]
    return "\n\n".join([*parts, "## Limits", limits]) + "\n"


def _front_matter(contents: Contents, licence: str) -> str:
    """YAML front matter, with values as JSON, which is valid YAML and quotes every string."""
    values: dict[str, object] = {
        "license": licence,
        "tags": ["demur", "refusal", "safety", contents.kind.replace(" ", "-")],
    }
    if contents.kind == "run":
        values["configs"] = [{"config_name": "default", "data_files": "traces/*.parquet"}]
    else:
        values["library_name"] = "demur"
        model = contents.fingerprint.model if contents.fingerprint else ""
        if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", model):
            values["base_model"] = model
    lines = [f"{name}: {json.dumps(value)}" for name, value in values.items()]
    return "\n".join(["---", *lines, "---"])


def _rates(contents: Contents) -> str:
    """Table of thresholds, with an upper confidence bound on the true rate of each."""
    rows = []
    for group, (scores, weights) in contents.benign.items():
        for alpha in sorted({*RATES, contents.alpha}, reverse=True):
            size, own = f"{len(scores):,}", " (this guard)" if alpha == contents.alpha else ""
            rows.append((group, size, f"{alpha:g}{own}", *_rate(scores, weights, alpha)))
    header = ("group", "benign generations", "rate", "threshold", "with 95% confidence at most")
    return _table(header, rows)


def _rate(
    scores: NDArray[np.float32], weights: NDArray[np.float64] | None, alpha: float
) -> tuple[str, str]:
    from scipy.stats import beta

    try:
        found = f"{threshold(scores, alpha, weights=weights):.4g}"
    except CalibrationError:
        return "too few benign generations", ""
    if weights is not None:
        return found, "unknown: calibrated by goal"
    place = threshold_rank(len(scores), alpha)
    return found, f"{float(beta.ppf(0.95, place, len(scores) - place + 1)):.2g}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *([_escaped(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escaped(text: str) -> str:
    """Text on one line that Markdown and HTML show literally."""
    flat = " ".join(text.split())
    return "".join(c if c.isalnum() or c in " .,-/()" else f"&#{ord(c)};" for c in flat)
