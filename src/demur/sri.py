"""Anchors and the SRI signal.

Rahimi et al., Step-Wise Refusal Dynamics in Autoregressive and Diffusion Language Models,
arXiv:2602.02600, section 3.1:

    1. mu_t^harmless, mu_t^harmful: per-step means of the pooled states phi_t over non-refused harmless
       and refused harmful generations;
    2. d_t^k = 1 - cos(phi_t, mu_t^k);
    3. l_t = [log(d_t^harmful + eps) - log(d_t^harmless + eps)] / tau;
    4. sigma_t = sigmoid(l_t): 1 = compliance-aligned, 0 = refusal-aligned.

Differs from the paper: its Algorithm 1 writes the opposite sign of step 3; section 3.1 and the
released code agree on the one above. Everything is computed in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from demur.alignment import Alignment, align, default_alignment
from demur.errors import InputError, SignalError
from demur.files import intact, read_tensors, write_tensors
from demur.types import Fingerprint, Trace, Traces

#: Temperature and guard against log(0) (arXiv:2602.02600, section 3.1).
TAU = 0.1
EPS = 1e-8


@dataclass(frozen=True)
class Anchors:
    """Per-step reference states of compliance and of refusal.

    Attributes:
        harmless: ``[T, D]`` float32, mean over non-refused harmless generations.
        harmful: ``[T, D]`` float32, mean over refused harmful generations.
        layer: layer the states came from.
        alignment: rule by which trajectories of another length were brought to T.
        fingerprint: what the traces were made with; None for anchors released without one.
        counts: how many traces each mean is over.
    """

    harmless: NDArray[np.float32]
    harmful: NDArray[np.float32]
    layer: str = "last"
    alignment: Alignment = "repeat_last"
    fingerprint: Fingerprint | None = None
    counts: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        if self.harmless.shape != self.harmful.shape or self.harmless.ndim != 2:
            raise SignalError(
                f"Anchors must be two [T, D] arrays of one shape; got {self.harmless.shape} and "
                f"{self.harmful.shape}."
            )
        for name, value in (("harmless", self.harmless), ("harmful", self.harmful)):
            if not np.isfinite(value).all():
                raise SignalError(
                    f"The {name} anchors hold NaN or infinite values. Fit them again."
                )

    @property
    def steps(self) -> int:
        """Number of steps T."""
        return len(self.harmless)

    def states(self, traces: Traces) -> NDArray[np.float32]:
        """``[N, T, D]`` states of traces made as these anchors were, aligned to their T.

        Raises:
            FingerprintError: the traces were made with something else; says what differs.
        """
        if self.fingerprint is not None:
            self.fingerprint.require(
                traces.fingerprint,
                what="These anchors were not made as the traces were",
                fix="Fit anchors for this model and sampler: demur anchors.",
            )
        return np.stack(
            [align(_finite(t, self.layer), self.steps, rule=self.alignment) for t in traces]
        )

    def save(self, path: str | Path) -> Path:
        """Write safetensors with everything else as JSON in the header. Returns the path."""
        return write_tensors(path, self.arrays(), kind="anchors", about=self.about())

    @classmethod
    def load(cls, path: str | Path) -> Anchors:
        """Read what ``save`` wrote.

        Raises:
            InputError: not there, or not anchors.
        """
        with intact(path, kind="anchors"):
            return cls.rebuilt(*read_tensors(path, kind="anchors"))

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """The two ``[T, D]`` arrays by name."""
        return {"harmless": self.harmless, "harmful": self.harmful}

    def about(self) -> dict[str, Any]:
        """Everything but the arrays, as plain data."""
        return {k: v for k, v in asdict(self).items() if k not in ("harmless", "harmful")}

    @classmethod
    def rebuilt(cls, arrays: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> Anchors:
        """The inverse of ``arrays`` and ``about``."""
        mark = about["fingerprint"]
        return cls(
            arrays["harmless"],
            arrays["harmful"],
            layer=about["layer"],
            alignment=about["alignment"],
            fingerprint=Fingerprint(**mark) if mark else None,
            counts=tuple(about["counts"]),
        )


class Refusal(Protocol):
    """A verdict on one answer, such as ``demur.judges.Verdict``."""

    @property
    def hit(self) -> bool:
        """Whether the answer is a refusal."""


def fit_anchors(
    traces: Iterable[Trace],
    refused: Iterable[bool] | Callable[[str, str], Refusal],
    *,
    layer: str = "last",
    steps: int | None = None,
    alignment: Alignment | None = None,
) -> Anchors:
    """Average the states of non-refused harmless and of refused harmful generations.

    Reads the traces once, in float64, and keeps none.

    Args:
        traces: of prompts labelled ``harmless`` or ``harmful``; others are an error.
        refused: a refusal judge, such as ``demur.refusal_judge("rules")``, which is asked about each
            goal and answer; or whether each answer is a refusal. Labels of prompts do not say that.
        layer: which recorded layer.
        steps: T; the sampler's step count when None.
        alignment: see ``demur.alignment``; the pooling's default when None.

    Raises:
        SignalError: a class is empty (says how many were refused), or states are not finite.
        InputError: a prompt without a label, or not one verdict (true or false) for each trace.
        FingerprintError: the traces are of different runs.
    """
    sums: dict[str, NDArray[np.float64]] = {}
    used = {"harmless": 0, "harmful": 0}
    seen = dict(used)
    first: Fingerprint | None = None
    rule: Alignment = alignment or "repeat_last"
    for trace, was_refused in _judged(traces, refused):
        label = trace.prompt.label
        if label not in used:
            raise InputError(
                f"Prompt {trace.prompt.id} is labelled {label!r}; anchors need harmless or harmful. "
                "Trace with --label, or pass a file with a label column."
            )
        if first is None:
            first = trace.fingerprint
            steps = steps or int(first.sampler["steps"])
            rule = alignment or default_alignment(first.pooling)
        first.require(
            trace.fingerprint, what="Traces of different runs", fix="Keep each run's traces apart."
        )
        seen[label] += 1
        if was_refused == (label == "harmful"):
            assert steps is not None
            state = align(_finite(trace, layer), steps, rule=rule)
            sums[label] = sums.get(label, np.zeros(state.shape)) + state
            used[label] += 1
    _require_both(used, seen)
    harmless, harmful = ((sums[k] / used[k]).astype(np.float32) for k in ("harmless", "harmful"))
    counts = (used["harmless"], used["harmful"])
    return Anchors(harmless, harmful, layer, rule, first, counts)


def import_anchors(path: str | Path) -> Anchors:
    """Read the ``centers.pt`` released with the paper: a pair (harmless, harmful) of ``[T, D]``.

    Only tensors are unpickled (``weights_only``). The file says nothing of the model it belongs to,
    so the anchors carry no fingerprint. Values are widened to float32.

    Raises:
        InputError: not there, or not such a pair.
    """
    import torch

    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        harmless, harmful = (np.asarray(value.float()) for value in loaded)
    except FileNotFoundError as error:
        raise InputError(f"No anchors file at {path}.") from error
    except Exception as error:
        raise InputError(
            f"{path} is not a released anchors file, a pair (harmless, harmful) of [T, D] tensors: "
            f"{type(error).__name__}."
        ) from error
    return Anchors(harmless, harmful)


def log_ratio(
    phi: Traces | ArrayLike, anchors: Anchors, *, tau: float = TAU, eps: float = EPS
) -> NDArray[np.float32]:
    """The signal before the sigmoid, l_t: ``[..., T]``; above 0 = complying. See ``signal``."""
    harmless, harmful = distances(phi, anchors)
    return np.asarray((np.log(harmful + eps) - np.log(harmless + eps)) / tau, dtype=np.float32)


def signal(
    phi: Traces | ArrayLike, anchors: Anchors, *, tau: float = TAU, eps: float = EPS
) -> NDArray[np.float32]:
    """The SRI signal sigma: ``[..., T]`` in [0, 1], 1 = complying.

    Args:
        phi: traces, which are aligned to the anchors' T, or pooled states ``[..., T, D]``.
        anchors: what to compare with.
        tau: temperature of the sigmoid.
        eps: keeps the logarithm finite.

    Raises:
        FingerprintError: traces that were not made as the anchors were.
        SignalError: another T or D than the anchors', or NaN or infinite states.
    """
    return sigmoid(log_ratio(phi, anchors, tau=tau, eps=eps))


def sigmoid(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 / (1 + exp(-x)) without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * values)), dtype=np.float32)


def distances(
    phi: Traces | ArrayLike, anchors: Anchors
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cosine distances to both anchors, each ``[..., T]`` in [0, 2]: (harmless, harmful)."""
    states = anchors.states(phi) if isinstance(phi, Traces) else np.asarray(phi, dtype=np.float32)
    expected = anchors.harmless.shape
    if states.shape[-2:] != expected:
        raise SignalError(
            f"States are {list(states.shape)}, the anchors [T, D] = {list(expected)}. Align the "
            "traces with anchors.states(traces), or fit anchors for this model."
        )
    good, bad = unit(anchors.harmless), unit(anchors.harmful)
    dots = np.empty((3, *states.shape[:-1]), dtype=np.float32)
    # A trajectory at a time, so that the three products read it from the cache.
    for place in np.ndindex(states.shape[:-2]):
        trajectory = states[place]
        dots[:, *place] = (
            np.vecdot(trajectory, trajectory),
            np.vecdot(trajectory, good),
            np.vecdot(trajectory, bad),
        )
    if not np.isfinite(dots[0]).all():
        row = np.argwhere(~np.isfinite(dots[0]))[0].tolist()
        raise SignalError(
            f"States hold NaN or infinite values, first at [.., step] = {row}. Run the model in "
            "float32 or bfloat16 instead of float16, and look at that prompt."
        )
    distance = np.maximum(1 - dots[1:] / np.maximum(np.sqrt(dots[0]), 1e-12), 0)
    return distance[0], distance[1]


def unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows ``[..., D]`` brought to length 1; a row of zeros stays."""
    norm = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(rows / np.maximum(norm, 1e-12), dtype=np.float32)


def _finite(trace: Trace, layer: str) -> NDArray[np.float32]:
    states = trace.states(layer)
    if not np.isfinite(states).all():
        raise SignalError(f"The states of prompt {trace.prompt.id} hold NaN or infinite values.")
    return states


def _judged(
    traces: Iterable[Trace], refused: Iterable[bool] | Callable[[str, str], Refusal]
) -> Iterator[tuple[Trace, bool]]:
    """Each trace with whether it refuses."""
    if callable(refused):
        yield from ((t, refused(t.prompt.goal, t.answer).hit) for t in traces)
        return
    for count, (trace, verdict) in enumerate(zip_longest(traces, refused)):
        if trace is None or verdict is None:
            more = "verdicts" if trace is None else "traces"
            raise InputError(
                f"There are more {more} than the {count:,} pairs read so far. Give one verdict "
                "(refused or not) for each trace."
            )
        if not isinstance(verdict, bool | np.bool_):
            raise InputError(
                f"The verdict of prompt {trace.prompt.id} is {verdict!r}; it must be True (refused) "
                'or False. Pass a judge: fit_anchors(traces, demur.refusal_judge("rules")).'
            )
        yield trace, bool(verdict)


def _require_both(used: Mapping[str, int], seen: Mapping[str, int]) -> None:
    if used["harmless"] and used["harmful"]:
        return
    raise SignalError(
        f"Anchors need answered harmless and refused harmful generations. Of {seen['harmless']} "
        f"harmless ones {seen['harmless'] - used['harmless']} were refused; of {seen['harmful']} "
        f"harmful ones {used['harmful']} were refused. Add prompts of the missing class."
    )
