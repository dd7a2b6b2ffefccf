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

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from demur.alignment import Alignment, align
from demur.errors import InputError, SignalError
from demur.files import intact, read_tensors, write_tensors
from demur.parts import Part, check_part, part_of
from demur.types import Fingerprint, Trace, Traces

#: Temperature and guard against log(0) (arXiv:2602.02600, section 3.1).
TAU = 0.1
EPS = 1e-8

_PARTS = {"all": "all steps", "answer": "the answer", "thought": "the thought"}

#: Traces of each class below which anchors are unreliable.
MIN_TRACES = 20


@dataclass(frozen=True)
class Anchors:
    """Per-step reference states of compliance and of refusal.

    Attributes:
        harmless: ``[T, D]`` float32, mean over non-refused harmless generations.
        harmful: ``[T, D]`` float32, mean over refused harmful generations.
        layer: layer the states came from.
        alignment: rule by which trajectories of another length were brought to T.
        fingerprint: what the traces were made with; None for anchors released without one.
        counts: how many traces each mean is over, (harmless, harmful); (0, 0) when not known.
        dropped: labelled traces left out: harmless ones that refused, harmful ones that answered, and
            those to which the judge gave no verdict.
        part: the steps that they are of (``demur.parts``).
    """

    harmless: NDArray[np.float32]
    harmful: NDArray[np.float32]
    layer: str = "last"
    alignment: Alignment = "repeat_last"
    fingerprint: Fingerprint | None = None
    counts: tuple[int, int] = (0, 0)
    dropped: tuple[int, int] = (0, 0)
    part: Part = "all"

    def __post_init__(self) -> None:
        if self.harmless.shape != self.harmful.shape or self.harmless.ndim != 2:
            raise SignalError(
                f"Anchors must be two [T, D] arrays of one shape; got {self.harmless.shape} and "
                f"{self.harmful.shape}."
            )
        for name, value in self.arrays().items():
            if not np.isfinite(value).all():
                raise SignalError(
                    f"The {name} anchors hold NaN or infinite values. Fit them again."
                )

    @property
    def steps(self) -> int:
        """Number of steps T."""
        return len(self.harmless)

    @property
    def few(self) -> str:
        """What to say wherever these anchors are used, when a class has few traces; else empty."""
        if not any(self.counts) or min(self.counts) >= MIN_TRACES:
            return ""
        return (
            f"anchors of {self.counts[0]} harmless and {self.counts[1]} harmful traces, below "
            f"{MIN_TRACES} of each: unreliable"
        )

    def at(self, step: int) -> Anchors:
        """The anchors of one step (from 1) alone; those of the last step for any later one."""
        place = slice(min(step, self.steps) - 1, min(step, self.steps))
        return replace(self, harmless=self.harmless[place], harmful=self.harmful[place])

    def states(self, traces: Traces) -> NDArray[np.float32]:
        """``[N, T, D]`` states of the anchors' part of traces made as they were, aligned to their T.

        Raises:
            FingerprintError: the traces were made with something else; says what differs.
            InputError: a trace has no step of that part.
        """
        if self.fingerprint is not None:
            self.fingerprint.require(
                traces.fingerprint,
                what="These anchors were not made as the traces were",
                fix="Fit anchors for this model and sampler: demur anchors.",
            )
        found = (finite_states(part_of(trace, self.part), self.layer) for trace in traces)
        return np.stack([align(each, self.steps, rule=self.alignment) for each in found])

    def require_part(self, part: Part) -> None:
        """Raise InputError unless these anchors are of this part of a generation."""
        check_part(part)
        if part != self.part:
            raise InputError(
                f"These anchors are of {_PARTS[self.part]}, and {_PARTS[part]} is asked for. Fit "
                f"others (demur anchors --part {part}), or read their own part (--part {self.part})."
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
        left_out = {*self.arrays(), *(("part",) if self.part == "all" else ())}
        return {k: v for k, v in asdict(self).items() if k not in left_out}

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
            dropped=tuple(about.get("dropped", (0, 0))),
            part=about.get("part", "all"),
        )


def log_ratio(
    phi: Traces | ArrayLike, anchors: Anchors, *, tau: float = TAU, eps: float = EPS
) -> NDArray[np.float32]:
    """The signal before the sigmoid, l_t: ``[..., T]``; above 0 = complying. See ``signal``."""
    harmless, harmful = distances(phi, anchors)
    return np.asarray((np.log(harmful + eps) - np.log(harmless + eps)) / tau, dtype=np.float32)


def signal(
    phi: Traces | ArrayLike,
    anchors: Anchors,
    *,
    tau: float = TAU,
    eps: float = EPS,
    part: Part | None = None,
) -> NDArray[np.float32]:
    """The SRI signal sigma: ``[..., T]`` in [0, 1], 1 = complying.

    Args:
        phi: traces, which are aligned to the anchors' T, or pooled states ``[..., T, D]``.
        anchors: what to compare with.
        tau: temperature of the sigmoid.
        eps: keeps the logarithm finite.
        part: the steps to read, for a check; the anchors' own part when None.

    Raises:
        FingerprintError: traces that were not made as the anchors were.
        InputError: anchors of another part, or a trace without a step of theirs.
        SignalError: another T or D than the anchors', or NaN or infinite states.
    """
    if part is not None:
        anchors.require_part(part)
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
        dots[:, *place] = [np.vecdot(trajectory, other) for other in (trajectory, good, bad)]
    if not np.isfinite(dots[0]).all():
        row = np.argwhere(~np.isfinite(dots[0]))[0].tolist()
        raise SignalError(
            f"States hold NaN or infinite values, first at [.., step] = {row}. Run the model in "
            "float32 or bfloat16 instead of float16, and look at that prompt."
        )
    distance = np.maximum(1 - dots[1:] / np.maximum(np.sqrt(dots[0]), 1e-12), 0)
    return distance[0], distance[1]


def finite_states(trace: Trace, layer: str) -> NDArray[np.float32]:
    """``[T, D]`` states of one layer.

    Raises:
        InputError: the layer was not recorded.
        SignalError: NaN or infinite states.
    """
    states = trace.states(layer)
    if not np.isfinite(states).all():
        raise SignalError(f"The states of prompt {trace.prompt.id} hold NaN or infinite values.")
    return states


def unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows ``[..., D]`` brought to length 1; a row of zeros stays."""
    norm = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(rows / np.maximum(norm, 1e-12), dtype=np.float32)
