"""Detectors: how suspicious is a generation? To add one, write its ``fit`` in a file of its own and
a line in ``DETECTORS``; other packages name a ``Method`` under the entry point group
``demur.detectors``.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from demur.detectors import (
    autoencoder,
    isolation_forest,
    linear_probe,
    mahalanobis,
    one_class_svm,
    refusal_direction,
    static,
    text,
)
from demur.detectors.autoencoder import Autoencoder
from demur.detectors.hesitation import Hesitation
from demur.detectors.length import Length
from demur.detectors.linear_probe import LinearProbe
from demur.detectors.method import Detector, Material, Method, of_signals
from demur.detectors.perplexity import Perplexity
from demur.errors import InputError
from demur.plugins import known, unknown
from demur.sri import log_ratio

__all__ = ["DETECTORS", "Detector", "Material", "Method", "detection_method", "known_detectors"]

_PAPER = "arXiv:2602.02600"


def _autoencoder(signals: NDArray[np.float32], seed: int) -> Autoencoder:
    return autoencoder.fit(signals, seed=seed)


def _standardised(signals: NDArray[np.float32], seed: int) -> Autoencoder:
    return autoencoder.fit(signals, standardise=True, seed=seed)


def _perplexity(material: Material) -> Perplexity:
    assert material.model is not None
    return Perplexity(material.model)


def _linear_probe(material: Material) -> LinearProbe:
    assert material.harmful is not None
    return linear_probe.fit(material.benign, material.harmful, anchors=material.anchors["last"])


def _hesitation(material: Material) -> Hesitation:
    return Hesitation(_linear_probe(material))


#: Every method that ships with demur.
DETECTORS: Mapping[str, Method] = {
    method.name: method
    for method in (
        Method(
            "sri",
            "autoencoder's error on sigma, last layer",
            f"{_PAPER}, section 5",
            of_signals(_autoencoder),
            layers=("last",),
        ),
        Method(
            "sri-standardised",
            "the same, each step brought to unit benign spread",
            f"after {_PAPER}",
            of_signals(_standardised),
            layers=("last",),
        ),
        Method(
            "log-ratio",
            "the same on the log-ratio that sigma squashes",
            f"after {_PAPER}",
            of_signals(_standardised, reading=log_ratio),
            layers=("last",),
        ),
        Method(
            "first-layer",
            "autoencoder's error on sigma, first layer",
            f"{_PAPER}, table 4",
            of_signals(_autoencoder, layer="first"),
            layers=("first",),
        ),
        Method(
            "middle-layer",
            "autoencoder's error on sigma, middle layer",
            f"{_PAPER}, table 4",
            of_signals(_autoencoder, layer="middle"),
            layers=("middle",),
        ),
        Method(
            "static",
            "sigma at the first step alone",
            f"{_PAPER}, table 4",
            of_signals(lambda signals, seed: static.fit(signals)),
            streaming=True,
            layers=("last",),
        ),
        Method(
            "text",
            "autoencoder's error on how far drafts are from benign ones in tokens",
            f"{_PAPER}, table 4",
            lambda given: text.fit(given.benign, seed=given.seed),
        ),
        Method(
            "mahalanobis",
            "Mahalanobis distance from benign sigma",
            "arXiv:1807.03888",
            of_signals(lambda signals, seed: mahalanobis.fit(signals)),
            layers=("last",),
        ),
        Method(
            "one-class-svm",
            "one-class support vector machine on sigma",
            "Schoelkopf et al. 2001",
            of_signals(lambda signals, seed: one_class_svm.fit(signals)),
            layers=("last",),
        ),
        Method(
            "isolation-forest",
            "isolation forest on sigma",
            "Liu et al. 2008",
            of_signals(lambda signals, seed: isolation_forest.fit(signals, seed=seed)),
            layers=("last",),
        ),
        Method(
            "refusal-direction",
            "projection onto the direction from harmless to refused, middle layer",
            "arXiv:2406.11717",
            lambda given: refusal_direction.fit(given.anchors["middle"]),
            streaming=True,
            layers=("middle",),
        ),
        Method(
            "linear-probe",
            "logistic regression on last-layer states",
            "arXiv:1610.01644",
            _linear_probe,
            supervised=True,
            streaming=True,
            layers=("last",),
        ),
        Method(
            "hesitation",
            "steps at which that probe is undecided",
            "after arXiv:2605.25893",
            _hesitation,
            supervised=True,
            streaming=True,
            layers=("last",),
        ),
        Method(
            "perplexity",
            "perplexity of the prompt under a model given to fit",
            "arXiv:2308.14132",
            _perplexity,
            needs_model=True,
        ),
        Method(
            "length",
            "tokens of the response",
            "baseline",
            lambda given: Length(),
        ),
    )
}


def known_detectors() -> Mapping[str, Method]:
    """Ours and those of installed plug-ins, by name."""
    return known("detectors", DETECTORS)


def detection_method(name: str) -> Method:
    """Look a method up by name.

    Raises:
        InputError: no such method.
    """
    methods = known_detectors()
    if name not in methods:
        raise InputError(unknown("detector", name, methods))
    return methods[name]
