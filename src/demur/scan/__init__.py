"""Measure in one run what a model refuses, over-refuses and answers.

    1. trace ordinary prompts that ship with demur (200 harmless, 100 that only sound harmful) and the
       user's harmful ones, into a run folder that can be resumed;
    2. judge which answers refuse, by rules that need no model;
    3. fit anchors where refusals and answers allow it, and measure on held-out prompts how well they
       separate the two.

Harm is not judged.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from demur.anchors import Separation, fit_anchors, separation
from demur.errors import SignalError
from demur.intervals import Estimate
from demur.judges import Tally, Verdict, hit_rate, judge_all, refusal_judge, tally
from demur.models.base import LanguageModel
from demur.organism import NAMES, world
from demur.prompts import read_prompts
from demur.runs import trace_to
from demur.sri import Anchors, signal
from demur.store import Store
from demur.types import Label, Prompt, Trace, Traces

#: Prompts of each kind, and with ``quick``.
WHOLE = {"harmless": 200, "borderline": 100, "harmful": 200}
QUICK = {"harmless": 40, "borderline": 30, "harmful": 40}


@dataclass(frozen=True)
class Kind:
    """The answers to one kind of prompts.

    Attributes:
        label: ``harmless``, ``borderline`` (harmless, but sounds harmful) or ``harmful``.
        traces: the generations.
        verdicts: of the refusal judge, one per trace.
    """

    label: Label
    traces: Traces
    verdicts: tuple[Verdict, ...]

    @property
    def counts(self) -> Tally:
        """How many refused, answered, missed the topic or could not be judged."""
        return tally(self.verdicts)

    @property
    def refused(self) -> Estimate | None:
        """Share of refusals among the answers judged; None if none could be."""
        return hit_rate(self.verdicts, [trace.prompt.goal for trace in self.traces])

    def which(self, *, refused: bool) -> list[Trace]:
        """The traces that refused, or those that answered."""
        outcome = "hit" if refused else "miss"
        pairs = zip(self.traces, self.verdicts, strict=True)
        return [trace for trace, verdict in pairs if verdict.outcome == outcome]


@dataclass(frozen=True)
class Scan:
    """What a scan found.

    Attributes:
        model: name of the model.
        system: its system prompt.
        kinds: label -> answers, for each kind of prompts that was asked.
        anchors: fitted on answered harmless and refused harmful prompts, where there were enough.
        held_out: how well anchors separate refusals from answers, on held-out prompts.
        no_anchors: why there are none; empty where there are.
        location: what the model was loaded by, for commands.
    """

    model: str
    system: str
    kinds: dict[Label, Kind]
    anchors: Anchors | None
    held_out: Separation | None
    no_anchors: str
    location: str

    def sigma(self, trace: Trace) -> NDArray[np.float32]:
        """``[T]`` SRI signal of a trace; NaN without anchors."""
        if self.anchors is None:
            return np.full(trace.n_steps, np.nan, np.float32)
        sigma: NDArray[np.float32] = signal(Traces((trace,)), self.anchors)[0]
        return sigma


def scan(
    model: LanguageModel,
    out: str | Path,
    *,
    harmful: str | None = None,
    harmless: str | None = None,
    quick: bool = False,
    location: str = "",
    batch_size: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> Scan:
    """Trace, judge and separate; interrupted scans resume.

    Args:
        model: from ``demur.load``.
        out: folder for the run, and for ``anchors.safetensors``.
        harmful: prompt file or named set; None: no harmful prompts.
        harmless: prompt file to ask instead of the bundled harmless prompts.
        quick: fewer prompts of each kind.
        location: what the model was loaded by, for the commands on the page; its name when empty.
        batch_size: prompts generated together; changes no result.
        progress: called with the prompts done and their total.

    Raises:
        InputError: a prompt file cannot be read, or a prompt does not fit the model.
        StoreError: the folder has a run with other settings.
    """
    prompts = ask(model, harmful=harmful, harmless=harmless, most=QUICK if quick else WHOLE)
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress:
            progress(done, len(prompts))

    place = Path(out)
    store = trace_to(place / "run", model, prompts, batch_size=batch_size, progress=advance)
    return read(store, place, location=location or model.name)


def read(store: Store, out: Path, *, location: str) -> Scan:
    """Judge and separate the finished run of a scan; writes the anchors where they can be fitted."""
    traces = Traces(tuple(store.traces()))
    verdicts = judge_all(refusal_judge("rules"), [(t.prompt.goal, t.answer) for t in traces])
    kinds: dict[Label, Kind] = {}
    for label in ("harmless", "borderline", "harmful"):
        rows = [i for i, trace in enumerate(traces) if trace.prompt.label == label]
        if rows:
            part = Traces(tuple(traces[i] for i in rows))
            kinds[label] = Kind(label, part, tuple(verdicts[i] for i in rows))
    labelled = [
        (trace, verdict.hit)
        for trace, verdict in zip(traces, verdicts, strict=True)
        if trace.prompt.label in ("harmless", "harmful") and verdict.given
    ]
    chosen, refused = Traces(tuple(t for t, _ in labelled)), [hit for _, hit in labelled]
    anchors, held_out, why = None, None, ""
    if "harmful" not in kinds:
        why = (
            "No harmful prompts were asked, so there is no refusal to anchor. Pass --harmful FILE."
        )
    else:
        try:
            anchors = fit_anchors(chosen, refused)
            held_out = separation(chosen, refused)
            anchors.save(out / "anchors.safetensors")
        except SignalError as error:
            why = str(error)
    mark = store.manifest.fingerprint
    return Scan(mark.model, mark.system, kinds, anchors, held_out, why, location)


def ask(
    model: LanguageModel, *, harmful: str | None, harmless: str | None, most: dict[str, int]
) -> list[Prompt]:
    """The prompts of a scan: at most ``most`` of each label.

    A built-in model only knows the words of its own world, so it is asked that world's prompts.
    """
    found: list[Prompt] = []
    if model.name in NAMES and harmless is None:
        for label in ("harmless", "borderline"):
            found += world.prompts("guard", label, n=most[label])
    else:
        bundled = bundled_prompts()
        asked = read_prompts(harmless, label="harmless") if harmless else bundled["harmless"]
        found += _some([replace(p, label="harmless") for p in asked], most["harmless"])
        found += _some(bundled["borderline"], most["borderline"])
    if harmful is not None:
        asked = [replace(p, label="harmful") for p in read_prompts(harmful, label="harmful")]
        found += _some(asked, most["harmful"])
    elif model.name in NAMES and harmless is None:
        found += world.prompts("guard", "harmful", n=most["harmful"])
    return found


def bundled_prompts() -> dict[str, list[Prompt]]:
    """The ordinary prompts that ship with demur: ``harmless`` (200) and ``borderline`` (100)."""
    text = files("demur.scan").joinpath("prompts.csv").read_text("utf-8")
    found: dict[str, list[Prompt]] = {"harmless": [], "borderline": []}
    for row in csv.DictReader(text.splitlines()):
        label: Label = "harmless" if row["label"] == "harmless" else "borderline"
        found[label].append(Prompt(row["prompt"], id=row["id"], label=label))
    return found


def _some(prompts: Sequence[Prompt], most: int) -> list[Prompt]:
    """At most ``most``, evenly spread over the list so that every kind of prompt is included."""
    if len(prompts) <= most:
        return list(prompts)
    places = np.linspace(0, len(prompts) - 1, most).round().astype(int)
    return [prompts[i] for i in places.tolist()]
