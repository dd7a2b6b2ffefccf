"""A page about any runs: refusals, signals and the guard's verdicts, from their folders alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demur._version import __version__
from demur.guard import AnyGuard, StreamingGuard, load_guard
from demur.judges import refusal_judge
from demur.judges.reading import answer_of
from demur.metrics import internal_recovery, rate
from demur.organism import NAMES
from demur.sri import Anchors, signal
from demur.store import Store
from demur.study.report.rates import volatility
from demur.types import Traces
from demur.viz.figures import Figure, lda, trajectories
from demur.viz.replay import Scene, scene
from demur.viz.report_page import Report, Section, write_report
from demur.viz.tables import Table, Value

_TOY = "Toy models of a synthetic world. Nothing here is evidence about real models."


@dataclass(frozen=True)
class JudgedRun:
    """One run: N traces with their signals ``[N, T]`` and refusals ``[N]``."""

    name: str
    traces: Traces
    sigma: NDArray[np.float32]
    refused: NDArray[np.bool_]

    @property
    def groups(self) -> list[str]:
        """Label and outcome of each trace, as one text."""
        outcome = np.where(self.refused, "refused", "answered")
        pairs = zip(self.traces, outcome, strict=True)
        return [f"{trace.prompt.label}, {end}" for trace, end in pairs]


def write_run_report(
    out: str | Path,
    runs: Sequence[str | Path],
    *,
    anchors: str | Path,
    guard: str | Path | None = None,
    tokenizer: Any = None,
    replays: int = 3,
) -> Path:
    """Write the page.

    Args:
        out: path of the page.
        runs: run folders made with the model and sampler of the anchors.
        anchors: anchors file.
        guard: guard file. None: no verdicts.
        tokenizer: decodes tokens for the replays. None: no replays.
        replays: maximum number of replays per run; those with the most volatile signal.

    Raises:
        StoreError, InputError, FingerprintError: a run, the anchors or the guard cannot be used.
    """
    reference = Anchors.load(anchors)
    watch = load_guard(guard) if guard else None
    read = [_read(run, reference) for run in runs]
    toy = any(one.traces.fingerprint.model in NAMES for one in read)
    sections = [
        Section(
            "Refusals and signals",
            "Sigma is 1 if the state is close to answered harmless generations, and 0 if it is "
            "close to refused harmful ones.",
            tables=(_table(read, watch),),
            figures=tuple(figure for one in read for figure in _figures(one)),
        )
    ]
    if tokenizer is not None:
        shown = [s for one in read for s in _scenes(one, tokenizer, replays, watch)]
        text = "The generations whose signal changes most from step to step."
        sections.append(Section("Replays", text, scenes=shown))
    page = Report(
        title="demur: " + ", ".join(one.name for one in read),
        lead=" ".join(
            f"{one.name}: {len(one.traces)} generations, {one.refused.mean():.0%} refused."
            for one in read
        ),
        note=_TOY if toy else "",
        sections=sections,
        methods=_methods(read, reference, watch),
    )
    return write_report(out, page)


def _read(run: str | Path, anchors: Anchors) -> JudgedRun:
    judge = refusal_judge("paper")
    traces = Traces(tuple(Store.open(run).traces()))
    refused = np.array([judge(t.prompt.goal, answer_of(t)).hit for t in traces], dtype=np.bool_)
    return JudgedRun(Path(run).name, traces, signal(anchors.states(traces), anchors), refused)


def _table(read: Sequence[JudgedRun], guard: AnyGuard | None) -> Table:
    rows: list[tuple[Value, ...]] = []
    for one in read:
        kinds = [(t.prompt.label, t.prompt.attack) for t in one.traces]
        flagged = guard.flag(one.traces) if guard else None
        for kind in dict.fromkeys(kinds):
            chosen = np.array([other == kind for other in kinds])
            goals = [t.prompt.goal for t, keep in zip(one.traces, chosen, strict=True) if keep]
            sigma = one.sigma[chosen]
            row: list[Value] = [one.name, *kind, rate(one.refused[chosen], goals)]
            row += [float(sigma.mean()), float(sigma[:, -1].mean()), volatility(sigma)]
            row.append(rate(internal_recovery(sigma, threshold=0.5), goals))
            if flagged is not None:
                row.append(rate(flagged[chosen], goals))
            rows.append(tuple(row))
    return Table(
        "Refusal rate and signal",
        (
            *(
                "run",
                "label",
                "attack",
                "RR",
                "mean sigma",
                "sigma at the end",
                "volatility",
                "IRR",
            ),
            *(("flagged",) if guard else ()),
        ),
        rows,
        note="RR: the paper's dictionary. 95% intervals, clustered by goal.",
    )


def _figures(one: JudgedRun) -> list[Figure]:
    names = one.groups
    groups = {name: one.sigma[[other == name for other in names]] for name in dict.fromkeys(names)}
    figures = [trajectories(groups, title=one.name)]
    if len(groups) > 1:
        figures.append(lda(one.sigma, names, title=one.name))
    return figures


def _scenes(one: JudgedRun, tokenizer: Any, most: int, guard: AnyGuard | None) -> list[Scene]:
    # Only a streaming guard knows the step.
    found = guard.detect(one.traces).tolist() if isinstance(guard, StreamingGuard) else []
    change = np.abs(np.diff(one.sigma, axis=1)).mean(axis=1)
    return [
        scene(
            one.traces[row],
            one.sigma[row],
            text_of=lambda token: tokenizer.decode([token]),
            title=f"{one.name}: {one.traces[row].prompt.id}",
            flagged=found[row] or None if found else None,
        )
        for row in np.argsort(-change, kind="stable")[:most].tolist()
    ]


def _methods(
    read: Sequence[JudgedRun], anchors: Anchors, guard: AnyGuard | None
) -> Mapping[str, str]:
    found = {"demur": __version__, "alignment": anchors.alignment, "layer": anchors.layer}
    for one in read:
        mark = one.traces.fingerprint
        settings = ", ".join(f"{k} {v}" for k, v in mark.sampler.items() if v is not None)
        found[one.name] = f"{mark.model} ({mark.revision}), {settings}, pooling {mark.pooling}"
    if guard:
        found["guard"] = f"{guard.name}, alpha {guard.alpha:g}, {guard.method}"
    return found
