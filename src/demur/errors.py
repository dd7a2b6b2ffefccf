"""demur's errors. Each message says what happened, the value received and what to do next.

DemurError                  any error that demur raises on purpose; the command line exits with 2
├── InputError              a file, column, prompt or option the user gave cannot be used
├── ModelError              a model folder, config or checkpoint cannot be used
├── FingerprintError        two values were made by different models, samplers or settings
├── StoreError              a run folder is damaged, locked, of a newer format or full
├── SignalError             no signal can be made of states (empty class, NaN, wrong shape)
├── CalibrationError        too few benign signals for the false-positive rate asked for
├── EndpointError           a model server cannot be reached or gives no usable answer
└── MissingExtraError       an optional dependency is not installed
"""

from __future__ import annotations


class DemurError(Exception):
    """Any error that demur raises on purpose."""


class InputError(DemurError):
    """A file, column, prompt or option the user gave cannot be used."""


class ModelError(DemurError):
    """A model folder, config or checkpoint cannot be used."""


class FingerprintError(DemurError):
    """Two values were made by different models, samplers or settings."""


class StoreError(DemurError):
    """A run folder is damaged, locked, of a newer format or full."""


class SignalError(DemurError):
    """No signal can be made of states: an empty class, NaN or a wrong shape."""


class CalibrationError(DemurError):
    """Too few benign signals for the false-positive rate asked for."""


class EndpointError(DemurError):
    """A model server cannot be reached or gives no usable answer."""


class MissingExtraError(DemurError):
    """An optional dependency is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an optional part. Run: pip install 'demur[{extra}]'")
