"""``demur anchors`` and ``demur signal``: from run folders to anchors and signals."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from demur.cli import console, options


@options.app.command()
def anchors(
    runs: options.RunFolders,
    out: options.Out,
    layer: Annotated[str, typer.Option(help="Recorded layer to read.")] = "last",
    judge: Annotated[str, typer.Option(help="Refusal judge.")] = "paper",
    surrogate: options.Reader = None,
    as_json: options.AsJson = False,
) -> None:
    """Fit anchors on runs.

    Anchors are mean states of harmless generations that answer and of harmful ones that refuse.

    Example: demur anchors runs/harmless runs/harmful --out anchors.safetensors
    """
    from demur.judges import refusal_judge
    from demur.sri import fit_anchors

    fitted = fit_anchors(options.traces_in(runs, surrogate), refusal_judge(judge), layer=layer)
    fitted.save(out)
    about = {
        "anchors": str(out),
        "steps": fitted.steps,
        "harmless traces": fitted.counts[0],
        "harmful traces": fitted.counts[1],
        "alignment": fitted.alignment,
    }
    console.say_json(about) if as_json else console.say_pairs(about)


@options.app.command()
def signal(
    run: options.RunFolder,
    anchors: options.AnchorFile,
    out: Annotated[Path | None, typer.Option("--out", help="A .csv file.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Compute the signal of each trace: 1 = complying, 0 = refusing.

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
    elif out:
        console.say(f"{len(rows)} signals of {sigma.shape[1]} steps in {out}")
    else:
        for name, values in rows.items():
            console.say(f"{name}  {console.sparkline(values)}  {values[-1]:.3f}")
