"""Thresholds and p-values from benign scores: split conformal, PAC, and by clusters.

Vovk, Gammerman, Shafer, Algorithmic Learning in a Random World (2005), chapter 4; Vovk, Conditional
validity of inductive conformal predictors (2012), proposition 2a, for the PAC threshold:

    1. a benign score exceeds the k-th largest of n benign scores with probability at most k / (n + 1);
    2. given the n scores, that probability is distributed as Beta(k, n - k + 1).

Prompts about one task resemble each other, so the scores of many prompts about few tasks are not
exchangeable with a score of a new task. Lee, Barber, Willett, Distribution-free inference with
hierarchical data (2023), section 3: where the clusters are exchangeable,

    3. each score counts for 1 / (size of its cluster), and K clusters take the place of n scores.

The guarantee covers benign traffic exchangeable with the calibration set (with clusters: prompts of
new clusters like those) and nothing else.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from demur.detectors import Detector, known_detectors
from demur.errors import CalibrationError, InputError
from demur.files import intact, read_tensors, write_tensors
from demur.models.base import LanguageModel
from demur.parts import Part
from demur.sri import Anchors
from demur.types import Fingerprint, Prompt, Trace, Traces

#: Confidence of the PAC threshold.
PAC_CONFIDENCE = 0.95

#: Version of guard files.
FORMAT = 2

ThresholdMethod = Literal["conformal", "pac"]

#: Returns what a prompt shares with others like it, such as its goal.
Clustering = Callable[[Prompt], Hashable]

#: Traces or bare signals ``[N, T]``, in any form that a caller may have.
Generations = Traces | Sequence[Trace] | ArrayLike

#: Returns the group of a prompt, such as ``plain`` or ``wrapped``.
Grouping = Callable[[Prompt], str]


@final
@dataclass(frozen=True)
class CalibratedGroup:
    """Benign prompts that share a threshold.

    Attributes:
        threshold: a score above it is flagged.
        calibration: ``[M]`` sorted benign scores.
        weights: ``[M]`` weight of each score where they were clustered; None = one each.
    """

    threshold: float
    calibration: NDArray[np.float32]
    weights: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if np.isnan(self.threshold):  # no score is above it: every attack would pass
            raise CalibrationError("The threshold is NaN. Fit the guard again.")

    def p_value(self, scores: ArrayLike) -> NDArray[np.float64]:
        """See ``AnyGuard.p_value``; with weights, K clusters take the place of M scores."""
        below = np.searchsorted(self.calibration, np.asarray(scores))
        if self.weights is None:
            benign = len(self.calibration)
            return np.asarray((1 + benign - below) / (benign + 1))
        above = np.append(np.cumsum(self.weights[::-1])[::-1], 0.0)[below]
        return np.asarray((1 + above) / (self.weights.sum() + 1))


@dataclass(frozen=True, kw_only=True)
class AnyGuard(ABC):
    """A detector with thresholds calibrated on benign generations.

    Attributes:
        detector: scores generations.
        groups: name -> calibrated group; one, named ``all``, unless prompts were grouped.
        alpha: false-positive rate on benign traffic that each threshold keeps.
        method: ``conformal`` keeps the rate on average over calibration sets; ``pac`` keeps it with
            95% confidence for this one.
        fingerprint: model and sampler of the benign generations; None for bare signals.
        part: the steps that it reads (``demur.parts``).
    """

    #: File format, and the array fields that a subclass adds.
    kind: ClassVar[str]
    own_arrays: ClassVar[tuple[str, ...]] = ()

    detector: Detector
    groups: Mapping[str, CalibratedGroup]
    alpha: float
    method: ThresholdMethod
    fingerprint: Fingerprint | None
    part: Part = "all"

    @abstractmethod
    def score(self, generations: Generations) -> NDArray[np.float32]:
        """Suspicion of each generation: ``[N]``, higher = more suspicious."""

    @property
    def name(self) -> str:
        """Name of the detector."""
        return self.detector.name

    @property
    def anchors(self) -> Anchors | None:
        """The detector's anchors; None where it has none."""
        return self.detector.anchors

    @property
    def few(self) -> str:
        """What to say wherever this guard is used, when its anchors have few traces; else empty."""
        return self.anchors.few if self.anchors else ""

    @property
    def layers(self) -> tuple[str, ...]:
        """Recorded layers that it reads."""
        return self.detector.layers

    @property
    def threshold(self) -> float:
        """The threshold that keeps alpha in every group: the highest."""
        return max(group.threshold for group in self.groups.values())

    @property
    def calibration(self) -> NDArray[np.float32]:
        """``[M]`` sorted benign scores of all groups."""
        return np.sort(np.concatenate([group.calibration for group in self.groups.values()]))

    @property
    def calibrated_on(self) -> int:
        """Number of benign scores behind the thresholds."""
        return len(self.calibration)

    def group(self, name: str) -> CalibratedGroup:
        """A calibrated group by its name.

        Raises:
            CalibrationError: no such group.
        """
        if name not in self.groups:
            raise CalibrationError(
                f"This guard was not calibrated for prompts of group {name!r}; it knows "
                f"{', '.join(self.groups)}. Fit it with benign prompts of that group."
            )
        return self.groups[name]

    def threshold_of(self, group: str | None) -> float:
        """The threshold of a group; the highest when None."""
        return self.threshold if group is None else self.group(group).threshold

    def flag(
        self, generations: Generations, *, groups: Grouping | None = None
    ) -> NDArray[np.bool_]:
        """Whether each score is above its threshold: ``[N]`` bool.

        Args:
            generations: see ``score``; traces where they are grouped.
            groups: returns each prompt's group; the highest threshold for all when None.
        """
        scores = self.score(generations)
        passed = scores <= self._thresholds(generations, len(scores), groups)
        return ~np.asarray(passed)  # NaN does not pass

    def _thresholds(
        self, generations: Any, rows: int, groups: Grouping | None
    ) -> NDArray[np.float64]:
        """``[N]`` threshold of each generation."""
        if groups is None:
            return np.full(rows, self.threshold)
        return np.array([self.threshold_of(groups(trace.prompt)) for trace in generations])

    def p_value(self, scores: ArrayLike, *, group: str | None = None) -> NDArray[np.float64]:
        """Conformal p-values of scores ``[N]``: (1 + benign scores as high) / (M + 1), in (0, 1].

        Args:
            scores: from ``score``.
            group: of the prompts; the largest p-value over the groups when None.
        """
        groups = [self.group(group)] if group is not None else self.groups.values()
        return np.asarray(np.max([known.p_value(scores) for known in groups], axis=0))

    def save(self, path: str | Path) -> Path:
        """Write safetensors with everything else as JSON in its header. Returns the path."""
        arrays = {f"detector.{name}": value for name, value in self.detector.arrays().items()}
        arrays |= {name: getattr(self, name) for name in self.own_arrays}
        for name, group in self.groups.items():
            arrays[f"calibration_{name}"] = group.calibration
            if group.weights is not None:
                arrays[f"weights_{name}"] = group.weights
        about = {
            "version": FORMAT,
            "detector": {"name": self.name, "about": self.detector.about()},
            "groups": {name: group.threshold for name, group in self.groups.items()},
            "alpha": self.alpha,
            "method": self.method,
            "fingerprint": self.fingerprint and asdict(self.fingerprint),
        } | ({} if self.part == "all" else {"part": self.part})
        return write_tensors(path, arrays, kind=self.kind, about=about)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        detector: type[Detector] | None = None,
        model: LanguageModel | None = None,
    ) -> Self:
        """Read what ``save`` wrote.

        Args:
            path: the file.
            detector: class of the detector, where no installed package provides it.
            model: for a detector that reads prompts with one.

        Raises:
            InputError: not there, not such a guard, or its detector or model is missing.
            FingerprintError: a model other than the one it was fitted with.
        """
        with intact(path, kind=cls.kind):
            arrays, about = read_tensors(path, kind=cls.kind)
            if "version" not in about:
                arrays, about = cls._upgraded(arrays, about)
            if about["version"] > FORMAT:
                raise InputError(
                    f"{path} has file version {about['version']}; this demur reads up to {FORMAT}. "
                    "Update it: pip install --upgrade demur"
                )
            kept, mark, methods = about["detector"], about["fingerprint"], known_detectors()
            if detector is None and kept["name"] not in methods:
                raise InputError(
                    f"This guard's detector is {kept['name']!r}, which nothing provides. Install the "
                    "package that provides it (entry point group demur.detectors), name its file "
                    "(--plugin FILE), or pass its class: load_guard(path, detector=...)."
                )
            made = detector or methods[kept["name"]].detector
            own = {k.removeprefix("detector."): v for k, v in arrays.items()}
            groups = {
                name: CalibratedGroup(
                    at, arrays[f"calibration_{name}"], arrays.get(f"weights_{name}")
                )
                for name, at in about["groups"].items()
            }
            return cls(
                detector=made.rebuilt(own, kept["about"], model=model),
                groups=groups,
                alpha=about["alpha"],
                method=about["method"],
                fingerprint=Fingerprint(**mark) if mark else None,
                part=about.get("part", "all"),
                **{name: arrays[name] for name in cls.own_arrays},
            )

    @classmethod
    @abstractmethod
    def _upgraded(
        cls, arrays: dict[str, NDArray[Any]], about: dict[str, Any]
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """A file of version 1, which holds one fixed detector, as one of version 2."""


def calibrated(
    scores: NDArray[np.float32],
    prompts: Sequence[Prompt],
    *,
    alpha: float,
    method: ThresholdMethod,
    groups: Grouping | None = None,
    clusters: Clustering | None = None,
) -> dict[str, CalibratedGroup]:
    """Thresholds from the scores ``[M]`` of held-out benign prompts, by group.

    Raises:
        CalibrationError: too few prompts or clusters in a group, or PAC with clusters.
    """
    members: dict[str, list[int]] = {}
    for row, prompt in enumerate(prompts):
        members.setdefault(groups(prompt) if groups else "all", []).append(row)
    found = {}
    for name, rows in members.items():
        order = np.array(rows)[np.argsort(scores[rows], kind="stable")]
        weights = cluster_weights([clusters(prompts[row]) for row in order]) if clusters else None
        try:
            at = threshold(scores[order], alpha, method=method, weights=weights)
        except CalibrationError as error:
            raise CalibrationError(f"Group {name!r}: {error}") from error
        found[name] = CalibratedGroup(at, scores[order], weights)
    return found


def threshold_rank(
    n: int, alpha: float, *, method: ThresholdMethod = "conformal", of: str = "prompts"
) -> int:
    """Rank of the threshold among n calibration scores, counted from the largest (1 = the largest).

    conformal: the largest k with k <= alpha (n + 1), so that a benign score exceeds it with
    probability at most alpha. pac: the largest k for which the rate above the k-th largest score,
    distributed as Beta(k, n - k + 1), is at most alpha with 95% confidence. ``of``: unit named in the
    error message.

    Raises:
        CalibrationError: alpha outside (0, 1), or n too small; says which n is enough.
    """
    if not 0 < alpha < 1:
        raise CalibrationError(f"alpha is {alpha}; a false-positive rate lies between 0 and 1.")
    if method == "conformal":
        # A tolerance keeps 0.01 * 100 from falling below 1 in floating point.
        place, enough = math.floor(alpha * (n + 1) + 1e-9), math.ceil(1 / alpha - 1e-9) - 1
    else:
        from scipy.stats import beta

        ranks = np.arange(1, int(alpha * n) + 2)
        kept = ranks[beta.cdf(alpha, ranks, n - ranks + 1) >= PAC_CONFIDENCE]
        place = int(kept.max(initial=0))
        enough = math.ceil(math.log(1 - PAC_CONFIDENCE) / math.log(1 - alpha))
    if place < 1:
        raise CalibrationError(
            f"{n} {of} are too few to calibrate alpha = {alpha:g} ({method}). Use at least "
            f"{enough:,} benign {of} for calibration, or a larger alpha."
        )
    return place


def cluster_weights(clusters: Sequence[Hashable]) -> NDArray[np.float64]:
    """``[M]`` weight of each score: 1 / (number of scores in its cluster)."""
    sizes = Counter(clusters)
    return np.array([1 / sizes[cluster] for cluster in clusters])


def threshold(
    benign: NDArray[np.floating],
    alpha: float,
    *,
    method: ThresholdMethod = "conformal",
    weights: NDArray[np.float64] | None = None,
) -> float:
    """The benign score above which a score is flagged.

    Args:
        benign: ``[M]`` sorted benign scores.
        alpha: false-positive rate, in (0, 1).
        method: see ``threshold_rank``.
        weights: ``[M]`` from ``cluster_weights``; one each when None.

    Raises:
        CalibrationError: alpha outside (0, 1), too few scores or clusters, or PAC with clusters.
    """
    if weights is None:
        return float(benign[-threshold_rank(len(benign), alpha, method=method)])
    if method != "conformal":
        raise CalibrationError(
            f"Method {method!r} does not support clusters. Use conformal, or leave the clusters out."
        )
    clusters = round(weights.sum())
    threshold_rank(clusters, alpha, of="clusters")
    spent = np.cumsum(weights[::-1])
    place = int(np.argmax(spent > alpha * (clusters + 1) - 1 + 1e-9))
    return float(benign[-1 - place])
