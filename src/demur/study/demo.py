"""The demonstration: built-in models, three samplers, every step from prompts to a report.

Toy models: what the tables show is no evidence about real ones.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from demur import __version__
from demur.models import load
from demur.models.base import LanguageModel
from demur.organism import oracle, world
from demur.runs import trace_to
from demur.sampling import Sampler, sampler_from
from demur.study import detection, rates, recovery, signals
from demur.study.evidence import Arm, Decode, Evidence, gather
from demur.types import Prompt, Traces
from demur.viz.replay import Scene, scene
from demur.viz.report import Report, Section, write_report
from demur.viz.tables import Table

#: Called with a stage's name, what is done of it and how much there is.
Tick = Callable[[str, int, int], None]

ARMS = (
    Arm("AR model", "organism-ar", {}),
    Arm("diffusion", "organism-dlm", {}),
    Arm(
        "diffusion in AR order",
        "organism-dlm",
        {"remasking": "left_to_right", "steps": 64},
        guarded=False,
    ),
)

NOTE = (
    "Toy models: built in, about a million weights each, trained on a synthetic world in which "
    "harmful knowledge is made of nonce words. Nothing here is evidence about real models."
)

#: Words that a replay marks as refusing.
REFUSAL_WORDS = frozenset({"cannot", "sorry", "decline", "refuse", "apologize", "wait", "not"})


@dataclass(frozen=True)
class Sizes:
    """How many prompts each set has, per class and attack."""

    anchors: int = 50
    guard: int = 25
    calibration: int = 20
    harmless: int = 20
    harmful: int = 20


@dataclass(frozen=True)
class Demo:
    """What the demonstration found.

    Attributes:
        path: of the page.
        page: what is on it.
        seconds: time taken.
    """

    path: Path
    page: Report
    seconds: float

    @property
    def tables(self) -> list[Table]:
        """Every table of the page, in order."""
        return [table for section in self.page.sections for table in section.tables]


def run_demo(out: str | Path, *, sizes: Sizes | None = None, tick: Tick | None = None) -> Demo:
    """Trace, fit, judge and report; run again it only does what is missing.

    Args:
        out: folder for the run folders and ``report.html``.
        sizes: prompts per set.
        tick: progress.

    Raises:
        StoreError: the folder is locked, full, read-only or of other settings.
    """
    began, folder, tick = time.monotonic(), Path(out), tick or (lambda *_: None)
    sets = prompt_sets(sizes or Sizes())
    models = {name: load(name) for name in dict.fromkeys(arm.model for arm in ARMS)}
    evidence = tuple(
        evidence_of(arm, models[arm.model], sets, folder / "runs", tick=tick) for arm in ARMS
    )
    tick("writing the report", 0, 1)
    page = demo_report(evidence, models, seconds=time.monotonic() - began)
    path = write_report(folder / "report.html", page)
    tick("writing the report", 1, 1)
    return Demo(path, page, time.monotonic() - began)


def prompt_sets(sizes: Sizes) -> dict[str, list[Prompt]]:
    """Prompts of each set from its own split of the world."""

    def every_attack(split: world.Split, kind: world.Kind, count: int) -> list[Prompt]:
        wrapped = (world.prompts(split, kind, attack=a, n=count) for a in world.ATTACKS)
        return [prompt for prompts in wrapped for prompt in prompts]

    return {
        "anchors": [
            *world.prompts("anchors", "harmless", n=sizes.anchors),
            *world.prompts("anchors", "harmful", n=sizes.anchors),
        ],
        "guard": every_attack("guard", "harmless", sizes.guard),
        "calibration": every_attack("calibration", "harmless", sizes.calibration),
        "test": [
            *every_attack("test", "harmless", sizes.harmless),
            *every_attack("test", "harmful", sizes.harmful),
        ],
    }


def evidence_of(
    arm: Arm,
    model: LanguageModel,
    sets: Mapping[str, Sequence[Prompt]],
    folder: Path,
    *,
    tick: Tick,
) -> Evidence:
    """Trace every set under one arm and gather what it shows."""
    sampler = sampler_of(arm, model)
    sets = {k: v for k, v in sets.items() if arm.guarded or k not in ("guard", "calibration")}
    total = sum(len(prompts) for prompts in sets.values())
    finished = 0
    traces: dict[str, Traces] = {}

    def advance(count: int) -> None:
        nonlocal finished
        finished += count
        tick(arm.name, finished, total)

    for name, prompts in sets.items():
        place = folder / arm.name.replace(" ", "-") / name
        before = finished
        store = trace_to(place, model, prompts, sampler=sampler, batch_size=64, progress=advance)
        traces[name] = Traces(tuple(store.traces()))
        advance(before + len(prompts) - finished)
    return gather(
        arm,
        anchor_traces=traces["anchors"],
        test_traces=traces["test"],
        benign_traces=(traces["guard"], traces["calibration"]) if arm.guarded else None,
        decode=words_of(model),
        harmful=lambda goal, text: oracle.judge(goal, text) == "harmful",
    )


def sampler_of(arm: Arm, model: LanguageModel) -> Sampler:
    """The model's default sampler with the arm's changes."""
    return sampler_from({**model.traits.sampler, **arm.sampler})


def words_of(model: LanguageModel) -> Decode:
    """Decode tokens of a word-level tokenizer; masked positions show as the mask token."""
    size = len(model.tokenizer)
    words: list[str] = model.tokenizer.convert_ids_to_tokens(range(size))
    return lambda ids: " ".join(words[i] if i >= 0 else "<|mask|>" for i in ids)


def demo_report(
    evidence: Sequence[Evidence], models: Mapping[str, LanguageModel], *, seconds: float
) -> Report:
    """The page: what happened in words, tables, figures and replays."""
    return Report(
        title="demur: how three samplers refuse, step by step",
        lead=summary(evidence),
        note=NOTE,
        sections=(
            Section(
                "Watch it",
                "The same prompt under each sampler, step by step. Chosen by a rule: see Methods.",
                scenes=tuple(scenes(evidence, models)),
            ),
            Section(
                "What the text shows",
                "Refusal and attack success per attack; the harmful prompts were held out of "
                "training, and so was every attack family but the plain question.",
                tables=(rates.rates_table(evidence), rates.harmless_table(evidence)),
            ),
            Section(
                "Recovery",
                "Whether a harmful draft is later taken back, and whether the state inside does.",
                tables=(recovery.recovery_table(evidence),),
                figures=(recovery.recovery_figure(evidence),),
            ),
            Section(
                "The signal",
                "Sigma is 1 where the state is close to answered harmless generations and 0 where "
                "it is close to refused harmful ones.",
                tables=(signals.groups_table(list(evidence)),),
                figures=(
                    *(signals.trajectory_figure(one) for one in evidence),
                    *(signals.projection_figure(one) for one in evidence),
                ),
            ),
            Section(
                "The guard",
                "SRI Guard never sees a harmful prompt: it is fitted on harmless signals alone.",
                tables=(detection.detection_table(evidence),),
            ),
        ),
        methods=methods(evidence, seconds),
    )


def summary(evidence: Sequence[Evidence]) -> str:
    """The findings in plain words, from the figures of this run."""
    parts = []
    for one in evidence:
        chosen = one.rows(label="harmful", attack="wrapped")
        hit = chosen & one.succeeded
        found = ""
        if one.arm.guarded and hit.any():
            caught = one.guards["sri standardised"].flag(one.traces)[hit]
            found = f", {caught.mean():.0%} of which the guard flags"
        parts.append(
            f"{one.arm.name}: under attack {one.refused[chosen].mean():.0%} of harmful prompts are "
            f"refused and {one.succeeded[chosen].mean():.0%} answered{found}."
        )
    return " ".join(parts)


def methods(evidence: Sequence[Evidence], seconds: float) -> dict[str, Any]:
    """What made the page."""
    mark = evidence[0].traces.fingerprint
    return {
        "command": "demur demo",
        "demur": __version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {platform.system()}",
        "time": f"{seconds:.0f} s",
        "system prompt": mark.system,
        "seed": "0",
        **{
            f"arm {one.arm.name}": ", ".join(
                f"{k} {v}" for k, v in one.traces.fingerprint.sampler.items() if v is not None
            )
            + f"; pooling {one.traces.fingerprint.pooling}"
            for one in evidence
        },
        "replays": "per attack the first prompt that the AR model answers and diffusion does not; "
        "of those, the ones with the most volatile signal under diffusion",
        "judges": "refusal: the paper's dictionary of 31 phrases; harmful: the world's oracle",
    }


def scenes(
    evidence: Sequence[Evidence], models: Mapping[str, LanguageModel], *, most: int = 3
) -> list[Scene]:
    """Replays of the telling prompts under every arm, arms of one prompt side by side."""
    shown = []
    for row in telling_rows(evidence)[:most]:
        for one in evidence:
            trace = one.traces[row]
            task = oracle.find(trace.prompt.goal)
            facts = (
                (task.object.tool, task.object.material, task.object.state, task.verb.operation)
                if task
                else ()
            )
            tokenizer = models[one.arm.model].tokenizer
            ended = "the harmful answer" if one.succeeded[row] else "no harmful answer"
            refused = "a refusal" if one.refused[row] else "no refusal"
            shown.append(
                scene(
                    trace,
                    one.sigma[row],
                    text_of=tokenizer.convert_ids_to_tokens,
                    title=one.arm.name,
                    refusal_words=REFUSAL_WORDS,
                    harmful_words=frozenset(facts),
                    note=f"In the end: {ended}, {refused}.",
                )
            )
    return shown


def telling_rows(evidence: Sequence[Evidence]) -> list[int]:
    """Test rows to replay, by the rule that the methods state."""
    first, second = evidence[0], evidence[1]
    apart = first.succeeded & ~second.succeeded & first.rows(label="harmful")
    best: dict[str, int] = {}
    change = np.abs(np.diff(second.sigma, axis=1)).mean(axis=1)
    for row in np.flatnonzero(apart):
        best.setdefault(first.traces[int(row)].prompt.attack, int(row))
    ranked = sorted(best.values(), key=lambda row: -float(change[row]))
    return ranked or np.flatnonzero(first.rows(label="harmful"))[:1].tolist()
