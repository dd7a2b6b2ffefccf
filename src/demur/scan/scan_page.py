"""The page of a scan: findings, what the scan does not show and why, and the next commands."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from demur._version import __version__
from demur.metrics import Estimate
from demur.organism import NAMES
from demur.scan import Kind, Scan
from demur.types import Label, Trace
from demur.viz.figures import Figure, curves, trajectories
from demur.viz.replay import Scene, scene
from demur.viz.report_page import Report, Section, Statement, write_report
from demur.viz.tables import Table, show

#: Replays on the page, and prompts listed under a heading.
REPLAYS, LISTED = 6, 12

_ABOUT: dict[Label, str] = {
    "harmless": "ordinary prompts",
    "borderline": "prompts that only sound harmful",
    "harmful": "harmful prompts",
}


def write_scan(path: str | Path, found: Scan, *, text_of: Callable[[int], str]) -> Path:
    """Write the page. Returns its path.

    Args:
        path: of the HTML file.
        found: from ``demur.scan.scan``.
        text_of: text of a token id.
    """
    toy = found.model in NAMES
    sections = [
        Section("Refusals and answers", "", tables=(_counts(found), *_lists(found))),
        Section("The signal inside", _signal_text(found), figures=_figures(found)),
        Section("Replays", _replay_text(found), scenes=_scenes(found, text_of)),
        Section("What this scan does not show", "\n\n".join(limits(found))),
        Section("Next", "\n\n".join(next_commands(found, Path(path).parent))),
    ]
    page = Report(
        title=f"demur scan: {found.model}",
        lead=" ".join(sentences(found)),
        note="A toy model of a synthetic world. It is no evidence about real models." * toy,
        sections=sections,
        methods=_methods(found),
        findings=[Statement(name, text) for name, text in headline(found)],
    )
    return write_report(path, page)


def headline(found: Scan) -> list[tuple[str, str]]:
    """The three findings at the top: what it refuses, over-refuses, and what happens inside."""
    harmful = found.kinds.get("harmful")
    said = [("Refuses", "not asked: no harmful prompts" if harmful is None else _refused(harmful))]
    over = [_refused(kind) for label, kind in found.kinds.items() if label != "harmful"]
    said.append(("Over-refuses", "; ".join(over)))
    said.append(("Inside", _inside(found)))
    return said


def sentences(found: Scan) -> list[str]:
    """The refusals as sentences, for the terminal and the top of the page."""
    said = []
    for kind in found.kinds.values():
        counts = kind.counts
        if not counts.given:
            said.append(
                f"No answer to the {len(kind.traces)} {_ABOUT[kind.label]} could be judged."
            )
        elif counts.hits == 0:
            said.append(f"It refused none of {counts.given} {_ABOUT[kind.label]}.")
        elif counts.hits == counts.given:
            said.append(f"It refused all {counts.given} {_ABOUT[kind.label]}.")
        else:
            said.append(f"It refused {counts.hits} of {counts.given} {_ABOUT[kind.label]}.")
    return said


def limits(found: Scan) -> list[str]:
    """What this scan does not show, and why."""
    said = [
        "Harm: not judged. No harm judge ran, so any answer to a harmful prompt that does not refuse "
        "counts as answered, whatever it says."
    ]
    if found.no_anchors:
        said.append(f"The signal: not available. {found.no_anchors}")
    elif found.held_out is not None and found.held_out.answered == "harmless":
        said.append(
            "Whether the signal reads refusal or topic: not known. The model answered too few harmful "
            "prompts to compare refused with answered ones, so the separation is between refused "
            "harmful and answered harmless prompts, which also differ in topic."
        )
    for kind in found.kinds.values():
        counts = kind.counts
        if beside := counts.off_topic + counts.unparsed:
            said.append(
                f"{beside} of {len(kind.traces)} answers to {_ABOUT[kind.label]} got no verdict "
                f"({counts.off_topic} off topic, {counts.unparsed} unparsed) and are in no rate."
            )
    if len(next(iter(found.kinds.values())).traces) < 100:
        said.append(
            "Small differences: not shown. This was a quick scan, and its intervals are wide."
        )
    said.append("Attacks: not tried. One answer was generated for each prompt.")
    return said


def next_commands(found: Scan, folder: Path) -> list[str]:
    """Three commands that follow from what was found."""
    model, place = shlex.quote(found.location), shlex.quote(str(folder))
    if "harmful" not in found.kinds:
        return [
            f"demur scan {model} --harmful FILE --out {place}-harmful",
            f"demur watch {model}",
            f"demur judge {place}/run --judge rules --out verdicts.csv",
        ]
    if found.anchors is None:
        return [
            f'demur scan {model} --harmful FILE --system "Refuse harmful requests." --out {place}-2',
            f"demur judge {place}/run --judge rules,paper --out verdicts.csv",
            f"demur report {place}/run --model {model}",
        ]
    return [
        f"demur attack role_play FILE --model {model} --out attacked.jsonl",
        f"demur guard fit {place}/run --anchors {place}/anchors.safetensors --alpha 0.05 "
        f"--streaming --out guard.safetensors",
        f"demur serve --model {model} --guard guard.safetensors",
    ]


def _refused(kind: Kind) -> str:
    found = kind.refused
    if found is None:
        return f"{_ABOUT[kind.label]}: not judged"
    return f"{_ABOUT[kind.label]}: {show(found)} of {found.n} refused"


def _inside(found: Scan) -> str:
    if found.held_out is None:
        return "no signal, because there are no anchors; see below"
    first, last = found.held_out.per_step[0], found.held_out.per_step[-1]
    return (
        f"held-out separation of refused harmful from answered {found.held_out.answered} prompts: "
        f"AUROC {show(first)} at the first step, {show(last)} at the last"
    )


def _counts(found: Scan) -> Table:
    rows = []
    for kind in found.kinds.values():
        counts, share = kind.counts, kind.refused
        rate = "not judged" if share is None else share
        rows.append(
            (
                _ABOUT[kind.label],
                len(kind.traces),
                rate,
                counts.hits,
                counts.misses,
                counts.off_topic,
                counts.unparsed,
            )
        )
    return Table(
        "Refusals by kind of prompt",
        ("prompts", "asked", "refused, share", "refused", "answered", "off topic", "unparsed"),
        tuple(rows),
        note="Judged by demur's rules. Shares are over answers that got a verdict, with 95% intervals.",
    )


def _lists(found: Scan) -> list[Table]:
    tables = []
    wanted: list[tuple[Label, bool, str]] = [
        ("harmless", True, "Ordinary prompts that it refused"),
        ("borderline", True, "Prompts that only sound harmful, refused"),
        ("harmful", False, "Harmful prompts that it answered"),
        ("harmful", True, "Harmful prompts that it refused"),
    ]
    for label, refused, title in wanted:
        kind = found.kinds.get(label)
        rows = kind.which(refused=refused)[:LISTED] if kind else []
        if rows:
            tables.append(
                Table(
                    title,
                    ("id", "prompt", "answer begins"),
                    tuple(map(_row, rows)),
                    note=f"At most {LISTED} are listed; the run folder has all.",
                )
            )
    return tables


def _row(trace: Trace) -> tuple[str, str, str]:
    return trace.prompt.id, _cut(trace.prompt.shown, 160), _cut(trace.answer, 80)


def _cut(text: str, length: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"


def _signal_text(found: Scan) -> str:
    if found.anchors is None:
        return f"There is no signal to show. {found.no_anchors}"
    few = found.anchors.few
    return (
        "The SRI signal (Step-Wise Refusal Internal Dynamics) says at each step whether the hidden "
        "state is closer to answered harmless generations (1) or to refused harmful ones (0). "
        f"The anchors are means of {found.anchors.counts[0]} answered harmless and "
        f"{found.anchors.counts[1]} refused harmful generations; {found.anchors.dropped[0]} refused "
        f"harmless and {found.anchors.dropped[1]} answered harmful ones were left out."
        + (f" Caution: {few}." if few else "")
    )


def _figures(found: Scan) -> list[Figure]:
    if found.anchors is None or found.held_out is None:
        return []
    groups = {}
    for kind in found.kinds.values():
        for refused in (False, True):
            if traces := kind.which(refused=refused):
                name = f"{kind.label}, {'refused' if refused else 'answered'}"
                groups[name] = np.stack([found.sigma(trace) for trace in traces])
    steps = range(1, len(found.held_out.per_step) + 1)
    points: list[tuple[float, Estimate | str]] = [
        (float(t), one) for t, one in zip(steps, found.held_out.per_step, strict=True)
    ]
    title = (
        f"Held-out separation of refused harmful from answered {found.held_out.answered} prompts"
    )
    drawn = [
        trajectories(groups, title="SRI signal by kind of prompt and outcome"),
        curves({"AUROC": points}, title=title, xlabel="step", ylabel="AUROC"),
    ]
    return [figure for figure in drawn if figure is not None]


def _replay_text(found: Scan) -> str:
    if found.anchors is None:
        return "Text only, without a signal: the first refusals and answers of each kind."
    return "Refusals of harmless prompts, answers to harmful ones, and the most changing signals."


def _scenes(found: Scan, text_of: Callable[[int], str]) -> list[Scene]:
    chosen: list[tuple[str, Trace]] = []
    for label, refused, why in (
        ("borderline", True, "refused although it only sounds harmful"),
        ("harmless", True, "refused although it is ordinary"),
        ("harmful", False, "answered although it is harmful"),
        ("harmful", True, "refused"),
        ("harmless", False, "answered"),
    ):
        kind = found.kinds.get(label)  # type: ignore[call-overload]
        rows = kind.which(refused=refused) if kind else []
        if found.anchors is not None:
            rows.sort(key=lambda t: -float(np.abs(np.diff(found.sigma(t))).mean()))
        chosen += [(why, trace) for trace in rows[:2]]
    return [
        scene(trace, found.sigma(trace), text_of=text_of, title=trace.prompt.id, note=why)
        for why, trace in chosen[:REPLAYS]
    ]


def _methods(found: Scan) -> dict[str, str]:
    mark = next(iter(found.kinds.values())).traces.fingerprint
    settings = ", ".join(f"{k} {v}" for k, v in mark.sampler.items() if v is not None)
    return {
        "demur": __version__,
        "model": f"{mark.model} ({mark.revision})",
        "system prompt": mark.system or "none",
        "sampler": settings,
        "pooling": mark.pooling,
        "refusal judge": "rules",
    }


__all__: Sequence[str] = ["headline", "limits", "next_commands", "sentences", "write_scan"]
