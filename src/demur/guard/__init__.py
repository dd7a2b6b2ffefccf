"""Guards: a detector and a calibrated threshold, for finished and for running generations."""

from __future__ import annotations

from pathlib import Path

from demur.detectors import Detector
from demur.files import tensors_kind
from demur.guard.calibration import AnyGuard, CalibratedGroup, ThresholdMethod, threshold_rank
from demur.guard.finished import Guard, fit_guard
from demur.guard.streaming import Delay, StreamingGuard, detection_delay, fit_streaming_guard
from demur.guard.watch import GuardReading, Watched, Watcher
from demur.models.base import LanguageModel

__all__ = [
    "AnyGuard",
    "CalibratedGroup",
    "Delay",
    "Guard",
    "GuardReading",
    "StreamingGuard",
    "ThresholdMethod",
    "Watched",
    "Watcher",
    "detection_delay",
    "fit_guard",
    "fit_streaming_guard",
    "load_guard",
    "threshold_rank",
]


def load_guard(
    path: str | Path,
    *,
    detector: type[Detector] | None = None,
    model: LanguageModel | None = None,
) -> Guard | StreamingGuard:
    """Read what ``Guard.save`` or ``StreamingGuard.save`` wrote; arguments as for ``Guard.load``.

    Raises:
        InputError: not there, not a guard, or its detector or model is missing.
        FingerprintError: a model other than the one it was fitted with.
    """
    kind = tensors_kind(path, made_by="demur guard fit RUN --out FILE")
    chosen = StreamingGuard if kind == "demur.streaming_guard" else Guard
    return chosen.load(path, detector=detector, model=model)
