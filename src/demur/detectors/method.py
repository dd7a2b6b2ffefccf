"""What a detection method is: a name, where it comes from, what it needs, and how it is fitted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from demur.errors import InputError
from demur.models.base import LanguageModel
from demur.sri import Anchors, signal
from demur.types import Traces

#: Smallest spread that a signal is divided by, so that a constant step does not become infinite.
MIN_SPREAD = 1e-3


class Detector(Protocol):
    """A fitted detector."""

    def score(self, traces: Traces) -> NDArray[np.float32]:
        """Suspicion of each trace: ``[N]`` float32, finite, higher = more suspicious."""


class SignalDetector(Protocol):
    """A detector of bare signals."""

    def score(self, signals: ArrayLike) -> NDArray[np.float32]:
        """Suspicion of each signal: ``[N, T]`` -> ``[N]`` float32."""


#: Turns aligned states ``[N, T, D]`` into signals ``[N, T]``, as ``demur.signal`` does.
Reading = Callable[[ArrayLike, Anchors], NDArray[np.float32]]


@dataclass(frozen=True)
class Material:
    """What a method may be fitted on.

    Attributes:
        benign: traces of benign prompts; the only ones that unsupervised methods see.
        anchors: layer -> its anchors.
        harmful: traces of harmful prompts, for supervised methods.
        model: an autoregressive model, for methods that read the prompts with one.
        seed: of everything random in the fit.
    """

    benign: Traces
    anchors: Mapping[str, Anchors]
    harmful: Traces | None
    model: LanguageModel | None
    seed: int


@dataclass(frozen=True)
class Method:
    """One way of telling jailbreaks from benign generations.

    Attributes:
        name: what it is called in tables.
        description: one line.
        source: paper or code.
        build: fits it.
        supervised: whether it is fitted on harmful traces too, and so knows attacks.
        streaming: whether a score of the first steps alone means the same as one of all.
        layers: recorded layers whose anchors it needs.
        needs_model: whether it needs a model of its own.
    """

    name: str
    description: str
    source: str
    build: Callable[[Material], Detector] = field(repr=False)
    supervised: bool = False
    streaming: bool = False
    layers: tuple[str, ...] = ()
    needs_model: bool = False

    def fit(
        self,
        benign: Traces,
        *,
        anchors: Mapping[str, Anchors],
        harmful: Traces | None = None,
        model: LanguageModel | None = None,
        seed: int = 0,
    ) -> Detector:
        """Fit on traces of one model and sampler; see ``Material``.

        Raises:
            InputError: anchors of a layer, harmful traces or a model are missing.
            FingerprintError: traces of another model or sampler than the anchors'.
        """
        if missing := [layer for layer in self.layers if layer not in anchors]:
            raise InputError(
                f"The {self.name} detector needs anchors of layer {', '.join(missing)}; there are "
                f"{sorted(anchors)}. Trace with --layers {','.join(self.layers)} and fit them."
            )
        if self.supervised and harmful is None:
            raise InputError(
                f"The {self.name} detector is supervised and got no harmful traces. Pass harmful=..."
            )
        if self.needs_model and model is None:
            raise InputError(
                f"The {self.name} detector reads prompts with a model of its own. Pass "
                "model=demur.load(...)."
            )
        return self.build(Material(benign, anchors, harmful, model, seed))


@dataclass(frozen=True)
class OfSignals:
    """A detector of signals, given the anchors that turn traces into them."""

    anchors: Anchors
    reading: Reading
    detector: SignalDetector

    def score(self, traces: Traces) -> NDArray[np.float32]:
        """See ``Detector.score``.

        Raises:
            FingerprintError: traces of another model or sampler than the anchors'.
        """
        return self.detector.score(self.reading(self.anchors.states(traces), self.anchors))


def of_signals(
    fit: Callable[[NDArray[np.float32], int], SignalDetector],
    *,
    layer: str = "last",
    reading: Reading = signal,
) -> Callable[[Material], Detector]:
    """Fit a detector of signals on benign traces.

    Args:
        fit: takes signals ``[N, T]`` and a seed.
        layer: whose states are read.
        reading: how.
    """

    def build(material: Material) -> Detector:
        anchors = material.anchors[layer]
        signals = reading(anchors.states(material.benign), anchors)
        return OfSignals(anchors, reading, fit(signals, material.seed))

    return build
