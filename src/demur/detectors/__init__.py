"""Detectors: ``fit(...)`` gives a value whose ``score`` is higher for more suspicious signals."""
