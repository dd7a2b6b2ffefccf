"""What a detector is, what a detection method is, and how a detector is saved."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from math import inf, isnan, nan
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from demur.errors import FingerprintError, InputError, SignalError
from demur.models.base import LanguageModel
from demur.sri import TAU, Anchors, log_ratio, signal
from demur.types import Fingerprint, Traces

#: Smallest spread that a value is divided by, so that a constant step does not become infinite.
MIN_SPREAD = 1e-3


@dataclass(frozen=True, kw_only=True)
class Detector(ABC):
    """A fitted detector. Subclasses are frozen dataclasses.

    A detector is saved field by field: numpy arrays, tuples of arrays, anchors, and plain JSON data
    (tuples for lists). Of a model only the name and revision are saved.

    Attributes:
        name: name of the method that fitted it; ``DetectionMethod.fit`` sets it.
        anchors: reference states; None for detectors that read no states.
    """

    name: str = ""
    anchors: Anchors | None = None

    @abstractmethod
    def score(self, traces: Traces) -> NDArray[np.float32]:
        """Suspicion of each trace: ``[N]`` float32, finite, higher = more suspicious."""

    @property
    def layers(self) -> tuple[str, ...]:
        """Recorded layers that it reads."""
        return (self.anchors.layer,) if self.anchors else ()

    def states(self, traces: Traces) -> NDArray[np.float32]:
        """``[N, T, D]`` states of the anchors' layer, aligned to the anchors' T.

        Raises:
            FingerprintError: no anchors, or traces of another model or sampler than the anchors'.
        """
        return require_anchors(self.anchors).states(traces)

    def require(self, mark: Fingerprint) -> None:
        """Raise FingerprintError, naming what differs, unless the anchors were made like this."""
        if self.anchors is not None and self.anchors.fingerprint is not None:
            self.anchors.fingerprint.require(
                mark,
                what="These anchors were not made as the traces were",
                fix="Fit anchors for this model and sampler: demur anchors.",
            )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Every array of the detector by name."""
        return {k: v for arrays, _ in self._parts().values() for k, v in arrays.items()}

    def about(self) -> dict[str, Any]:
        """Everything but the arrays, as plain JSON data."""
        return {name: part[1] for name, part in self._parts().items()}

    @classmethod
    def rebuilt(
        cls,
        arrays: Mapping[str, NDArray[Any]],
        about: Mapping[str, Any],
        *,
        model: LanguageModel | None = None,
    ) -> Self:
        """Make a detector from its ``arrays`` and ``about``.

        Args:
            arrays: array name -> values.
            about: field name -> plain data.
            model: the model that the detector reads prompts with, where it needs one.

        Raises:
            InputError: the detector needs a model and got none.
            FingerprintError: a model other than the one it was fitted with.
        """
        return cls(**{k: _joined(k, value, arrays, model) for k, value in about.items()})

    def _parts(self) -> dict[str, tuple[dict[str, NDArray[Any]], Any]]:
        """Field name -> its arrays by name, and the rest of it as plain data."""
        return {f.name: _split(f.name, getattr(self, f.name)) for f in fields(self) if f.init}


@dataclass(frozen=True, kw_only=True)
class SignalDetector(Detector):
    """A detector of signals ``[N, T]``.

    Attributes:
        unsquashed: reads the log-ratio instead of sigma.
        tau: temperature of the signal.
        first: reads this many steps; all of them when None.
    """

    unsquashed: bool = False
    tau: float = TAU
    first: int | None = None

    @abstractmethod
    def score_signals(self, signals: ArrayLike) -> NDArray[np.float32]:
        """Suspicion of each signal: ``[N, T]`` -> ``[N]`` float32."""

    def score(self, traces: Traces) -> NDArray[np.float32]:
        """See ``Detector.score``.

        Raises:
            FingerprintError: traces of another model or sampler than the anchors'.
        """
        anchors = require_anchors(self.anchors)
        return self.score_signals(
            _signals(traces, anchors, unsquashed=self.unsquashed, tau=self.tau, first=self.first)
        )


@dataclass(frozen=True, kw_only=True)
class StepDetector(Detector):
    """A detector that reads a generation step by step, so that it can guard a stream."""

    #: Whether the score is minus the log-ratio of the newest step (``demur.sri``).
    reads_log_ratio = False

    @abstractmethod
    def advance(self, state: NDArray[np.float32], step: int, before: float) -> float:
        """Score of the first ``step`` steps of a generation; NaN where it cannot be computed.

        Args:
            state: ``[D]`` pooled state of the newest step.
            step: its 1-based number.
            before: score of the steps before it; NaN at the first step.
        """

    @property
    def layer(self) -> str:
        """The recorded layer that it reads."""
        return self.anchors.layer if self.anchors else "last"

    @property
    def layers(self) -> tuple[str, ...]:
        """See ``Detector.layers``."""
        return (self.layer,)

    def score(self, traces: Traces) -> NDArray[np.float32]:
        """Score after each trace's last step; see ``Detector.score``.

        Raises:
            FingerprintError: traces of another model or sampler than the anchors'.
        """
        self.require(traces.fingerprint)
        by_step = self.by_step(traces)
        last = (~np.isnan(by_step)).sum(axis=1) - 1
        return np.asarray(by_step[np.arange(len(by_step)), last], dtype=np.float32)

    def by_step(self, traces: Traces, *, steps: int | None = None) -> NDArray[np.float64]:
        """``[N, T]`` score after each step; NaN after the last step, inf from a step without score.

        Args:
            traces: generations of any lengths.
            steps: T; when None the anchors' T, or without anchors the longest trace's.

        Raises:
            InputError: the layer was not recorded.
        """
        if steps is None:
            steps = self.anchors.steps if self.anchors else max(t.n_steps for t in traces)
        found = np.full((len(traces), steps), nan)
        for row, trace in enumerate(traces):
            score = nan
            for step, state in enumerate(trace.states(self.layer)[:steps], start=1):
                score = self.advance(state, step, score)
                found[row, step - 1] = inf if isnan(score) else score
        return found


@dataclass(frozen=True)
class Material:
    """What a method may be fitted on.

    Attributes:
        benign: traces of benign prompts; unsupervised methods see no others.
        signals: ``[N, T]`` benign signals in place of traces, for detectors of signals.
        anchors: layer -> its anchors.
        harmful: traces of harmful prompts, for supervised methods.
        model: an autoregressive model, for methods that read the prompts with one.
        seed: random seed of the fit.
    """

    benign: Traces
    anchors: Mapping[str, Anchors]
    harmful: Traces | None = None
    model: LanguageModel | None = None
    seed: int = 0
    signals: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class DetectionMethod:
    """One way of telling jailbreaks from benign generations.

    Attributes:
        name: its name in tables and files.
        description: one line.
        source: paper or code.
        detector: class of the fitted detector; a saved one is rebuilt with it.
        build: fits a detector.
        supervised: whether it is fitted on harmful traces too, and so knows attacks.
        layers: recorded layers whose anchors it needs.
        needs_model: whether it needs a model of its own.
    """

    name: str
    description: str
    source: str
    detector: type[Detector]
    build: Callable[[Material], Detector] = field(repr=False)
    supervised: bool = False
    layers: tuple[str, ...] = ()
    needs_model: bool = False

    @property
    def streaming(self) -> bool:
        """Whether its detector reads a generation step by step."""
        return issubclass(self.detector, StepDetector)

    def fit(
        self,
        benign: Traces | NDArray[np.float32],
        *,
        anchors: Mapping[str, Anchors],
        harmful: Traces | None = None,
        model: LanguageModel | None = None,
        seed: int = 0,
    ) -> Detector:
        """Fit on traces of one model and sampler, or on bare signals ``[N, T]``; see ``Material``.

        Raises:
            InputError: anchors of a layer, harmful traces or a model are missing.
            SignalError: bare signals for a detector that reads traces.
            FingerprintError: traces of another model or sampler than the anchors'.
        """
        signals = None if isinstance(benign, Traces) else benign
        missing = [layer for layer in self.layers if layer not in anchors]
        if signals is not None and not issubclass(self.detector, SignalDetector):
            raise SignalError(
                f"The {self.name} detector reads traces and got an array. Give traces: demur.trace."
            )
        if missing and signals is None:
            raise InputError(
                f"The {self.name} detector needs anchors of layer {', '.join(missing)} and got "
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
        traces = benign if isinstance(benign, Traces) else Traces(())
        fitted = self.build(Material(traces, anchors, harmful, model, seed, signals))
        return replace(fitted, name=self.name)


def of_signals(
    fit: Callable[[NDArray[np.float32], int], SignalDetector],
    *,
    layer: str = "last",
    unsquashed: bool = False,
    tau: float = TAU,
    first: int | None = None,
) -> Callable[[Material], Detector]:
    """Make the ``build`` of a method whose detector reads signals.

    Args:
        fit: takes benign signals ``[N, T]`` and a seed.
        layer: layer of the states behind the signals.
        unsquashed, tau, first: see ``SignalDetector``.
    """
    settings: dict[str, Any] = {"unsquashed": unsquashed, "tau": tau, "first": first}

    def build(given: Material) -> Detector:
        anchors, signals = given.anchors.get(layer), given.signals
        if signals is None:
            signals = _signals(given.benign, require_anchors(anchors), **settings)
        return replace(fit(signals, given.seed), anchors=anchors, **settings)

    return build


def _signals(
    traces: Traces, anchors: Anchors, *, unsquashed: bool, tau: float, first: int | None
) -> NDArray[np.float32]:
    read = log_ratio if unsquashed else signal
    return read(anchors.states(traces), anchors, tau=tau)[:, :first]


def require_anchors(anchors: Anchors | None) -> Anchors:
    if anchors is None:
        raise FingerprintError(
            "This detector carries no anchors, so it cannot read traces. Give it signals, or fit it "
            "with anchors=..."
        )
    return anchors


def _split(name: str, value: Any) -> tuple[dict[str, NDArray[Any]], Any]:
    """A field's arrays by name, and the rest of it as plain data."""
    if isinstance(value, np.ndarray):
        return {name: value}, {"kind": "array"}
    if isinstance(value, tuple) and value and all(isinstance(v, np.ndarray) for v in value):
        arrays = {f"{name}.{place}": part for place, part in enumerate(value)}
        return arrays, {"kind": "arrays", "count": len(value)}
    if isinstance(value, Anchors):
        arrays = {f"{name}.{key}": part for key, part in value.arrays().items()}
        return arrays, {"kind": "anchors", "about": value.about()}
    if isinstance(value, LanguageModel):
        return {}, {"kind": "model", "name": value.name, "revision": value.revision}
    try:
        return {}, {"kind": "plain", "value": json.loads(json.dumps(value))}
    except (TypeError, ValueError) as error:
        raise InputError(
            f"Field {name!r} of a detector is of type {type(value).__name__} and cannot be saved. Use "
            "numpy arrays, anchors, numbers and texts, or write arrays(), about() and rebuilt()."
        ) from error


def _joined(
    name: str, about: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], model: Any
) -> Any:
    """The inverse of ``_split``."""
    match about["kind"]:
        case "array":
            return arrays[name]
        case "arrays":
            return tuple(arrays[f"{name}.{place}"] for place in range(about["count"]))
        case "anchors":
            own = {key: arrays[f"{name}.{key}"] for key in ("harmless", "harmful")}
            return Anchors.rebuilt(own, about["about"])
        case "model":
            fitted, fix = about["name"], f"model=demur.load({about['name']!r})"
            if model is None:
                raise InputError(
                    f"This detector reads prompts with {fitted}. Load it and pass it: {fix}."
                )
            if (model.name, model.revision) != (fitted, about["revision"]):
                raise FingerprintError(
                    f"This detector reads prompts with {fitted} ({about['revision']}), not with "
                    f"{model.name} ({model.revision}). Pass {fix}."
                )
            return model
    value = about["value"]
    return tuple(value) if isinstance(value, list) else value
