"""A guard that reads a generation while it is produced.

Threshold: split conformal on whole trajectories (Vovk, Gammerman, Shafer 2005, chapter 4).

    1. a detector scores the first t steps of a generation before anything of step t is shown; by
       default the score is minus the log-ratio l_t of step t (``demur.detectors.log_ratio``);
    2. the score is compared with benign generations at the same step:
       s_t = (score_t - median_t) / (95% quantile_t - median_t), so that steps are comparable;
    3. the statistic is the running maximum of s_t, over the steps that really ran;
    4. the threshold is the conformal (or PAC) quantile of the statistic at the end of held-out benign
       generations: a benign generation raises a false alarm *anywhere* with probability at most
       alpha, whatever the dependence between its steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import le
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray

from demur.detectors import MIN_SPREAD, DetectionMethod, StepDetector, fitted, known_detectors
from demur.detectors.log_ratio import LogRatio
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
from demur.guard.finished import as_generations, split
from demur.guard.watch import Watched, Watcher
from demur.models.base import LanguageModel
from demur.sampling import known_samplers
from demur.sampling.sampler import Release
from demur.sri import Anchors
from demur.types import Fingerprint, Step, Trace, Traces

#: Benign share of scores above the upper end of a step's spread.
HIGH = 0.05

#: Benign generations that must reach a step; later steps repeat the figures of the last such step.
FEWEST = 20


@final
@dataclass(frozen=True, kw_only=True)
class StreamingGuard(AnyGuard):
    """A calibrated reader of streams; alpha is the rate of benign generations flagged at any step.

    Attributes:
        detector: scores the first steps of a generation.
        middle: ``[T]`` benign median of its score at each step.
        spread: ``[T]`` from there to the benign 95% quantile.
        fingerprint: what it was fitted on.
    """

    kind: ClassVar[str] = "streaming_guard"
    own_arrays: ClassVar[tuple[str, ...]] = ("middle", "spread")

    detector: StepDetector
    middle: NDArray[np.float32]
    spread: NDArray[np.float32]
    fingerprint: Fingerprint

    @property
    def steps(self) -> int:
        """T; later steps are not scored."""
        return len(self.middle)

    def require(self, mark: Fingerprint) -> None:
        """Raise FingerprintError, naming what differs, unless the guard was fitted on the same.

        A sampler whose ``steps`` only limit the response may have fewer: a shorter generation raises
        no more alarms.
        """
        mine, steps = self.fingerprint, mark.sampler.get("steps")
        kind = known_samplers().get(mark.sampler.get("name", ""))
        if kind and kind.length_field == "steps" and steps and steps <= self.steps:
            mine = replace(mine, sampler={**mine.sampler, "steps": steps})
        mine.require(
            mark,
            what="This guard was not fitted on generations like these",
            fix="Fit one on them: demur guard fit RUN --streaming --anchors FILE --out FILE.",
        )

    def watcher(self, rows: int) -> Watcher:
        """Follow ``rows`` generations at once, step by step."""
        return Watcher(self.detector, self.middle, self.spread, self.threshold_of, rows=rows)

    def watch(
        self, steps: Iterator[Step], *, groups: Sequence[str] | None = None
    ) -> Iterator[Watched]:
        """Read a stream of steps, drop rows that are flagged, and end once every row is done.

        Args:
            steps: what a sampler yields.
            groups: the prompt group of each row; the highest threshold when None.

        Yields:
            Each step with its reading and the tokens of each row that may be shown (see ``Watched``).
        """
        watcher, release = self.watcher(0), Release(0)
        for number, step in enumerate(steps):
            running = step.running.tolist()
            if not number:
                watcher, release = self.watcher(len(running)), Release(len(running))
                watcher.reset(range(len(running)), groups=groups)
            if all(running):
                readings = watcher.observe(step.phi, range(len(running)))
            else:
                phi = {layer: value[step.running] for layer, value in step.phi.items()}
                watcher.observe(phi, [row for row, on in enumerate(running) if on])
                readings = watcher.readings
            flagged = [reading.flagged_at > 0 for reading in readings]
            released = release(
                step.tokens.cpu().numpy(),
                None if step.block is None else step.block.tolist(),
                running=running,
                flagged=flagged,
            )
            yield Watched(**vars(step), readings=readings, released=released)
            stopped = [row for row, on in enumerate(running) if on and flagged[row]]
            if stopped and all(map(le, running, flagged)):  # every running row is flagged
                return
            if stopped and hasattr(steps, "drop"):
                steps.drop(stopped)

    def statistics(self, generations: Generations) -> NDArray[np.float32]:
        """``[N, T]`` largest score up to each step; after a generation's end it repeats.

        A live ``Watcher`` computes the same numbers.

        Raises:
            FingerprintError: traces of another model or sampler.
        """
        known = _traces(generations)
        self.require(known.fingerprint)
        scores = self.detector.by_step(known, steps=self.steps)
        scores = (scores - self.middle.astype(np.float64)) / self.spread.astype(np.float64)
        ran = np.where(np.isnan(scores), -np.inf, scores)
        return np.maximum.accumulate(ran, axis=1).astype(np.float32)

    def score(self, generations: Generations) -> NDArray[np.float32]:
        """``[N]`` statistic at the end of each generation; higher = more suspicious.

        Raises:
            FingerprintError: traces of another model or sampler.
        """
        return self.statistics(generations)[:, -1]

    def detect(
        self, generations: Generations, *, groups: Grouping | None = None
    ) -> NDArray[np.int64]:
        """``[N]`` 1-based step at which each generation is flagged, 0 for never.

        Arguments as for ``flag``.
        """
        statistics = self.statistics(generations)
        above = statistics > self._thresholds(generations, len(statistics), groups)[:, None]
        return np.where(above.any(axis=1), above.argmax(axis=1) + 1, 0)

    @classmethod
    def _upgraded(
        cls, arrays: dict[str, NDArray[Any]], about: dict[str, Any]
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """See ``AnyGuard``: version 1 reads the log-ratio, and the median is of it, not of minus it."""
        reader = LogRatio(name="sri-step", anchors=Anchors.rebuilt(arrays, about["anchors"]))
        kept = {"version": FORMAT, "detector": {"name": reader.name, "about": reader.about()}}
        return {**arrays, **reader.arrays(), "middle": -arrays["middle"]}, {**about, **kept}


def fit_streaming_guard(
    benign: Generations,
    calibration: Generations | None = None,
    *,
    detector: str | DetectionMethod | StepDetector = "sri-step",
    anchors: Anchors | Mapping[str, Anchors] | None = None,
    harmful: Traces | None = None,
    model: LanguageModel | None = None,
    alpha: float = 0.01,
    method: ThresholdMethod = "conformal",
    groups: Grouping | None = None,
    clusters: Clustering | None = None,
    seed: int = 0,
) -> StreamingGuard:
    """Fit on benign generations alone and calibrate on others.

    Args:
        benign: benign generations that say what is usual at each step.
        calibration: benign generations held out for the threshold. When None, half of ``benign`` is
            held out, since what is usual at a step needs as many as the threshold.
        detector: name of a streaming method (``demur detectors`` marks them), a method, or a fitted
            detector that reads step by step. Other arguments as for ``fit_guard``.
        alpha: probability of an alarm anywhere in a benign generation, in (0, 1).

    Raises:
        CalibrationError: too few calibration traces or clusters, in some group; says how many are
            needed.
        FingerprintError: benign, calibration and anchors are of different models or samplers.
        SignalError: too few benign traces, or anchors that need to know a generation's length.
        InputError: a detector that does not read step by step, or what it needs is missing.
    """
    train, held = map(_traces, split(benign, calibration, clusters, one_in=2, seed=seed))
    if len(train) < FEWEST:
        raise SignalError(
            f"{len(train)} benign traces do not say what is usual at a step. Give at least {FEWEST}."
        )
    found = fitted(detector, train, anchors=anchors, harmful=harmful, model=model, seed=seed)
    if not isinstance(found, StepDetector):
        streaming = ", ".join(name for name, known in known_detectors().items() if known.streaming)
        raise InputError(
            f"The {found.name} detector reads finished generations only. These read step by step: "
            f"{streaming}. Or fit a guard of finished generations: demur.fit_guard."
        )
    if found.anchors and found.anchors.alignment == "resample":
        raise SignalError(
            "Anchors aligned by 'resample' need to know how long a generation will be. Fit them "
            "with alignment='repeat_last' for streaming."
        )
    if found.anchors:
        found.anchors.require_part("all")  # while it streams, a step's part is not known
    found.require(train.fingerprint)
    middle, spread = _usual(found, train)
    guard = StreamingGuard(
        detector=found,
        groups={},
        alpha=alpha,
        method=method,
        fingerprint=train.fingerprint,
        middle=middle,
        spread=spread,
    )
    prompts = [trace.prompt for trace in held]
    settings: dict[str, Any] = {"groups": groups, "clusters": clusters}
    thresholds = calibrated(guard.score(held), prompts, alpha=alpha, method=method, **settings)
    return replace(guard, groups=thresholds)


@dataclass(frozen=True)
class Delay:
    """How soon a guard detects.

    Attributes:
        step: ``[N]`` 1-based step at which each generation was flagged, 0 for never.
        tokens_out: ``[N]`` response tokens shown by then; all of them for never.
        curve: ``[T]`` share of the generations flagged by each step.
    """

    step: NDArray[np.int64]
    tokens_out: NDArray[np.int64]
    curve: NDArray[np.float64]


def detection_delay(
    guard: StreamingGuard, traces: Traces, *, groups: Grouping | None = None
) -> Delay:
    """Replay traces as if the guard had watched them; arguments and errors as for ``guard.detect``."""
    step = guard.detect(traces, groups=groups)
    # A name that no sampler has belongs to a text that was read token by token.
    kind = known_samplers().get(traces.fingerprint.sampler["name"])
    by_token = kind is None or kind.releases == "token"
    out = [
        _tokens_out(trace, int(at), by_token=by_token)
        for trace, at in zip(traces, step, strict=True)
    ]
    times = np.arange(1, guard.steps + 1)
    curve = ((step > 0) & (step <= times[:, None])).mean(axis=1)
    return Delay(step, np.array(out, dtype=np.int64), curve)


def _tokens_out(trace: Trace, step: int, *, by_token: bool) -> int:
    if not step:
        return len(trace.response_ids)
    release, out = Release(1), [0]
    for place in range(step - 1):
        block = None if by_token else [int(trace.blocks[place])]
        out = release(trace.committed[place : place + 1], block, running=[True], flagged=[False])
    return out[0]


def _usual(
    detector: StepDetector, train: Traces
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Median of the score at each step ``[T]`` and the distance to the high quantile ``[T]``."""
    scores = detector.by_step(train).astype(np.float32)
    levels = np.zeros((scores.shape[1], 2), dtype=np.float32)
    for step, column in enumerate(scores.T):
        there = column[~np.isnan(column)]
        if not np.isfinite(there).all():
            raise SignalError(f"Benign traces hold NaN or infinite states at step {step + 1}.")
        if len(there) >= FEWEST or not step:
            levels[step] = -np.quantile(-there, [0.5, HIGH])
        else:
            levels[step] = levels[step - 1]
    return levels[:, 0], np.maximum(levels[:, 1] - levels[:, 0], np.float32(MIN_SPREAD))


def _traces(values: Generations) -> Traces:
    known = as_generations(values)
    if not isinstance(known, Traces):
        raise InputError(
            "A streaming guard reads traces, not bare signals. Make them: demur.trace."
        )
    return known
