"""A page about any runs: refusals, signals and the guard's verdicts, from their folders alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demur._version import __version__
from demur.anchors import fit_anchors
from demur.errors import DemurError, InputError
from demur.guard import AnyGuard, StreamingGuard, load_guard
from demur.judges import Verdict, hit_rate, judge_all, refusal_judge, tally
from demur.metrics import internal_recovery, rate
from demur.organism import NAMES
from demur.parts import Part, part_of, with_part
from demur.sri import Anchors, signal
from demur.store import Store
from demur.study.report.rates import volatility
from demur.types import Traces
from demur.viz.figures import Figure, lda, trajectories
from demur.viz.replay import Scene, scene
from demur.viz.report_page import Report, Section, write_report
from demur.viz.tables import NOT_JUDGED, Table, Value

_TOY = "Toy models of a synthetic world. Nothing here is evidence about real models."


#: How a response is called, by outcome of the refusal judge.
_ENDS = {"hit": "refused", "miss": "answered", "unparsed": "no verdict"}


@dataclass(frozen=True)
class JudgedRun:
    """One run: N traces with their verdicts and, given anchors, signals ``[N, T]``."""

    name: str
    traces: Traces
    verdicts: Sequence[Verdict]
    sigma: NDArray[np.float32] | None

    @property
    def groups(self) -> list[str]:
        """Label and outcome of each trace, as one text."""
        pairs = zip(self.traces, self.verdicts, strict=True)
        return [f"{trace.prompt.label}, {_ENDS[said.outcome]}" for trace, said in pairs]


def write_run_report(
    out: str | Path,
    runs: Sequence[str | Path],
    *,
    anchors: str | Path | None = None,
    guard: str | Path | None = None,
    tokenizer: Any = None,
    replays: int = 3,
    judge: str = "rules",
) -> Path:
    """Write the page.

    Args:
        out: path of the page.
        runs: run folders made with the model and sampler of the anchors.
        anchors: anchors file. None: text only, and why anchors cannot be fitted on these runs.
        guard: guard file. None: no verdicts.
        tokenizer: decodes tokens for the replays. None: no replays.
        replays: maximum number of replays per run; those with the most volatile signal, or the first.
        judge: the refusal judge.

    Raises:
        StoreError, InputError, FingerprintError: a run, the anchors or the guard cannot be used.
    """
    reference = Anchors.load(anchors) if anchors else None
    watch = load_guard(guard) if guard else None
    parts: list[Part] = [one.part if one else "all" for one in (reference, watch)]
    read = [_read(run, reference, judge, parts) for run in runs]
    sections = [
        Section(
            "Refusals and signals" if reference else "Refusals",
            "Sigma is 1 if the state is close to answered harmless generations, and 0 if it is "
            "close to refused harmful ones."
            if reference
            else f"There is no signal, because no anchors were given. {_why(read)}",
            tables=(_table(read, watch, judge),),
            figures=tuple(figure for one in read for figure in _figures(one)),
        )
    ]
    if tokenizer is not None:
        shown = [s for one in read for s in _scenes(one, tokenizer, replays, watch, parts[0])]
        text = "The generations whose signal changes most from step to step."
        sections.append(Section("Replays", text if reference else "", scenes=shown))
    page = Report(
        title="demur: " + ", ".join(one.name for one in read),
        lead=" ".join(
            f"{one.name}: {len(one.traces)} generations, refused {tally(one.verdicts)}. Harm: not "
            "judged."
            for one in read
        ),
        note=_note(read, reference, watch),
        sections=sections,
        methods={**_methods(read, reference, watch), "refusal judge": judge},
    )
    return write_report(out, page)


def _read(run: str | Path, anchors: Anchors | None, judge: str, parts: Sequence[Part]) -> JudgedRun:
    traces = Traces(tuple(Store.open(run).traces()))
    for part in parts:
        traces = with_part(traces, part)
    if not traces and {*parts} != {"all"}:
        raise InputError(f"No generation in {run} has a step of its {' and '.join(parts)}.")
    verdicts = judge_all(refusal_judge(judge), [(t.prompt.goal, t.answer) for t in traces])
    sigma = signal(anchors.states(traces), anchors) if anchors else None
    return JudgedRun(Path(run).name, traces, verdicts, sigma)


def _note(read: Sequence[JudgedRun], anchors: Anchors | None, guard: AnyGuard | None) -> str:
    """Cautions for the reader."""
    toy = any(one.traces.fingerprint.model in NAMES for one in read)
    few = dict.fromkeys(one.few for one in (anchors, guard) if one is not None and one.few)
    return " ".join([*([_TOY] if toy else []), *(f"Caution: {said}." for said in few)])


def _why(read: Sequence[JudgedRun]) -> str:
    """Whether anchors can be fitted on these runs, and if not, why."""
    judged = [
        (trace, said.hit)
        for one in read
        for trace, said in zip(one.traces, one.verdicts, strict=True)
        if said.given and trace.prompt.label in ("harmless", "harmful")
    ]
    try:
        fit_anchors([trace for trace, _ in judged], [hit for _, hit in judged])
    except DemurError as error:
        return f"They cannot be fitted on these runs: {error}"
    return "They can be fitted on these runs: demur anchors RUN --out FILE, then --anchors FILE."


def _table(read: Sequence[JudgedRun], guard: AnyGuard | None, judge: str) -> Table:
    signals = all(one.sigma is not None for one in read)
    rows: list[tuple[Value, ...]] = []
    for one in read:
        kinds = [(t.prompt.label, t.prompt.attack) for t in one.traces]
        flagged = guard.flag(one.traces) if guard else None
        for kind in dict.fromkeys(kinds):
            chosen = np.array([other == kind for other in kinds])
            goals = [t.prompt.goal for t, keep in zip(one.traces, chosen, strict=True) if keep]
            said = [v for v, keep in zip(one.verdicts, chosen, strict=True) if keep]
            missing = sum(not verdict.given for verdict in said)
            row: list[Value] = [one.name, *kind, hit_rate(said, goals) or NOT_JUDGED, missing]
            if one.sigma is not None:
                sigma = one.sigma[chosen]
                row += [float(sigma.mean()), float(sigma[:, -1].mean()), volatility(sigma)]
                row.append(rate(internal_recovery(sigma, threshold=0.5), goals))
            if flagged is not None:
                row.append(rate(flagged[chosen], goals))
            rows.append(tuple(row))
    columns = ["run", "label", "attack", "RR", "no verdict"]
    columns += ["mean sigma", "sigma at the end", "volatility", "IRR"] if signals else []
    return Table(
        "Refusal rate and signal" if signals else "Refusal rate",
        (*columns, *(("flagged",) if guard else ())),
        tuple(rows),
        note=f"RR: share refused among the responses to which the judge {judge} gave a verdict. 95% "
        "intervals, clustered by goal.",
    )


def _figures(one: JudgedRun) -> list[Figure]:
    if one.sigma is None:
        return []
    names = one.groups
    groups = {name: one.sigma[[other == name for other in names]] for name in dict.fromkeys(names)}
    figures = [trajectories(groups, title=one.name)]
    if len(groups) > 1:
        figures.append(lda(one.sigma, names, title=one.name))
    return figures


def _scenes(
    one: JudgedRun, tokenizer: Any, most: int, guard: AnyGuard | None, part: Part
) -> list[Scene]:
    # Only a streaming guard knows the step.
    found = guard.detect(one.traces).tolist() if isinstance(guard, StreamingGuard) else []
    if one.sigma is None:
        sigma = np.full((len(one.traces), max(t.n_steps for t in one.traces)), np.nan)
        change = np.zeros(len(one.traces))
    else:
        sigma, change = one.sigma, np.abs(np.diff(one.sigma, axis=1)).mean(axis=1)
    return [
        scene(
            part_of(one.traces[row], part),
            sigma[row],
            text_of=lambda token: tokenizer.decode([token]),
            title=f"{one.name}: {' '.join(one.traces[row].prompt.text.split())[:60]}",
            flagged=found[row] or None if found else None,
        )
        for row in np.argsort(-change, kind="stable")[:most].tolist()
    ]


def _methods(
    read: Sequence[JudgedRun], anchors: Anchors | None, guard: AnyGuard | None
) -> Mapping[str, str]:
    found = {"demur": __version__}
    if anchors:
        found |= {"alignment": anchors.alignment, "layer": anchors.layer}
    for one in read:
        mark = one.traces.fingerprint
        settings = ", ".join(f"{k} {v}" for k, v in mark.sampler.items() if v is not None)
        found[one.name] = f"{mark.model} ({mark.revision}), {settings}, pooling {mark.pooling}"
    if guard:
        found["guard"] = f"{guard.name}, alpha {guard.alpha:g}, {guard.method}"
    return found
