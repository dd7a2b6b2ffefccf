"""A guard that reads a generation while it is produced, from its SRI signal.

Signal: Rahimi et al., arXiv:2602.02600, section 3.1. Threshold: split conformal on whole trajectories
(Vovk, Gammerman, Shafer 2005, chapter 4).

    1. l_t is the unsquashed signal of step t, known before anything of step t is shown;
    2. the score of a step is how far l_t leans to refusal, against benign generations at the same
       step: s_t = (median_t - l_t) / (median_t - 5% quantile_t), so that steps are comparable;
    3. the statistic is the running maximum of s_t, over the steps that really ran;
    4. the threshold is the conformal (or PAC) quantile of the statistic at the end of held-out benign
       generations: a benign generation raises a false alarm *anywhere* with probability at most
       alpha, whatever the dependence between its steps.

Differs from the paper: its guard scores finished generations by an autoencoder's reconstruction
error; one step's log-ratio needs no detector, and no part of the generation that is still to come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from demur.errors import CalibrationError
from demur.files import intact, read_tensors, write_tensors
from demur.guard.calibration import Method, p_values
from demur.guard.watch import Watched, watch
from demur.guard.watcher import Watcher
from demur.sri import Anchors, log_ratio
from demur.types import Fingerprint, Prompt, Step, Traces

#: Names the group of a prompt, such as ``plain`` or ``wrapped``.
Grouping = Callable[[Prompt], str]


@dataclass(frozen=True)
class Group:
    """Benign prompts that share a threshold.

    Attributes:
        threshold: a statistic above it is flagged.
        calibration: ``[M]`` sorted benign statistics.
        weights: ``[M]`` what each counts for, where they were clustered; None = one each.
    """

    threshold: float
    calibration: NDArray[np.float32]
    weights: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if np.isnan(self.threshold):  # nothing is above it: every attack would pass
            raise CalibrationError("The threshold is NaN. Fit the guard again.")


@dataclass(frozen=True)
class StreamingGuard:
    """A calibrated reader of streams.

    Attributes:
        anchors: what turns states into the signal; T and the layer are theirs.
        middle: ``[T]`` benign median of the log-ratio at each step.
        spread: ``[T]`` from there down to the benign 5% quantile.
        groups: name -> calibrated group; one, named ``all``, unless prompts were grouped.
        alpha: probability that a benign generation is flagged at any of its steps.
        method: ``conformal`` keeps alpha on average over calibration sets; ``pac`` with 95%
            confidence for this one.
        fingerprint: what it was fitted on.
        name: what it is called in tables.
    """

    anchors: Anchors
    middle: NDArray[np.float32]
    spread: NDArray[np.float32]
    groups: Mapping[str, Group]
    alpha: float
    method: Method
    fingerprint: Fingerprint
    name: str = "sri"

    @property
    def steps(self) -> int:
        """T; later steps are not scored."""
        return self.anchors.steps

    @property
    def threshold(self) -> float:
        """The threshold that keeps alpha in every group: the highest."""
        return max(group.threshold for group in self.groups.values())

    @property
    def calibration(self) -> NDArray[np.float32]:
        """``[M]`` sorted benign statistics of all groups."""
        return np.sort(np.concatenate([group.calibration for group in self.groups.values()]))

    @property
    def calibrated_on(self) -> int:
        """Number of benign generations behind the thresholds."""
        return sum(len(group.calibration) for group in self.groups.values())

    def group(self, name: str) -> Group:
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

    def require(self, mark: Fingerprint) -> None:
        """Raise FingerprintError, naming what differs, unless the guard was fitted on the same.

        An autoregressive sampler may stop earlier: a shorter generation raises no more alarms.
        """
        mine, theirs = self.fingerprint, mark
        if mark.sampler.get("name") == "autoregressive" == mine.sampler.get("name"):
            steps = min(int(mark.sampler["steps"]), self.steps)
            if steps == mark.sampler["steps"]:
                mine = _with_steps(mine, steps)
        mine.require(
            theirs,
            what="This guard was not fitted on generations like these",
            fix="Fit one on them: demur guard fit RUN --streaming --anchors FILE --out FILE.",
        )

    def watcher(self, rows: int) -> Watcher:
        """Follow ``rows`` generations at once, step by step."""
        return Watcher(self, rows)

    def watch(
        self, steps: Iterator[Step], *, groups: Sequence[str] | None = None
    ) -> Iterator[Watched]:
        """Read a sampler's stream and stop it when every row is flagged or finished.

        Args:
            steps: what a sampler yields.
            groups: the prompt group of each row; the highest threshold when None.

        Yields:
            Each step with its reading and what of each row may be shown (see ``Watched``).
        """
        return watch(self, steps, groups=groups)

    def statistics(self, traces: Traces) -> NDArray[np.float32]:
        """``[N, T]`` largest score up to each step; after a generation's end it repeats.

        Raises:
            FingerprintError: traces of another model or sampler.
        """
        self.require(traces.fingerprint)
        return np.maximum.accumulate(
            step_scores(self.anchors, self.middle, self.spread, traces), axis=1
        )

    def score(self, traces: Traces) -> NDArray[np.float32]:
        """``[N]`` statistic at the end of each generation; higher = more suspicious.

        Raises:
            FingerprintError: traces of another model or sampler.
        """
        return self.statistics(traces)[:, -1]

    def flag(self, traces: Traces, *, groups: Grouping | None = None) -> NDArray[np.bool_]:
        """``[N]`` bool, whether any step is above the threshold; arguments as for ``detect``."""
        return self.detect(traces, groups=groups) > 0

    def detect(self, traces: Traces, *, groups: Grouping | None = None) -> NDArray[np.int64]:
        """``[N]`` 1-based step at which each generation is flagged, 0 for never.

        Args:
            traces: made as the guard's were.
            groups: names each prompt's group; the highest threshold for all when None.
        """
        threshold = np.full(len(traces), self.threshold)
        if groups:
            threshold = np.array([self.group(groups(t.prompt)).threshold for t in traces])
        above = self.statistics(traces) > threshold[:, None]
        return np.where(above.any(axis=1), above.argmax(axis=1) + 1, 0)

    def p_value(self, scores: ArrayLike, *, group: str | None = None) -> NDArray[np.float64]:
        """Conformal p-values of statistics ``[N]`` in (0, 1].

        Args:
            scores: from ``score`` or ``Reading.statistic``.
            group: of the prompts; the largest p-value over the groups when None.
        """
        names = [group] if group is not None else list(self.groups)
        groups = [self.group(name) for name in names]
        found = [p_values(g.calibration, scores, g.weights) for g in groups]
        return np.asarray(np.max(found, axis=0))

    def save(self, path: str | Path) -> Path:
        """Write safetensors with everything else as JSON in its header. Returns the path."""
        arrays: dict[str, NDArray[Any]] = {"middle": self.middle, "spread": self.spread}
        arrays |= self.anchors.arrays()
        for name, group in self.groups.items():
            arrays[f"calibration_{name}"] = group.calibration
            if group.weights is not None:
                arrays[f"weights_{name}"] = group.weights
        about: dict[str, Any] = {k: getattr(self, k) for k in ("alpha", "method", "name")}
        about["groups"] = {k: group.threshold for k, group in self.groups.items()}
        about |= {"fingerprint": asdict(self.fingerprint), "anchors": self.anchors.about()}
        return write_tensors(path, arrays, kind="streaming_guard", about=about)

    @classmethod
    def load(cls, path: str | Path) -> StreamingGuard:
        """Read what ``save`` wrote.

        Raises:
            InputError: not there, or not a streaming guard.
        """
        with intact(path, kind="streaming_guard"):
            arrays, about = read_tensors(path, kind="streaming_guard")
            return cls(
                anchors=Anchors.rebuilt(arrays, about.pop("anchors")),
                middle=arrays["middle"],
                spread=arrays["spread"],
                groups={
                    name: Group(at, arrays[f"calibration_{name}"], arrays.get(f"weights_{name}"))
                    for name, at in about.pop("groups").items()
                },
                fingerprint=Fingerprint(**about.pop("fingerprint")),
                **about,
            )


def step_scores(
    anchors: Anchors, middle: NDArray[np.float32], spread: NDArray[np.float32], traces: Traces
) -> NDArray[np.float32]:
    """``[N, T]`` score of each step, -inf at steps that did not run."""
    scores = (middle - log_ratio(anchors.states(traces), anchors)) / spread
    return np.where(steps_ran(traces, anchors.steps), scores, np.float32(-np.inf))


def steps_ran(traces: Traces, steps: int) -> NDArray[np.bool_]:
    """``[N, T]`` bool, steps that each generation had."""
    lengths = np.array([trace.n_steps for trace in traces])
    return np.arange(steps) < lengths[:, None]


def _with_steps(mark: Fingerprint, steps: int) -> Fingerprint:
    return replace(mark, sampler={**mark.sampler, "steps": steps})
