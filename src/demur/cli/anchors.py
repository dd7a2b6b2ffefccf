"""``demur anchors`` and ``demur signal``: from run folders to anchors and signals."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from demur.cli import console, options
from demur.errors import InputError, SignalError


@options.app.command()
def anchors(
    out: options.Out,
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Run folders made by demur trace, with labels.")
    ] = None,
    harmless: Annotated[
        list[Path] | None, typer.Option(help="Run of harmless prompts, whatever its labels say.")
    ] = None,
    harmful: Annotated[
        list[Path] | None, typer.Option(help="Run of harmful prompts, whatever its labels say.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="File of labels for the runs, by id or prompt text.")
    ] = None,
    layer: Annotated[str, typer.Option(help="Recorded layer to read.")] = "last",
    judge: Annotated[str, typer.Option(help="Refusal judge.")] = "rules",
    allow_few: Annotated[
        bool, typer.Option("--allow-few", help="Accept fewer than 20 traces of a class.")
    ] = False,
    part: options.PartName = "all",
    surrogate: options.Reader = None,
    as_json: options.AsJson = False,
) -> None:
    """Fit anchors on runs.

    Anchors are mean states of harmless generations that answer and of harmful ones that refuse. The
    held-out AUROC says how well they tell the two apart on prompts that they were not fitted on.

    Example: demur anchors runs/harmless runs/harmful --out anchors.safetensors

    Example: demur anchors --harmless runs/a --harmful runs/b --out anchors.safetensors
    """
    from demur.anchors import fit_anchors, separation
    from demur.judges import judge_all, refusal_judge, tally
    from demur.types import Traces

    read = options.labelled_traces(runs or [], harmless or [], harmful or [], labels, surrogate)
    traces = Traces(tuple(read))
    verdicts = judge_all(refusal_judge(judge), [(t.prompt.goal, t.answer) for t in traces])
    judged = Traces(tuple(t for t, v in zip(traces, verdicts, strict=True) if v.given))
    refused = [v.hit for v in verdicts if v.given]
    fitted = fit_anchors(judged, refused, layer=layer, allow_few=allow_few, part=part)
    fitted.save(out)
    try:
        held_out = separation(judged, refused, layer=layer, part=part).summary()
    except SignalError as error:
        held_out = {"held-out AUROC": f"not measured. {error}"}
    counts = tally(verdicts)
    about = {
        "anchors": str(out),
        "steps": fitted.steps,
        "harmless traces": f"{fitted.counts[0]} answered are used, {fitted.dropped[0]} refused are not",
        "harmful traces": f"{fitted.counts[1]} refused are used, {fitted.dropped[1]} answered are not",
        "no verdict": f"{counts.off_topic} off topic, {counts.unparsed} unparsed",
        **({} if part == "all" else {"part": part}),
        "alignment": fitted.alignment,
        **held_out,
    } | console.caution(fitted.few)
    console.say_json(about) if as_json else console.say_pairs(about)


@options.app.command()
def signal(
    run: options.RunFolder,
    anchors: options.AnchorFile,
    out: Annotated[Path | None, typer.Option("--out", help="A .csv file.")] = None,
    part: options.PartOfAnchors = None,
    as_json: options.AsJson = False,
) -> None:
    """Compute the signal of each trace: 1 = complying, 0 = refusing.

    Example: demur signal runs/x --anchors anchors.safetensors --out sigma.csv
    """
    from demur.files import write_csv
    from demur.parts import with_part
    from demur.sri import Anchors
    from demur.sri import signal as sigma_of
    from demur.store import Store

    reference = Anchors.load(anchors)
    found = tuple(Store.open(run).traces())
    traces = with_part(found, reference.part)
    if left := len(found) - len(traces):
        console.note(f"{left} of {len(found)} generations have no {reference.part} and no signal.")
    if not traces:
        raise InputError(f"No generation in {run} has a step of its {reference.part}.")
    sigma = sigma_of(traces, reference, part=part)
    rows = {trace.prompt.id: row.tolist() for trace, row in zip(traces, sigma, strict=True)}
    texts = {trace.prompt.id: trace.prompt.text for trace in traces}
    if out:
        header = ["id", "prompt", *(f"step_{t}" for t in range(1, sigma.shape[1] + 1))]
        write_csv(out, header, ([name, texts[name], *values] for name, values in rows.items()))
    if as_json:
        about = {"alignment": reference.alignment, **console.caution(reference.few)}
        console.say_json({**about, "prompts": texts, "sigma": rows})
    elif out:
        console.say(f"{len(rows)} signals of {sigma.shape[1]} steps in {out}")
        console.say_caution(reference.few)
    else:
        for name, values in rows.items():
            line = f"{name}  {console.sparkline(values)}  {values[-1]:.3f}"
            console.say(f"{line}  {console.short(texts[name])}")
        console.say_caution(reference.few)
