"""The card of a hub repository: front matter for the hub and a page for people."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from demur._version import __version__
from demur.errors import CalibrationError
from demur.guard.calibration import threshold, threshold_rank
from demur.hub.contents import Contents
from demur.types import Fingerprint

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


def card(contents: Contents, *, address: str, licence: str, data: str = "") -> str:
    """Write the card as Markdown; every value is escaped.

    Args:
        contents: contents of the repository.
        address: ``hub:org/name``.
        licence: licence stated by the user who pushes.
        data: the same user's description of the prompts.
    """
    mark = contents.fingerprint
    facts = {"data": data or "not stated", "licence": licence, **contents.facts}
    out = "runs/pulled" if contents.kind == "run" else next(iter(contents.files))
    parts = [
        _front_matter(contents, licence),
        f"# {contents.kind.capitalize()} made with demur",
        f"Made with demur {__version__} (arXiv:2602.02600).",
        f"```sh\ndemur pull {address} --out {out}\n```",
        _table(("", ""), [*facts.items()]),
        "## Made with",
        _table(("", ""), _made_with(mark)) if mark else "No record of the model.",
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


def _made_with(mark: Fingerprint) -> list[tuple[str, str]]:
    settings = ", ".join(f"{k} {v}" for k, v in mark.sampler.items() if v is not None)
    return [
        *(("model", mark.model), ("weights", mark.revision), ("dtype", mark.dtype)),
        *(("sampler", settings), ("pooling", mark.pooling), ("system prompt", mark.system)),
    ]


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
