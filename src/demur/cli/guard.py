"""``demur guard``: fit a guard on benign runs, and score runs with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from demur.cli import console, options
from demur.errors import InputError

if TYPE_CHECKING:
    from demur.types import Traces

guard_app = typer.Typer(help="Fit a guard on benign runs, and score runs with it.")
options.app.add_typer(guard_app, name="guard", no_args_is_help=True)


@guard_app.command("fit")
def guard_fit(
    runs: options.RunFolders,
    anchors: options.AnchorFile,
    out: options.Out,
    calibration: Annotated[
        list[Path] | None,
        typer.Option(
            help="Benign runs for the threshold. Without them, one seventh of the traces of RUN is "
            "held out for it, or half of them with --streaming."
        ),
    ] = None,
    alpha: Annotated[float, typer.Option(help="False-positive rate on benign traffic.")] = 0.01,
    method: Annotated[
        Literal["conformal", "pac"],
        typer.Option(help="How the threshold is calibrated (docs/concepts/calibration.md)."),
    ] = "conformal",
    by_goal: Annotated[
        bool,
        typer.Option(
            "--by-goal",
            help="Calibrate by goal: prompts with the same goal count as one.",
        ),
    ] = False,
    by_attack: Annotated[
        bool,
        typer.Option(
            "--by-attack",
            help="One threshold per attack; the highest where the attack is unknown (needs "
            "--streaming).",
        ),
    ] = False,
    streaming: Annotated[
        bool, typer.Option("--streaming", help="Score each step while generating.")
    ] = False,
    detector: Annotated[
        str | None,
        typer.Option(
            help="Name of the detector; see demur detectors. Default: sri, or sri-step with "
            "--streaming."
        ),
    ] = None,
    part: options.PartName = "all",
    seed: options.Seed = 0,
    surrogate: options.Reader = None,
    as_json: options.AsJson = False,
) -> None:
    """Fit a guard on benign runs and calibrate its threshold.

    Example: demur guard fit runs/benign --anchors anchors.safetensors --out guard.safetensors
    """
    from demur.guard import fit_guard, fit_streaming_guard
    from demur.sri import Anchors

    if by_attack and not streaming:
        raise InputError("--by-attack needs a streaming guard. Add --streaming.")
    if streaming and part != "all":
        raise InputError("A streaming guard reads all steps. Leave out --part, or --streaming.")
    known, benign = Anchors.load(anchors), _benign(runs, surrogate)
    fit = fit_streaming_guard if streaming else fit_guard
    settings: dict[str, Any] = {"groups": lambda prompt: prompt.attack} if by_attack else {}
    settings |= {} if streaming else {"part": part}
    fitted = fit(
        benign,
        _benign(calibration, surrogate) if calibration else None,
        detector=detector or ("sri-step" if streaming else "sri"),
        anchors=known,
        alpha=alpha,
        method=method,
        clusters=(lambda prompt: prompt.goal) if by_goal else None,
        seed=seed,
        **settings,
    )
    fitted.save(out)
    about = {
        "guard": str(out),
        "threshold": fitted.threshold,
        "alpha": fitted.alpha,
        "method": fitted.method,
        "calibration traces": fitted.calibrated_on,
    } | console.caution(fitted.few)
    console.say_json(about) if as_json else console.say_pairs(about)


@guard_app.command("score")
def guard_score(
    run: options.RunFolder,
    guard: options.GuardFile,
    surrogate: options.Reader = None,
    as_json: options.AsJson = False,
) -> None:
    """Score each trace of a run. Exit code 1 if any is flagged.

    Example: demur guard score runs/x --guard guard.safetensors
    """
    from demur.guard import load_guard
    from demur.parts import with_part

    fitted = load_guard(guard)
    found = tuple(options.traces_in([run], surrogate))
    traces = with_part(found, fitted.part)
    if left := len(found) - len(traces):
        console.note(f"{left} of {len(found)} generations have no {fitted.part} and no score.")
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
        about = {"threshold": fitted.threshold, "alpha": fitted.alpha}
        console.say_json({**about, **console.caution(fitted.few), "scores": rows})
    else:
        for row in rows:
            mark = "FLAGGED" if row["flagged"] else "passed"
            told = f"{row['id']}  {row['score']:.4g}  p={row['p_value']:.4f}  {mark}"
            console.say(f"{told}  {console.short(str(row['prompt']))}")
        console.say(f"{int(flagged.sum())} of {len(rows)} flagged")
        console.say_caution(fitted.few)
    if flagged.any():
        raise typer.Exit(1)


def _benign(runs: list[Path], surrogate: str | None) -> Traces:
    from demur.types import Traces

    traces = Traces(tuple(options.traces_in(runs, surrogate)))
    if harmful := [t.prompt.id for t in traces if t.prompt.label == "harmful"]:
        raise InputError(
            f"A guard is fitted on benign prompts only, but {len(harmful)} of {len(traces)} are "
            f"labelled harmful; the first is {harmful[0]}. Give runs without them."
        )
    return traces
