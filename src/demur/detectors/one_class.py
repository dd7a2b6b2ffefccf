"""Detectors of benign signals alone: Mahalanobis distance, the first step, and two of scikit-learn.

- Lee et al., A Simple Unified Framework for Detecting Out-of-Distribution Samples, arXiv:1807.03888,
  with one class: the squared Mahalanobis distance from the mean of benign signals. Differs from the
  paper: it reads SRI signals instead of layer features, and the covariance is shrunk (Ledoit and Wolf
  2004), because a few hundred signals do not determine T x T values.
- The static signal (arXiv:2602.02600, table 4) shows what the steps after the first add. Our reading:
  the distance of the first step's sigma from its benign mean, in benign spreads, to either side.
- Schoelkopf et al., Estimating the Support of a High-Dimensional Distribution, 2001: scikit-learn's
  ``OneClassSVM`` with its defaults (RBF kernel, nu = .5), on signals standardised per step.
- Liu, Ting and Zhou, Isolation Forest, ICDM 2008: scikit-learn's ``IsolationForest`` with its
  defaults (100 trees of 256 samples).

The last two keep scikit-learn's fitted numbers as arrays and compute the same scores with numpy, so
that a saved detector needs neither pickle nor a certain version of scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import tanh
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from demur.detectors.log_ratio import log_ratio_of
from demur.detectors.method import MIN_SPREAD, SignalDetector, StepDetector, require_anchors
from demur.sri import TAU, unit


@final
@dataclass(frozen=True)
class Mahalanobis(SignalDetector):
    """A fitted distance.

    Attributes:
        mean: ``[T]``.
        precision: ``[T, T]`` inverse covariance.
    """

    mean: NDArray[np.float64]
    precision: NDArray[np.float64]

    def score_signals(self, signals: ArrayLike) -> NDArray[np.float32]:
        """Squared distance: ``[N, T]`` -> ``[N]``, 0 or more."""
        away = np.asarray(signals, dtype=np.float64) - self.mean
        distance = np.einsum("nt,ts,ns->n", away, self.precision, away)
        return np.asarray(distance, dtype=np.float32)


def fit_mahalanobis(signals: ArrayLike) -> Mahalanobis:
    """Fit on benign signals ``[N, T]``."""
    from sklearn.covariance import LedoitWolf

    values = np.asarray(signals, dtype=np.float64)
    # A variance of zero in every step has no inverse; this floor is far below any real one.
    noise = 1e-12 * np.eye(values.shape[1])
    covariance = LedoitWolf().fit(values).covariance_ + noise
    return Mahalanobis(values.mean(axis=0), np.linalg.inv(covariance))


@final
@dataclass(frozen=True)
class Static(SignalDetector, StepDetector):
    """Benign mean and spread of the first step."""

    mean: float
    spread: float

    def score_signals(self, signals: ArrayLike) -> NDArray[np.float32]:
        """Distance in spreads: ``[N, T]`` -> ``[N]``, 0 or more."""
        first = np.asarray(signals, dtype=np.float32)[:, 0]
        return np.asarray(np.abs(first - self.mean) / self.spread, dtype=np.float32)

    def advance(self, state: NDArray[np.float32], step: int, before: float) -> float:
        """See ``StepDetector.advance``; later steps change nothing."""
        if step > 1:
            return before
        anchors = require_anchors(self.anchors)
        ratio = log_ratio_of(state, unit(anchors.harmless[0]), unit(anchors.harmful[0]))
        sigma = 0.5 * (1 + tanh(0.5 * ratio * TAU / self.tau))
        return abs(sigma - self.mean) / self.spread


def fit_static(signals: ArrayLike) -> Static:
    """Fit on benign signals ``[N, T]``."""
    first = np.asarray(signals, dtype=np.float64)[:, 0]
    return Static(float(first.mean()), max(float(first.std()), MIN_SPREAD))


@final
@dataclass(frozen=True)
class OneClassSVM(SignalDetector):
    """A fitted machine.

    Attributes:
        mean: ``[T]`` subtracted from a signal.
        spread: ``[T]`` a signal is divided by.
        support: ``[S, T]`` support vectors, standardised.
        weights: ``[S]`` of the support vectors.
        gamma: of the RBF kernel.
    """

    mean: NDArray[np.float32]
    spread: NDArray[np.float32]
    support: NDArray[np.float64]
    weights: NDArray[np.float64]
    gamma: float

    def score_signals(self, signals: ArrayLike) -> NDArray[np.float32]:
        """Minus the similarity to the support vectors: ``[N, T]`` -> ``[N]``."""
        values = (np.asarray(signals, dtype=np.float32) - self.mean) / self.spread
        similar = [
            np.exp(-self.gamma * np.square(self.support - row.astype(np.float64)).sum(axis=1))
            @ self.weights
            for row in values
        ]
        return np.asarray(-np.array(similar), dtype=np.float32)


def fit_one_class_svm(signals: ArrayLike) -> OneClassSVM:
    """Fit on benign signals ``[N, T]``."""
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import OneClassSVM as Estimator

    scaler, values = StandardScaler(), np.asarray(signals, dtype=np.float32)
    found = Estimator().fit(scaler.fit_transform(values))
    return OneClassSVM(
        mean=scaler.mean_.astype(np.float32),
        spread=scaler.scale_.astype(np.float32),
        support=np.array(found.support_vectors_),
        weights=np.array(found.dual_coef_[0]),
        gamma=float(found._gamma),
    )


@final
@dataclass(frozen=True)
class IsolationForest(SignalDetector):
    """A fitted forest, the nodes of all trees in one list.

    Attributes:
        roots: ``[trees]`` place of each tree's root.
        step: ``[nodes]`` the step that a node compares; -2 at a leaf.
        threshold: ``[nodes]`` a value up to it goes left.
        left, right: ``[nodes]`` places of the children.
        depth: ``[nodes]`` expected number of splits that isolate a signal which ends at this node.
        usual: depth at which a score is .5; 0 for a forest of single samples.
    """

    roots: NDArray[np.int64]
    step: NDArray[np.int64]
    threshold: NDArray[np.float64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    depth: NDArray[np.float64]
    usual: float

    def score_signals(self, signals: ArrayLike) -> NDArray[np.float32]:
        """The paper's anomaly score: ``[N, T]`` -> ``[N]`` in [0, 1]."""
        values = np.asarray(signals, dtype=np.float32)
        rows = np.arange(len(values))
        node = np.repeat(self.roots[:, None], len(values), axis=1)
        while (inner := self.step[node] >= 0).any():
            left = values[rows, np.maximum(self.step[node], 0)] <= self.threshold[node]
            node = np.where(inner, np.where(left, self.left[node], self.right[node]), node)
        depth = self.depth[node].sum(axis=0) / len(self.roots)
        share = depth / self.usual if self.usual else np.ones_like(depth)
        return np.asarray(2.0**-share, dtype=np.float32)


def fit_isolation_forest(signals: ArrayLike, seed: int = 0) -> IsolationForest:
    """Fit on benign signals ``[N, T]``; ``seed`` of the trees."""
    from sklearn.ensemble import IsolationForest as Estimator

    found = Estimator(random_state=seed).fit(np.asarray(signals))
    trees = [one.tree_ for one in found.estimators_]
    roots = np.cumsum([0, *(tree.node_count for tree in trees[:-1])])

    def children(side: str) -> NDArray[np.int64]:
        parts = zip(trees, roots, strict=True)
        return np.concatenate([getattr(tree, f"children_{side}") + root for tree, root in parts])

    return IsolationForest(
        roots=roots,
        step=np.concatenate([tree.feature for tree in trees]).astype(np.int64),
        threshold=np.concatenate([tree.threshold for tree in trees]),
        left=children("left"),
        right=children("right"),
        depth=np.concatenate([_depths(tree) for tree in trees]),
        usual=float(_average_path(np.array([found.max_samples_]))[0]),
    )


def _depths(tree: Any) -> NDArray[np.float64]:
    """``[nodes]`` splits above each node, plus those expected to isolate one of its samples."""
    above = np.zeros(tree.node_count)
    for node in range(tree.node_count):  # a node comes before its children
        for child in (tree.children_left[node], tree.children_right[node]):
            if child >= 0:
                above[child] = above[node] + 1
    return above + _average_path(tree.n_node_samples)


def _average_path(samples: NDArray[np.integer]) -> NDArray[np.float64]:
    """Average path length of an unsuccessful search among this many samples (Liu et al., eq. 1)."""
    n = np.maximum(np.asarray(samples, dtype=np.float64), 2)
    long = 2 * (np.log(n - 1) + np.euler_gamma) - 2 * (n - 1) / n
    return np.select([samples <= 1, samples == 2], [0.0, 1.0], long)
