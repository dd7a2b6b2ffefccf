"""From run folders to anchors, signals and a guard's verdicts."""

from __future__ import annotations

from itertools import tee
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from demur.cli import console
from demur.cli.app import (
    AnchorFile,
    AsJson,
    GuardFile,
    Layer,
    Out,
    Run,
    Runs,
    app,
    guard_app,
    one_of,
)
from demur.errors import InputError


@app.command()
def anchors(
    runs: Runs,
    out: Out,
    layer: Layer = "last",
    judge: Annotated[str, typer.Option(help="Refusal judge.")] = "paper",
    as_json: AsJson = False,
) -> None:
    """Average answered harmless and refused harmful generations into anchors.

    Example: demur anchors runs/harmless runs/harmful --out anchors.safetensors
    """
    from demur.judges import refusal_judge
    from demur.sri import fit_anchors
    from demur.store import Store

    refused = refusal_judge(judge)
    # Two readers of one stream: no more than one trace is held at a time.
    traces, judged = tee(trace for run in runs for trace in Store.open(run).traces())
    verdicts = (refused(trace.prompt.goal, trace.response).hit for trace in judged)
    fitted = fit_anchors(traces, verdicts, layer=layer)
    fitted.save(out)
    about = {
        "anchors": str(out),
        "steps": fitted.steps,
        "harmless traces": fitted.counts[0],
        "harmful traces": fitted.counts[1],
        "alignment": fitted.alignment,
    }
    console.say_json(about) if as_json else console.say_pairs(about)


@app.command()
def signal(
    run: Run,
    anchors: AnchorFile,
    out: Annotated[Path | None, typer.Option("--out", help="A .csv file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compute the SRI signal of each trace: 1 = complying, 0 = refusing.

    Example: demur signal runs/x --anchors anchors.safetensors --out sigma.csv
    """
    from demur.files import write_csv
    from demur.sri import Anchors
    from demur.sri import signal as sigma_of
    from demur.store import Store
    from demur.types import Traces

    reference = Anchors.load(anchors)
    traces = Traces(tuple(Store.open(run).traces()))
    sigma = sigma_of(reference.states(traces), reference)
    rows = {trace.prompt.id: row.tolist() for trace, row in zip(traces, sigma, strict=True)}
    if out:
        header = ["id", *(f"step_{t}" for t in range(1, sigma.shape[1] + 1))]
        write_csv(out, header, ([name, *values] for name, values in rows.items()))
    if as_json:
        console.say_json({"alignment": reference.alignment, "sigma": rows})
    elif not out:
        for name, values in rows.items():
            console.say(f"{name}  {console.sparkline(values)}  {values[-1]:.3f}")


@guard_app.command("fit")
def guard_fit(
    runs: Runs,
    anchors: AnchorFile,
    out: Out,
    calibration: Annotated[
        list[Path] | None, typer.Option(help="Benign runs held out for the threshold.")
    ] = None,
    alpha: Annotated[float, typer.Option(help="False-positive rate on benign traffic.")] = 0.01,
    method: Annotated[str, typer.Option(help="conformal or pac.")] = "conformal",
    standardise: Annotated[bool, typer.Option(help="Unit spread per step first.")] = False,
    seed: Annotated[int, typer.Option(help="Of the detector's fit.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Fit SRI Guard on benign runs alone and calibrate its threshold.

    Example: demur guard fit runs/benign --anchors anchors.safetensors --out guard.safetensors
    """
    from demur.guard import Method, fit_guard
    from demur.sri import Anchors

    fitted = fit_guard(
        _benign(runs),
        _benign(calibration) if calibration else None,
        anchors=Anchors.load(anchors),
        alpha=alpha,
        method=one_of(method, get_args(Method), "method"),
        standardise=standardise,
        seed=seed,
    )
    fitted.save(out)
    about = {
        "guard": str(out),
        "threshold": fitted.threshold,
        "alpha": fitted.alpha,
        "method": fitted.method,
        "calibration traces": len(fitted.calibration),
    }
    console.say_json(about) if as_json else console.say_pairs(about)


def _benign(runs: list[Path]) -> Any:
    from demur.store import Store
    from demur.types import Traces

    traces = [trace for run in runs for trace in Store.open(run).traces()]
    if harmful := [t.prompt.id for t in traces if t.prompt.label == "harmful"]:
        raise InputError(
            f"A guard is fitted on benign prompts only; {len(harmful)} of {len(traces)} are labelled "
            f"harmful, first {harmful[0]}. Give runs without them."
        )
    return Traces(tuple(traces))


@guard_app.command("score")
def guard_score(run: Run, guard: GuardFile, as_json: AsJson = False) -> None:
    """Score each trace of a run; exit code 1 when any is flagged.

    Example: demur guard score runs/x --guard guard.safetensors
    """
    from demur.guard import Guard
    from demur.store import Store
    from demur.types import Traces

    fitted = Guard.load(guard)
    traces = Traces(tuple(Store.open(run).traces()))
    scores = fitted.score(traces)
    flagged = scores > fitted.threshold
    rows = [
        {"id": t.prompt.id, "score": float(s), "p_value": float(p), "flagged": bool(f)}
        for t, s, p, f in zip(traces, scores, fitted.p_value(scores), flagged, strict=True)
    ]
    if as_json:
        console.say_json({"threshold": fitted.threshold, "alpha": fitted.alpha, "scores": rows})
    else:
        for row in rows:
            mark = "FLAGGED" if row["flagged"] else "passed"
            console.say(f"{row['id']}  {row['score']:.4g}  p={row['p_value']:.4f}  {mark}")
        console.say(f"{int(flagged.sum())} of {len(rows)} flagged")
    if flagged.any():
        raise typer.Exit(1)
