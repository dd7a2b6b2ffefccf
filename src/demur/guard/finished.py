"""A guard of finished generations: a detector and a threshold that keeps a false-positive rate.

SRI Guard, arXiv:2602.02600, section 5, is the detector ``sri``. Differs from the paper: the threshold
is the split-conformal quantile, which holds the rate for any calibration size, instead of the plain
99% quantile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray

from demur.detectors import DetectionMethod, Detector, SignalDetector, fitted
from demur.detectors.autoencoder import Autoencoder
from demur.errors import InputError, SignalError
from demur.guard.calibration import (
    FORMAT,
    AnyGuard,
    Clustering,
    Generations,
    Grouping,
    ThresholdMethod,
    calibrated,
)
from demur.models.base import LanguageModel
from demur.parts import Part, check_part, part_of, with_part
from demur.sri import Anchors
from demur.types import Prompt, Trace, Traces


@final
@dataclass(frozen=True, kw_only=True)
class Guard(AnyGuard):
    """A calibrated detector of finished generations."""

    kind: ClassVar[str] = "guard"

    def score(self, generations: Generations) -> NDArray[np.float32]:
        """Suspicion of traces, or of bare signals ``[N, T]``: ``[N]``, higher = more suspicious.

        Raises:
            FingerprintError: traces of another model or sampler, or a detector without anchors.
            InputError: a trace without a step of the guard's part.
            SignalError: bare signals of another length, or for a detector that reads traces.
            InputError: neither traces nor signals.
        """
        known = as_generations(generations)
        if isinstance(known, Traces) and self.fingerprint is not None:
            self.fingerprint.require(
                known.fingerprint,
                what="This guard was not fitted on generations like these",
                fix="Fit one on them: demur guard fit RUN --anchors FILE --out FILE.",
            )
        known = _of_part(known, self.part)
        if isinstance(known, Traces):
            return self.detector.score(known)
        if not isinstance(self.detector, SignalDetector):
            raise SignalError(
                f"The {self.name} detector reads traces and got an array. Give traces: demur.trace."
            )
        return self.detector.score_signals(known)

    @classmethod
    def _upgraded(
        cls, arrays: dict[str, NDArray[Any]], about: dict[str, Any]
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """See ``AnyGuard``: version 1 holds an autoencoder."""
        layers, kept = sum(k.startswith("weight_") for k in arrays), about.get("anchors")
        detector = Autoencoder(
            name=about["name"],
            anchors=Anchors.rebuilt(arrays, kept) if kept else None,
            mean=arrays["mean"],
            spread=arrays["spread"],
            weights=tuple(arrays[f"weight_{layer}"] for layer in range(layers)),
            biases=tuple(arrays[f"bias_{layer}"] for layer in range(layers)),
        )
        found = {**detector.arrays(), "calibration_all": arrays["calibration"]}
        if "calibration_weights" in arrays:
            found["weights_all"] = arrays["calibration_weights"]
        return found, {
            **about,
            "version": FORMAT,
            "detector": {"name": "sri", "about": detector.about()},
            "groups": {"all": about["threshold"]},
            "fingerprint": kept and kept["fingerprint"],
        }


def fit_guard(
    benign: Generations,
    calibration: Generations | None = None,
    *,
    detector: str | DetectionMethod | Detector = "sri",
    anchors: Anchors | Mapping[str, Anchors] | None = None,
    harmful: Traces | None = None,
    model: LanguageModel | None = None,
    alpha: float = 0.01,
    method: ThresholdMethod = "conformal",
    groups: Grouping | None = None,
    clusters: Clustering | None = None,
    seed: int = 0,
    part: Part = "all",
) -> Guard:
    """Fit a detector on benign generations and calibrate its threshold on others.

    Args:
        benign: benign traces; detectors of signals also take bare signals ``[N, T]``.
        calibration: benign traces or signals held out for the threshold. When None, a seventh of
            ``benign`` is held out, as in the paper (1,200 and 200).
        detector: name of a method (``demur detectors`` lists them), a method, or a fitted detector.
            A fitted one is only calibrated: on ``calibration``, or without it on all of ``benign``.
        anchors: of one layer, or layer -> anchors.
        harmful: traces of harmful prompts, for supervised detectors.
        model: for detectors that read prompts with one.
        alpha: false-positive rate, in (0, 1).
        method: see ``AnyGuard``.
        groups: returns each calibration prompt's group, which then gets a threshold of its own and
            keeps alpha by itself (Mondrian conformal prediction).
        clusters: returns what a calibration prompt shares with others, such as its goal; alpha then
            holds for prompts of clusters that calibration did not see, and clusters, not prompts,
            must be many.
        seed: random seed of the fit and of what is held out.
        part: the steps that the guard reads: ``all``, ``answer`` or ``thought``, as the anchors do.
            Traces that have none of them are left out.

    Raises:
        CalibrationError: too few calibration prompts or clusters for alpha; says how many are needed.
        SignalError: signals that are empty or not finite, or that are grouped or clustered.
        InputError: no traces, or what the detector needs is missing.
        FingerprintError: benign, calibration and anchors are of different models or samplers.
    """
    for one in [anchors] if isinstance(anchors, Anchors) else (anchors or {}).values():
        one.require_part(part)
    benign, harmful = _of_part(benign, part, drop=True), _of_part(harmful, part, drop=True)
    calibration = _of_part(calibration, part, drop=True)
    if isinstance(detector, Detector) and calibration is None:
        calibration = benign
    train, held = split(benign, calibration, clusters, one_in=7, seed=seed)
    settings: dict[str, Any] = {
        "prompts": _prompts(held, groups or clusters),
        "alpha": alpha,
        "method": method,
        "groups": groups,
        "clusters": clusters,
    }
    # Fails on too few prompts before the fit, which takes seconds.
    calibrated(np.zeros(len(held), dtype=np.float32), **settings)
    found = fitted(detector, train, anchors=anchors, harmful=harmful, model=model, seed=seed)
    made = held if isinstance(held, Traces) else found.anchors
    mark = made.fingerprint if made else None
    # The held-out traces are cut to their part already, so they are scored as they are.
    whole = Guard(detector=found, groups={}, alpha=alpha, method=method, fingerprint=mark)
    return replace(whole, groups=calibrated(whole.score(held), **settings), part=part)


def split(
    benign: Generations,
    calibration: Generations | None,
    clusters: Clustering | None,
    *,
    one_in: int,
    seed: int,
) -> tuple[Traces | NDArray[np.float32], Traces | NDArray[np.float32]]:
    """Generations to fit on, and generations to calibrate on: a share of the clusters when None.

    Raises:
        FingerprintError: both are traces of different models or samplers.
    """
    train = as_generations(benign)
    if calibration is None:
        prompts = _prompts(train, clusters)
        names = [clusters(prompt) if clusters else row for row, prompt in enumerate(prompts)]
        known = list(dict.fromkeys(names))
        order = np.random.default_rng(seed).permutation(len(known)).tolist()
        out = {known[i] for i in order[: max(1, len(known) // one_in)]}
        kept = _rows(train, [row for row, name in enumerate(names) if name not in out])
        return kept, _rows(train, [row for row, name in enumerate(names) if name in out])
    held = as_generations(calibration)
    if isinstance(train, Traces) and isinstance(held, Traces):
        train.fingerprint.require(
            held.fingerprint,
            what="Benign and calibration traces differ",
            fix="Trace both with the same model and sampler.",
        )
    return train, held


def as_generations(values: Any) -> Traces | NDArray[np.float32]:
    """Traces, or bare signals ``[N, T]``.

    Raises:
        InputError: neither, or a list of several ``Traces``.
        SignalError: an array of another shape, or values that are not finite.
    """
    if isinstance(values, Traces):
        return values
    items = [values] if isinstance(values, Trace) else values
    if isinstance(items, list | tuple) and items:
        if all(isinstance(item, Trace) for item in items):
            return Traces(tuple(items))
        if any(isinstance(item, Traces) for item in items):
            raise InputError(
                f"This is a {type(items).__name__} of {len(items)} Traces; give one. Join several of "
                "the same model and sampler: first + second."
            )
    try:
        signals = np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"A guard reads traces or signals [N, T], not this {type(values).__name__}. Make traces "
            "with demur.trace(model, prompts)."
        ) from error
    if signals.ndim != 2 or not signals.size or not np.isfinite(signals).all():
        raise SignalError(f"Signals must be finite values [N, T]; got {list(signals.shape)}.")
    return signals


def _of_part(values: Any, part: Part, *, drop: bool = False) -> Any:
    """Traces with the steps of a part alone, without those that have none if asked; else the values."""
    check_part(part)
    if part == "all" or values is None:
        return values
    traces = as_generations(values)
    if not isinstance(traces, Traces):
        raise SignalError(
            f"Bare signals have no {part} part. Give traces, or take all (part='all')."
        )
    kept = with_part(traces, part) if drop else traces
    return Traces(tuple(part_of(trace, part) for trace in kept))


def _prompts(values: Traces | NDArray[np.float32], split: Any) -> list[Prompt]:
    """The prompt of each row; placeholders for bare signals, which nothing may ``split``."""
    if isinstance(values, Traces):
        return [trace.prompt for trace in values]
    if split is not None:
        raise SignalError("Bare signals have no prompts to group. Give traces and anchors.")
    return [Prompt("signal")] * len(values)


def _rows(values: Traces | NDArray[np.float32], rows: list[int]) -> Traces | NDArray[np.float32]:
    return Traces(tuple(values[i] for i in rows)) if isinstance(values, Traces) else values[rows]
