"""Detectors: how suspicious is a generation?

To add one, write a subclass of ``Detector`` and its fit in a file here, and a line in ``DETECTORS``.
Other packages name a ``DetectionMethod`` under the entry point group ``demur.detectors``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from demur.detectors.autoencoder import Autoencoder, fit_autoencoder
from demur.detectors.linear import (
    MARGIN,
    LinearProbe,
    RefusalDirection,
    fit_linear_probe,
    fit_refusal_direction,
)
from demur.detectors.log_ratio import LogRatio
from demur.detectors.method import (
    MIN_SPREAD,
    DetectionMethod,
    Detector,
    Material,
    SignalDetector,
    StepDetector,
    of_signals,
)
from demur.detectors.one_class import (
    IsolationForest,
    Mahalanobis,
    OneClassSVM,
    Static,
    fit_isolation_forest,
    fit_mahalanobis,
    fit_one_class_svm,
    fit_static,
)
from demur.detectors.perplexity import Perplexity
from demur.detectors.text import Length, Text, fit_text
from demur.errors import InputError
from demur.models.base import LanguageModel
from demur.plugins import known, unknown
from demur.sri import Anchors
from demur.types import Traces

__all__ = [
    "DETECTORS",
    "MIN_SPREAD",
    "DetectionMethod",
    "Detector",
    "Material",
    "SignalDetector",
    "StepDetector",
    "detection_method",
    "fitted",
    "known_detectors",
    "of_signals",
]

_PAPER = "arXiv:2602.02600"
_TABLE = f"{_PAPER}, table 4"


def _autoencoder(
    name: str,
    description: str,
    source: str,
    *,
    layer: str = "last",
    standardise: bool = False,
    unsquashed: bool = False,
) -> DetectionMethod:
    def fit(signals: NDArray[np.float32], seed: int) -> Autoencoder:
        return fit_autoencoder(signals, standardise=standardise, seed=seed)

    build = of_signals(fit, layer=layer, unsquashed=unsquashed)
    return DetectionMethod(name, description, source, Autoencoder, build, layers=(layer,))


def _perplexity(given: Material) -> Perplexity:
    assert given.model is not None
    return Perplexity(given.model)


def _probe(given: Material, margin: float | None = None) -> LinearProbe:
    assert given.harmful is not None
    last = given.anchors["last"]
    return fit_linear_probe(given.benign, given.harmful, anchors=last, margin=margin)


_METHODS = (
    _autoencoder("sri", "autoencoder's error on sigma, last layer", f"{_PAPER}, section 5"),
    _autoencoder(
        "sri-standardised",
        "the same, each step brought to unit benign spread",
        f"after {_PAPER}",
        standardise=True,
    ),
    _autoencoder(
        "log-ratio",
        "the same on the log-ratio that sigma squashes",
        f"after {_PAPER}",
        standardise=True,
        unsquashed=True,
    ),
    _autoencoder("first-layer", "autoencoder's error on sigma, first layer", _TABLE, layer="first"),
    _autoencoder(
        "middle-layer", "autoencoder's error on sigma, middle layer", _TABLE, layer="middle"
    ),
    DetectionMethod(
        "static",
        "sigma at the first step alone",
        _TABLE,
        Static,
        of_signals(lambda signals, seed: fit_static(signals)),
        layers=("last",),
    ),
    DetectionMethod(
        "sri-step",
        "log-ratio of the newest step, which streaming guards read by default",
        f"after {_PAPER}, section 3.1",
        LogRatio,
        lambda given: LogRatio(anchors=given.anchors["last"]),
        layers=("last",),
    ),
    DetectionMethod(
        "text",
        "autoencoder's error on how far drafts are from benign ones in tokens",
        _TABLE,
        Text,
        lambda given: fit_text(given.benign, seed=given.seed),
    ),
    DetectionMethod(
        "mahalanobis",
        "Mahalanobis distance from benign sigma",
        "arXiv:1807.03888",
        Mahalanobis,
        of_signals(lambda signals, seed: fit_mahalanobis(signals)),
        layers=("last",),
    ),
    DetectionMethod(
        "one-class-svm",
        "one-class support vector machine on sigma",
        "Schoelkopf et al. 2001",
        OneClassSVM,
        of_signals(lambda signals, seed: fit_one_class_svm(signals)),
        layers=("last",),
    ),
    DetectionMethod(
        "isolation-forest",
        "isolation forest on sigma",
        "Liu et al. 2008",
        IsolationForest,
        of_signals(fit_isolation_forest),
        layers=("last",),
    ),
    DetectionMethod(
        "refusal-direction",
        "projection onto the direction from harmless to refused, middle layer",
        "arXiv:2406.11717",
        RefusalDirection,
        lambda given: fit_refusal_direction(given.anchors["middle"]),
        layers=("middle",),
    ),
    DetectionMethod(
        "linear-probe",
        "logistic regression on last-layer states",
        "arXiv:1610.01644",
        LinearProbe,
        _probe,
        supervised=True,
        layers=("last",),
    ),
    DetectionMethod(
        "hesitation",
        "steps at which that probe is undecided",
        "after arXiv:2605.25893",
        LinearProbe,
        partial(_probe, margin=MARGIN),
        supervised=True,
        layers=("last",),
    ),
    DetectionMethod(
        "perplexity",
        "perplexity of the prompt under a model given to fit",
        "arXiv:2308.14132",
        Perplexity,
        _perplexity,
        needs_model=True,
    ),
    DetectionMethod("length", "tokens of the response", "baseline", Length, lambda given: Length()),
)

#: Every method that ships with demur, by name.
DETECTORS: Mapping[str, DetectionMethod] = {method.name: method for method in _METHODS}


def known_detectors() -> Mapping[str, DetectionMethod]:
    """Built-in methods and those of plug-ins, by name."""
    return known("detectors", DETECTORS)


def detection_method(name: str) -> DetectionMethod:
    """Look a method up by name.

    Raises:
        InputError: no such method.
    """
    methods = known_detectors()
    if name not in methods:
        raise InputError(unknown("detector", name, methods))
    return methods[name]


def fitted(
    detector: str | DetectionMethod | Detector,
    benign: Traces | NDArray[np.float32],
    *,
    anchors: Anchors | Mapping[str, Anchors] | None = None,
    harmful: Traces | None = None,
    model: LanguageModel | None = None,
    seed: int = 0,
) -> Detector:
    """A fitted detector: of the method with this name, of this method, or the detector given.

    Arguments and errors as for ``DetectionMethod.fit``. Anchors of one layer also serve a method
    that reads the last one by default; it then reads theirs.
    """
    if isinstance(detector, Detector):
        return replace(detector, name=detector.name or type(detector).__name__)
    method = detection_method(detector) if isinstance(detector, str) else detector
    if isinstance(anchors, Anchors):
        layer = "last" if method.layers == ("last",) else anchors.layer
        anchors = {layer: anchors}
    return method.fit(benign, anchors=anchors or {}, harmful=harmful, model=model, seed=seed)
