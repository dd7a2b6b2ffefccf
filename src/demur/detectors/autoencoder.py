"""The paper's one-class detector: an autoencoder fitted on benign signals.

arXiv:2602.02600, section 5 (SRI Guard):

    1. an autoencoder T-32-8-32-T learns benign SRI signals with an L2 loss;
    2. the score of a signal is its reconstruction error.

Differs from the paper: activations, optimiser and epochs are our reading (ReLU, Adam, 200 epochs).
``standardise`` first brings each step to zero mean and unit spread on the benign set, which shows
deviations that a saturated sigma hides. Scoring needs numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, final

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from demur.detectors.method import MIN_SPREAD, Detector, SignalDetector
from demur.errors import SignalError

#: Widths between input and output (arXiv:2602.02600, section 5).
HIDDEN = (32, 8, 32)


@dataclass(frozen=True)
class Reconstruction(Detector):
    """A detector with a fitted autoencoder.

    Attributes:
        mean: ``[T]`` subtracted from a signal.
        spread: ``[T]`` a signal is divided by; ones when not standardised.
        weights: four ``[in, out]`` matrices.
        biases: four ``[out]`` vectors.
    """

    mean: NDArray[np.float32]
    spread: NDArray[np.float32]
    weights: tuple[NDArray[np.float32], ...]
    biases: tuple[NDArray[np.float32], ...]

    def error(self, signals: ArrayLike) -> NDArray[np.float32]:
        """Mean squared reconstruction error: ``[N, T]`` -> ``[N]``, 0 or more.

        Raises:
            SignalError: signals of another length.
        """
        values, steps = np.asarray(signals, dtype=np.float32), len(self.mean)
        if values.ndim != 2 or values.shape[1] != steps:
            raise SignalError(
                f"Signals are {list(values.shape)}; this detector reads [N, {steps}]. "
                "Align them to the anchors first."
            )
        inputs = hidden = (values - self.mean) / self.spread
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if layer:
                hidden = np.maximum(hidden, 0)
            hidden = hidden @ weight + bias
        error: NDArray[np.float32] = hidden - inputs
        return np.asarray(np.einsum("nt,nt->n", error, error) / steps)


@final
@dataclass(frozen=True)
class Autoencoder(Reconstruction, SignalDetector):
    """The paper's detector of signals."""

    def score_signals(self, signals: ArrayLike) -> NDArray[np.float32]:
        """See ``Reconstruction.error``."""
        return self.error(signals)


def fit_autoencoder(
    signals: ArrayLike, *, standardise: bool = False, epochs: int = 200, seed: int = 0
) -> Autoencoder:
    """Fit on benign signals alone; arguments as for ``train``."""
    return Autoencoder(**train(signals, standardise=standardise, epochs=epochs, seed=seed))


def train(
    signals: ArrayLike, *, standardise: bool = False, epochs: int = 200, seed: int = 0
) -> dict[str, Any]:
    """Train an autoencoder; returns the fields of ``Reconstruction``.

    Args:
        signals: ``[N, T]`` finite values.
        standardise: bring each step to zero mean and unit spread first.
        epochs: passes over the signals.
        seed: random seed of the initial weights and of the order.

    Raises:
        SignalError: fewer than two signals, or values that are not finite.
    """
    values = np.asarray(signals, dtype=np.float32)
    if values.ndim != 2 or len(values) < 2 or not np.isfinite(values).all():
        raise SignalError(
            f"An autoencoder needs at least two finite signals [N, T]; got {list(values.shape)}."
        )
    steps = values.shape[1]
    mean, spread = np.zeros(steps, np.float32), np.ones(steps, np.float32)
    if standardise:
        mean, spread = values.mean(axis=0), np.maximum(values.std(axis=0), MIN_SPREAD)
    generator = torch.Generator().manual_seed(seed)
    net = _train(torch.from_numpy((values - mean) / spread), epochs=epochs, generator=generator)
    linear = [layer for layer in net if isinstance(layer, nn.Linear)]
    return {
        "mean": mean,
        "spread": spread,
        "weights": tuple(layer.weight.detach().numpy().T.copy() for layer in linear),
        "biases": tuple(layer.bias.detach().numpy().copy() for layer in linear),
    }


def _train(data: torch.Tensor, *, epochs: int, generator: torch.Generator) -> nn.Sequential:
    widths = (data.shape[1], *HIDDEN, data.shape[1])
    layers: list[nn.Module] = []
    for wide, narrow in pairwise(widths):
        linear = nn.Linear(wide, narrow)
        bound = wide**-0.5
        for parameter in linear.parameters():
            nn.init.uniform_(parameter, -bound, bound, generator=generator)
        layers += [linear, nn.ReLU()]
    net = nn.Sequential(*layers[:-1])
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    for _ in range(epochs):
        order = torch.randperm(len(data), generator=generator)
        for batch in torch.split(data[order], 64):
            optimiser.zero_grad()
            nn.functional.mse_loss(net(batch), batch).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return net
