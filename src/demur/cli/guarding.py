"""Fit a guard on benign runs, and score runs with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from demur.cli import console
from demur.cli.app import (
    AnchorFile,
    AsJson,
    GuardFile,
    Out,
    Run,
    Runs,
    Surrogate,
    guard_app,
    one_of,
)
from demur.errors import InputError

if TYPE_CHECKING:
    from demur.guard import AnyGuard
    from demur.types import Prompt, Traces


@guard_app.command("fit")
def guard_fit(
    runs: Runs,
    anchors: AnchorFile,
    out: Out,
    calibration: Annotated[
        list[Path] | None,
        typer.Option(
            help="Benign runs held out for the threshold; without, a seventh of the others, half with "
            "--streaming."
        ),
    ] = None,
    alpha: Annotated[float, typer.Option(help="False-positive rate on benign traffic.")] = 0.01,
    method: Annotated[str, typer.Option(help="conformal or pac.")] = "conformal",
    by_goal: Annotated[
        bool,
        typer.Option(
            "--by-goal",
            help="Keep alpha on goals that calibration did not see: prompts of one goal count as one.",
        ),
    ] = False,
    by_attack: Annotated[
        bool,
        typer.Option(
            "--by-attack",
            help="A threshold for each attack wrapper; where it is not known, the highest "
            "(--streaming).",
        ),
    ] = False,
    streaming: Annotated[
        bool, typer.Option("--streaming", help="Read generations while they are produced.")
    ] = False,
    standardise: Annotated[
        bool, typer.Option(help="Unit spread per step first (not with --streaming).")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the detector's fit and of what is held out.")] = 0,
    surrogate: Surrogate = None,
    as_json: AsJson = False,
) -> None:
    """Fit SRI Guard on benign runs alone and calibrate its threshold.

    Example: demur guard fit runs/benign --anchors anchors.safetensors --out guard.safetensors
    """
    from demur.guard import ThresholdMethod, fit_guard, fit_streaming_guard
    from demur.sri import Anchors

    if streaming and standardise:
        raise InputError("A streaming guard has no signals to standardise. Leave one option out.")
    if by_attack and not streaming:
        raise InputError(
            "Only a streaming guard has a threshold for each wrapper. Add --streaming."
        )
    known, benign = Anchors.load(anchors), _benign(runs, surrogate)
    kept = one_of(method, get_args(ThresholdMethod), "method")
    clusters = _goal if by_goal else None
    held_out = _benign(calibration, surrogate) if calibration else None
    fitted: AnyGuard
    if streaming:
        fitted = fit_streaming_guard(
            benign,
            held_out,
            anchors=known,
            alpha=alpha,
            method=kept,
            groups=(lambda prompt: prompt.attack) if by_attack else None,
            clusters=clusters,
            seed=seed,
        )
    else:
        fitted = fit_guard(
            benign,
            held_out,
            anchors=known,
            alpha=alpha,
            method=kept,
            clusters=clusters,
            detector="sri-standardised" if standardise else "sri",
            seed=seed,
        )
    fitted.save(out)
    about = {
        "guard": str(out),
        "threshold": fitted.threshold,
        "alpha": fitted.alpha,
        "method": fitted.method,
        "calibration traces": fitted.calibrated_on,
    }
    console.say_json(about) if as_json else console.say_pairs(about)


@guard_app.command("score")
def guard_score(
    run: Run, guard: GuardFile, surrogate: Surrogate = None, as_json: AsJson = False
) -> None:
    """Score each trace of a run; exit code 1 when any is flagged.

    Example: demur guard score runs/x --guard guard.safetensors
    """
    from demur.cli.reading import traces_in
    from demur.guard import load_guard
    from demur.types import Traces

    fitted = load_guard(guard)
    traces = Traces(tuple(traces_in([run], surrogate)))
    scores = fitted.score(traces)
    flagged = scores > fitted.threshold
    rows = [
        {
            "id": t.prompt.id,
            "prompt": t.prompt.text,
            "score": float(s),
            "p_value": float(p),
            "flagged": bool(f),
        }
        for t, s, p, f in zip(traces, scores, fitted.p_value(scores), flagged, strict=True)
    ]
    if as_json:
        console.say_json({"threshold": fitted.threshold, "alpha": fitted.alpha, "scores": rows})
    else:
        for row in rows:
            mark = "FLAGGED" if row["flagged"] else "passed"
            told = f"{row['id']}  {row['score']:.4g}  p={row['p_value']:.4f}  {mark}"
            console.say(f"{told}  {console.short(str(row['prompt']))}")
        console.say(f"{int(flagged.sum())} of {len(rows)} flagged")
    if flagged.any():
        raise typer.Exit(1)


def _benign(runs: list[Path], surrogate: str | None) -> Traces:
    from demur.cli.reading import traces_in
    from demur.types import Traces

    traces = Traces(tuple(traces_in(runs, surrogate)))
    if harmful := [t.prompt.id for t in traces if t.prompt.label == "harmful"]:
        raise InputError(
            f"A guard is fitted on benign prompts only; {len(harmful)} of {len(traces)} are labelled "
            f"harmful, first {harmful[0]}. Give runs without them."
        )
    return traces


def _goal(prompt: Prompt) -> str:
    return prompt.goal
